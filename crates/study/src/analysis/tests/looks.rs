//! Studies that end at the first look that shows a difference.

use super::*;

/// At 10 rounds of 30, the study as it is then.
fn at_round(all: &Results, round: u32, looks: &[u32]) -> Comparison {
    let mut results = all.clone();
    results.runs.retain(|run| run.round.is_none_or(|of_run| of_run <= round));
    results.planned = Some(ROUNDS);
    results.looks = looks.to_vec();
    results.rounds_over = [("m".to_owned(), round)].into();
    report(&results, Options { resamples: 0, ..Options::default() }).comparisons.remove(0)
}

fn found_at_any(truth: Truth, seed: u64, looks: &[u32], rounds: &[u32]) -> bool {
    let all = simulated(truth, seed);
    rounds.iter().any(|round| at_round(&all, *round, looks).verdict == Verdict::Different)
}

#[test]
fn who_ends_at_the_first_difference_errs_no_more_often_than_one_test() {
    let truth = Truth { sd: 4.0, ..Truth::default() };
    let many = studies(50);
    let nominal = 0.05 + 3.0 * (0.05_f64 * 0.95 / f64::from(many)).sqrt();
    let share = |truth: Truth, looks: &[u32], rounds: &[u32]| {
        let found = (1..=u64::from(many)).filter(|seed| found_at_any(truth, *seed, looks, rounds)).count();
        found as f64 / f64::from(many)
    };
    let stated = share(truth, &[10, 20], &[10, 20, 30]);
    // Looks that no plan states: one after each round is assumed, more than there are here.
    let each: Vec<u32> = (1..10).map(|third| 3 * third).collect();
    let assumed = share(truth, &[], &each);
    println!("| no effect, looks after 10, 20 and 30 rounds (4 %) | {:.1} |", 100.0 * stated);
    println!("| no effect, a look after each third round but the last (4 %) | {:.1} |", 100.0 * assumed);
    assert!(stated <= nominal && assumed <= nominal, "{stated} {assumed}");
    // What looks cost: little.
    let with = share(Truth { effect: 5.0, ..truth }, &[10, 20], &[10, 20, 30]);
    println!("| effect 5 %, looks after 10, 20 and 30 rounds (4 %) | {:.1} |", 100.0 * with);
    assert!(with > 0.9, "{with}");
}

#[test]
fn an_interval_at_a_look_is_as_wide_as_its_level_says() {
    let all = simulated(Truth { effect: 5.0, sd: 4.0, ..Truth::default() }, 1);
    let look = at_round(&all, 10, &[10, 20]);
    let later = at_round(&all, 14, &[10, 20]);
    // Between two looks the report stays with the last one.
    assert_eq!((look.p, look.ci, look.a.n), (later.p, later.ci, later.a.n));
    let (plain, level) = (look.paired.clone().unwrap(), look.alpha);
    assert!(look.ci.unwrap().0 < plain.ci.0 && look.ci.unwrap().1 > plain.ci.1, "{look:?}");
    assert!((level - 0.000207).abs() < 1e-6, "{level}");
    assert!(look.because.contains("this look decides below"), "{}", look.because);
    let before = at_round(&all, 9, &[10, 20]);
    assert_eq!((before.verdict, before.ci), (Verdict::Undecided, None), "{}", before.because);
    // The whole study, without looks: one test.
    let whole = at_round(&all, 30, &[]);
    assert_eq!((whole.alpha, whole.at_look), (0.05, false));
}
