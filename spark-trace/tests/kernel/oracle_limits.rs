//! A cgroup that comes to its limit: pages of files go, anonymous ones go to swap, or a process is killed.

use std::fs::{self, File};
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::cache::resident;
use crate::support::ledger::{file_row, nearest, phase_ns};
use crate::support::oracle::{self, Files, levels, names, near, stock};
use crate::support::swap::Swap;
use crate::support::{self, Faults, MIB, Running, array, int, wait_for, workload};

/// A workload in the cgroup that `record` made for it, which has got a limit before the workload begins.
struct Limited {
    running: Running,
    dir: TempDir,
    files: Files,
    pid: i64,
}

impl Limited {
    /// `{}` in `script` stands for the workload, which waits.
    fn start(script: &str, limit: i64) -> Self {
        let dir = support::disk_dir();
        let waiting = format!("{} alloc --jsonl --wait-go {}", workload(), support::path(&dir, "go"));
        let script = script.replace("{}", &waiting).replace("DIR", dir.path().to_str().unwrap());
        let output = support::path(&dir, "r.json");
        let mut running = Running::start(&output, &["--", "sh", "-c", &script]);
        let pid = int(&running.phase("start")["pid"]);
        let files = Files::of_process(pid);
        files.write(names().limit, &limit.to_string());
        File::create(support::path(&dir, "go")).unwrap();
        Self { running, dir, files, pid }
    }

    fn path(&self) -> String {
        let (root, _) = support::cgroup::memory_root();
        format!("/{}", self.files.0.strip_prefix(root).unwrap().display())
    }
}

