//! bpf-linker of the pinned version.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::environment::{all_in_path, home_or};
use crate::versions::BPF_LINKER;

/// A bpf-linker of the right version.
#[derive(Debug, Clone)]
pub struct Linker {
    pub path: PathBuf,
    pub version: String,
}

/// No bpf-linker of the right version; the others that were found.
#[derive(Debug, Clone, Default)]
pub struct NoLinker {
    /// Path, and what it answered.
    pub others: Vec<(PathBuf, String)>,
}

impl fmt::Display for NoLinker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no bpf-linker {BPF_LINKER}")?;
        for (path, answer) in &self.others {
            write!(f, "\n    {}: {answer}", path.display())?;
        }
        Ok(())
    }
}

/// Where `cargo xtask setup` installs bpf-linker when the user keeps another version for other work.
pub fn private_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools")
}

impl Linker {
    /// The first of the right version in PATH, cargo's bin directory and [`private_root`].
    pub fn find() -> Result<Self, NoLinker> {
        let mut candidates: Vec<PathBuf> = all_in_path("bpf-linker".as_ref()).collect();
        candidates.extend(home_or("CARGO_HOME", ".cargo").map(|home| home.join("bin/bpf-linker")));
        candidates.push(private_root().join("bin/bpf-linker"));
        candidates.retain(|path| path.is_file());

        let mut none = NoLinker::default();
        for path in candidates {
            let answer = version(&path);
            match answer.strip_prefix("bpf-linker ") {
                Some(version) if version == BPF_LINKER => {
                    return Ok(Self { path, version: version.to_owned() });
                }
                _ if none.others.iter().any(|(other, _)| *other == path) => {}
                _ => none.others.push((path, answer)),
            }
        }
        Err(none)
    }
}

fn version(path: &Path) -> String {
    match Command::new(path).arg("--version").output() {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Ok(output) => format!("--version fails: {}", String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) => format!("does not run: {error}"),
    }
}
