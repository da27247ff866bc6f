//! Docker for tests and the demo: the daemon that answers, or a private one.
//!
//! The private daemon shares nothing with an installed one: own directories, socket, containerd
//! namespace and configuration; no network set up. It ends with us, whatever ends us.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ebpf_build::find_in_path;

use crate::cgroups::NewDockerCgroups;
use crate::{process, signals};

/// Image for container tests: holds the static workload as /workload, and an empty /tmp.
pub const TEST_IMAGE: &str = "spark-trace-workload:test";

/// Image for containers on a GPU machine: an empty tree for the host's /usr, /opt and /etc to be mounted into.
pub const GPU_IMAGE: &str = "spark-trace-gpu:test";

/// What is in it: the places of a usual tree, and the links of one whose programs all lie in /usr.
const EMPTY_TREE: &[&str] =
    &["dev", "etc", "gpu", "home", "opt", "proc", "root", "run", "sys", "tmp", "usr", "var/tmp"];
const LINKS: &[&str] = &["bin", "sbin", "lib", "lib64"];

/// Parent of the private daemon's directory: on disk, because images in tmpfs would be memory that
/// tests then see; short, because a socket's path may have 107 bytes.
const PARENT: &str = "/var/tmp";

/// Name of its directory, followed by our process id.
const NAME: &str = "spark-trace-docker-";

/// A daemon needs well under a second; the first start on a slow disk takes longer.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Time for containers to be stopped before the daemon is killed.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// Best first: overlay2 cannot lie on a file system that is an overlay itself.
const STORAGE_DRIVERS: &[&str] = &["overlay2", "vfs"];

/// What `cargo xtask setup` finds: which Docker tests and the demo would use.
pub fn available() -> Result<String, String> {
    if find_in_path("docker").is_none() {
        return Err("no docker command in PATH".to_owned());
    }
    if let Some(path) = dockerd() {
        return Ok(path.display().to_string());
    }
    if daemon_answers() {
        return Ok("a daemon answers".to_owned());
    }
    Err("no daemon answers and dockerd is not installed".to_owned())
}

/// Whether the daemon that `docker` talks to by itself answers.
pub fn daemon_answers() -> bool {
    process::succeeds(Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]))
}

fn dockerd() -> Option<PathBuf> {
    // The PATH of ordinary users often leaves sbin out.
    let usual = ["/usr/sbin/dockerd", "/usr/local/sbin/dockerd"].map(PathBuf::from);
    find_in_path("dockerd").or_else(|| usual.into_iter().find(|path| path.is_file()))
}

/// Docker's programs where they are not installed, but brought along with the libraries they need.
#[derive(Clone)]
pub struct Tools {
    bin: PathBuf,
    lib: PathBuf,
    /// Holds a `docker` that finds its libraries, for others to call.
    wrappers: PathBuf,
}

impl Tools {
    /// From an archive, unpacked in `scratch`, or a folder, with `bin` and `lib`.
    pub fn unpack(archive: &Path, scratch: &Path) -> Result<Self> {
        let mut dir = archive.to_owned();
        if !archive.is_dir() {
            dir = scratch.join("docker");
            fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
            let mut tar = Command::new("tar");
            tar.arg("-C").arg(&dir).arg("-xf").arg(archive);
            process::output(&mut tar, "unpacking Docker")?;
        }
        let dir = dir.canonicalize().with_context(|| format!("no {}", dir.display()))?;
        let tools = Self { bin: dir.join("bin"), lib: dir.join("lib"), wrappers: scratch.join("wrappers") };
        if !tools.bin.join("dockerd").is_file() {
            bail!("{} has no bin/dockerd", archive.display());
        }
        tools.wrap().with_context(|| format!("cannot write to {}", tools.wrappers.display()))?;
        Ok(tools)
    }

    fn wrap(&self) -> std::io::Result<()> {
        let script = self.wrappers.join("docker");
        fs::create_dir_all(&self.wrappers)?;
        let (lib, docker) = (self.lib.display(), self.bin.join("docker"));
        let text = format!("#!/bin/sh\nexec env LD_LIBRARY_PATH='{lib}' '{}' \"$@\"\n", docker.display());
        fs::write(&script, text)?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))
    }

    /// $PATH with `first` before it.
    fn path(first: &Path) -> OsString {
        let mut path = first.as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        path
    }
}

/// A running private daemon; stopped and cleaned up when dropped.
pub struct PrivateDocker {
    dir: PathBuf,
    daemon: Child,
    tools: Option<Tools>,
    cgroups: NewDockerCgroups,
}

