//! vLLM's estimate for graphs: a difference of two raw answers of cuMemGetInfo, of which page cache that is reclaimed meanwhile
//! makes something else. `kv` names what it costs, or what it gives by mistake, and the cache without it is that of another run.

use tempfile::TempDir;

use super::causes;
use super::rows::{CACHE, ESTIMATE_DIGITS, GRAPHS, part};
use super::staged::{ACTIVATIONS, Run, Staged, WEIGHTS, run};
use crate::support::{self, MIB, cache, int, oracle, text};

const ENGINE: Staged =
    Staged { name: "vllm", known_as: "vllm", signal: "MemAvailable", needs_log: true, step: ESTIMATE_DIGITS };
/// Of the file whose pages go between the two answers.
const RECLAIMED: i64 = 384 * MIB;
const OFF: &str = "VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=0";
/// How often two runs are compared where other programs move much memory meanwhile.
const NOISY: usize = 3;

fn engine(dir: &TempDir, name: &str, options: &str, before: &str) -> Option<Run> {
    causes::make_room();
    let fraction = part(CACHE + WEIGHTS + ACTIVATIONS, "MemTotal");
    run(
        dir,
        name,
        ENGINE,
        &format!("--graphs {GRAPHS} --gpu-memory-utilization {fraction:.4} {options}"),
        before,
    )
}

/// What other programs gave back between the readings of the other run, more than in this one.
fn noise(with: &Run, without: &Run) -> i64 {
    let fall = |run: &Run| run.read("baseline") - run.read("after");
    fall(with) - fall(without)
}

/// The cache of a run without the estimate is what the row of what-if says.
fn without_estimate_it_is_as_predicted(
    dir: &TempDir,
    name: &str,
    options: &str,
    before: &str,
    is_meant: fn(i64) -> bool,
) -> Option<Run> {
    for _ in 0..NOISY {
        let with = engine(dir, name, options, before)?;
        with.agrees();
        let estimate = int(&with.truth["graphs"]);
        // What others take and give back meanwhile is in it, three times over.
        if !is_meant(estimate) {
            println!("{name}: other programs made the estimate {estimate}");
            continue;
        }
        let rows = with.what_if("graphs");
        let [row] = rows.as_slice() else { panic!("{name}: {rows:?}") };
        // The log has two digits of GiB.
        assert!(int(&row["delta"]).abs_diff(estimate) <= 6 * MIB as u64, "{name}: {row}, {estimate}");
        let advice =
            with.advice("disable-graph-estimate", "").unwrap_or_else(|| panic!("{}", with.kv["advice"]));
        assert_eq!(text(&advice["flag"]), OFF);
        let followed = format!("{before} export {};", text(&advice["flag"]));
        let without = engine(dir, &format!("{name}-followed"), options, &followed)?;
        without.agrees();
        assert!(
            without.what_if("graphs").is_empty(),
            "it is logged, and not taken off: {}",
            without.budget()["what_if"]
        );
        let noise = noise(&with, &without);
        if noise.abs() > GRAPHS {
            println!("{name}: other programs moved the cache by {noise} from one run to the other");
            continue;
        }
        let predicted = int(&row["kv"]) + noise;
        println!(
            "{name}: {}, estimate {estimate}, others {noise}; without {}",
            with.measured(),
            without.measured()
        );
        assert!(predicted.abs_diff(without.measured()) <= without.tolerance(), "{name}: {predicted}");
        return Some(with);
    }
    oracle::skip("memory", &format!("{name}: other programs move more memory than is staged"));
    None
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_estimate_for_graphs_costs_what_it_is() {
    let dir = support::disk_dir();
    let Some(run) =
        without_estimate_it_is_as_predicted(&dir, "estimated", "", "", |bytes| bytes > GRAPHS / 2)
    else {
        return;
    };
    assert!(!run.notes("is negative"), "{}", run.budget()["notes"]);
    let advice = run.advice("disable-graphs", "").unwrap();
    assert_eq!(text(&advice["flag"]), "--enforce-eager");
    let estimate = int(&run.truth["graphs"]);
    assert!(int(&advice["gains_bytes"]).abs_diff(estimate) <= 6 * MIB as u64, "{advice}, {estimate}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn page_cache_that_is_reclaimed_makes_an_estimate_negative_and_the_cache_too_large() {
    let dir = support::disk_dir();
    let cached = format!("truncate -s {RECLAIMED} checkpoint; cat checkpoint >/dev/null;");
    let file = support::path(&dir, "checkpoint");
    let Some(run) = without_estimate_it_is_as_predicted(
        &dir,
        "negative",
        &format!("--reclaimed {file}"),
        &cached,
        |bytes| bytes < -RECLAIMED / 2,
    ) else {
        return;
    };
    assert_eq!(cache::resident(&file), 0);
    assert!(run.notes("is negative"), "{}", run.budget()["notes"]);
    let advice = run.advice("disable-graph-estimate", "").unwrap();
    assert!(advice["gains_bytes"].is_null(), "a cache that is too large gains nothing: {advice}");
    assert!(run.advice("disable-graphs", "").is_none(), "{}", run.kv["advice"]);
}
