//! `spark-report` from its first check to its page, with a program of others, interrupted on the way.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::support::{self, MIB, clock::monotonic_ns, docker, journal, wait_for};

/// Takes so many MiB, writes down what the kernel counts, and waits to be let go on.
const SCRIPT: &str = "import os, sys, time
d, mib = sys.argv[1], int(sys.argv[2])
taken = bytearray(os.urandom(1 << 20)) * mib
n = sum(name.startswith('ready-') for name in os.listdir(d))
anon = [line for line in open('/proc/self/status') if line.startswith('RssAnon')][0].split()[1]
open(f'{d}/anon-{n}', 'w').write(anon)
os.rename(f'{d}/anon-{n}', f'{d}/ready-{n}')
while not os.path.exists(f'{d}/go-{n}'): time.sleep(0.01)
";
const PYTHON: &str = "/usr/bin/python3";
const NATIVE_MIB: i64 = 32;
const CONTAINER_MIB: i64 = 160;
/// Readings of what a run has, before it goes on.
const READINGS: usize = 4;

struct Job {
    dir: TempDir,
    image: String,
}

impl Job {
    fn report(&self) -> Child {
        let (dir, image) = (self.dir.path().display(), &self.image);
        let native = format!("{PYTHON} {dir}/script.py {dir} {NATIVE_MIB}");
        let container = format!(
            "docker run --rm --network=none -v /usr:/usr:ro -v /etc:/etc:ro -v {dir}:{dir} {image} \
             {PYTHON} {dir}/script.py {dir} {CONTAINER_MIB}"
        );
        let mut command: Command = support::spark_trace();
        command.args(["spark-report", "--native", &native, "--container", &container, "--output"]);
        command.arg(self.output()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    fn output(&self) -> PathBuf {
        self.dir.path().join("report")
    }

    /// The folder of a run's attempt.
    fn run(&self, name: &str) -> PathBuf {
        self.output().join("as-found/runs").join(format!("{name}-command"))
    }

    /// Waits until the program of the `number`th start has all, and spark-trace has read it; what the kernel says that it has.
    fn is_ready(&self, number: usize, run: &str) -> i64 {
        let ready = self.dir.path().join(format!("ready-{number}"));
        let kib = wait_for(run, || fs::read_to_string(&ready).ok());
        let after = monotonic_ns();
        let partial = self.run(run).join("recording.json.zst.partial");
        wait_for("readings", || {
            let later = journal::readings(&partial)?.filter(|begin| begin.cast_signed() > after);
            (later.count() >= READINGS).then_some(())
        });
        kib.trim().parse::<i64>().unwrap() << 10
    }

    fn goes_on(&self, number: usize) {
        fs::write(self.dir.path().join(format!("go-{number}")), "").unwrap();
    }
}

fn end(child: Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// Bytes of `+12.5 MiB`.
fn bytes(cell: &str) -> i64 {
    let (number, unit) = cell.trim().trim_start_matches('+').split_once(' ').unwrap();
    let unit = match unit {
        "KiB" => 1024.0,
        "MiB" => MIB as f64,
        "GiB" => 1024.0 * MIB as f64,
        other => panic!("{other} in {cell}"),
    };
    (number.parse::<f64>().unwrap() * unit) as i64
}

/// The cells of the row that begins with these.
fn row<'a>(page: &'a str, first: &[&str]) -> Vec<&'a str> {
    let rows = page.lines().map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    let mut rows = rows.filter(|row| row.starts_with(first));
    rows.next().unwrap_or_else(|| panic!("no row {first:?} in {page}"))
}

#[test]
#[ignore = "needs root and Docker: cargo xtask test"]
fn a_report_that_is_interrupted_goes_on_and_has_what_the_kernel_counts() {
    if !Path::new(PYTHON).is_file() {
        eprintln!("skipped: no {PYTHON} here");
        return;
    }
    let job = Job { dir: support::disk_dir(), image: docker::tree_image() };
    fs::write(job.dir.path().join("script.py"), SCRIPT).unwrap();

    let report = job.report();
    let native = job.is_ready(0, "0001-1-native");
    job.goes_on(0);
    job.is_ready(1, "0002-1-container");
    // SAFETY: a plain system call; the child has not been waited for.
    assert_eq!(unsafe { libc::kill(i32::try_from(report.id()).unwrap(), libc::SIGINT) }, 0);
    let (code, messages) = end(report);
    assert_eq!(code, Some(130), "{messages}");
    assert!(messages.contains("the same command goes on"), "{messages}");
    let first = job.run("0001-1-native").join("recording.json.zst");
    let inode = fs::metadata(&first).unwrap().ino();

    // The same command again: what was recorded stays, and what was cut off is repeated.
    let report = job.report();
    let container = job.is_ready(2, "0002-2-container");
    job.goes_on(2);
    for (number, run) in [(3, "0003-1-container"), (4, "0004-1-native")] {
        job.is_ready(number, run);
        job.goes_on(number);
    }
    let (code, messages) = end(report);
    assert_eq!(code, Some(0), "{messages}");
    assert_eq!(fs::metadata(&first).unwrap().ino(), inode);

    let page = fs::read_to_string(job.output().join("send/page.md")).unwrap();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(row(&page, &["kernel"])[1].replace('\\', ""), kernel.trim());
    // What the container is charged more than the native run is what its program has more, and a little of its files.
    let charged = bytes(row(&page, &["native 1", "container 1"])[3]);
    let expected = container - native;
    assert!((charged - expected).abs() < 24 * MIB, "{charged} on the page, {expected} by the kernel");
    assert_eq!(row(&page, &["native 1", "native 2"]).len(), 7);
    assert!(page.contains("this is no GB10") != page.contains("NVIDIA GB10"));
    // Names of this machine are in none of it.
    for name in ["script.py", "spark-trace-field", job.dir.path().file_name().unwrap().to_str().unwrap()] {
        assert!(!page.contains(name), "{name} in {page}");
    }
    for bundle in ["before.tar.zst", "after.tar.zst"] {
        assert!(fs::metadata(job.output().join("send").join(bundle)).unwrap().len() > 1000, "{bundle}");
    }

    // Once more: nothing runs, and a page is made.
    let (code, messages) = end(job.report());
    assert_eq!(code, Some(0), "{messages}");
    assert!(!messages.contains("[1/4]") && messages.contains("wrote "), "{messages}");
}
