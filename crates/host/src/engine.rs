//! Clients of container engines. Requests to an engine are made as the user who called sudo: a program of that
//! user's PATH never runs as root.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::invoker::Invoker;

/// Where programs are looked for, whatever $PATH says.
pub const TRUSTED: &[&str] =
    &["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/snap/bin"];

/// Where the shell would find `program`.
pub fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// A program that root has installed.
pub fn trusted(program: &str) -> Option<PathBuf> {
    let of_root = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|m| m.is_file() && m.uid() == 0 && m.mode() & 0o002 == 0)
    };
    let usual = TRUSTED.iter().map(|dir| Path::new(dir).join(program)).find(of_root);
    // Where our own caller has it elsewhere, if nobody but root can change what lies there.
    usual.or_else(|| in_path(program).filter(|path| only_root_writes(path)))
}

/// Whether nobody but root can change what a path leads to: it and every directory above it.
pub fn only_root_writes(path: &Path) -> bool {
    const OTHERS: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    let Ok(path) = path.canonicalize() else { return false };
    path.ancestors().all(|part| {
        let safe = |m: fs::Metadata| {
            m.uid() == 0 && (m.mode() & OTHERS == 0 || m.is_dir() && m.mode() & STICKY != 0)
        };
        fs::metadata(part).is_ok_and(safe)
    })
}

/// The client for whoever called spark-trace: under sudo it acts as that user. Absent where there is none.
pub fn client(engine: &str) -> Option<Command> {
    let Some(invoker) = Invoker::from_environment() else {
        // SAFETY: cannot fail.
        let is_root = unsafe { libc::geteuid() } == 0;
        return if is_root { trusted(engine) } else { in_path(engine) }.map(Command::new);
    };
    let mut command = Command::new(in_path(engine)?);
    invoker.become_user(&mut command);
    Some(command)
}

/// The ways to reach an engine, the first that answers counts: as the user who called sudo, and as root, whom alone the
/// engine may serve, with a program that root has installed and nothing of that user's environment.
pub fn clients(engine: &str) -> Vec<Command> {
    let as_root = || {
        let mut command = Command::new(trusted(engine)?);
        command.env_clear().env("PATH", TRUSTED.join(":")).env("HOME", "/root");
        Some(command)
    };
    let under_sudo = Invoker::from_environment().is_some();
    client(engine).into_iter().chain(if under_sudo { as_root() } else { None }).collect()
}

/// The first of them that reaches the engine.
pub fn reaching(engine: &str) -> Option<Command> {
    let reaches = |mut client: Command| {
        client.arg("version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        client.status().is_ok_and(|status| status.success())
    };
    let way = clients(engine).into_iter().position(reaches)?;
    clients(engine).into_iter().nth(way)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_root_alone_can_change_is_trusted() {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        let file = dir.path().join("docker");
        fs::write(&file, "").unwrap();
        // Whoever runs this test: a directory that all may write to is not trusted.
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
        assert!(!only_root_writes(&file));
        assert!(only_root_writes(Path::new("/proc")));
        assert!(!only_root_writes(Path::new("/no/such/file")));
    }
}
