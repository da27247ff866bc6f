//! At which instant runs of everyday programs are compared. They read /proc/meminfo, sysinfo(2) and files of their cgroup,
//! and none of that is a KV-cache reading. Truth is the kernel's own peak of the cgroup and what the program read of
//! itself.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::ledger::source_row;
use crate::support::oracle::skip;
use crate::support::{self, Faults, MIB, Recorded, Running, array, cgroup, int, text};

const BAD_INPUT: i32 = 2;

/// Where distributions put programs: the PATH of a test may have wrappers of the same name.
const PLACES: [&str; 2] = ["/usr/bin", "/bin"];

struct Program {
    name: &'static str,
    /// Programs without which it cannot run.
    needs: &'static [&'static str],
    /// A shell's, in a directory of its own. Variables are the programs in `needs`. One that writes HOLD waits for the
    /// file `gate`.
    script: &'static str,
    /// It stands at its peak for longer than readings are apart.
    holds: bool,
}

/// Each is known to query the kernel for memory figures, by itself or by its C library.
const PROGRAMS: &[Program] = &[
    Program {
        name: "python3",
        needs: &["python3"],
        // Its last line is its anonymous memory, as the kernel counts it.
        script: r#"$python3 -c '
import os, time
os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_AVPHYS_PAGES")
open("/proc/meminfo").read()
held = bytearray(200 << 20)
for place in range(0, len(held), 4096): held[place] = 1
line = [line for line in open("/proc/self/status") if line.startswith("RssAnon")][0]
print("HOLD", flush=True)
while not os.path.exists("gate"): time.sleep(0.01)
print("anon", int(line.split()[1]) << 10)'"#,
        holds: true,
    },
    Program {
        name: "sort",
        needs: &["sort", "od"],
        script: "$od -An -v -tx8 -N 16000000 /dev/urandom >numbers; $sort -S 400M --parallel=1 numbers >/dev/null",
        holds: true,
    },
    Program {
        name: "redis",
        needs: &["redis-server", "redis-cli"],
        script: "$redis_server --save '' --port 0 --unixsocket \"$PWD/socket\" >log & \
                 until $redis_cli -s \"$PWD/socket\" ping 2>/dev/null | grep -q PONG; do sleep 0.1; done; \
                 $redis_cli -s \"$PWD/socket\" eval \
                 \"for i = 1, 200000 do redis.call('set', 'key' .. i, string.rep('x', 300)) end\" 0 >/dev/null; \
                 echo HOLD; until [ -e gate ]; do sleep 0.1; done; $redis_cli -s \"$PWD/socket\" shutdown nosave; wait",
        holds: true,
    },
    Program {
        name: "git",
        needs: &["git", "head"],
        script: "$head -c 30000000 /dev/urandom >blob; $git init -q .; $git add blob; $git gc -q",
        holds: false,
    },
];

fn find(program: &str) -> Option<String> {
    let places = PLACES.iter().map(|place| format!("{place}/{program}"));
    { places }.find(|path| Path::new(path).exists())
}

/// The shell's words for a program: it ends with the kernel's own peak of the cgroup that it ran in.
fn script(program: &Program) -> Option<String> {
    let (root, v2) = cgroup::memory_root();
    let (line, file) =
        if v2 { ("^0::", "memory.peak") } else { ("^[0-9]*:memory:", "memory.max_usage_in_bytes") };
    let own = format!("{}$(sed -n 's/{line}//p' /proc/self/cgroup)/{file}", root.display());
    let mut words = String::from("set -e; ");
    for needed in program.needs {
        words.push_str(&format!("{}='{}'; ", needed.replace('-', "_"), find(needed)?));
    }
    Some(format!("{words} {}; echo; echo peak $(cat {own})", program.script))
}

fn run(dir: &TempDir, name: &str, script: &str) -> Recorded {
    let place = support::path(dir, name);
    std::fs::create_dir(&place).unwrap();
    let script = format!("cd {place}; export HOME={place}; {script}");
    let output = support::path(dir, &format!("{name}.json"));
    let mut running = Running::start(&output, &["--quiet", "--", "sh", "-c", &script]);
    if script.contains("HOLD") {
        running.line(|line| line == "HOLD");
        running.reads_details();
        std::fs::write(format!("{place}/gate"), "").unwrap();
    }
    running.finish().exited(0)
}

