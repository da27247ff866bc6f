//! What costs which engine how much of its cache. Each engine is run with causes staged, alone and together; `kv` names those
//! that matter and no others, and the cache that it predicts without them is that of another run, in which its advice was
//! followed. Truth is what the engine itself read and computed, and how much was staged.
//!
//! Ollama's cache is no more than its stated context: see [`super`]. What vLLM's estimate for graphs itself costs is in graphs.rs.

use std::process::Command;

use tempfile::TempDir;

use super::rows::Cause::{self, Compiler, Dirty, PageCache, Pinned, Tenant};
use super::rows::{ENGINES, Row};
use super::staged::{Run, run};
use crate::support::{self, MIB, array, cache, int, oracle, text, workload};

/// Of each cause.
const STAGED: i64 = 384 * MIB;
/// How often two runs are compared where other programs move much memory meanwhile.
const NOISY: usize = 2;

/// How a cause is staged, what it lowers, and what `kv` says of it where it costs anything.
struct Staging {
    cause: Cause,
    /// What the shell does before the engine starts, and an option of the engine.
    before: String,
    option: &'static str,
    /// It is there at the baseline, too.
    at_baseline: bool,
    /// MemAvailable counts it as used; MemFree counts everything so.
    lowers_available: bool,
    kind: &'static str,
    action: &'static str,
    /// End of the name of what the advice is about: `)` of a process, with its number.
    subject: &'static str,
}

fn stagings() -> [Staging; 5] {
    let file = |cause, before, kind, action, subject| Staging {
        cause,
        before,
        option: "",
        at_baseline: true,
        lowers_available: false,
        kind,
        action,
        subject,
    };
    // Later than a reading of its memory on the way there tells of (`kv` takes those that are at most a second old).
    let tenant = format!(
        "{} alloc --anon {STAGED} --hold 1h --jsonl >tenant & other=$!; \
         until grep -q '\"phase\":\"hold\"' tenant; do sleep 0.05; done; sleep 1.1; ",
        workload()
    );
    let own = |cause, option, kind, action| Staging {
        option,
        at_baseline: false,
        lowers_available: true,
        ..file(cause, String::new(), kind, action, "")
    };
    let cached = format!("truncate -s {STAGED} weights; cat weights >/dev/null; ");
    let written = format!("head -c {STAGED} /dev/zero >dirty; ");
    [
        file(PageCache, cached, "reclaimable", "drop-file", "/weights"),
        file(Dirty, written, "dirty", "drop-file", "/dirty"),
        Staging { lowers_available: true, ..file(Tenant, tenant, "process", "end-others", ")") },
        own(Pinned, "--pinned 384M ", "pinned", "unpin"),
        own(Compiler, "--compiler-heap 384M ", "child", "compile-before"),
    ]
}

/// Memory for an engine that goes by MemFree: page cache is dropped until there is some.
pub fn make_room() {
    const ROOM: i64 = 4 << 30;
    if support::meminfo("MemFree") < ROOM {
        cache::drop_unused();
    }
}

impl Row {
    /// What a staged cause takes off the cache by the engine's formula.
    fn worth(&self, staging: &Staging, run: &Run) -> f64 {
        let weights = (self.weights)(run.fraction());
        let lowered = self.lowered(staging);
        weights.iter().zip(lowered).map(|(weight, there)| weight * if there { 1.0 } else { 0.0 }).sum()
    }

    /// Whether it lowers the signal at the baseline and at the last reading.
    fn lowered(&self, staging: &Staging) -> [bool; 2] {
        let lowers = staging.lowers_available || self.engine.signal == "MemFree";
        [lowers && staging.at_baseline, lowers]
    }

    /// What other programs did to the cache from one run to the other, by what the engine itself read.
    fn noise(&self, staged: &[&Staging], with: &Run, without: &Run) -> i64 {
        let weights = (self.weights)(with.fraction());
        let moved = ["baseline", "after"].into_iter().enumerate().map(|(index, moment)| {
            let lowered = staged.iter().filter(|staging| self.lowered(staging)[index]).count();
            let staged = STAGED * i64::try_from(lowered).unwrap();
            weights[index] * (without.read(moment) - with.read(moment) - staged) as f64
        });
        // An estimate for graphs is a fall of free memory: other programs move it, too.
        let estimate = |run: &Run| run.truth["graphs"].as_i64().unwrap_or(0);
        moved.sum::<f64>() as i64 + estimate(with) - estimate(without)
    }

