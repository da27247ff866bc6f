//! An engine whose readings, arithmetic and log are staged on the simulated driver, recorded, and what `kv` says of it.

use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::process::Running;
use crate::support::{self, MIB, array, cuda_workload, int, json, oracle, spark_trace, text};

/// How often a staged engine is started anew where others took the memory that it was to find, or the recorder's time.
const TRIES: usize = 5;
/// Of a cache.
const PERCENT: i64 = 100;
/// Logs have two digits of GiB, and some a figure for keys and another for values: half of the last digit, twice, is 10.24 MiB.
const DIGITS: i64 = 11 * MIB;
pub const WEIGHTS: i64 = 96 * MIB;
pub const ACTIVATIONS: i64 = 32 * MIB;
/// The dummy run takes so long that the recorder reads many times in the middle of it.
const COURSE: &str = "--weights 96M --activations 32M --pause 600ms --hold 200ms";

#[derive(Debug, Clone, Copy)]
pub struct Staged {
    /// As the workload calls it.
    pub name: &'static str,
    /// As `kv` does.
    pub known_as: &'static str,
    pub signal: &'static str,
    /// The cache follows from what the log has of weights and buffers, and from nothing in a trace.
    pub needs_log: bool,
    /// It makes a cache of so many bytes at a time.
    pub step: i64,
}

/// One that ran.
pub struct Run {
    pub engine: Staged,
    /// Its own figures.
    pub truth: Value,
    /// The machine's dirty pages when it had ended.
    pub dirty: i64,
    /// With its log.
    pub kv: Value,
    /// With its name alone.
    pub without_log: Value,
}

impl Run {
    pub fn budget(&self) -> &Value {
        &self.kv["b"]
    }

    pub fn measured(&self) -> i64 {
        int(&self.truth["kv"])
    }

    pub fn read(&self, moment: &str) -> i64 {
        let reading = &self.truth[moment];
        reading["available"].as_i64().unwrap_or_else(|| int(&reading["device_free"]))
    }

    pub fn fraction(&self) -> f64 {
        self.truth["fraction"].as_f64().unwrap()
    }

    pub fn what_if(&self, kind: &str) -> Vec<&Value> {
        array(&self.budget()["what_if"]).iter().filter(|row| row["kind"] == kind).collect()
    }

    pub fn notes(&self, words: &str) -> bool {
        array(&self.budget()["notes"]).iter().any(|note| text(note).contains(words))
    }

    /// Advice on a subject whose path or name ends so; any, where that is empty.
    pub fn advice(&self, action: &str, subject: &str) -> Option<&Value> {
        let is_it = |advice: &&Value| {
            let of = advice["subject"].as_str().unwrap_or_default();
            advice["action"] == action && of.ends_with(subject)
        };
        array(&self.kv["advice"]).iter().find(is_it)
    }

    /// The same, of all but processes outside of the target.
    pub fn own_advice(&self, action: &str, subject: &str) -> Option<&Value> {
        let outside = |name: &Value| {
            let rows = array(&self.budget()["what_if"]).iter();
            { rows }.any(|row| row["kind"] == "outside-process" && row["subject"] == *name)
        };
        let is_it = |advice: &&Value| {
            let of = advice["subject"].as_str().unwrap_or_default();
            advice["action"] == action && of.ends_with(subject) && !outside(&advice["subject"])
        };
        array(&self.kv["advice"]).iter().find(is_it)
    }

    /// What the cache may be off by.
    pub fn tolerance(&self) -> u64 {
        let of_range = if self.fills_its_range() { DIGITS } else { 0 };
        (self.measured() / PERCENT).max(self.engine.step).max(of_range).unsigned_abs()
    }

    /// A cache that is sized again after the capture is no larger than its range of addresses, whatever is free by then.
    pub fn fills_its_range(&self) -> bool {
        let figures = &self.budget()["figures"];
        figures["kv_upper"].is_i64() && figures["kv"] == figures["kv_upper"]
    }

    /// The cache as `kv` has it, with the log and without, is the engine's; so is the reading. What changed between two
    /// readings adds up to the fall of the signal.
    pub fn agrees(&self) {
        let name = self.engine.name;
        assert_eq!(text(&self.budget()["engine"]["engine"]), self.engine.known_as);
        let ways = [(&self.kv, "with the log"), (&self.without_log, "without it")];
        for (kv, how) in ways.into_iter().filter(|(_, how)| *how == "with the log" || !self.engine.needs_log)
        {
            let budget = &kv["b"];
            assert_eq!(text(&budget["reading"]["signal"]), self.engine.signal, "{name} {how}");
            assert_eq!(int(&budget["reading"]["free"]), self.read("after"), "{name} {how}: the last reading");
            let computed = int(&budget["figures"]["kv"]);
            let off = computed.abs_diff(self.measured());
            assert!(off <= self.tolerance(), "{name} {how}: {computed}, {}", self.truth);
        }
        let changes = array(&self.budget()["changes"]);
        if !self.budget()["baseline"].is_null() {
            let sum: i64 = changes.iter().map(|row| int(&row["change"])).sum();
            assert_eq!(sum, self.read("baseline") - self.read("after"), "{name}: {changes:?}");
        }
        // Not every version logs what it has allocated.
        if let Some(logged) = self.budget()["figures"]["logged_allocated"].as_i64() {
            let off = logged.abs_diff(int(&self.truth["kv_allocated"]));
            assert!(off <= DIGITS.unsigned_abs(), "{name}: {logged}, {}", self.truth);
        }
    }
}

