//! Many tasks at once: each process once, and what all of them hold together.

use std::collections::BTreeSet;
use std::fs;

use crate::support::oracle::{self, Files, levels, names};
use crate::support::{self, Faults, MIB, array, int, json, record_words, workload};

/// Hooks on processes.
const PROCESS_HOOKS: [&str; 3] = ["process-fork", "process-exec", "process-exit"];

#[test]
#[ignore = "needs root: cargo xtask test"]
fn short_and_long_processes_at_once_are_each_counted_once() {
    const CHILDREN: usize = 150;
    const ROUNDS: usize = 400;
    let dir = support::disk_dir();
    let truth = support::path(&dir, "truth.json");
    let script = format!(
        "{0} alloc --children {CHILDREN} --child-anon 256K --hold 1s --output {truth} & \
         {0} storm fork --rounds {ROUNDS} & {0} storm fork --rounds {ROUNDS} & wait",
        workload()
    );
    let before = forks();
    let recorded = record_words(&support::path(&dir, "r.json"), &["--", "sh", "-c", &script]).exited(0);
    let forked = forks() - before;
    let show = recorded.show();

    let mut faults = Faults::default();
    // Exact, but for what the recording itself says that it has missed.
    let left_out = recorded.whole(&mut faults);
    let missed: i64 = PROCESS_HOOKS.iter().filter_map(|hook| left_out.get(*hook)).sum();
    let missed = usize::try_from(missed).unwrap();
    let target: Vec<_> = array(&show["processes"]).iter().filter(|row| row["target"] == true).collect();
    let pids: BTreeSet<_> = target.iter().map(|row| int(&row["pid"])).collect();
    // The shell, its three commands, and what they fork.
    let expected = 4 + CHILDREN + 2 * ROUNDS;
    faults.expect(target.len() == pids.len(), || format!("{} rows of {} pids", target.len(), pids.len()));
    faults.expect((expected - missed.min(expected)..=expected).contains(&target.len()), || {
        format!("{} rows, {expected} processes, {missed} events missed", target.len())
    });
    faults.expect(i64::try_from(target.len()).unwrap() <= forked, || {
        format!("{} processes, the kernel has made {forked} on the whole machine", target.len())
    });
    let ill: Vec<_> =
        target.iter().filter(|row| row["exit"] != "exit 0" || row["ended_ns"].is_null()).collect();
    faults.expect(ill.len() <= missed, || format!("ended otherwise, {missed} events missed: {ill:?}"));
    let truth = json(&truth);
    let children = array(&truth["sources"]).iter().map(|row| int(&row["detail"]["pid"]));
    let missing: Vec<_> = children.filter(|pid| !pids.contains(pid)).collect();
    faults.expect(missing.len() <= missed, || format!("not there: {missing:?}"));
    let of_alloc = target.iter().filter(|row| row["parent"] == truth["pid"]).count();
    faults.expect((CHILDREN - missed.min(CHILDREN)..=CHILDREN).contains(&of_alloc), || {
        format!("{of_alloc} children of {}", truth["pid"])
    });
    faults.finish();
}

/// Processes and threads that the kernel has made since it started.
fn forks() -> i64 {
    let text = fs::read_to_string("/proc/stat").unwrap();
    text.lines().find_map(|line| line.strip_prefix("processes ")).unwrap().trim().parse().unwrap()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_threads_hold_is_their_processes() {
    const THREADS: i64 = 64;
    let dir = support::disk_dir();
    let truth = support::path(&dir, "truth.json");
    let line = format!("alloc --threads {THREADS} --thread-anon 1M --hold 5s --output {truth}");
    let mut running = oracle::start(&support::path(&dir, "r.json"), "", &line);
    let pid = int(&running.phase("hold")["pid"]);
    let files = Files::of_process(pid);
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
    let kernel = files.settled();
    let recorded = running.finish().exited(0);
    let recording = recorded.recording();

    let mut faults = Faults::default();
    recorded.whole(&mut faults);
    assert_eq!(i64::try_from(tasks).unwrap(), THREADS + 1, "its threads");
    let times = kernel.check_samples(&recording["samples"]["cgroups"][0], &mut faults);
    let show = recorded.show_at(times[0]);
    let rows: Vec<_> = array(&show["processes"]).iter().filter(|row| row["target"] == true).collect();
    faults.expect(rows.len() == 1 && rows[0]["pid"] == pid, || format!("processes: {rows:?}"));
    let anon = levels(&show, "cgroup")["anon"];
    let expected = kernel.range(|reading| reading.stat[names().anon]);
    faults.expect(expected.contains(&anon), || format!("anon {anon}, the kernel says {expected:?}"));
    // Each has a stack of its own, of which it touches some pages.
    let stacks = THREADS * 8 * oracle::page_size();
    let allocated = support::ledger::allocated(&json(&truth), "anon");
    faults.expect((allocated..=allocated + stacks + MIB).contains(&anon), || {
        format!("anon {anon}, taken {allocated}")
    });
    let resident = int(&rows[0]["at"]["rss_anon"]);
    // Before 6.2 each thread keeps up to 64 pages of its own count (mm/memory.c, TASK_RSS_EVENTS_THRESH).
    let kept = if before_6_2() { THREADS * 64 * oracle::page_size() } else { 0 };
    faults.expect(near(resident, anon) || (anon - kept..anon).contains(&resident), || {
        format!("resident {resident}, of the cgroup {anon}")
    });
    faults.finish();
}

fn before_6_2() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) < (Some(6), Some(2))
}

/// A process alone in its cgroup: the counters differ by what was touched before it came there.
fn near(a: i64, b: i64) -> bool {
    (a - b).abs() <= MIB
}
