//! The Docker daemon that `cargo xtask test` has started, as the test itself sees it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{cgroup, processes_with, wait_for};

/// Image that holds only /workload and an empty /tmp.
pub fn image() -> String {
    std::env::var("SPARK_TRACE_IMAGE").expect("SPARK_TRACE_IMAGE is not set: run `cargo xtask test`")
}

/// Output of a docker command that must succeed.
pub fn docker(line: &str) -> String {
    let output = Command::new("docker").args(line.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "docker {line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A field of `docker container inspect`.
pub fn inspect(name: &str, field: &str) -> String {
    docker(&format!("container inspect --format {{{{{field}}}}} {name}"))
}

/// A container's name, of this test alone; what has it is removed when dropped.
pub struct Named(pub String);

impl Named {
    pub fn new(name: &str) -> Self {
        Self(format!("spark-trace-test-{}-{name}", std::process::id()))
    }

    pub fn pid(&self) -> u32 {
        inspect(&self.0, ".State.Pid").parse().unwrap()
    }

    pub fn id(&self) -> String {
        inspect(&self.0, ".Id")
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let mut remove = Command::new("docker");
        let _ = remove.args(["rm", "--force", &self.0]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// The workload in a container that has `word` in its command line: its pid here and its memory cgroup.
pub fn workload_with(word: &str) -> (u32, String) {
    wait_for("the container's workload", || {
        let pids = processes_with(word).into_iter();
        // The client and spark-trace have the word, too.
        let mut inside = pids.filter(|pid| {
            let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            comm.trim() == "workload"
        });
        let pid = inside.next()?;
        Some((pid, cgroup::of_process(pid)?))
    })
}

/// The container id in a cgroup's path, for the cgroupfs driver and systemd's.
pub fn id_in(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap();
    name.trim_start_matches("docker-").trim_end_matches(".scope").to_owned()
}

/// An image of an empty tree, for the machine's /usr and /etc to be mounted into.
pub fn tree_image() -> String {
    let dir = super::disk_dir();
    let root = dir.path().join("root");
    for name in ["dev", "etc", "proc", "run", "sys", "tmp", "usr", "var/tmp"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    for link in ["bin", "sbin", "lib", "lib64"] {
        std::os::unix::fs::symlink(Path::new("usr").join(link), root.join(link)).unwrap();
    }
    let image = "spark-trace-field:test".to_owned();
    let archive = dir.path().join("root.tar");
    let tar = Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&archive).arg(".").status().unwrap();
    assert!(tar.success());
    let import = Command::new("docker").arg("import").arg(&archive).arg(&image).output().unwrap();
    assert!(import.status.success(), "{}", String::from_utf8_lossy(&import.stderr));
    image
}
