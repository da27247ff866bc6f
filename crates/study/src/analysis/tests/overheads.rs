//! Overheads of many models whose truth is known.

use super::*;
use crate::analysis::overheads::{Scale, What};
use crate::traits::Traits;

/// Ten models of five sizes and two architectures: B over A is 1.02, more by 3 % for each doubling, and 5 % more in the second; models
/// differ besides by `sd_models`.
fn many(sd_models: f64, seed: u64) -> Results {
    let mut random = Xoshiro256::new(seed);
    let mut all = simulated(Truth::default(), 1);
    all.runs.clear();
    all.models.clear();
    for model in 0..10_u32 {
        let (size, kind) = (model % 5, model / 5);
        let name = format!("model-{model}");
        let own = sd_models * normal(&mut random);
        let truth =
            1.02_f64.ln() + 1.03_f64.ln() * (f64::from(size) - 2.0) + f64::from(kind) * 1.05_f64.ln() + own;
        for run in
            simulated(Truth { rounds: 6, sd: 1.0, ..Truth::default() }, seed * 100 + u64::from(model)).runs
        {
            let factor = if run.environment == "docker" { truth.exp() } else { 1.0 };
            let value = run.metrics["output-throughput"] * factor * 2.0_f64.powi(-(size as i32));
            let number = run.number + 100 * model;
            all.runs.push(Run {
                number,
                model: name.clone(),
                metrics: [("duration".to_owned(), value)].into(),
                ..run
            });
        }
        let architecture = Some(["dense", "mixture"][kind as usize].to_owned());
        all.traits
            .insert(name.clone(), Traits { parameters: Some(1e9 * f64::from(1 << size)), architecture });
        all.models.push(name);
    }
    all
}

fn reported(results: &Results) -> crate::analysis::overheads::Overhead {
    report(results, Options { resamples: 0, ..Options::default() }).overheads.remove(0)
}

#[test]
fn size_and_architecture_are_found_and_intervals_cover() {
    let truths = [1.02, 1.03, 1.05];
    let mut covered = 0;
    for seed in 1..=20 {
        let found = reported(&many(0.02, seed));
        let fit = found.fit.unwrap();
        assert_eq!((found.scale, found.models, found.pairs, fit.df), (Scale::Ratio, 10, 60, 7.0));
        assert!(matches!(&fit.terms[1].what, What::Doubling));
        assert!(matches!(&fit.terms[2].what, What::Architecture { of, .. } if of == "mixture"));
        covered += fit
            .terms
            .iter()
            .zip(truths)
            .filter(|(term, truth)| term.ci.0 < *truth && *truth < term.ci.1)
            .count();
    }
    // 60 intervals of 95 %, three standard errors.
    assert!(covered >= 52, "{covered}");
}

#[test]
fn a_model_is_one_observation_however_many_runs_it_has() {
    // Models that differ by 10 % for no reason: size is called significant no more often than nominal, though each model has 6 pairs.
    let mut found = 0;
    for seed in 1..=40 {
        let mut results = many(0.1, seed);
        for traits in results.traits.values_mut() {
            // The size by which the truth goes is another.
            traits.architecture = None;
        }
        let order: Vec<f64> = results.traits.values().filter_map(|traits| traits.parameters).collect();
        for (place, traits) in results.traits.values_mut().enumerate() {
            traits.parameters = Some(order[(place * 3 + 1) % 10] * (1.0 + place as f64));
        }
        found += usize::from(reported(&results).fit.unwrap().terms[1].p < 0.05);
    }
    assert!(found <= 7, "{found} of 40");
}

#[test]
fn what_cannot_be_separated_is_left_out_with_a_reason() {
    let mut same = many(0.02, 1);
    for (name, traits) in &mut same.traits {
        // Every size has an architecture of its own.
        traits.architecture =
            Some(name[6..].parse::<u32>().map_or(String::new(), |number| (number % 5).to_string()));
    }
    let found = reported(&same);
    let fit = found.fit.unwrap();
    assert!(
        fit.terms.len() == 2 && found.because.iter().any(|why| why.contains("architecture is left out")),
        "{:?}",
        found.because
    );
    let mut unknown = many(0.02, 1);
    unknown.traits.remove("model-3");
    let found = reported(&unknown);
    assert_eq!(found.fit.unwrap().terms.len(), 1);
    assert_eq!(found.because[0], "the plan does not state `parameters` of model-3");
    let mut two = many(0.02, 1);
    two.models.truncate(2);
    let found = reported(&two);
    assert!(found.fit.is_none() && found.because[0].contains("takes 3"), "{:?}", found.because);
    assert!(
        report(&simulated(Truth { sd: 1.0, ..Truth::default() }, 1), Options::default()).overheads.is_empty()
    );
}

#[test]
fn intervals_at_a_look_are_as_wide_as_those_of_the_comparisons() {
    let whole = many(0.02, 1);
    let mut early = whole.clone();
    early.runs.retain(|run| run.round.is_some_and(|round| round <= 3));
    (early.planned, early.looks) = (Some(6), vec![3]);
    let over =
        |rounds: u32| early.models.iter().map(|model| (model.clone(), rounds)).collect::<BTreeMap<_, _>>();
    let (at_look, before) = (over(3), over(2));
    let mut plain = early.clone();
    (plain.planned, plain.looks) = (None, vec![]);
    early.rounds_over = at_look;
    let (found, plain) = (reported(&early).fit.unwrap(), reported(&plain).fit.unwrap());
    let level = report(&early, Options { resamples: 0, ..Options::default() }).comparisons[0].alpha;
    // O'Brien and Fleming's limit at the half of a study (Lan and DeMets): 0.0031.
    assert!((level - 0.003_05).abs() < 5e-5 && found.level == 1.0 - level && plain.level == 0.95, "{level}");
    // As the quantiles of t with 7 degrees of freedom: t.isf(0.0015254, 7) / t.isf(0.025, 7) of scipy is 1.8727.
    let width = |fit: &crate::analysis::overheads::Fit| (fit.terms[1].ci.1 / fit.terms[1].ci.0).ln();
    let wider = width(&found) / width(&plain);
    assert!((wider - 1.8727).abs() < 0.02, "{wider}");
    // One model before its first look keeps the others from an interval.
    early.rounds_over = before;
    let none = reported(&early);
    assert!(none.fit.is_none() && none.because[0].contains("first look"), "{none:?}");
}
