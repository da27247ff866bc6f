//! A spark-trace that is killed leaves nothing attached, and a journal that can be read.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use spark_trace_recording::journal::{Entry, Sample};

use crate::support::bpf::{self, Ids};
use crate::support::process::partial;
use crate::support::{self, Faults, Running, array, cgroup, int, journal, json, spark_trace, workload};

const KILLS: u32 = 60;
/// From start-up, where programs are being loaded, to well into the hold: twice what this machine takes until there is a
/// journal.
const EARLIEST: Duration = Duration::from_millis(50);
const LATEST: u32 = 2;
const BAD_INPUT: i32 = 2;

/// Numbers between 0 and 1, the same in every run of the test (Knuth's MMIX generator).
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// What there was to recover after one kill.
#[derive(Debug, PartialEq, Eq)]
enum Left {
    Nothing,
    NoFirstLine,
    Journal { readings: i64, processes: usize },
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn killed_at_sixty_moments_it_leaves_nothing_attached_and_a_journal_to_recover() {
    let dir = support::disk_dir();
    let (mut random, mut faults) = (Random(0x5eed), Faults::default());
    let mut killed = Vec::new();
    let mut seen = Vec::new();
    let latest = LATEST * until_journal(&support::path(&dir, "unkilled.json"));
    for kill in 0..KILLS {
        let output = support::path(&dir, &format!("{kill}.json"));
        // Names the orphan: the command goes on, it is not ours to end.
        let mark = support::path(&dir, &format!("{kill}.truth"));
        let moment = EARLIEST + latest.saturating_sub(EARLIEST).mul_f64(random.next());
        let before = bpf::ids();
        let pid = record_and_kill(&output, &mark, moment);
        killed.push(pid);
        let left = bpf::left_behind(&before, &workload());
        faults.expect(left == Ids::default(), || format!("kill {kill} after {moment:?}: attached: {left:?}"));
        seen.push((moment, recover(&format!("kill {kill} after {moment:?}"), &output, &mut faults)));
        support::kill_all_with(&mark);
        cgroup::empty_leaves_of(pid);
    }
    for (moment, left) in &seen {
        println!("{moment:>10.1?} {left:?}");
    }
    let journals = seen.iter().filter(|(_, left)| matches!(left, Left::Journal { .. })).count();
    faults.expect(journals >= 5, || format!("only {journals} of {KILLS} kills met a journal"));

    support::record(&support::path(&dir, "after.json"), "-- true").exited(0);
    for pid in killed {
        let leaves = cgroup::leaves_of(pid);
        faults.expect(leaves.is_empty(), || format!("{leaves:?} is left after the next record"));
    }
    faults.finish();
}

/// How long it takes from the start until there is something to recover.
fn until_journal(output: &str) -> Duration {
    let start = Instant::now();
    let running = Running::start(output, &["--", "sleep", "60"]);
    let journal = partial(Path::new(output));
    support::wait_for("a journal", || journal::has_begun(&journal).then_some(()));
    let took = start.elapsed();
    running.signal(libc::SIGINT);
    running.finish();
    took
}

/// Starts a record and kills it after so long. Returns its pid.
fn record_and_kill(output: &str, mark: &str, moment: Duration) -> u32 {
    let line = format!("alloc --anon 32M --shmem 8M --children 2 --child-anon 4M --hold 60s --output {mark}");
    // No pipes: the orphan would hold them open.
    let mut command = spark_trace();
    command.args(["record", "-q", "-o", output, "--", &workload()]).args(line.split(' '));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    let mut child = command.spawn().unwrap();
    // The moment is the point; there is nothing to poll for.
    std::thread::sleep(moment.saturating_sub(start.elapsed()));
    child.kill().unwrap();
    child.wait().unwrap();
    child.id()
}

fn recover(when: &str, output: &str, faults: &mut Faults) -> Left {
    let journal = partial(Path::new(output));
    if !journal.exists() {
        return Left::Nothing;
    }
    let recovery = spark_trace().arg("recover").arg(&journal).output().unwrap();
    let stderr = String::from_utf8_lossy(&recovery.stderr);
    if !journal::has_begun(&journal) {
        faults.expect(recovery.status.code() == Some(BAD_INPUT) && stderr.lines().count() == 1, || {
            format!("{when}: without a first line: {:?}, {stderr}", recovery.status.code())
        });
        faults.expect(!Path::new(output).exists(), || format!("{when}: a recording of nothing"));
        return Left::NoFirstLine;
    }
    faults.expect(recovery.status.success(), || format!("{when}: recover: {stderr}"));
    let show = spark_trace().args(["show", output]).output().unwrap();
    faults
        .expect(show.status.success(), || format!("{when}: show: {}", String::from_utf8_lossy(&show.stderr)));
    if !recovery.status.success() {
        return Left::NoFirstLine;
    }
    let table = String::from_utf8_lossy(&show.stdout).into_owned();
    let recording = json(output);
    faults.expect(recording["health"]["complete"] == false, || format!("{when}: complete"));
    faults.expect(table.contains("WARNING"), || format!("{when}: show does not warn: {table}"));
    Left::Journal {
        readings: i64::try_from(array(&recording["samples"]["system"]["begin_ns"]).len()).unwrap(),
        processes: array(&recording["provenance"]["processes"]).len(),
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_was_recorded_until_the_kill_is_in_the_recovered_recording() {
    let dir = support::disk_dir();
    let (output, truth) = (support::path(&dir, "r.json"), support::path(&dir, "truth.json"));
    let line = format!("-- {} alloc --anon 64M --shmem 16M --hold 60s --jsonl --output {truth}", workload());
    let mut running = Running::start(&output, &line.split_whitespace().collect::<Vec<_>>());
    running.phase("hold");
    // Until two readings after the workload had everything are in the journal: what is written at once is lost as a whole.
    let journal = partial(Path::new(&output));
    let complete = |entry: Entry| -> Option<bool> {
        let Entry::Sample(Sample { values, .. }) = entry else { return None };
        let one_of = |names: [&str; 2]| names.iter().find_map(|name| i64::try_from(*values.get(*name)?).ok());
        let (anon, shmem) =
            (one_of(["stat.total_rss", "stat.anon"])?, one_of(["stat.total_shmem", "stat.shmem"])?);
        Some(anon >= 64 * support::MIB && shmem >= 16 * support::MIB)
    };
    support::wait_for("two readings of all of it", || {
        let complete = journal::entries(&journal)?.filter_map(complete).filter(|complete| *complete);
        (complete.count() >= 2).then_some(())
    });
    running.signal(libc::SIGKILL);
    support::kill_all_with(&truth);
    drop(running);

    // Cut in the middle of what is written at once, as the end of a journal is.
    let mut bytes = fs::read(&journal).unwrap();
    bytes.truncate(bytes.len() - 7);
    fs::write(&journal, bytes).unwrap();
    assert!(spark_trace().arg("recover").arg(&journal).status().unwrap().success());
    let show = spark_trace().args(["show", &output, "--format", "json"]).output().unwrap();
    let show: serde_json::Value = serde_json::from_slice(&show.stdout).unwrap();
    let mut faults = Faults::default();
    faults.near("anon", support::source(&show, "cgroup", "anon"), 64 * support::MIB);
    faults.near("shmem", support::source(&show, "cgroup", "shmem"), 16 * support::MIB);
    faults.expect(int(&show["target"]["ended_ns"]) > 0, || "no end".into());
    faults.finish();

    // Neither is a recording that exists overwritten by a recovery.
    let again = spark_trace().arg("recover").arg(&journal).output().unwrap();
    assert_ne!(again.status.code(), Some(0), "{}", String::from_utf8_lossy(&again.stderr));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_next_record_spares_a_command_that_still_runs() {
    let dir = support::disk_dir();
    let (output, mark) = (support::path(&dir, "r.json"), support::path(&dir, "truth.json"));
    let line = format!("-- {} alloc --anon 4M --hold 60s --jsonl --output {mark}", workload());
    let mut running = Running::start(&output, &line.split_whitespace().collect::<Vec<_>>());
    running.phase("hold");
    running.signal(libc::SIGKILL);
    let pid = running.pid();
    drop(running);

    let next = || {
        support::record(&support::path(&dir, "next.json"), "--force -- true").exited(0);
        cgroup::leaves_of(pid)
    };
    let leaves = next();
    assert_eq!(leaves.len(), 1, "the cgroup of a command that still runs");
    assert_eq!(support::processes_with(&mark).len(), 1, "the command is the user's: it goes on");
    support::kill_all_with(&mark);
    assert!(next().is_empty(), "now it is of no use");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_finished_record_leaves_nothing_attached() {
    let dir = support::disk_dir();
    let before = bpf::ids();
    for profile in ["light", "default", "deep"] {
        let output = support::path(&dir, &format!("{profile}.json"));
        support::record(&output, &format!("--profile {profile} -- true")).exited(0);
    }
    assert_eq!(bpf::left_behind(&before, &workload()), Ids::default());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
}
