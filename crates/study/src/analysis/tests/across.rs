//! Two studies whose truth is known.

use super::*;
use crate::analysis::across::{Across, Kind, Stored, Unequal, compare};
use crate::plan::Plan;

fn stored(truth: Truth, seed: u64) -> Stored {
    let mut results = simulated(truth, seed);
    results.machine = [("kernel".to_owned(), "6.1".to_owned())].into();
    Stored { results, plan: None }
}

fn compared(a: &Stored, b: &Stored) -> Across {
    compare(a, b, Options::default()).unwrap()
}

fn plan(text: &str) -> Option<Plan> {
    let written = format!(
        "name = \"p\"\nruns = 2\n{text}\n[[environments]]\nname = \"native\"\nkind = \"native\"\n[[environments]]\nname = \"docker\"\n\
         kind = \"docker\"\nimage = \"i\"\n[[models]]\nname = \"m\"\n[workload]\ncommand = [\"true\"]\n"
    );
    Some(Plan::parse(&written).unwrap())
}

#[test]
fn a_change_of_both_environments_is_in_the_cells_and_not_in_the_overhead() {
    let (before, mut after) = (
        stored(Truth { effect: -5.0, sd: 1.0, ..Truth::default() }, 1),
        stored(Truth { effect: -5.0, sd: 1.0, ..Truth::default() }, 2),
    );
    for run in &mut after.results.runs {
        *run.metrics.get_mut("output-throughput").unwrap() += 10.0;
    }
    after.results.machine.insert("kernel".to_owned(), "6.8".to_owned());
    let found = compared(&before, &after);
    let verdicts: Vec<_> = found.cells.iter().map(|row| (row.environment.as_str(), row.verdict)).collect();
    assert_eq!(verdicts, [("native", Verdict::Different), ("docker", Verdict::Different)]);
    let (low, high) = found.cells[0].ci.unwrap();
    assert!(low < 10.0 && 10.0 < high, "{low} {high}");
    let [overhead] = &found.overheads[..] else { panic!("{:?}", found.overheads) };
    assert_eq!(
        (overhead.verdict, overhead.a_n, overhead.b_n),
        (Verdict::Equivalent, 30, 30),
        "{}",
        overhead.because
    );
    let facts: Vec<_> =
        found.changes.iter().map(|change| (change.kind, change.change.fact.as_str())).collect();
    assert_eq!(facts, [(Kind::Machine, "kernel")]);
}

#[test]
fn the_same_again_is_equivalent_and_an_overhead_that_changed_is_found() {
    let truth = Truth { sd: 1.0, ..Truth::default() };
    let found = compared(&stored(truth, 1), &stored(truth, 2));
    assert!(found.cells.iter().all(|row| row.verdict == Verdict::Equivalent), "{:?}", found.cells);
    let found = compared(&stored(truth, 1), &stored(Truth { effect: -6.0, ..truth }, 2));
    assert_eq!(found.overheads[0].verdict, Verdict::Different);
    assert!((found.overheads[0].difference.unwrap() + 6.0).abs() < 1.5);
}

/// As the paired test of a study: two independent samples of 30, and nothing differs.
#[test]
fn where_nothing_differs_nothing_is_found_but_in_the_nominal_rate() {
    let truth = Truth { sd: 4.0, ..Truth::default() };
    let of = |seed: u64| compared(&stored(truth, 2 * seed), &stored(truth, 2 * seed + 1));
    let found = (1..=300).filter(|seed| of(*seed).cells.iter().any(|row| row.verdict == Verdict::Different));
    // Two cells of one family; three standard errors of a share of 300.
    assert!(found.count() as f64 / 300.0 <= 0.0878);
}