/// A figure that the command has written.
fn said(run: &Recorded, name: &str) -> Option<i64> {
    let line = run.stdout.lines().rev().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

/// Exit code and errors of a command that reads a recording.
fn refused(args: &[&str]) -> (Option<i32>, String) {
    let output = support::spark_trace().args(args).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn check(program: &Program) {
    let Some(script) = script(program) else {
        return skip("program", &format!("one of {} is not installed", program.needs.join(", ")));
    };
    let dir = support::disk_dir();
    let (a, b) = (run(&dir, "a", &script), run(&dir, "b", &script));
    let mut faults = Faults::default();
    // They made queries, or this shows nothing.
    let recording = a.recording();
    let queries = array(&recording["provenance"]["queries"]).len();
    faults.expect(queries > 0 || program.name == "git", || "it made no memory query".to_owned());

    let file = a.output.to_str().unwrap();
    let other = b.output.to_str().unwrap();
    for args in [
        &["kv", file][..],
        &["kv", file, other],
        &["show", file, "--at", "kv"],
        &["diff", file, other, "--at", "kv"],
        &["report", file, "--format", "markdown", "--at", "kv"],
    ] {
        let (code, stderr) = refused(args);
        faults.expect(code == Some(BAD_INPUT) && stderr.contains("no KV-cache reading"), || {
            format!("{args:?}: {code:?} {stderr}")
        });
    }
    let diff = a.diff(&b);
    faults.expect(diff["at"] == "peak" && diff["plane"] == "cgroup", || {
        format!("compared at {}, {}", diff["at"], diff["plane"])
    });
    let reason = text(&diff["at_reason"]);
    faults.expect(reason == "Compared at each run's peak: neither run has a KV-cache reading.", || {
        reason.to_owned()
    });
    faults.expect(array(&diff["warnings"]).is_empty(), || format!("{}", diff["warnings"]));
    let planes: Vec<_> = array(&diff["findings"]).iter().map(|of| &of["plane"]).collect();
    faults.expect(planes == ["cgroup", "system"], || format!("findings of {planes:?}"));
    if program.holds {
        levels(&diff, [("a", &a), ("b", &b)], &mut faults);
    }
    let plot = refused(&["show", file, "--plot"]);
    faults.expect(plot.0 == Some(0), || format!("{plot:?}"));
    for args in [&["show", file, "--plot"][..], &["report", file, other, "--format", "markdown"]] {
        let output = support::spark_trace().args(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).replace(reason, "").replace("run\\'s", "run's");
        let kv_line = said.lines().find(|line| line.contains("KV") && !line.contains("neither run has"));
        faults.expect(kv_line.is_none(), || format!("{args:?} speaks of a KV cache: {kv_line:?}"));
    }
    faults.finish();
}

/// Levels and their difference are the kernel's, to within 2 % or 1 MiB.
fn levels(diff: &Value, runs: [(&str, &Recorded); 2], faults: &mut Faults) {
    let near = |value: i64, truth: i64| (value - truth).abs() <= MIB.max(truth / 50);
    for (side, run) in runs {
        let (level, peak) =
            (int(&diff[side]["expected"]), said(run, "peak").expect("it says the cgroup's peak"));
        faults.expect(near(level, peak), || format!("{side}: {level}, the kernel's peak is {peak}"));
        if let Some(truth) = said(run, "anon") {
            let anon = int(&source_row(diff, "anon")[format!("{side}_bytes")]);
            faults.expect(near(anon, truth), || format!("{side}: anon {anon}, the program has {truth}"));
        }
    }
    let truths = runs.map(|(_, run)| said(run, "peak").unwrap_or(0));
    let (delta, truth) = (int(&diff["total_delta_bytes"]), truths[1] - truths[0]);
    let slack = MIB.max(truths[1] / 50);
    faults.expect((delta - truth).abs() <= slack, || {
        format!("difference {delta}, of the kernel's peaks {truth}")
    });
}

fn check_named(name: &str) {
    check(PROGRAMS.iter().find(|program| program.name == name).unwrap());
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn python_is_compared_at_its_peak() {
    check_named("python3");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn sort_is_compared_at_its_peak() {
    check_named("sort");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn redis_is_compared_at_its_peak() {
    check_named("redis");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn git_is_compared_at_its_peak() {
    check_named("git");
}
