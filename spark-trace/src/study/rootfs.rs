//! An image unpacked for `chroot`, with what the engine would have given its processes; and what still differs.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::units;

/// In the unpacked tree; what is not in the image's files.
pub const FILE: &str = ".spark-trace-rootfs.json";

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    pub image: String,
    pub id: String,
    pub engine: String,
    pub environment: BTreeMap<String, String>,
    pub entrypoint: Vec<String>,
    pub command: Vec<String>,
    pub working_dir: String,
    pub user: String,
    pub volumes: Vec<String>,
}

#[derive(Debug, Error)]
pub enum RootfsError {
    #[error("{}: cannot be used", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: not empty; --force unpacks over what is there", dir.display())]
    NotEmpty { dir: PathBuf },
    #[error("cannot run {program}")]
    Start { program: String, source: io::Error },
    #[error("{line} failed ({status}): {said}")]
    Failed { line: String, status: ExitStatus, said: String },
    #[error("the engine describes {image} in a way that is not understood: {what}")]
    Description { image: String, what: String },
    #[error("{}: not made by `spark-trace rootfs`: there is no {FILE}", dir.display())]
    NotOurs { dir: PathBuf },
    #[error("{}: does not have its form", path.display())]
    Form { path: PathBuf, source: serde_json::Error },
    #[error("no command: neither given nor in the image")]
    NoCommand,
    #[error("a name has a zero byte in it")]
    Name,
}

impl RootfsError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// Of `image inspect`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    config: Config,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Config {
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
    volumes: Option<BTreeMap<String, serde_json::Value>>,
}

/// Unpacks the image's file system, and puts down what else a container of it gets.
pub fn unpack(engine: &str, image: &str, dir: &Path, force: bool) -> Result<Rootfs, RootfsError> {
    fs::create_dir_all(dir).map_err(RootfsError::io(dir))?;
    let empty = fs::read_dir(dir).map_err(RootfsError::io(dir))?.next().is_none();
    if !empty && !force {
        return Err(RootfsError::NotEmpty { dir: dir.to_owned() });
    }
    let described = run(engine, &["image", "inspect", image])?;
    let rootfs = describe(engine, image, &described)?;
    // A container is never started: its file system is the image's.
    let container = run(engine, &["create", image, "/"])?.trim().to_owned();
    let unpacked = export(engine, &container, dir);
    let removed = run(engine, &["rm", &container]);
    unpacked?;
    removed?;
    let path = dir.join(FILE);
    let text = serde_json::to_string_pretty(&rootfs)
        .map_err(|source| RootfsError::Form { path: path.clone(), source })?;
    fs::write(&path, text + "\n").map_err(RootfsError::io(&path))?;
    Ok(rootfs)
}

fn describe(engine: &str, image: &str, text: &str) -> Result<Rootfs, RootfsError> {
    let wrong = |what: String| RootfsError::Description { image: image.to_owned(), what };
    let all: Vec<Inspected> = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
    let Inspected { id, config } = all.into_iter().next().ok_or_else(|| wrong("an empty list".to_owned()))?;
    let pair = |line: String| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok(Rootfs {
        image: image.to_owned(),
        id,
        engine: engine.to_owned(),
        environment: config.env.unwrap_or_default().into_iter().filter_map(pair).collect(),
        entrypoint: config.entrypoint.unwrap_or_default(),
        command: config.cmd.unwrap_or_default(),
        working_dir: config.working_dir.filter(|dir| !dir.is_empty()).unwrap_or_else(|| "/".to_owned()),
        user: config.user.unwrap_or_default(),
        volumes: config.volumes.unwrap_or_default().into_keys().collect(),
    })
}

