//! What is predicted is what is measured when it has been done, where device memory is pages of the modules that stand in for
//! NVIDIA's: uncharged, in no process's own memory, and in pools when they are freed. Each cause is staged, `kv` says what it costs,
//! what it advises is done, and the engine runs again. Emulated, simulated driver. Truth is what the engine itself read and
//! computed, and the modules' own counters.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::causes::make_room;
use super::rows::{ENGINES, Row};
use super::staged::{OnStandIn, Run, run_on_stand_in};
use crate::support::stand_in::{held_by_modules, pooled, stand_in};
use crate::support::{self, MIB, array, cache, cuda_workload, int, oracle, spark_trace, text, wait_for};

/// Of each cause.
const STAGED: i64 = 256 * MIB;
/// Of pages that have a pool at any size of the kernel's pages.
const POOLED_PAGE: i64 = 2 * MIB;
/// Of pages that have no pool: there is in the pools what a test puts there, and no page of an engine's own goes there or comes from
/// there.
fn unpooled_page() -> i64 {
    2 * oracle::page_size()
}

/// How often two runs are compared where other programs move much memory meanwhile.
const NOISY: usize = 4;
/// A process beside its device memory.
const OF_A_PROCESS: i64 = 32 * MIB;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// What another program has freed is in the driver's pools (driver 590 and later).
    Pool,
    /// Another program has device memory, and hardly any other.
    Leftover,
    /// Host memory that the engine pins after its baseline.
    HostTier,
    /// Clean pages of a file.
    PageCache,
}

use Cause::{HostTier, Leftover, PageCache, Pool};

impl Cause {
    /// Whether it lowers the signal at the baseline and at the last reading.
    fn lowers(self) -> [bool; 2] {
        [self != HostTier, true]
    }

    /// The row of what-if, and the advice.
    const fn words(self) -> [&'static str; 2] {
        match self {
            Pool => ["pool", "empty-pools"],
            Leftover => ["outside-process", "end-others"],
            HostTier => ["pinned", "unpin"],
            PageCache => ["reclaimable", "drop-file"],
        }
    }
}

/// Ends with the test.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program that has taken `STAGED` of the driver.
fn other(driver: &OnStandIn<'_>) -> Other {
    let mut command = Command::new(cuda_workload());
    command.args(["cuda-alloc", "--driver", "simulated", "--device", "64Mx4", "--hold", "1h", "--jsonl"]);
    driver.set(&mut command);
    let mut other = Other(command.stdout(Stdio::piped()).spawn().unwrap());
    let lines = BufReader::new(other.0.stdout.take().unwrap()).lines();
    let mut phases = lines.map_while(Result::ok).filter(|line| line.contains("\"phase\":\"hold\""));
    assert!(phases.next().is_some(), "it ended early");
    other
}

/// What is there while an engine runs.
struct There {
    other: Option<Other>,
    /// Of the engine.
    option: &'static str,
    /// What the shell does before the engine starts: files that were cached before the trace have no names.
    before: String,
    /// By the modules or the kernel.
    bytes: i64,
}

impl There {
    fn pid(&self) -> Option<u32> {
        self.other.as_ref().map(|other| other.0.id())
    }
}

fn stage(cause: Cause, nvml: &str) -> There {
    let mut there = There { other: None, option: "", before: String::new(), bytes: STAGED };
    match cause {
        Pool => {
            let page_size = POOLED_PAGE;
            drop(other(&OnStandIn { page_size, nvml }));
            wait_for("the pool to have them", || (pooled() == STAGED).then_some(()));
        }
        Leftover => {
            there.other = Some(other(&OnStandIn { page_size: unpooled_page(), nvml }));
            there.bytes = held_by_modules()[0];
        }
        HostTier => there.option = "--pinned 256M ",
        PageCache => there.before = format!("truncate -s {STAGED} weights; cat weights >/dev/null; "),
    }
    assert!((STAGED..=STAGED + OF_A_PROCESS).contains(&there.bytes), "{cause:?}: {}", there.bytes);
    there
}

/// Does it, and has the one step of it give back what it announced.
fn reclaim(options: &[&str]) {
    let words = ["reclaim", "--apply", "--format", "json"];
    let output = spark_trace().args(words).args(options).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let [step] = array(&report["steps"]) else { panic!("{report}") };
    assert!(int(&step["expected_bytes"]).abs_diff(STAGED) <= MIB as u64, "{step}");
}

