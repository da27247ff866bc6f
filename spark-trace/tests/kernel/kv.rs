//! `kv` beside engines whose readings, arithmetic and log are staged on the simulated driver. Truth is what the engine
//! itself read and computed, and how much was staged. Other programs of the machine move both signals meanwhile: what
//! they did is taken from the engine's own readings, so that two runs can be compared on a busy machine.

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    self, MIB, array, cuda_workload, int, json, oracle, record_words, spark_trace, text, workload,
};

/// How often a staged engine is started anew where others took the memory that it was to find, or the recorder's time.
const TRIES: usize = 5;
/// Of a cache.
const PERCENT: i64 = 100;
/// What is staged in one run and not in the other.
const STAGED: i64 = 256 * MIB;

/// A staged engine and what `kv` says of it.
struct Run {
    /// The engine's own figures.
    truth: Value,
    /// With its log.
    kv: Value,
    /// With its name alone.
    without_log: Value,
}

impl Run {
    fn budget(&self) -> &Value {
        &self.kv["b"]
    }

    fn measured(&self) -> i64 {
        int(&self.truth["kv"])
    }

    fn read(&self, moment: &str) -> i64 {
        let reading = &self.truth[moment];
        reading["available"].as_i64().unwrap_or_else(|| int(&reading["device_free"]))
    }

    fn fraction(&self) -> f64 {
        self.truth["fraction"].as_f64().unwrap()
    }

    fn what_if(&self, kind: &str) -> Vec<&Value> {
        array(&self.budget()["what_if"]).iter().filter(|row| row["kind"] == kind).collect()
    }

    /// The one row of a kind.
    fn cause(&self, kind: &str) -> &Value {
        let rows = self.what_if(kind);
        let [row] = rows.as_slice() else { panic!("{kind}: {rows:?} of {}", self.budget()["what_if"]) };
        row
    }

    fn advises(&self, action: &str) -> bool {
        array(&self.kv["advice"]).iter().any(|advice| advice["action"] == action)
    }

    /// What the cache may be off by.
    fn tolerance(&self) -> u64 {
        (self.measured() / PERCENT).unsigned_abs()
    }
}

fn driver() -> String {
    let workload = std::path::PathBuf::from(cuda_workload());
    workload.with_file_name("libspark_trace_simulated_cuda.so").to_str().unwrap().to_owned()
}

