//! Programs of others that field tests record (`spark-trace/tests/support/field.rs`).

use std::fs;
use std::path::Path;

/// Debian's and Ubuntu's names of what brings them.
pub const PACKAGES: &[&str] = &[
    "python3",
    "sqlite3",
    "git",
    "gcc",
    "redis-server",
    "redis-tools",
    "postgresql",
    "postgresql-contrib",
    "nodejs",
];

/// Where the tests look for them; `postgresql` has a directory for each version.
const PROGRAMS: &[&str] = &[
    "/usr/bin/python3",
    "/usr/bin/sqlite3",
    "/usr/bin/git",
    "/usr/bin/gcc",
    "/usr/bin/redis-server",
    "/usr/bin/redis-benchmark",
    "/usr/bin/node",
];
const POSTGRESQL: &str = "/usr/lib/postgresql";

pub fn find() -> Result<String, String> {
    let missing = PROGRAMS.iter().filter(|path| !Path::new(path).is_file()).copied();
    let versions = fs::read_dir(POSTGRESQL).into_iter().flatten().flatten();
    let postgresql = versions.into_iter().any(|version| version.path().join("bin/initdb").is_file());
    let missing: Vec<&str> = missing.chain((!postgresql).then_some(POSTGRESQL)).collect();
    match missing.is_empty() {
        true => Ok("Python, SQLite, Git, GCC, Redis, PostgreSQL, Node.js".to_owned()),
        false => Err(format!("no {}", missing.join(", "))),
    }
}