fn run(program: &str, args: &[&str]) -> Result<String, RootfsError> {
    let start = |source| RootfsError::Start { program: program.to_owned(), source };
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().map_err(start)?;
    if !output.status.success() {
        return Err(failed(program, args, output.status, &output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn failed(program: &str, args: &[&str], status: ExitStatus, stderr: &[u8]) -> RootfsError {
    let said = String::from_utf8_lossy(stderr).trim().lines().last().unwrap_or_default().to_owned();
    RootfsError::Failed { line: format!("{program} {}", args.join(" ")), status, said }
}

/// `export` into `tar`, which knows owners, links and devices.
fn export(engine: &str, container: &str, dir: &Path) -> Result<(), RootfsError> {
    let start = |program: &str| {
        let program = program.to_owned();
        move |source| RootfsError::Start { program, source }
    };
    let args = ["export", container];
    let mut exporting = Command::new(engine)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(start(engine))?;
    let input = exporting.stdout.take().map_or_else(Stdio::null, Stdio::from);
    let unpacked = Command::new("tar")
        .args(["--extract", "--numeric-owner", "--preserve-permissions", "--directory"])
        .arg(dir)
        .stdin(input)
        .output()
        .map_err(start("tar"));
    let exported = exporting.wait_with_output().map_err(start(engine))?;
    let unpacked = unpacked?;
    if !unpacked.status.success() {
        return Err(failed("tar", &["--extract"], unpacked.status, &unpacked.stderr));
    }
    if !exported.status.success() {
        return Err(failed(engine, &args, exported.status, &exported.stderr));
    }
    Ok(())
}

/// What [`unpack`] has put down.
pub fn read(dir: &Path) -> Result<Rootfs, RootfsError> {
    let path = dir.join(FILE);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(RootfsError::NotOurs { dir: dir.to_owned() });
        }
        read => read.map_err(RootfsError::io(&path))?,
    };
    serde_json::from_str(&text).map_err(|source| RootfsError::Form { path, source })
}

/// Becomes the command in the tree, with the image's environment, entrypoint and working directory. Returns only where
/// that fails.
pub fn enter(dir: &Path, command: &[String]) -> Result<std::convert::Infallible, RootfsError> {
    let rootfs = read(dir)?;
    let given = if command.is_empty() { &rootfs.command } else { command };
    let mut words = rootfs.entrypoint.iter().chain(given);
    let program = words.next().ok_or(RootfsError::NoCommand)?;
    let inside = CString::new(dir.as_os_str().as_encoded_bytes()).map_err(|_| RootfsError::Name)?;
    // SAFETY: the path ends with a zero byte.
    if unsafe { libc::chroot(inside.as_ptr()) } != 0 {
        return Err(RootfsError::io(dir)(io::Error::last_os_error()));
    }
    let working_dir = Path::new(&rootfs.working_dir);
    std::env::set_current_dir(working_dir).map_err(RootfsError::io(working_dir))?;
    // As in a container: nothing of ours but what the image says.
    let source = Command::new(program).args(words).env_clear().envs(&rootfs.environment).exec();
    Err(RootfsError::Start { program: program.clone(), source })
}

/// What a process in the tree has that one in a container has not, or the other way.
pub fn differences(rootfs: &Rootfs, dir: &Path) -> Vec<String> {
    let dir = dir.display();
    let mut lines = vec![
        format!("inodes: every file in {dir} is a copy; its page cache is not shared with the image's layers"),
        "capabilities: a container has the engine's default set, `chroot` all of its caller's".to_owned(),
        "seccomp: a container is filtered by the engine's profile, `chroot` is not".to_owned(),
        "namespaces: a container has its own of mounts, processes, network, ipc and names, `chroot` the caller's".to_owned(),
        "cgroup: a container has one made by the engine, `chroot` the one that `record` makes".to_owned(),
        format!("limits: `chroot` has those of its caller ({})", limits("/proc/self/limits")),
        format!(
            "mounts: make them before the first run: mount --rbind /proc {dir}/proc; mount --rbind /sys {dir}/sys; \
             mount --rbind /dev {dir}/dev"
        ),
        "GPU: NVIDIA's container toolkit puts the driver's libraries into containers; bind-mount the host's into the \
         tree (libcuda.so.1, libnvidia-ml.so.1 and what belongs to them), so that both use one libcuda"
            .to_owned(),
    ];
    if !rootfs.user.is_empty() {
        lines.push(format!("user: the image's processes run as {}, `chroot` as its caller", rootfs.user));
    }
    if !rootfs.volumes.is_empty() {
        lines.push(format!("volumes: a container has its own at {}", rootfs.volumes.join(", ")));
    }
    lines
}

/// Those that GPU software runs into.
fn limits(file: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let wanted = ["Max locked memory", "Max stack size"];
    let size = |limit: &str| limit.parse().map_or_else(|_| limit.to_owned(), units::size);
    let shown = text.lines().filter_map(|line| {
        let name = wanted.iter().find(|name| line.starts_with(**name))?;
        // Soft limit, hard limit, unit (fs/proc/base.c proc_pid_limits).
        let mut values = line.strip_prefix(name)?.split_whitespace();
        let (soft, hard) = (values.next()?, values.next()?);
        Some(format!("{}: soft {}, hard {}", name.trim_start_matches("Max "), size(soft), size(hard)))
    });
    shown.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_said_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("limits");
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max stack size            8388608              unlimited            bytes     \n\
                    Max locked memory         65536                1048576              bytes     \n";
        fs::write(&file, text).unwrap();
        let said = limits(file.to_str().unwrap());
        assert_eq!(
            said,
            "stack size: soft 8.0 MiB, hard unlimited; locked memory: soft 64.0 KiB, hard 1.0 MiB"
        );
    }

    #[test]
    fn an_image_is_described_by_its_engine() {
        let text = r#"[{"Id": "sha256:1", "Config": {"Env": ["PATH=/bin", "A=b=c", "odd"], "Entrypoint": ["/entry"],
            "Cmd": null, "WorkingDir": "", "User": "1000", "Volumes": {"/data": {}}}}]"#;
        let rootfs = describe("docker", "i", text).unwrap();
        assert_eq!(rootfs.environment["A"], "b=c");
        assert_eq!((rootfs.working_dir.as_str(), rootfs.entrypoint.len(), rootfs.command.len()), ("/", 1, 0));
        let told = differences(&rootfs, Path::new("/r")).join("\n");
        assert!(told.contains("run as 1000") && told.contains("at /data"), "{told}");
        assert!(describe("docker", "i", "[]").is_err());
    }

    #[test]
    fn a_tree_that_is_not_ours_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(read(dir.path()), Err(RootfsError::NotOurs { .. })));
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(matches!(unpack("docker", "i", dir.path(), false), Err(RootfsError::NotEmpty { .. })));
    }
}