fn kv(output: &str, options: &[&str]) -> Value {
    let done = spark_trace().args(["kv", output, "--format", "json"]).args(options).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

/// Runs an engine with `before` done by the same shell; nothing where others leave it no memory, time after time.
fn run(dir: &TempDir, name: &str, engine: (&str, &str), options: &str, before: &str) -> Option<Run> {
    let path = |end: &str| support::path(dir, &format!("{name}.{end}"));
    let (program, driver, report) = (cuda_workload(), driver(), path("report"));
    let (staged, known_as) = engine;
    let script = format!(
        "cd {}; {before} {program} engine --engine {staged} --driver simulated --output {report} {options}; code=$?; \
         [ -z \"$other\" ] || kill $other; exit $code",
        dir.path().display()
    );
    let output = path("json");
    for _ in 0..TRIES {
        let words = ["--quiet", "--force", "--cuda-library", &driver, "--", "sh", "-c", &script];
        let recorded = record_words(&output, &words);
        if recorded.code != Some(0) {
            println!("{name}: the engine found no room: {}", recorded.stdout);
            continue;
        }
        // Levels at a reading are those of the last look before it.
        let gaps = int(&recorded.recording()["health"]["gaps"]["count"]);
        if gaps > 0 {
            println!("{name}: the machine kept the recorder from reading {gaps} times");
            continue;
        }
        std::fs::write(path("log"), &recorded.stdout).unwrap();
        let truth = json(&report)["cuda"]["engine"].clone();
        let fraction = truth["fraction"].to_string();
        let named: &[&str] = match known_as {
            "tensorrt-llm" => &["--engine", known_as, "--fraction", &fraction],
            known_as => &["--engine", known_as],
        };
        return Some(Run {
            truth,
            kv: kv(&output, &["--log", &path("log")]),
            without_log: kv(&output, named),
        });
    }
    oracle::skip("memory", "others leave no memory for an engine, or no time to the recorder");
    None
}

const VLLM: (&str, &str) = ("vllm", "vllm");
const TENSORRT_LLM: (&str, &str) = ("tensorrt-llm", "tensorrt-llm");
/// The dummy run takes so long that the recorder reads in the middle of it, on a busy machine too.
const SMALL: &str = "--weights 64M --activations 32M --pause 1s";

/// The cache as `kv` has it, with the log and without, is the engine's; so is the reading.
fn agrees(run: &Run, signal: &str) {
    for (kv, how) in [(&run.kv, "with the log"), (&run.without_log, "without it")] {
        let budget = &kv["b"];
        assert_eq!(text(&budget["reading"]["signal"]), signal, "{how}");
        assert_eq!(int(&budget["reading"]["free"]), run.read("after"), "{how}: the last reading");
        let computed = int(&budget["figures"]["kv"]);
        assert!(computed.abs_diff(run.measured()) <= run.tolerance(), "{how}: {computed}, {}", run.truth);
    }
    let logged = int(&run.budget()["figures"]["logged_allocated"].clone());
    assert!(
        logged.abs_diff(run.measured()) <= (run.measured() / 50).unsigned_abs(),
        "{logged}: two digits of GiB"
    );
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_cache_of_each_engine_is_computed_as_it_computes_it() {
    let dir = support::disk_dir();
    make_room();
    for (engine, signal) in [
        (VLLM, "MemAvailable"),
        (("vllm-0.26", "vllm"), "MemAvailable"),
        (("sglang", "sglang"), "MemAvailable"),
        (TENSORRT_LLM, "MemFree"),
    ] {
        let Some(run) = run(&dir, engine.0, engine, SMALL, "") else { return };
        assert_eq!(text(&run.budget()["engine"]["engine"]), engine.1);
        if engine.0 == "vllm-0.26" {
            // At this level its log states no bytes that were allocated.
            assert_eq!(text(&run.budget()["engine"]["version"]), "0.25.1");
            let computed = int(&run.budget()["figures"]["kv"]);
            assert!(computed.abs_diff(run.measured()) <= run.tolerance(), "{computed}, {}", run.truth);
            continue;
        }
        agrees(&run, signal);
        // What changed between the two readings adds up to the fall of the signal.
        let changes = array(&run.budget()["changes"]);
        if !run.budget()["baseline"].is_null() {
            let sum: i64 = changes.iter().map(|row| int(&row["change"])).sum();
            assert_eq!(sum, run.read("baseline") - run.read("after"), "{changes:?}");
        }
    }
}

/// A context that fits as a whole is not limited by free memory, and nothing is advised for it.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_engine_whose_context_fits_lacks_nothing() {
    let dir = support::disk_dir();
    make_room();
    for engine in [("llama-cpp", "llama.cpp"), ("ollama", "ollama")] {
        let Some(run) = run(&dir, engine.0, engine, &format!("{SMALL} --context-size 256M"), "") else {
            return;
        };
        let budget = run.budget();
        assert_eq!(text(&budget["engine"]["engine"]), engine.1);
        assert_eq!(text(&budget["reading"]["signal"]), "MemAvailable");
        assert_eq!(int(&budget["reading"]["free"]), run.read("baseline"), "before the weights");
        let computed = int(&budget["figures"]["kv"]);
        assert!(computed.abs_diff(run.measured()) <= run.tolerance(), "{computed}, {}", run.truth);
        assert!(!run.advises("drop-page-cache") && !run.advises("end-others"), "{}", run.kv["advice"]);
    }
}

/// Memory for an engine that goes by MemFree: page cache is dropped until there is some.
fn make_room() {
    const ROOM: i64 = 2 << 30;
    if support::meminfo("MemFree") < ROOM {
        support::cache::drop_unused();
    }
}

/// A cause that is staged in the first of two runs: `kv` names it with its bytes, and the cache that it predicts without it
/// is that of the second run.
struct Cause {
    name: &'static str,
    engine: (&'static str, &'static str),
    /// Of the first run: options, and what its shell does before.
    options: &'static str,
    before: String,
    kind: &'static str,
    /// What `kv` advises; absent where nothing is to be done.
    action: &'static str,
    /// By how much the cache grows with a byte.
    worth: fn(&Run) -> f64,
}

impl Cause {
    fn check(&self, dir: &TempDir) {
        make_room();
        let name = |run: &str| format!("{}-{}-{run}", self.engine.0, self.name);
        let options = format!("{SMALL} {}", self.options);
        let Some(with) = run(dir, &name("with"), self.engine, &options, &self.before) else { return };
        agrees(&with, signal(self.engine));
        let row = with.cause(self.kind);
        let gain = ((self.worth)(&with) * STAGED as f64) as i64;
        assert!(int(&row["delta"]).abs_diff(gain) <= with.tolerance(), "{}: {row}, {gain}", self.name);
        assert!(with.advises(self.action), "{}: {}", self.name, with.kv["advice"]);

        let same = format!("{SMALL} --fraction {}", with.fraction());
        let Some(without) = run(dir, &name("without"), self.engine, &same, "") else { return };
        agrees(&without, signal(self.engine));
        let predicted = int(&row["kv"]) + others(&with, &without, self.worth);
        let off = predicted.abs_diff(without.measured());
        assert!(off <= without.tolerance(), "{}: {predicted} predicted, {}", self.name, without.measured());
    }
}

fn signal(engine: (&str, &str)) -> &'static str {
    if engine.0 == "tensorrt-llm" { "MemFree" } else { "MemAvailable" }
}