/// Of the events that the kernel counts for a cgroup, those recorded last are the same.
fn check_events(series: &Value, files: &std::collections::BTreeMap<String, i64>, faults: &mut Faults) {
    for (key, truth) in files {
        let recorded = oracle::last(series, &format!("events.{key}"));
        faults.expect(recorded == Some(*truth), || format!("event {key}: {recorded:?}, the kernel: {truth}"));
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn at_its_limit_pages_of_a_file_go_and_the_job_lives() {
    const LIMIT: i64 = 64 * MIB;
    let input_dir = support::disk_dir();
    let input = support::path(&input_dir, "input");
    support::cold_file(&input, 160);
    // The shell's and the workload's own files are in the page cache before, and charged elsewhere.
    for program in [workload().as_ref(), support::in_path("sh").as_path()] as [&Path; 2] {
        fs::read(program).unwrap();
    }
    let script =
        format!("{{}} --anon 24M --file-read 160M --file {input} --hold 5s; touch DIR/done; sleep 1");
    let mut limited = Limited::start(&script, LIMIT);
    limited.running.phase("hold");
    let path = limited.path();
    let during = resident(&input);
    let kernel = limited.files.settled();
    let events = names().v2.then(|| limited.files.keys("memory.events"));
    let (peak, failures) =
        (limited.files.number(names().peak), (!names().v2).then(|| limited.files.number("memory.failcnt")));
    let recorded = limited.running.finish().exited(0);
    let after = resident(&input);
    assert!(limited.dir.path().join("done").exists());
    let (recording, show) = (recorded.recording(), recorded.show_with(&["--at", "end"]));

    let mut faults = Faults::default();
    recorded.whole(&mut faults);
    let series = oracle::series(&recording, &path);
    let times = kernel.check_samples(series, &mut faults);
    if let Some(events) = events {
        faults.expect(events["max"] > 0 && events["oom_kill"] == 0, || format!("{events:?}"));
        check_events(series, &events, &mut faults);
    }
    if let Some(failures) = failures {
        let recorded = oracle::last(series, "memory.failcnt");
        faults.expect(failures > 0 && recorded == Some(failures), || format!("{recorded:?}, {failures}"));
    }
    let highest = oracle::highest(series, names().usage).unwrap();
    let kept = int(&oracle::cgroup_row(&recording, &path)["peak_at_removal"]);
    // The shell's last words may still raise it.
    faults.expect(highest <= kept && peak <= kept, || format!("{highest}, {kept}; the kernel: {peak}"));
    // What is requested in one piece may be large, and is refused as a whole.
    faults.expect(LIMIT - LIMIT / 8 <= peak && kept <= LIMIT + stock(), || {
        format!("peak {peak}, {kept} when removed, at a limit of {LIMIT}")
    });

    let row = file_row(&show["files"], |row| row["path"] == input.as_str());
    let (resident, added) = (int(&row["bytes"]), int(&row["bytes_added"]));
    let truth = during.min(after)..=during.max(after);
    faults
        .expect(truth.contains(&resident), || format!("the file: {resident} bytes, mincore says {truth:?}"));
    faults.expect(added >= 160 * MIB && int(&row["bytes_removed"]) == added - resident, || format!("{row}"));
    let anon = levels(&recorded.show_at(times[0]), "cgroup")["anon"];
    faults.expect(anon >= 24 * MIB, || format!("anon is not reclaimed without swap, it is {anon}"));
    faults.finish();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_process_killed_for_memory_is_reported_as_that() {
    const LIMIT: i64 = 64 * MIB;
    let killed = || -> i64 {
        let text = fs::read_to_string("/proc/vmstat").unwrap();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")).unwrap().parse().unwrap()
    };
    let before = killed();
    // The shell is not to be chosen, and takes nothing while there is nothing to take: it waits for a line on a pipe.
    let script = "mkfifo DIR/pipe; exec 3<>DIR/pipe; echo -1000 >/proc/self/oom_score_adj; \
                  (echo 0 >/proc/self/oom_score_adj; exec {} --anon 256M); code=$?; read line <&3; exit $code";
    let limited = Limited::start(script, LIMIT);
    let (path, pid) = (limited.path(), limited.pid);
    wait_for("the workload to be killed", || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
    // The machine's and the cgroup's counters of that.
    limited.running.reads(2);
    let machine_killed = killed() - before;
    let events = limited.files.keys(if names().v2 { "memory.events" } else { "memory.oom_control" });
    let peak = limited.files.number(names().peak);
    fs::write(limited.dir.path().join("pipe"), "go on\n").unwrap();
    let recorded = limited.running.finish().exited(128 + libc::SIGKILL);
    let (recording, show) = (recorded.recording(), recorded.show());

    let mut faults = Faults::default();
    recorded.whole(&mut faults);
    faults.expect(recording["target"]["exit_code"] == 128 + libc::SIGKILL, || "exit code".to_owned());
    let rows: Vec<_> = array(&show["processes"]).iter().filter(|row| row["pid"] == pid).collect();
    faults.expect(rows.len() == 1 && rows[0]["exit"] == "signal 9", || format!("{rows:?}"));
    let resident = rows.first().and_then(|row| row["rss_peak"].as_i64());
    faults.expect(resident.is_some_and(|bytes| near(bytes, &(LIMIT / 2..=LIMIT), 8 * MIB)), || {
        format!("resident at most {resident:?}, the limit is {LIMIT}")
    });
    let series = oracle::series(&recording, &path);
    faults.expect(events["oom_kill"] == 1, || format!("{events:?}"));
    check_events(series, &events, &mut faults);
    let warned = array(&show["warnings"]).iter().any(|line| {
        let line = line.as_str().unwrap();
        line.starts_with("command: ") && line.contains("killed 1 of its processes")
    });
    faults.expect(warned, || format!("no warning of it: {}", show["warnings"]));
    let system = &recording["samples"]["system"]["columns"]["vmstat.oom_kill"];
    let values: Vec<i64> = array(system).iter().filter_map(Value::as_i64).collect();
    let recorded_killed = values.last().unwrap() - values.first().unwrap();
    faults.expect(recorded_killed == machine_killed && machine_killed > 0, || {
        format!("killed on the machine: {recorded_killed} recorded, {machine_killed} in fact")
    });
    let kept = int(&oracle::cgroup_row(&recording, &path)["peak_at_removal"]);
    faults.expect(kept == peak, || format!("peak {kept}, the kernel's own {peak}"));
    // Where no reading is left to see a kill, this is what shows it.
    let kills = &oracle::cgroup_row(&recording, &path)["oom_kills_at_removal"];
    faults
        .expect(*kills == events["oom_kill"], || format!("killed when it was removed: {kills}, {events:?}"));
    // What is requested in one piece may be large, and is refused as a whole.
    faults.expect((LIMIT - LIMIT / 8..=LIMIT + stock()).contains(&peak), || {
        format!("peak {peak} at a limit of {LIMIT}")
    });
    let root = &show["planes"]["cgroup"]["roots"][0];
    faults.expect(root["kernel_peak"] == peak, || format!("{root}"));
    let (exit, end) = (phase_ns(&recording, "exit"), phase_ns(&recording, "end"));
    faults.expect(exit <= end, || format!("exit at {exit}, end at {end}"));
    faults.finish();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_went_to_swap_is_resident_no_more() {
    if !oracle::machine_is_ours() {
        return oracle::skip("swap", "swap is made in test machines only");
    }
    const ALLOCATED: i64 = (96 + 32) * MIB;
    let _swap = Swap::on(256);
    let dir = support::disk_dir();
    let line = "alloc --anon 96M --shmem 32M --hold 9s";
    let mut running = oracle::start(&support::path(&dir, "r.json"), "", line);
    let pid = int(&running.phase("hold")["pid"]);
    let files = Files::of_process(pid);
    // Falls short where pages are busy: then once more.
    for _ in 0..20 {
        let left = 64 * MIB - files.number("memory.swap.current");
        if left <= 0 || fs::write(files.0.join("memory.reclaim"), left.to_string()).is_ok() {
            break;
        }
    }
    let swapped_before = files.number("memory.swap.current");
    let kernel = files.settled();
    let (swapped, of_process) = (files.number("memory.swap.current"), swap_of(pid));
    let recorded = running.finish().exited(0);
    let recording = recorded.recording();

    let mut faults = Faults::default();
    recorded.whole(&mut faults);
    faults.expect(swapped >= 48 * MIB && swapped == swapped_before, || {
        format!("{swapped} in swap, {swapped_before} before")
    });
    let series = &recording["samples"]["cgroups"][0];
    let times = kernel.check_samples(series, &mut faults);
    for &at_ns in &times {
        let recorded = nearest(series, "memory.swap.current", at_ns);
        faults.expect(recorded == swapped, || format!("in swap: {recorded}, the kernel says {swapped}"));
    }
    let show = recorded.show_at(times[0]);
    let shown = levels(&show, "cgroup");
    for (slug, key) in [("anon", "anon"), ("shmem", "shmem")] {
        let truth = kernel.range(|reading| reading.stat[key]);
        faults.expect(truth.contains(&shown[slug]), || format!("{slug}: {}, not {truth:?}", shown[slug]));
    }
    // What is resident and what is in swap are all that it holds; a page may be both, in the swap cache.
    let (both, total) = (shown["swap-cache"], shown["anon"] + shown["shmem"] + swapped);
    faults.expect(near(total, &(ALLOCATED..=ALLOCATED + both), 2 * MIB), || {
        format!("{total} and {both} of {ALLOCATED}")
    });
    let residual = int(&show["planes"]["cgroup"]["level"]["residual"]);
    faults.expect(residual.abs() <= 2 * stock(), || format!("unattributed: {residual}"));
    let row = array(&show["processes"]).iter().find(|row| row["pid"] == pid).unwrap();
    faults.expect(row["at"]["swap"] == of_process, || format!("{}, VmSwap {of_process}", row["at"]));
    faults.finish();
}

/// Anonymous memory of a process that is in swap.
fn swap_of(pid: i64) -> i64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmSwap:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<i64>().unwrap() << 10
}
