//! An image unpacked for `chroot`, with what the engine would have given its processes; and what still differs.
//!
//! What an image holds is anybody's. Its files lie in a directory that nobody but root may look into, so that its programs
//! are nobody's on this machine, and the notes about it lie beside them, where no file of it can be in their place.

mod filter;
mod mounts;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use filter::LeftOut;
pub use mounts::Mount;
use spark_trace_host::output_file::Place;
use spark_trace_host::{engine, invoker};
use spark_trace_recording::units;
use spark_trace_recording::write::{WriteError, WriteOptions, write_bytes};

/// In the directory: the image's files, and what is not in them.
const TREE: &str = "tree";
const FILE: &str = "rootfs.json";
/// More than the settings of any image.
const LONGEST: u64 = 4 << 20;
/// Rights of others to the directory.
const OTHERS: u32 = 0o077;

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
    /// Where the files are, if they were there before: not beside these notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<PathBuf>,
}

#[derive(Debug, Error)]
pub enum RootfsError {
    #[error("{}: cannot be used", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("{}: not empty; --force unpacks beside what is there, which is renamed", dir.display())]
    NotEmpty { dir: PathBuf },
    #[error(
        "{}: others than its owner may use it (mode {:03o}): an image's files are to be root's alone. `chmod 700` it, or name \
         another directory",
        dir.display(), mode
    )]
    Open { dir: PathBuf, mode: u32 },
    #[error(
        "{}: others than its owner may write to it, or its owner is neither root nor you: its programs will run as root",
        tree.display()
    )]
    Writable { tree: PathBuf },
    #[error("{}: it is not yours: name another directory", dir.display())]
    Foreign { dir: PathBuf },
    #[error("the engine's archive cannot be read")]
    Archive(#[source] io::Error),
    #[error("cannot run {program}")]
    Start { program: String, source: io::Error },
    #[error("no {program} is installed where programs of root are")]
    Missing { program: String },
    #[error("{line} failed ({status}): {said}")]
    Failed { line: String, status: ExitStatus, said: String },
    #[error("the engine describes {image} in a way that is not understood: {what}")]
    Description { image: String, what: String },
    #[error("{}: no such directory; unpack an image into it with `spark-trace study rootfs IMAGE {}`", dir.display(), dir.display())]
    NoDirectory { dir: PathBuf },
    #[error("{}: not made by `spark-trace rootfs`: there is no {FILE}", dir.display())]
    NotOurs { dir: PathBuf },
    #[error("{}: does not have its form", path.display())]
    Form { path: PathBuf, source: serde_json::Error },
    #[error("{}: cannot be mounted", path.display())]
    Mount { path: PathBuf, source: io::Error },
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

/// What was unpacked.
#[derive(Debug)]
pub struct Unpacked {
    pub rootfs: Rootfs,
    pub left_out: LeftOut,
    /// The tree that was there before.
    pub moved: Option<PathBuf>,
}

/// Unpacks the image's file system, and puts down what else a container of it gets.
pub fn unpack(engine: &str, image: &str, dir: &Path, force: bool) -> Result<Unpacked, RootfsError> {
    let moved = make_room(dir, force)?;
    let mut reasons = None;
    for client in 0..engine::clients(engine).len() {
        let client = Client { engine, way: client };
        match client.run(&["image", "inspect", image]) {
            Ok(described) => return client.unpack(image, dir, &described, moved),
            // The first is the user's own.
            Err(error) => reasons = reasons.or(Some(error)),
        }
    }
    Err(reasons.unwrap_or_else(|| RootfsError::Missing { program: engine.to_owned() }))
}

/// Makes notes for a tree that is there already: its files are taken as they are. Of which image they are is not known, so
/// the notes name no image's id.
pub fn adopt(engine: &str, image: &str, dir: &Path, tree: &Path) -> Result<Rootfs, RootfsError> {
    let tree = tree.canonicalize().map_err(RootfsError::io(tree))?;
    let about = tree.metadata().map_err(RootfsError::io(&tree))?;
    if !about.is_dir() {
        return Err(RootfsError::io(&tree)(io::ErrorKind::NotADirectory.into()));
    }
    let ours = about.uid() == 0 || invoker::owner().is_some_and(|(user, _)| user == about.uid());
    if !ours || about.mode() & 0o022 != 0 {
        return Err(RootfsError::Writable { tree });
    }
    make_room(dir, false)?;
    let mut reasons = None;
    for way in 0..engine::clients(engine).len() {
        match (Client { engine, way }).run(&["image", "inspect", image]) {
            Ok(described) => {
                let described = describe(engine, image, &described)?;
                let rootfs = Rootfs { id: String::new(), tree: Some(tree), ..described };
                write_notes(&rootfs, dir)?;
                return Ok(rootfs);
            }
            Err(error) => reasons = reasons.or(Some(error)),
        }
    }
    Err(reasons.unwrap_or_else(|| RootfsError::Missing { program: engine.to_owned() }))
}

fn write_notes(rootfs: &Rootfs, dir: &Path) -> Result<(), RootfsError> {
    let path = dir.join(FILE);
    let mut text = serde_json::to_string_pretty(rootfs)
        .map_err(|source| RootfsError::Form { path: path.clone(), source })?;
    text.push('\n');
    Ok(write_bytes(text.as_bytes(), &path, WriteOptions { force: true, owner: None })?)
}

/// Makes the directory, for this user alone, and puts away what was unpacked there before.
fn make_room(dir: &Path, force: bool) -> Result<Option<PathBuf>, RootfsError> {
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(RootfsError::io(parent))?;
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(RootfsError::io(dir)(error));
        }
        _ => {}
    }
    let about = dir.symlink_metadata().map_err(RootfsError::io(dir))?;
    if !about.is_dir() {
        return Err(RootfsError::io(dir)(io::ErrorKind::NotADirectory.into()));
    }
    // SAFETY: cannot fail.
    if about.uid() != unsafe { libc::geteuid() } {
        return Err(RootfsError::Foreign { dir: dir.to_owned() });
    }
    if about.mode() & OTHERS != 0 {
        return Err(RootfsError::Open { dir: dir.to_owned(), mode: about.mode() & 0o777 });
    }
    let empty = fs::read_dir(dir).map_err(RootfsError::io(dir))?.next().is_none();
    if !empty && !force {
        return Err(RootfsError::NotEmpty { dir: dir.to_owned() });
    }
    let tree = dir.join(TREE);
    // Never removed: it may have file systems of the host mounted in it.
    let place = Place::new(&tree)?;
    match tree.symlink_metadata() {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(None),
        _ => place.rename_away().map(Some).map_err(RootfsError::io(&tree)),
    }
}