/// What other programs did to the cache from one run to the other, by what the engine itself read: the rest of the
/// difference between its signals, beside what was staged.
fn others(with: &Run, without: &Run, worth: fn(&Run) -> f64) -> i64 {
    let fall = |run: &Run| run.read("baseline") - run.read("after");
    let moved = match signal_of(with) {
        // The level counts.
        "MemFree" => without.read("after") - with.read("after") - STAGED,
        // The fall since the baseline does.
        _ => fall(with) - fall(without) - STAGED,
    };
    (worth(with) * moved as f64) as i64
}

fn signal_of(run: &Run) -> &str {
    text(&run.budget()["reading"]["signal"])
}

/// A tenant with anonymous memory, in the shell's target, before the engine starts.
fn tenant() -> String {
    format!(
        "{} alloc --anon {STAGED} --hold 1h --jsonl >tenant & other=$!; \
         until grep -q '\"phase\":\"hold\"' tenant; do sleep 0.1; done; ",
        workload()
    )
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_costs_an_engine_that_goes_by_mem_available() {
    let dir = support::disk_dir();
    let all = |_: &Run| 1.0;
    let causes = [
        Cause {
            name: "compiler",
            engine: VLLM,
            options: "--compiler-heap 256M",
            before: String::new(),
            kind: "child",
            action: "compile-before",
            worth: all,
        },
        Cause {
            name: "pinned",
            engine: VLLM,
            options: "--pinned 256M",
            before: String::new(),
            kind: "pinned",
            action: "unpin",
            worth: all,
        },
    ];
    causes.iter().for_each(|cause| cause.check(&dir));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_costs_an_engine_that_goes_by_mem_free() {
    let dir = support::disk_dir();
    let part = Run::fraction;
    let causes = [
        Cause {
            name: "tenant",
            engine: TENSORRT_LLM,
            options: "",
            before: tenant(),
            kind: "process",
            action: "end-others",
            worth: part,
        },
        Cause {
            name: "pinned",
            engine: TENSORRT_LLM,
            options: "--pinned 256M",
            before: String::new(),
            kind: "pinned",
            action: "unpin",
            worth: part,
        },
        Cause {
            name: "compiler",
            engine: TENSORRT_LLM,
            options: "--compiler-heap 256M",
            before: String::new(),
            kind: "child",
            action: "compile-before",
            worth: part,
        },
    ];
    causes.iter().for_each(|cause| cause.check(&dir));
}

/// What was there before the engine's baseline costs vLLM nothing: another program's memory, page cache, dirty pages.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_costs_an_engine_that_goes_by_mem_available_nothing() {
    let dir = support::disk_dir();
    make_room();
    let file = format!(
        "head -c {STAGED} /dev/urandom >file; sync file; cat file >/dev/null; head -c {STAGED} /dev/zero >dirty; "
    );
    for (name, before) in [("tenant", tenant()), ("page cache", file)] {
        let Some(run) = run(&dir, &format!("free-{}", name.replace(' ', "-")), VLLM, SMALL, &before) else {
            return;
        };
        agrees(&run, "MemAvailable");
        for kind in ["process", "reclaimable", "dirty"] {
            let rows = run.what_if(kind);
            assert!(
                rows.iter().all(|row| int(&row["delta"]).unsigned_abs() <= run.tolerance()),
                "{name}: {rows:?}"
            );
        }
        for action in ["drop-page-cache", "drop-file", "write-back"] {
            assert!(!run.advises(action), "{name}: {}", run.kv["advice"]);
        }
    }
}

/// Page cache costs an engine that goes by MemFree its part: clean pages of one file are named with what they cost, dirty
/// pages are told from them.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn page_cache_costs_an_engine_that_goes_by_mem_free() {
    let dir = support::disk_dir();
    make_room();
    let before =
        format!("head -c {STAGED} /dev/urandom >weights; sync weights; head -c {STAGED} /dev/zero >dirty; ");
    let Some(run) = run(&dir, "cache", TENSORRT_LLM, SMALL, &before) else { return };
    agrees(&run, "MemFree");
    // The kernel may write pages back or give them up at any time: it never has more of a file than there is.
    let files = array(&run.budget()["files"]);
    let file = files.iter().find(|file| text(&file["path"]).ends_with("/weights"));
    let Some(file) = file else { panic!("the file is not named: {files:?}") };
    assert!(int(&file["bytes"]) <= STAGED + MIB, "{file}");
    let advice = array(&run.kv["advice"]).iter();
    let dropped = { advice }.find(|advice| {
        advice["action"] == "drop-file"
            && advice["subject"].as_str().is_some_and(|path| path.ends_with("/weights"))
    });
    let Some(dropped) = dropped else { panic!("{}", run.kv["advice"]) };
    let gain = (run.fraction() * int(&file["bytes"]) as f64) as i64;
    assert!(int(&dropped["gains_bytes"]).abs_diff(gain) <= run.tolerance(), "{dropped}, {gain}");
    let clean = run.cause("reclaimable");
    assert!(int(&clean["delta"]) >= gain, "{clean}: the file is a part of it");
    assert!(run.advises("drop-page-cache"), "{}", run.kv["advice"]);
}
