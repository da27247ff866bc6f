//! Models that end at a look, and what is wrong then.

use super::*;
use crate::results::{What, Why};

const LOOKS: [u32; 2] = [10, 20];

fn at_round(all: &Results, round: u32) -> Results {
    let mut results = all.clone();
    results.runs.retain(|run| run.round.is_none_or(|of_run| of_run <= round));
    results.planned = Some(ROUNDS);
    results.looks = LOOKS.to_vec();
    results.rounds_over = [("m".to_owned(), round)].into();
    results
}

/// Rounds that were made, the verdict, and why it ended before the last one.
type Ended = (u32, Verdict, Option<String>);

/// The look at which a study ends, as a runner ends it, and the verdict of its report then.
fn ended(truth: Truth, seed: u64) -> Ended {
    let all = simulated(truth, seed);
    let options = Options { resamples: 0, ..Options::default() };
    for round in LOOKS {
        let mut results = at_round(&all, round);
        if let Some(ending) = ending::of(&results, "m", options) {
            let (number, looks, because) = (ending.number, ending.looks, ending.because.clone());
            let why = Why::Decided { model: "m".to_owned(), round, number, looks, because };
            results.happenings.push(Happening {
                at_s: 0.0,
                after: None,
                what: What::LeftOut { numbers: vec![], why },
            });
            let report = report(&results, options);
            assert_eq!(report.looks[0].ended.as_ref(), Some(&ending.because));
            return (round, report.comparisons[0].verdict, Some(ending.because));
        }
    }
    (ROUNDS, report(&at_round(&all, ROUNDS), options).comparisons[0].verdict, None)
}

#[test]
fn who_ends_at_a_look_errs_no_more_often_than_one_test() {
    let many = studies(50);
    let nominal = 0.05 + 3.0 * (0.05_f64 * 0.95 / f64::from(many)).sqrt();
    let of = |effect: f64, sd: f64| Truth { effect, sd, ..Truth::default() };
    // The verdicts that are wrong, and how many rounds are made at most on average.
    let scenarios = [
        ("no effect (4 %)", of(0.0, 4.0), Some(Verdict::Different), 30.0),
        ("no effect (1 %)", of(0.0, 1.0), Some(Verdict::Different), 22.0),
        ("effect of the margin (1 %)", of(2.0, 1.0), Some(Verdict::Equivalent), 30.0),
        ("effect of the margin (0.5 %)", of(-2.0, 0.5), Some(Verdict::Equivalent), 30.0),
        ("effect 5 % (1 %)", of(5.0, 1.0), None, 15.0),
    ];
    for (name, truth, wrong, most) in scenarios {
        let all: Vec<_> = (1..=u64::from(many)).map(|seed| ended(truth, seed)).collect();
        let share = |which: &dyn Fn(&Ended) -> bool| {
            all.iter().filter(|study| which(study)).count() as f64 / f64::from(many)
        };
        let rounds = all.iter().map(|(round, ..)| f64::from(*round)).sum::<f64>() / f64::from(many);
        let errs = share(&|(_, verdict, _)| Some(*verdict) == wrong);
        // Outside of the margin, where the difference is not.
        let outside = share(&|(.., because)| because.as_ref().is_some_and(|it| it.contains("outside of")));
        println!("| {name} | {:.1} | {:.1} | {rounds:.1} |", 100.0 * errs, 100.0 * outside);
        assert!(errs <= nominal, "{name}: {errs}");
        assert!(wrong.is_none() || outside <= nominal, "{name}: {outside}");
        assert!(rounds <= most, "{name}: {rounds}");
    }
}

#[test]
fn a_model_ends_where_all_of_its_questions_are_decided_and_no_sooner() {
    let options = Options { resamples: 0, ..Options::default() };
    let of = |results: &Results| ending::of(results, "m", options);
    let all = simulated(Truth { effect: 10.0, sd: 1.0, ..Truth::default() }, 1);
    let ending = of(&at_round(&all, 10)).unwrap();
    assert_eq!((ending.number, ending.looks, ending.round), (1, 3, 10));
    assert!(ending.because.starts_with("the difference of output-throughput in docker, +"), "{ending:?}");
    assert!(ending.because.contains("outside of the margin of 1.9"), "{ending:?}");
    // Before the first look there is nothing to end by, and after the last round nothing to end.
    assert_eq!((of(&at_round(&all, 9)), of(&at_round(&all, 30))), (None, None));
    // A look that no plan has is none.
    let mut none = at_round(&all, 10);
    none.looks = vec![];
    assert_eq!(of(&none), None);
    // A second question that is open keeps the model going: as wide as the margin.
    let mut two = at_round(&all, 10);
    let mut random = Xoshiro256::new(5);
    for run in &mut two.runs {
        run.metrics.insert("peak-memory".to_owned(), 100.0 + 2.0 * normal(&mut random));
    }
    assert_eq!(of(&two), None);
    // So do runs that failed, where they could change it.
    let mut failed = at_round(&all, 10);
    for run in failed.runs.iter_mut().filter(|run| run.environment == "docker" && run.iteration % 2 == 0) {
        run.failure = Some("killed".to_owned());
    }
    assert_eq!(of(&failed), None);
    // More models in the plan are more questions, whether they have runs or not.
    let close = simulated(Truth { effect: 4.1, sd: 1.0, ..Truth::default() }, 1);
    let alone = at_round(&close, 20);
    let mut many = alone.clone();
    many.models.extend((0..20_000).map(|other| format!("other-{other}")));
    assert!(of(&alone).is_some() && of(&many).is_none(), "{:?}", of(&alone));
}