    /// More would hide what was staged.
    fn noise_limit(&self, run: &Run) -> i64 {
        let weights = (self.weights)(run.fraction());
        let most = weights.iter().fold(0.0_f64, |most, weight| most.max(weight.abs()));
        (most * STAGED as f64 / 3.0) as i64
    }
}

/// A run with nothing staged: `kv` names none of the causes.
fn plain(dir: &TempDir, row: &Row, setting: &str) -> Option<Run> {
    make_room();
    let run = run(dir, &format!("{}-plain", row.engine.name), row.engine, setting, "")?;
    run.agrees();
    stagings().iter().for_each(|staging| is_unnamed(&run, staging));
    Some(run)
}

/// Page cache of others is there in any run.
fn is_unnamed(run: &Run, staging: &Staging) {
    let name = run.engine.name;
    let of_others = run.engine.signal == "MemFree" && matches!(staging.cause, PageCache | Dirty);
    if !of_others {
        let rows = run.what_if(staging.kind);
        let none = rows.iter().all(|row| int(&row["delta"]).unsigned_abs() <= run.tolerance());
        assert!(none, "{name}: {:?}: {rows:?}", staging.cause);
    }
    if !of_others || !staging.subject.is_empty() {
        let advice = run.own_advice(staging.action, staging.subject);
        assert!(advice.is_none(), "{name}: {:?}: {advice:?}", staging.cause);
    }
}

/// What `kv` promises for the end of a cause.
fn gain(row: &Row, staging: &Staging, run: &Run) -> i64 {
    let (name, cause) = (row.engine.name, staging.cause);
    let Some(advice) = run.own_advice(staging.action, staging.subject) else {
        panic!("{name}: {cause:?} is not named: {}", run.kv["advice"])
    };
    let rows = run.what_if(staging.kind);
    let [found] = rows.as_slice() else {
        panic!("{name}: {cause:?}: {rows:?} of {}", run.budget()["what_if"])
    };
    let worth = row.worth(staging, run);
    if matches!(cause, PageCache | Dirty) {
        // The kernel may give up pages of a file at any time: it never has more of it than there is.
        let (bytes, gains) = (int(&advice["bytes"]), int(&advice["gains_bytes"]));
        assert!((STAGED / 2..=STAGED + MIB).contains(&bytes), "{name}: {advice}");
        assert!(gains.abs_diff((worth * bytes as f64) as i64) <= MIB as u64, "{name}: {advice}");
        // Other programs have such pages, too.
        assert!(int(&found["delta"]) >= gains - MIB, "{name}: {found}: the file is a part of it");
        let whole = if cause == Dirty { "write-back" } else { "drop-page-cache" };
        assert!(run.advice(whole, "").is_some(), "{name}: {whole}: {}", run.kv["advice"]);
        return gains;
    }
    let (bytes, delta) = (int(&found["bytes"]), int(&found["delta"]));
    // A process has some memory of its own.
    assert!(bytes.abs_diff(STAGED) <= STAGED.unsigned_abs() / 50, "{name}: {cause:?}: {found}");
    assert!(delta.abs_diff((worth * bytes as f64) as i64) <= MIB as u64, "{name}: {cause:?}: {found}");
    assert_eq!(int(&advice["gains_bytes"]), delta, "{name}: {cause:?}: {advice}");
    delta
}

/// What the advice says of files is done; the rest is not to be staged again.
fn follow(dir: &TempDir, run: &Run) {
    for name in ["weights", "dirty"] {
        let path = dir.path().join(name);
        if !path.exists() {
            continue;
        }
        if let Some(advice) = run.advice("drop-file", &format!("/{name}")) {
            let command = text(&advice["command"]);
            let done = Command::new("sh").args(["-c", command]).status().unwrap();
            assert!(done.success(), "{command}");
            assert_eq!(cache::resident(path.to_str().unwrap()), 0, "{command}");
        }
        std::fs::remove_file(path).unwrap();
    }
}

/// On a machine with little memory, the kernel may take the pages of the file for others.
fn is_given_up(dir: &TempDir) -> bool {
    cache::resident(dir.path().join("weights").to_str().unwrap()) < STAGED / 2
}