impl PrivateDocker {
    /// Starts a daemon and waits until it answers.
    pub fn start() -> Result<Self> {
        Self::start_with_tools(None)
    }

    /// The same with programs that were brought along.
    pub fn start_with_tools(tools: Option<Tools>) -> Result<Self> {
        let brought = tools.as_ref().map(|tools| tools.bin.join("dockerd"));
        let dockerd =
            brought.or_else(dockerd).context("dockerd is not installed: run `cargo xtask setup`")?;
        if !process::is_root() {
            bail!("a private dockerd needs root: run this as root, or start Docker yourself");
        }
        remove_stale();
        let mut failures = String::new();
        for driver in STORAGE_DRIVERS {
            match Self::start_with(&dockerd, driver, tools.as_ref()) {
                Ok(docker) => return Ok(docker),
                Err(error) => failures.push_str(&format!("\n{error:#}")),
            }
            signals::check()?;
        }
        bail!("cannot start a private dockerd:{failures}");
    }

    fn start_with(dockerd: &Path, storage_driver: &str, tools: Option<&Tools>) -> Result<Self> {
        let dir = Path::new(PARENT).join(format!("{NAME}{}", std::process::id()));
        fs::DirBuilder::new()
            .mode(0o711)
            .create(&dir)
            .with_context(|| format!("cannot create {}", dir.display()))?;
        let started = daemon_command(dockerd, &dir, storage_driver).and_then(|mut command| {
            if let Some(tools) = tools {
                // The programs that it starts lie beside it and need the same libraries.
                command.env("PATH", Tools::path(&tools.bin)).env("LD_LIBRARY_PATH", &tools.lib);
            }
            let cgroups = NewDockerCgroups::since_now();
            let daemon = command.spawn().with_context(|| format!("cannot run {}", dockerd.display()))?;
            Ok((daemon, cgroups))
        });
        let (daemon, cgroups) = match started {
            Ok(started) => started,
            Err(error) => {
                // Nothing but our own files in it yet.
                let _ = fs::remove_dir_all(&dir);
                return Err(error);
            }
        };
        // From here on, dropping it cleans up.
        let mut docker = Self { dir, daemon, tools: tools.cloned(), cgroups };
        docker.wait_until_it_answers().with_context(|| format!("dockerd with {storage_driver}"))?;
        eprintln!("private dockerd (pid {}) answers at {}", docker.daemon.id(), docker.host());
        Ok(docker)
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            signals::check()?;
            if let Some(status) = self.daemon.try_wait()? {
                bail!("ended with {status}; its last messages:\n{}", self.log_tail());
            }
            if process::succeeds(self.docker().args(["version", "--format", "{{.Server.Version}}"])) {
                return Ok(());
            }
            if start.elapsed() > START_LIMIT {
                bail!("does not answer after {START_LIMIT:?}; its last messages:\n{}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Value of DOCKER_HOST for clients.
    pub fn host(&self) -> String {
        format!("unix://{}", self.dir.join("sock").display())
    }

    /// The docker command line, talking to this daemon.
    fn docker(&self) -> Command {
        let brought = self.tools.as_ref().map(|tools| tools.wrappers.join("docker"));
        let mut command = Command::new(brought.unwrap_or_else(|| "docker".into()));
        command.env("DOCKER_HOST", self.host()).env_remove("DOCKER_CONTEXT").env_remove("DOCKER_TLS_VERIFY");
        command
    }

    /// What others need in their environment to call this `docker` and reach this daemon.
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        let path = self.tools.as_ref().map(|tools| ("PATH", Tools::path(&tools.wrappers)));
        [("DOCKER_HOST", self.host().into())].into_iter().chain(path).collect()
    }

    /// Makes an image of a static program: `/workload` and an empty `/tmp`, no entry point.
    pub fn import(&self, program: &Path, image: &str) -> Result<()> {
        let root = self.dir.join("rootfs");
        fs::create_dir_all(root.join("tmp")).with_context(|| format!("cannot create {}", root.display()))?;
        fs::copy(program, root.join("workload"))
            .with_context(|| format!("cannot copy {} to {}", program.display(), root.display()))?;
        self.import_tree(&root, image)
    }

    /// Makes an image of an empty tree, for the host's folders to be mounted into.
    pub fn import_empty(&self, image: &str) -> Result<()> {
        let root = self.dir.join("empty");
        for dir in EMPTY_TREE {
            let dir = root.join(dir);
            fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        for link in LINKS {
            std::os::unix::fs::symlink(Path::new("usr").join(link), root.join(link))
                .with_context(|| format!("cannot make a link in {}", root.display()))?;
        }
        self.import_tree(&root, image)
    }

    fn import_tree(&self, root: &Path, image: &str) -> Result<()> {
        let archive = self.dir.join("rootfs.tar");
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(root).arg("-cf").arg(&archive).arg(".");
        process::output(&mut tar, "packing the image")?;
        let purpose = format!("importing the image {image}");
        process::output(self.docker().arg("import").arg(&archive).arg(image), &purpose)?;
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        if self.daemon.try_wait()?.is_none() {
            let containers = process::output(self.docker().args(["ps", "-aq"]), "listing containers");
            let containers = containers.unwrap_or_default();
            if !containers.trim().is_empty() {
                let mut remove = self.docker();
                remove.args(["rm", "--force"]).args(containers.split_whitespace());
                process::output(&mut remove, "removing containers")?;
            }
            let pid = self.daemon.id().cast_signed();
            // SAFETY: a plain system call; the pid is our child's, which we have not waited for.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        let start = Instant::now();
        while self.daemon.try_wait()?.is_none() {
            if start.elapsed() > STOP_LIMIT {
                self.daemon.kill()?;
                self.daemon.wait()?;
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn clean_up(&self) -> Result<()> {
        remove_dir(&self.dir)?;
        let left = self.cgroups.remove();
        if !left.is_empty() {
            bail!("cannot remove the cgroups {left:?}");
        }
        Ok(())
    }
}

impl Drop for PrivateDocker {
    fn drop(&mut self) {
        for result in [self.stop(), self.clean_up()] {
            if let Err(error) = result {
                eprintln!("warning: stopping the private dockerd: {error:#}");
            }
        }
    }
}

fn daemon_command(dockerd: &Path, dir: &Path, storage_driver: &str) -> Result<Command> {
    // An own, empty file: what /etc/docker/daemon.json sets may contradict the options here.
    let config = dir.join("daemon.json");
    fs::write(&config, "{}\n").with_context(|| format!("cannot write {}", config.display()))?;
    let log = dir.join("log");
    let log = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;

    let mut command = Command::new(dockerd);
    for (option, value) in [
        ("--config-file", config),
        ("--data-root", dir.join("data")),
        ("--exec-root", dir.join("exec")),
        ("--pidfile", dir.join("pid")),
    ] {
        command.arg(option).arg(value);
    }
    command
        .arg(format!("--host=unix://{}", dir.join("sock").display()))
        .arg(format!("--storage-driver={storage_driver}"))
        .args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"])
        // A containerd of the machine may serve both daemons; in one namespace they would see each
        // other's containers.
        .args(["--containerd-namespace=spark-trace", "--containerd-plugins-namespace=spark-trace-plugins"])
        .stdin(std::process::Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C goes to the foreground group: the daemon must outlive the tests, for us to stop it.
        .process_group(0);
    let end_with_us = || {
        // SAFETY: prctl is async-signal-safe and this option takes no pointer.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) };
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes one async-signal-safe call and allocates nothing.
    unsafe { command.pre_exec(end_with_us) };
    Ok(command)
}

/// Removes what a run left that was killed, where nobody uses it any more.
fn remove_stale() {
    let entries = fs::read_dir(PARENT).into_iter().flatten().flatten();
    for dir in entries.map(|entry| entry.path()) {
        let owner = dir.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(NAME));
        let daemon = fs::read_to_string(dir.join("pid")).unwrap_or_default();
        let alive = |pid: &str| !pid.is_empty() && Path::new("/proc").join(pid).exists();
        if owner.is_some_and(|owner| !alive(owner)) && !alive(daemon.trim()) {
            match remove_dir(&dir) {
                Ok(()) => eprintln!("removed {}, left by a run that was killed", dir.display()),
                Err(error) => eprintln!("warning: {error:#}"),
            }
        }
    }
}

/// Removes a daemon's directory with what is mounted in it.
fn remove_dir(dir: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for mount in mounts_below(&mounts, dir) {
        let path = std::ffi::CString::new(mount)?;
        // SAFETY: `path` is a valid C string and outlives the call.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    }
    fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))
}

/// Mount points below `dir`, the innermost first.
fn mounts_below(mounts: &str, dir: &Path) -> Vec<String> {
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let mut below: Vec<String> =
        points.filter(|p| Path::new(p).starts_with(dir)).map(str::to_owned).collect();
    below.reverse();
    below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_mounts_are_unmounted() {
        let mounts = "overlay /a/data/merged overlay rw 0 0\nnsfs /a/exec/netns nsfs rw 0 0\n\
                      tmpfs /ab tmpfs rw 0 0\n";
        assert_eq!(mounts_below(mounts, Path::new("/a")), ["/a/exec/netns", "/a/data/merged"]);
    }
}