/// One of the ways to reach an engine.
struct Client<'a> {
    engine: &'a str,
    way: usize,
}

impl Client<'_> {
    fn command(&self) -> Result<Command, RootfsError> {
        let client = engine::clients(self.engine).into_iter().nth(self.way);
        client.ok_or_else(|| RootfsError::Missing { program: self.engine.to_owned() })
    }

    fn run(&self, args: &[&str]) -> Result<String, RootfsError> {
        let output = self.command()?.args(args).stdin(Stdio::null()).output().map_err(start(self.engine))?;
        if !output.status.success() {
            return Err(failed(self.engine, args, output.status, &output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn unpack(
        &self,
        image: &str,
        dir: &Path,
        described: &str,
        moved: Option<PathBuf>,
    ) -> Result<Unpacked, RootfsError> {
        let rootfs = describe(self.engine, image, described)?;
        let tree = dir.join(TREE);
        // As an engine makes it: users of the image itself must get through.
        fs::DirBuilder::new().mode(0o755).create(&tree).map_err(RootfsError::io(&tree))?;
        // A container is never started: its file system is the image's.
        let container = self.run(&["create", image, "/"])?.trim().to_owned();
        let unpacked = self.export(&container, &tree);
        let removed = self.run(&["rm", &container]);
        let left_out = unpacked?;
        removed?;
        write_notes(&rootfs, dir)?;
        Ok(Unpacked { rootfs, left_out, moved })
    }

    /// `export` into `tar`, which knows owners and links.
    fn export(&self, container: &str, tree: &Path) -> Result<LeftOut, RootfsError> {
        let args = ["export", container];
        let mut exporting = self
            .command()?
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(start(self.engine))?;
        let tar = engine::trusted("tar").ok_or_else(|| RootfsError::Missing { program: "tar".to_owned() })?;
        let mut unpacking = Command::new(tar)
            .args(["--extract", "--numeric-owner", "--preserve-permissions", "--directory"])
            .arg(tree)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(start("tar"))?;
        let copied = match (exporting.stdout.take(), unpacking.stdin.take()) {
            (Some(archive), Some(tar)) => filter::copy(archive, tar),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        };
        let exported = exporting.wait_with_output().map_err(start(self.engine))?;
        let unpacked = unpacking.wait_with_output().map_err(start("tar"))?;
        if !unpacked.status.success() {
            return Err(failed("tar", &["--extract"], unpacked.status, &unpacked.stderr));
        }
        if !exported.status.success() {
            return Err(failed(self.engine, &args, exported.status, &exported.stderr));
        }
        copied.map_err(RootfsError::Archive)
    }
}

fn start(program: &str) -> impl FnOnce(io::Error) -> RootfsError {
    let program = program.to_owned();
    move |source| RootfsError::Start { program, source }
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
        tree: None,
    })
}

fn failed(program: &str, args: &[&str], status: ExitStatus, stderr: &[u8]) -> RootfsError {
    let said = String::from_utf8_lossy(stderr).trim().lines().last().unwrap_or_default().to_owned();
    RootfsError::Failed { line: format!("{program} {}", args.join(" ")), status, said }
}

/// What [`unpack`] has put down.
pub fn read(dir: &Path) -> Result<Rootfs, RootfsError> {
    let path = dir.join(FILE);
    let place = match Place::new(&path) {
        Err(WriteError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Err(RootfsError::NoDirectory { dir: dir.to_owned() });
        }
        place => place?,
    };
    let file = match place.open(libc::O_RDONLY | libc::O_NONBLOCK) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(RootfsError::NotOurs { dir: dir.to_owned() });
        }
        file => file.map_err(RootfsError::io(&path))?,
    };
    place.refuse_special()?;
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).map_err(RootfsError::io(&path))?;
    serde_json::from_str(&text).map_err(|source| RootfsError::Form { path, source })
}

