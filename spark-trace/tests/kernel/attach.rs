//! `record` of what runs already: a process, a cgroup, for a time.

use std::fs::{self, File};
use std::process::Command;
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::ledger::{allocated, cached, file_row};
use crate::support::process::Other;
use crate::support::{self, Faults, MIB, Running, array, cgroup, int, json, oracle, source, workload};

/// A workload that waits for its go, with what it needs.
struct Waiting {
    process: Other,
    go: String,
    truth: String,
    dir: TempDir,
}

impl Waiting {
    fn start(line: &str, place: impl FnOnce(&mut Command)) -> Self {
        let dir = support::disk_dir();
        let (go, truth) = (support::path(&dir, "go"), support::path(&dir, "truth.json"));
        let mut command = Command::new(workload());
        command.arg("alloc").args(line.split_whitespace()).args(["--wait-go", &go, "--output", &truth]);
        place(&mut command);
        Self { process: Other::start(&mut command), go, truth, dir }
    }

    fn record(&self, options: &str) -> Running {
        let options: Vec<_> = options.split_whitespace().collect();
        let running = Running::start(&self.output(), &options);
        running.follows(self.process.pid());
        running
    }

    fn output(&self) -> String {
        support::path(&self.dir, "r.json")
    }

    fn go(&self) {
        File::create(&self.go).unwrap();
    }