fn driver() -> String {
    let workload = std::path::PathBuf::from(cuda_workload());
    workload.with_file_name("libspark_trace_simulated_cuda.so").to_str().unwrap().to_owned()
}

/// Bytes of a line of /proc/meminfo.
fn kib(line: &str) -> i64 {
    let kib: i64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

pub fn kv(output: &str, options: &[&str]) -> Value {
    let mut command = spark_trace();
    if oracle::machine_is_ours() {
        // An emulated CPU takes more time than a file may.
        command.env("SPARK_TRACE_READ_LIMIT", "4G");
    }
    let done = command.args(["kv", output, "--format", "json"]).args(options).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

/// Runs an engine with `before` done by the same shell; nothing where others leave it no memory, time after time.
pub fn run(dir: &TempDir, name: &str, engine: Staged, options: &str, before: &str) -> Option<Run> {
    run_while(dir, name, engine, options, before, &mut || {})
}

/// The driver where its memory is pages of the modules that stand in for NVIDIA's.
pub struct OnStandIn<'a> {
    /// Bytes of the pages that it requests.
    pub page_size: i64,
    /// What NVML knows, of this driver and others (testing/simulated-nvml).
    pub nvml: &'a str,
}

impl OnStandIn<'_> {
    /// What NVML knows of a GPU without memory of its own that nobody uses.
    pub const UNIFIED: &'static str = "gpus 1\nunified 0\n";

    pub fn set(&self, command: &mut Command) {
        command.env("SPARK_TRACE_SIMULATED_STAND_IN", "1").env("SPARK_TRACE_SIMULATED_NVML", self.nvml);
        command
            .env("SPARK_TRACE_SIMULATED_GPUS", "1")
            .env("SPARK_TRACE_SIMULATED_PAGE_SIZE", self.page_size.to_string());
    }
}

/// The same on that driver. What it says is not of levels between the readings: an emulated machine may keep the recorder from some.
pub fn run_on_stand_in(
    dir: &TempDir,
    name: &str,
    engine: Staged,
    options: &str,
    before: &str,
    driver: &OnStandIn<'_>,
) -> Option<Run> {
    run_any(dir, name, engine, options, before, &mut || {}, Some(driver))
}

/// The same, with something that the test does meanwhile.
pub fn run_while(
    dir: &TempDir,
    name: &str,
    engine: Staged,
    options: &str,
    before: &str,
    meanwhile: &mut dyn FnMut(),
) -> Option<Run> {
    run_any(dir, name, engine, options, before, meanwhile, None)
}

fn run_any(
    dir: &TempDir,
    name: &str,
    engine: Staged,
    options: &str,
    before: &str,
    meanwhile: &mut dyn FnMut(),
    on_stand_in: Option<&OnStandIn<'_>>,
) -> Option<Run> {
    let path = |end: &str| support::path(dir, &format!("{name}.{end}"));
    let (program, driver, report, dirty) = (cuda_workload(), driver(), path("report"), path("dirty"));
    let script = format!(
        "cd {}; {before} {program} engine --engine {} --driver simulated --output {report} {COURSE} {options}; code=$?; \
         grep ^Dirty: /proc/meminfo >{dirty}; [ -z \"$other\" ] || kill $other; exit $code",
        dir.path().display(),
        engine.name
    );
    let (output, nvml) = (path("json"), crate::nvml::library().to_str().unwrap().to_owned());
    for _ in 0..TRIES {
        let mut command = spark_trace();
        let mut words = vec!["--quiet", "--force", "--cuda-library", &driver];
        if let Some(on_stand_in) = on_stand_in {
            on_stand_in.set(&mut command);
            words.extend(["--gpu-interval", "100ms", "--nvml", &nvml]);
        }
        words.extend(["--", "sh", "-c", &script]);
        let running = Running::start_as(command, &output, &words);
        meanwhile();
        let recorded = running.finish();
        if recorded.code != Some(0) {
            println!("{name}: the engine found no room: {}", recorded.stdout);
            continue;
        }
        // Levels at a reading are those of the last look before it.
        let gaps = int(&recorded.recording()["health"]["gaps"]["count"]);
        if gaps > 0 && on_stand_in.is_none() {
            println!("{name}: the machine kept the recorder from reading {gaps} times");
            continue;
        }
        std::fs::write(path("log"), &recorded.stdout).unwrap();
        let truth = json(&report)["cuda"]["engine"].clone();
        return Some(Run {
            engine,
            truth,
            dirty: kib(&std::fs::read_to_string(dirty).unwrap()),
            kv: kv(&output, &["--log", &path("log")]),
            without_log: kv(&output, &["--engine", engine.known_as]),
        });
    }
    oracle::skip("memory", "others leave no memory for an engine, or no time to the recorder");
    None
}