/// Does what `kv` advises against it.
fn end(dir: &TempDir, cause: Cause, there: There) {
    drop(there);
    match cause {
        Pool => {
            reclaim(&["--driver-pools"]);
            assert_eq!(pooled(), 0);
        }
        PageCache => {
            let weights = support::path(dir, "weights");
            reclaim(&["--files", &weights]);
            assert_eq!(cache::resident(&weights), 0);
            std::fs::remove_file(weights).unwrap();
        }
        Leftover | HostTier => {}
    }
    wait_for("the modules to have everything back", || (held_by_modules() == [0; 3]).then_some(()));
}

/// Rows of what-if and advice that are about a cause; of another program about that one alone.
struct Said<'a> {
    rows: Vec<&'a Value>,
    advice: Vec<&'a Value>,
}

impl<'a> Said<'a> {
    fn new(cause: Cause, pid: Option<u32>, run: &'a Run) -> Self {
        let [kind, action] = cause.words();
        let subject = match (cause, pid) {
            (PageCache, _) => "/weights".to_owned(),
            (_, Some(pid)) => format!(" ({pid})"),
            _ => String::new(),
        };
        let is_it = |row: &&Value| row["subject"].as_str().unwrap_or_default().ends_with(&subject);
        // Other files have page cache, too: the row is of all of them.
        let rows = run.what_if(kind).into_iter().filter(|row| cause != PageCache && is_it(row));
        let advice = array(&run.kv["advice"]).iter().filter(|row| row["action"] == action && is_it(row));
        Self { rows: rows.collect(), advice: advice.collect() }
    }

    fn is_nothing(&self, name: &str, cause: Cause) {
        assert!(
            self.rows.is_empty() && self.advice.is_empty(),
            "{name}: {cause:?}: {:?}, {:?}",
            self.rows,
            self.advice
        );
    }
}

/// What `kv` promises for the end of a cause.
fn gain(row: &Row, cause: Cause, there: &There, run: &Run) -> i64 {
    let name = row.engine.name;
    let said = Said::new(cause, there.pid(), run);
    let [advice] = said.advice.as_slice() else {
        panic!("{name}: {cause:?}: {:?} of {}", said.advice, run.kv["advice"])
    };
    let (bytes, gains) = (int(&advice["bytes"]), int(&advice["gains_bytes"]));
    let [at_baseline, at_reading] = (row.weights)(run.fraction());
    let worth = at_reading + if cause.lowers()[0] { at_baseline } else { 0.0 };
    assert!(
        (there.bytes - MIB..=there.bytes + OF_A_PROCESS).contains(&bytes),
        "{name}: {advice}, {}",
        there.bytes
    );
    assert!(gains.abs_diff((worth * bytes as f64) as i64) <= MIB as u64, "{name}: {advice}");
    if cause != PageCache {
        let [found] = said.rows.as_slice() else { panic!("{name}: {cause:?}: {:?}", said.rows) };
        assert_eq!((int(&found["bytes"]), int(&found["delta"])), (bytes, gains), "{name}: {cause:?}");
    }
    if cause == Pool {
        assert_eq!(text(&advice["command"]), "sudo spark-trace reclaim --driver-pools --apply");
    }
    if let Some(pid) = there.pid() {
        let process = array(&run.budget()["processes"]).iter().find(|process| process["pid"] == pid);
        assert_eq!(int(&process.unwrap()["device"]), there.bytes, "{name}: by the modules' counter");
    }
    gains
}

/// By how much other programs moved the cache from one run to the other, as the engine itself read.
fn noise(row: &Row, cause: Cause, bytes: i64, with: &Run, without: &Run) -> i64 {
    let weights = (row.weights)(with.fraction());
    let moved = ["baseline", "after"].into_iter().zip(weights).zip(cause.lowers());
    let moved = moved.filter(|((_, weight), _)| *weight != 0.0).map(|((moment, weight), lowers)| {
        let staged = if lowers { bytes } else { 0 };
        weight * (without.read(moment) - with.read(moment) - staged) as f64
    });
    moved.sum::<f64>() as i64
}