/// Where the image's files are.
pub fn tree(dir: &Path, rootfs: &Rootfs) -> PathBuf {
    rootfs.tree.clone().unwrap_or_else(|| dir.join(TREE))
}

/// Becomes the command in the tree, with the image's environment, entrypoint and working directory. Returns only where
/// that fails.
pub fn enter(
    dir: &Path,
    mounts: &[Mount],
    command: &[String],
) -> Result<std::convert::Infallible, RootfsError> {
    let rootfs = read(dir)?;
    let given = if command.is_empty() { &rootfs.command } else { command };
    let mut words = rootfs.entrypoint.iter().chain(given);
    let program = words.next().ok_or(RootfsError::NoCommand)?;
    let tree = tree(dir, &rootfs);
    mounts::make(&tree, mounts).map_err(|(path, source)| RootfsError::Mount { path, source })?;
    let inside = CString::new(tree.as_os_str().as_encoded_bytes()).map_err(|_| RootfsError::Name)?;
    // SAFETY: the path ends with a zero byte.
    if unsafe { libc::chroot(inside.as_ptr()) } != 0 {
        return Err(RootfsError::io(&tree)(io::Error::last_os_error()));
    }
    let working_dir = Path::new(&rootfs.working_dir);
    std::env::set_current_dir(working_dir).map_err(RootfsError::io(working_dir))?;
    // As in a container: nothing of ours but what the image says.
    let source = Command::new(program).args(words).env_clear().envs(&rootfs.environment).exec();
    Err(RootfsError::Start { program: program.clone(), source })
}

/// What a process in the tree has that one in a container has not, or the other way.
pub fn differences(rootfs: &Rootfs, dir: &Path) -> Vec<String> {
    let dir = tree(dir, rootfs);
    let dir = dir.display();
    let mut lines = vec![
        "rights: nobody but root may look into the directory; files have no set-user-ID and no set-group-ID, and there are no \
         device nodes: mount /dev, as below"
            .to_owned(),
        format!("inodes: every file in {dir} is a copy; its page cache is not shared with the image's layers"),
        "capabilities: a container has the engine's default set, `chroot` all of its caller's".to_owned(),
        "seccomp: a container is filtered by the engine's profile, `chroot` is not".to_owned(),
        "namespaces: a container has its own of mounts, processes, network, ipc and names, `chroot` the caller's".to_owned(),
        "cgroup: a container has one made by the engine, `chroot` the one that `record` makes".to_owned(),
        format!("limits: `chroot` has those of its caller ({})", limits("/proc/self/limits")),
        format!(
            "mounts: a plan names them: mounts = [\"/proc:/proc\", \"/sys:/sys\", \"/dev:/dev\"]; or make them before the first \
             run: mount --rbind /proc {dir}/proc; mount --rbind /sys {dir}/sys; mount --rbind /dev {dir}/dev"
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
        let text = differences(&rootfs, Path::new("/r")).join("\n");
        assert!(text.contains("run as 1000") && text.contains("at /data"), "{text}");
        assert!(describe("docker", "i", "[]").is_err());
    }

    #[test]
    fn a_tree_that_is_not_ours_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(read(dir.path()), Err(RootfsError::NotOurs { .. })));
        fs::write(dir.path().join("file"), "").unwrap();
        private(dir.path(), 0o700);
        assert!(matches!(make_room(dir.path(), false), Err(RootfsError::NotEmpty { .. })));
        std::os::unix::fs::symlink("file", dir.path().join(FILE)).unwrap();
        assert!(read(dir.path()).is_err(), "a link is not followed");
    }

    fn private(dir: &Path, mode: u32) {
        fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_directory_is_for_its_owner_alone() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("a/rootfs");
        assert_eq!(make_room(&dir, false).unwrap(), None);
        assert_eq!(dir.metadata().unwrap().mode() & 0o7777, 0o700);
        for mode in [0o755, 0o710, 0o701] {
            private(&dir, mode);
            for force in [false, true] {
                let error = make_room(&dir, force).unwrap_err();
                assert!(error.to_string().contains("chmod 700"), "{error}");
            }
        }
        private(&dir, 0o700);
        // What was unpacked before is never written over.
        fs::create_dir(dir.join(TREE)).unwrap();
        assert!(matches!(make_room(&dir, false), Err(RootfsError::NotEmpty { .. })));
        assert_eq!(make_room(&dir, true).unwrap(), Some(dir.join("tree.1")));
        std::os::unix::fs::symlink(&dir, parent.path().join("link")).unwrap();
        assert!(make_room(&parent.path().join("link"), true).is_err());
    }
}