    fn truth(&self) -> Value {
        json(&self.truth)
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_running_process_is_followed_with_what_it_forks() {
    let mut waiting = Waiting::start("--anon 64M --children 2 --child-anon 32M --hold 400ms", |_| ());
    let running = waiting.record(&format!("--pid {}", waiting.process.pid()));
    waiting.go();
    waiting.process.0.wait().unwrap();
    let show = running.finish().exited(0).show();
    let truth = waiting.truth();

    assert_eq!(show["target"]["kind"], "pid");
    assert_eq!(support::losses(&show["health"]).0, 0, "{}", show["health"]["losses"]);
    let mut faults = Faults::default();
    let mut check = |pid: i64, rss_anon: i64| {
        let rows: Vec<_> = array(&show["processes"]).iter().filter(|row| row["pid"] == pid).collect();
        let [row] = rows[..] else {
            faults.expect(false, || format!("process {pid} has {} rows", rows.len()));
            return;
        };
        let anon = row["at_peak"]["rss_anon"].as_i64().unwrap_or(0);
        faults.near(&format!("anonymous memory of {pid}"), anon, rss_anon);
        let peak = row["rss_peak"].as_i64().unwrap_or(0);
        // Each CPU keeps up to 32 pages of a process's count to itself (lib/percpu_counter.c percpu_counter_batch).
        let kept = 32 * 2 * oracle::page_size();
        faults.expect(peak + kept >= rss_anon && peak <= rss_anon + 4 * MIB, || {
            format!("process {pid}: rss_peak {peak}, anonymous {rss_anon}")
        });
        faults.expect(row["exit"] == "exit 0", || format!("process {pid}: {row}"));
    };
    check(int(&truth["pid"]), int(&truth["self"]["rss_anon"]));
    for child in array(&truth["sources"]).iter().filter(|source| source["kind"] == "child-anon") {
        check(int(&child["detail"]["pid"]), int(&child["detail"]["rss_anon"]));
    }
    faults.finish();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn children_that_exist_already_are_followed_with_what_they_hold() {
    let dir = support::disk_dir();
    let program = workload();
    // Two generations below the one that is attached to; what they hold is in words of their own.
    let line = format!(
        "sh -c '{program} alloc --anon 96M --hold 60s >/dev/null & wait' & {program} alloc --anon 48M --hold 60s >/dev/null & wait"
    );
    let mut shell = Command::new("sh");
    let shell = Other::start(shell.args(["-c", &line]));
    let anon = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
        Some(line.split_whitespace().next()?.parse::<i64>().ok()? << 10)
    };
    let parent = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    let below =
        |pid: &u32| std::iter::successors(Some(*pid), |pid| parent(*pid)).any(|pid| pid == shell.pid());
    let holding = |word: &str, mib: i64| {
        support::wait_for(&format!("a child to hold {mib} MiB"), || {
            let children = support::processes_with(word).into_iter().filter(&below);
            children.filter_map(|pid| Some((pid, anon(pid)?))).find(|(_, bytes)| *bytes >= mib * MIB)
        })
    };
    let children = [holding("96M", 96), holding("48M", 48)];
    let output = support::path(&dir, "r.json");
    let line = format!("--pid {} --duration 700ms", shell.pid());
    let recorded = support::record(&output, &line).exited(0);
    for (pid, _) in &children {
        support::process::signal(*pid, libc::SIGKILL);
    }
    let show = recorded.show_with(&["--at", "end"]);
    let mut faults = Faults::default();
    for (pid, resident) in children {
        let row = array(&show["processes"]).iter().find(|row| row["pid"] == pid);
        let before = row.and_then(|row| row["before"]["rss_anon"].as_i64()).unwrap_or(-1);
        faults.near(&format!("memory of {pid} from before"), before, resident);
        let seen =
            array(&recorded.recording()["provenance"]["processes"]).iter().any(|row| row["pid"] == pid);
        faults.expect(seen, || format!("{pid} is not the target's"));
    }
    faults.finish();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_trace_ends_with_its_process_although_nobody_has_waited_for_that() {
    let waiting = Waiting::start("--anon 8M --hold 100ms", |_| ());
    let running = waiting.record(&format!("--pid {}", waiting.process.pid()));
    waiting.go();
    // It stays in /proc as a zombie until this test drops it.
    let recording = running.finish().exited(0).recording();
    assert_eq!(recording["health"]["complete"], true);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_process_that_is_not_there_is_a_failed_trace() {
    let dir = support::disk_dir();
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let recorded = support::record(&support::path(&dir, "r.json"), &format!("--pid {}", gone.id())).exited(1);
    assert!(recorded.stderr.contains(&gone.id().to_string()), "{}", recorded.stderr);
    let recorded = support::record(&support::path(&dir, "r.json"), "--cgroup /no/such/cgroup").exited(1);
    assert!(recorded.stderr.contains("/no/such/cgroup"), "{}", recorded.stderr);
    assert!(!recorded.output.exists() && !recorded.partial().exists());
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_cgroup_is_recorded_until_it_is_empty() {
    let own = cgroup::Own::create("attach");
    let dir = own.dir.to_str().unwrap().to_owned();
    // By its directory, and by its path below the hierarchy.
    for name in [&dir, &own.path] {
        let input_dir = support::disk_dir();
        let input = support::path(&input_dir, "input");
        support::cold_file(&input, 64);
        let line = format!("--anon 64M --shmem 32M --file-read 64M --file {input} --hold 400ms");
        let waiting = Waiting::start(&line, |command| own.start_in(command));
        let running = waiting.record(&format!("--cgroup {name}"));
        waiting.go();
        let show = running.finish().exited(0).show();
        let truth = waiting.truth();

        assert_eq!(show["target"]["kind"], "cgroup");
        assert_eq!(show["target"]["cgroups"][0]["path"], own.path);
        assert_eq!(show["target"]["exit_code"], Value::Null);
        let mut faults = Faults::default();
        faults.near("anon", source(&show, "cgroup", "anon"), allocated(&truth, "anon"));
        faults.near("shmem", source(&show, "cgroup", "shmem"), allocated(&truth, "shmem"));
        let row = file_row(&show["files"], |row| row["path"] == input.as_str());
        faults.within("the file", int(&row["bytes"]), cached(&truth, "file-read"));
        faults.expect(row["charged_to"] == own.path, || format!("charged to {}", row["charged_to"]));
        faults.expect(row["first_touch"]["pid"] == truth["pid"], || format!("{}", row["first_touch"]));
        faults.expect(own.dir.is_dir(), || "somebody else's cgroup is removed".into());
        faults.finish();
    }
}

/// Cgroups that a process goes through while it is traced.
const MOVES: usize = 20;

#[test]
#[ignore = "needs root: cargo xtask test"]
fn cgroups_created_below_the_target_belong_to_it() {
    let own = cgroup::Own::create("below");
    // Longer than the recorder is kept from reading on a machine whose disk is busy.
    let waiting = Waiting::start("--anon 64M --shmem 32M --hold 6s", |command| own.start_in(command));
    let running = waiting.record(&format!("--cgroup {}", own.path));
    // At each move the one it comes from is without processes, and the one it goes to is new: the target is not.
    let moves = (0..MOVES).map(|index| own.move_below(&format!("later-{index}"), waiting.process.pid()));
    let below: Vec<_> = moves.collect();
    waiting.go();
    let show = running.finish().exited(0).show();

    let path = format!("{}/later-{}", own.path, MOVES - 1);
    let cgroups = array(&show["target"]["cgroups"]);
    let later = cgroups.iter().find(|cgroup| cgroup["path"] == path.as_str());
    let later = later.unwrap_or_else(|| panic!("{path} is not part of the target: {cgroups:?}"));
    assert!(later["root"] == false && later["created_ns"].is_i64(), "{later}");
    assert!(fs::metadata(&below[MOVES - 1]).is_ok());
    let mut faults = Faults::default();
    // Counters of the root contain what is below it.
    faults.near("anon", source(&show, "cgroup", "anon"), 64 * MIB);
    faults.near("shmem", source(&show, "cgroup", "shmem"), 32 * MIB);
    faults.finish();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_attached_trace_ends_after_its_duration_and_the_target_goes_on() {
    let own = cgroup::Own::create("duration");
    let mut waiting = Waiting::start("--anon 8M --hold 60s", |command| own.start_in(command));
    for target in [format!("--cgroup {}", own.path), format!("--pid {}", waiting.process.pid())] {
        let start = Instant::now();
        let running = waiting.record(&format!("--force {target} --duration 700ms"));
        waiting.go();
        let recording = running.finish().exited(0).recording();
        assert!(start.elapsed() < support::limit(), "{target} took {:?}", start.elapsed());
        let phase = |name| support::ledger::phase_ns(&recording, name);
        let traced = phase("end") - phase("start");
        assert!((700_000_000..3_000_000_000).contains(&traced), "{target}: {traced} ns");
        assert!(waiting.process.runs(), "{target}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_interrupt_ends_an_attached_trace_and_spares_the_target() {
    let mut waiting = Waiting::start("--anon 8M --hold 60s", |_| ());
    let running = waiting.record(&format!("--pid {}", waiting.process.pid()));
    running.signal(libc::SIGINT);
    let recording = running.finish().exited(0).recording();
    assert_eq!(recording["health"]["complete"], true);
    assert!(waiting.process.runs(), "it was not spark-trace that started it");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn memory_from_before_is_separate_from_what_a_process_takes() {
    // Time for attaching before it goes on.
    let wait = if oracle::machine_is_ours() { "20s" } else { "4s" };
    let (dir, program, before) = (support::disk_dir(), workload(), support::bpf::ids());
    let mut command = Command::new(&program);
    command.args(["alloc", "--anon", "1G", "--thp", "64M", "--hold-each", wait, "--hold", "1s"]);
    let mut process = Other::start(&mut command);
    let pid = process.pid();
    let anon = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
        Some(line.split_whitespace().next()?.parse::<i64>().ok()? << 10)
    };
    support::wait_for("it to hold 1 GiB", || anon().filter(|&bytes| bytes >= 1024 * MIB));
    let running = Running::start(&support::path(&dir, "r.json"), &["--pid", &pid.to_string()]);
    running.follows(pid);
    let cached = support::cache::resident(&program);
    assert!(anon().is_some_and(|bytes| bytes < 1040 * MIB), "it went on before it was followed");
    process.0.wait().unwrap();
    // The instant of the lists is the machine's peak, and others on it may have peaked earlier.
    let show = running.finish().exited(0).show_with(&["--at", "end"]);

    let mut faults = Faults::default();
    let row = array(&show["processes"]).iter().find(|row| row["pid"] == pid).expect("the process");
    let (earlier, peak) = (int(&row["before"]["rss_anon"]), int(&row["at_peak"]["rss_anon"]));
    faults.expect((earlier - 1024 * MIB).abs() <= 1024 * MIB / 50, || {
        format!("from before the trace: {earlier}")
    });
    // What each CPU keeps of a process's count to itself, at both ends.
    let kept = 2 * 32 * 2 * oracle::page_size();
    faults.expect((peak - earlier - 64 * MIB).abs() <= kept, || format!("grew by {}", peak - earlier));
    let mapped: i64 = array(&show["mappings"])
        .iter()
        .filter(|row| row["kind"] == "anon")
        .map(|row| int(&row["bytes_mapped"]))
        .sum();
    // A huge page more, so that the first can begin at a boundary.
    let huge = support::thp_size().unwrap_or(0);
    faults.expect((64 * MIB..=66 * MIB + huge).contains(&mapped), || format!("mapped since: {mapped}"));
    let file = array(&show["files"]).iter().find(|row| row["inner_path"] == program.as_str());
    let known = file.and_then(|file| file["before"].as_i64()).unwrap_or(0);
    faults.expect((cached - known).abs() <= MIB, || {
        format!("of its program {known} bytes were cached, by mincore {cached}")
    });
    faults.finish();
    assert_eq!(support::bpf::left_behind(&before, ""), support::bpf::Ids::default());
}