/// Sources of which the two runs had clearly more or less at the reading.
fn moved(with: &Run, without: &Run) -> String {
    let of = |run: &Run, source: &str| {
        let row = array(&run.budget()["used"]).iter().find(|row| row["source"] == source);
        row.map_or(0, |row| int(&row["bytes"]))
    };
    let all = array(&with.budget()["used"]).iter().chain(array(&without.budget()["used"]));
    let sources: std::collections::BTreeSet<&str> = all.map(|row| text(&row["source"])).collect();
    let moved = sources.into_iter().map(|source| (source, of(without, source) - of(with, source)));
    moved.filter(|(_, bytes)| bytes.abs() > MIB).map(|(source, bytes)| format!("{source} {bytes} ")).collect()
}

/// One run with a cause and one without it. `costs`: it costs this engine anything.
fn check(dir: &TempDir, row: &Row, cause: Cause, costs: bool) {
    let name = row.engine.name;
    let page_size = unpooled_page();
    for turn in 0..NOISY {
        let path = |end: &str| support::path(dir, &format!("{name}-{cause:?}-{turn}.{end}"));
        let files = [path("nvml"), path("nvml-after")];
        files.iter().for_each(|file| std::fs::write(file, OnStandIn::UNIFIED).unwrap());
        let run = |when: &str, options: &str, before: &str, nvml: &str| {
            let driver = OnStandIn { page_size, nvml };
            run_on_stand_in(dir, &format!("{name}-{cause:?}-{when}"), row.engine, options, before, &driver)
        };
        make_room();
        let setting = (row.setting)();
        let there = stage(cause, &files[0]);
        let (bytes, pid) = (there.bytes, there.pid());
        let options = format!("{}{setting}", there.option);
        let Some(with) = run("with", &options, &there.before, &files[0]) else { return };
        if cause == PageCache && cache::resident(&support::path(dir, "weights")) < STAGED {
            println!("{name}: the kernel gave up page cache of the file");
            continue;
        }
        with.agrees();
        let gains = if costs { gain(row, cause, &there, &with) } else { 0 };
        if !costs {
            Said::new(cause, pid, &with).is_nothing(name, cause);
        }
        end(dir, cause, there);
        make_room();
        let Some(without) = run("without", &setting, "", &files[1]) else { return };
        without.agrees();
        Said::new(cause, pid, &without).is_nothing(name, cause);
        let noise = noise(row, cause, bytes, &with, &without);
        if noise.unsigned_abs() > without.tolerance() / 2 {
            println!(
                "{name}: other programs moved the cache by {noise} from one run to the other: {}",
                moved(&with, &without)
            );
            continue;
        }
        let predicted = int(&with.budget()["figures"]["kv"]) + gains;
        let (measured, off) = (without.measured(), predicted - without.measured());
        let percent = 100.0 * off as f64 / measured as f64;
        println!(
            "| {name} | {cause:?} | {bytes} | {} | {predicted} | {measured} | {percent:.2} % |",
            with.measured()
        );
        assert!(
            off.unsigned_abs() <= without.tolerance(),
            "{name}, {cause:?}: {predicted}, {}",
            without.truth
        );
        return;
    }
    oracle::skip("memory", &format!("{name}: other programs move more memory than two runs may differ by"));
}

fn check_all(name: &str, costly: &[Cause], free: &[Cause]) {
    let Some(_modules) = stand_in(true) else { return };
    let dir = support::disk_dir();
    let row = ENGINES.iter().find(|row| row.engine.name == name).unwrap();
    println!("| engine | cause | bytes | with it | predicted | measured | off by |");
    for cause in costly {
        check(&dir, row, *cause, true);
    }
    for cause in free {
        check(&dir, row, *cause, false);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_costs_tensorrt_llm_how_much() {
    check_all("tensorrt-llm", &[Pool, Leftover, HostTier, PageCache], &[]);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_costs_tensorrt_llm_in_cpp_how_much() {
    check_all("tensorrt-llm-cpp", &[Pool, PageCache], &[]);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_costs_sglang_how_much() {
    check_all("sglang", &[Pool, Leftover], &[]);
}

/// It goes by the fall from one reading to the other: what was there before costs it nothing.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_costs_a_vllm_that_goes_by_mem_free_how_much() {
    check_all("vllm-0.11.0", &[HostTier], &[Pool]);
}