/// Whether the recording has what the other program had at each reading.
fn knows_tenant(run: &Run) -> bool {
    let rows = array(&run.budget()["processes"]).iter();
    { rows }.any(|row| row["role"] == "other" && row["costs"].is_i64() && int(&row["at"]) >= STAGED)
}

/// One run with causes staged, and what it says of each; then one without them.
fn check(dir: &TempDir, row: &Row, setting: &str, causes: &[Cause], known: &mut Option<Run>) {
    let all = stagings();
    let staged: Vec<&Staging> = all.iter().filter(|staging| causes.contains(&staging.cause)).collect();
    let before: String = staged.iter().map(|staging| staging.before.as_str()).collect();
    let options: String = staged.iter().map(|staging| staging.option).collect();
    let name = format!("{}-{causes:?}", row.engine.name).replace(['[', ']', ' '], "").replace(',', "-");
    for _ in 0..NOISY {
        make_room();
        let Some(with) = run(dir, &name, row.engine, &format!("{options}{setting}"), &before) else { return };
        // The kernel, or a program that calls sync(2), may have written the file.
        let is_written = with.dirty < STAGED - STAGED / 50;
        let written = causes.contains(&Dirty) && row.costs.contains(&Dirty) && is_written;
        let given_up = causes.contains(&PageCache) && row.costs.contains(&PageCache) && is_given_up(dir);
        follow(dir, &with);
        if given_up {
            println!("{name}: the kernel gave up the page cache of the file");
            continue;
        }
        if written {
            println!("{name}: the file was written back");
            continue;
        }
        if causes.contains(&Tenant) && row.costs.contains(&Tenant) && !knows_tenant(&with) {
            println!("{name}: the recorder did not come to read the other program");
            continue;
        }
        with.agrees();
        let (costly, free): (Vec<&Staging>, Vec<&Staging>) =
            staged.iter().partition(|staging| row.costs.contains(&staging.cause));
        free.into_iter().for_each(|staging| is_unnamed(&with, staging));
        let gains: i64 = costly.iter().map(|staging| gain(row, staging, &with)).sum();
        is_first(row, &costly, &with);
        if known.is_none() {
            *known = plain(dir, row, setting);
        }
        let Some(without) = known.as_ref() else { return };
        if with.fills_its_range() || without.fills_its_range() {
            println!("{name}: others gave so much memory back that the range of addresses is full");
            *known = None;
            continue;
        }
        let noise = row.noise(&staged, &with, without);
        if noise.abs() > row.noise_limit(&with) {
            println!("{name}: other programs moved the cache by {noise} from one run to the other");
            *known = None;
            continue;
        }
        let predicted = int(&with.budget()["figures"]["kv"]) + gains + noise;
        let off = predicted.abs_diff(without.measured());
        println!("{name}: {} and {gains}, others {noise}; without {}", with.measured(), without.measured());
        assert!(off <= without.tolerance(), "{name}: {predicted} predicted, {}", without.measured());
        return;
    }
    oracle::skip("memory", &format!("{name}: other programs move more memory than is staged"));
}

/// The first row is a cause that was staged, of engines that page cache of others does not cost anything.
fn is_first(row: &Row, costly: &[&Staging], run: &Run) {
    if row.engine.signal != "MemAvailable" || costly.is_empty() {
        return;
    }
    // Programs of the machine that are not the test's come and go.
    let rows: Vec<_> =
        array(&run.budget()["what_if"]).iter().filter(|row| row["kind"] != "outside-process").collect();
    let first = rows.first().map(|row| text(&row["kind"]));
    let is_one = costly.iter().any(|staging| Some(staging.kind) == first);
    assert!(is_one, "{}: {rows:?}", row.engine.name);
}

fn check_those_that_go_by(signal: &str) {
    let dir = support::disk_dir();
    for row in ENGINES.iter().filter(|row| row.engine.signal == signal) {
        make_room();
        let setting = (row.setting)();
        let mut plain = None;
        // Those that cost nothing are among all of them, and have no name there either.
        check(&dir, row, &setting, &stagings().map(|staging| staging.cause), &mut plain);
        for cause in row.costs.iter().filter(|_| row.singly) {
            check(&dir, row, &setting, &[*cause], &mut plain);
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_costs_engines_that_go_by_mem_available_how_much() {
    check_those_that_go_by("MemAvailable");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_costs_engines_that_go_by_mem_free_how_much() {
    check_those_that_go_by("MemFree");
}
