//! What `spark-report` refuses before anything runs: one sentence each, whoever calls it.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;

use super::*;

const CONTAINER: &str = "docker run --rm image true";

fn refused(native: &str, container: &str, output: &Path, code: i32) -> String {
    let output = output.display().to_string();
    error(&["spark-report", "--native", native, "--container", container, "-o", &output], code)
}

/// A folder on a disk: a report in memory is refused.
fn disk() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

#[test]
fn commands_that_could_not_be_compared_are_refused_in_a_sentence() {
    let parent = disk();
    let output = parent.path().join("report");
    for (native, container, said) in [
        (CONTAINER, CONTAINER, "the same command"),
        ("true", "true", "the same command"),
        ("true", "python3 run.py", "no command of a container engine"),
        ("true", "docker start x", "starts no new container"),
        ("true", "docker run -it --rm image", "leave it out"),
        ("true", "docker run -d --rm image", "returns before the container has ended"),
        ("true", "docker run image true", "lacks --rm"),
        ("no-such-program-anywhere", CONTAINER, "no program no-such-program-anywhere"),
        ("./none.sh", CONTAINER, "none.sh"),
        ("true | true", CONTAINER, "is for a shell"),
        ("$HOME/run.sh", CONTAINER, "is for a shell"),
        ("true", "sudo docker run --rm image", "leave `sudo` out"),
        ("", CONTAINER, "it is empty"),
    ] {
        let error = refused(native, container, &output, USAGE);
        assert!(error.contains(said), "{native}, {container}: {error}");
    }
    assert!(!output.exists(), "nothing is made before everything is known");
    // Each has a name: two without one could be taken for each other.
    spark_trace(&["spark-report", "--native", "true"]).assert().code(USAGE);
    spark_trace(&["spark-report", "true", CONTAINER]).assert().code(USAGE);
}

#[test]
fn a_folder_with_something_in_it_is_left_alone() {
    let parent = disk();
    let output = parent.path().join("thesis");
    fs::create_dir(&output).unwrap();
    fs::write(output.join("thesis.tex"), "all of it").unwrap();
    let error = refused("true", CONTAINER, &output, BAD_INPUT);
    assert!(error.contains("something in it that is no report"), "{error}");
    let file = output.join("thesis.tex");
    assert!(refused("true", CONTAINER, &file, BAD_INPUT).contains("cannot be used as a folder"));
    assert_eq!(fs::read_to_string(&file).unwrap(), "all of it");
    let names = fs::read_dir(&output).unwrap().count();
    assert_eq!(names, 1);
}

#[test]
fn a_folder_in_memory_is_refused() {
    let shm = Path::new("/dev/shm");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    if mounts.lines().any(|line| line.contains(" /dev/shm tmpfs ")) {
        let error = refused("true", CONTAINER, &shm.join("spark-report-of-a-test"), BAD_INPUT);
        assert!(error.contains("is in memory"), "{error}");
    }
}

/// Root itself runs it without root's rights: in a user namespace in which it is nobody.
#[test]
fn without_root_nothing_runs() {
    let parent = disk();
    let output = parent.path().join("report");
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("spark-trace"));
    command.args(["spark-report", "--native", "true", "--container", CONTAINER, "-o"]).arg(&output);
    command.env_remove("SUDO_UID");
    // SAFETY: cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        let become_nobody = || {
            // SAFETY: one system call without pointers, between fork and exec.
            if unsafe { libc::unshare(libc::CLONE_NEWUSER) } == 0 {
                Ok(())
            } else {
                Err(std::io::Error::last_os_error())
            }
        };
        // SAFETY: the closure allocates nothing.
        unsafe { command.pre_exec(become_nobody) };
    }
    let result = command.output().unwrap();
    let text = String::from_utf8(result.stderr).unwrap();
    assert_eq!(result.status.code(), Some(1), "{text}");
    assert!(text.contains("needs root, and nothing was run"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(!output.exists());
}