#[test]
fn figures_of_different_things_are_not_compared() {
    let truth = Truth { sd: 1.0, ..Truth::default() };
    let with = |seed, text: &str| Stored { plan: plan(text), ..stored(truth, seed) };
    let found = compared(&with(1, ""), &with(2, "[values]\nbatch = \"8\"\n"));
    let row = &found.cells[0];
    assert_eq!(
        (row.verdict, row.because.as_str()),
        (Verdict::NotComparable, "what was measured differs: plan.values")
    );
    let found = compared(&with(1, ""), &with(2, "retries = 3\nseed = 7"));
    assert!(found.cells.iter().all(|row| row.verdict == Verdict::Equivalent));
    assert!(found.changes.iter().all(|change| change.kind == Kind::Course) && found.changes.len() == 2);
    let mut other = stored(truth, 2);
    other.results.machine.insert("model.m./weights".to_owned(), "5 bytes".to_owned());
    let mut one = stored(truth, 1);
    // What one of both does not know is no difference.
    assert_eq!(compared(&one, &other).cells[0].verdict, Verdict::Equivalent);
    one.results.machine.insert("model.m./weights".to_owned(), "7 bytes".to_owned());
    assert_eq!(compared(&one, &other).cells[0].verdict, Verdict::NotComparable);
    let mut drifts = stored(Truth { drift: 0.5, ..truth }, 2);
    assert_eq!(compared(&stored(truth, 1), &drifts).cells[0].verdict, Verdict::Confounded);
    drifts.results.models = vec!["n".to_owned()];
    let refused = compare(&stored(truth, 1), &drifts, Options::default()).unwrap_err();
    assert_eq!(refused.to_string(), "they have no model in common: m in one, n in the other");
    drifts.results.origin = Origin::Run;
    assert_eq!(compare(&stored(truth, 1), &drifts, Options::default()).unwrap_err(), Unequal::Simulated);
}

#[test]
fn runs_that_failed_leave_a_cell_undecided() {
    let truth = Truth { effect: 0.0, sd: 1.0, ..Truth::default() };
    let mut fails = stored(truth, 2);
    fails.results.runs.iter_mut().take(8).for_each(|run| run.failure = Some("killed".to_owned()));
    let found = compared(&stored(truth, 1), &fails);
    assert_eq!(found.cells[0].verdict, Verdict::Undecided);
    assert!(
        found.cells[0].because.ends_with("0 of 30 and 4 of 30 runs failed"),
        "{}",
        found.cells[0].because
    );
}

/// Sources in bytes, by their names in the ledger: one that the change moved, one that it did not, and one that only one study has.
#[test]
fn sources_of_memory_are_compared_at_the_instant_that_both_studies_have() {
    const GIB: f64 = (1_u64 << 30) as f64;
    let with = |seed: u64, cache: f64, alone: &str| {
        let mut study = stored(Truth { sd: 1.0, ..Truth::default() }, seed);
        let mut random = Xoshiro256::new(seed);
        for run in &mut study.results.runs {
            let mut level = |mean: f64| GIB * (mean + 0.1 * normal(&mut random));
            run.sources = [
                ("page-cache".to_owned(), level(cache)),
                ("anon".to_owned(), level(40.0)),
                (alone.to_owned(), level(1.0)),
            ]
            .into();
        }
        study
    };
    let (one, mut other) = (with(1, 20.0, "slab"), with(2, 26.0, "hugetlb"));
    let found = compared(&one, &other);
    let rows: Vec<_> = found
        .sources
        .iter()
        .map(|row| (row.environment.as_str(), row.subject.name.as_str(), row.verdict))
        .collect();
    assert_eq!(
        rows,
        [
            ("native", "anon", Verdict::Equivalent),
            ("native", "page-cache", Verdict::Different),
            ("docker", "anon", Verdict::Equivalent),
            ("docker", "page-cache", Verdict::Different),
        ]
    );
    let (low, high) = found.sources[1].ci.unwrap();
    assert!(low < 6.0 && 6.0 < high && high - low < 0.3, "{low} {high}");
    assert_eq!(
        (found.only_a, found.only_b),
        (vec!["source slab".to_owned()], vec!["source hugetlb".to_owned()])
    );
    // One study alone has readings: both are compared at their peaks.
    other.results.runs.iter_mut().for_each(|run| run.kv_sources = [("anon".to_owned(), GIB)].into());
    let found = compared(&one, &other);
    assert_eq!((found.sources_at, found.sources.len()), (SourcesAt::Peak, 4));
    // A study without recordings has no sources.
    let found = compared(&stored(Truth::default(), 1), &one);
    assert_eq!((found.sources, found.only_a), (vec![], vec![]));
}
