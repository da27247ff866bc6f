//! Every figure against `goldens/goldens.json`, which scipy, statsmodels and exact arithmetic made
//! (`goldens/make.py`).
//!
//! A result is compared as the JSON it serialises to: what the file has and the result has not, or the reverse, is
//! a failure, and so is a function with fewer cases than it had.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use serde::Serialize;
use serde_json::{Map, Value, json};
use spark_trace_statistics::{
    Error, association, bootstrap, describe, effect, equivalence, multiple, noncentral_t_cdf,
    noncentral_t_sf, normality, outliers, power, rank, series, spread, t,
};
use std::collections::BTreeMap;

/// How far a figure may be from the file's, relative to it. There is no exception: where theirs is an approximation
/// in itself (the p of Shapiro and Wilk), it is the same approximation.
const CLOSE: f64 = 1e-9;
/// Below this, numbers of f64 lose digits.
const UNDERFLOW: f64 = 1e-300;

/// How many cases the file has of each function.
const CASES: [(&str, usize); 26] = [
    ("describe", 68),
    ("welch", 30),
    ("student", 30),
    ("paired", 26),
    ("cohen_d", 30),
    ("hedges_g", 30),
    ("tost", 26),
    ("cohen_dz", 26),
    ("tost_paired", 21),
    ("mann_whitney", 30),
    ("wilcoxon", 30),
    ("shapiro_wilk", 31),
    ("brown_forsythe", 31),
    ("two_sample", 12),
    ("power_paired", 7),
    ("n_for", 10),
    ("noncentral_t_cdf", 71),
    ("noncentral_t_sf", 71),
    ("bootstrap", 44),
    ("bonferroni", 9),
    ("holm", 9),
    ("lag1", 23),
    ("mann_kendall", 23),
    ("theil_sen", 22),
    ("tukey", 21),
    ("linear_fit", 29),
];

fn run(case: &Case) -> Result<Value, Error> {
    let (a, b, x, y) = (|| case.sample("a"), || case.sample("b"), || case.sample("x"), || case.sample("y"));
    let number = |key: &str| case.given[key].as_f64().unwrap();
    let size = |key: &str| case.given[key].as_u64().unwrap() as usize;
    let level = || number("level");
    match case.name() {
        "describe" => value(Ok(describe(x()))),
        "welch" => value(t::welch(a(), b(), level())),
        "student" => value(t::student(a(), b(), level())),
        "paired" => value(t::paired(a(), b(), level())),
        "cohen_d" => value(effect::cohen_d(a(), b(), level())),
        "hedges_g" => value(effect::hedges_g(a(), b(), level())),
        "cohen_dz" => value(effect::cohen_dz(a(), b(), level())),
        "tost" => value(equivalence::tost(a(), b(), number("low"), number("high"), number("alpha"))),
        "tost_paired" => {
            value(equivalence::tost_paired(a(), b(), number("low"), number("high"), number("alpha")))
        }
        "mann_whitney" => value(rank::mann_whitney(a(), b())),
        "wilcoxon" => value(rank::wilcoxon(x())),
        "shapiro_wilk" => value(normality::shapiro_wilk(x())),
        "brown_forsythe" => {
            let names = case.given["groups"].as_array().unwrap();
            let groups: Vec<&[f64]> = names.iter().map(|name| case.named(name)).collect();
            value(spread::brown_forsythe(&groups))
        }
        "two_sample" => value(power::two_sample(number("d"), size("n_a"), size("n_b"), number("alpha"))),
        "power_paired" => value(power::paired(number("d"), size("n"), number("alpha"))),
        "n_for" => value(power::n_for(number("d"), number("power"), number("alpha"))),
        "noncentral_t_cdf" => value(Ok(noncentral_t_cdf(number("t"), number("df"), number("ncp")))),
        "noncentral_t_sf" => value(Ok(noncentral_t_sf(number("t"), number("df"), number("ncp")))),
        "bootstrap" => {
            let statistic = match case.given["statistic"].as_str().unwrap() {
                "difference_of_means" => bootstrap::Statistic::DifferenceOfMeans,
                _ => bootstrap::Statistic::DifferenceOfMedians,
            };
            let seed = case.given["seed"].as_u64().unwrap();
            value(bootstrap::ci(a(), b(), statistic, size("resamples"), level(), seed))
        }
        "bonferroni" => value(multiple::bonferroni(&numbers(&case.given["p"]))),
        "holm" => value(multiple::holm(&numbers(&case.given["p"]))),
        "lag1" => value(series::lag1(x())),
        "mann_kendall" => value(series::mann_kendall(x())),
        "theil_sen" => value(series::theil_sen(x())),
        "tukey" => value(outliers::tukey(x())),
        "linear_fit" => value(association::linear_fit(x(), y())),
        other => panic!("no function {other}"),
    }
}

fn value<T: Serialize>(result: Result<T, Error>) -> Result<Value, Error> {
    result.map(|result| serde_json::to_value(result).unwrap())
}

fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// A sample, whose offset is stored apart: it and the values are short enough for serde_json to read exactly.
fn values(sample: &Value) -> Vec<f64> {
    numbers(&sample["values"]).iter().map(|x| sample["offset"].as_f64().unwrap() + x).collect()
}

struct Case<'a> {
    given: &'a Map<String, Value>,
    samples: &'a BTreeMap<String, Vec<f64>>,
}

impl Case<'_> {
    fn name(&self) -> &str {
        self.given["f"].as_str().unwrap()
    }

    fn sample(&self, key: &str) -> &[f64] {
        self.named(&self.given[key])
    }

    fn named(&self, name: &Value) -> &[f64] {
        &self.samples[name.as_str().unwrap()]
    }
}

/// What a run over the file found.
#[derive(Default)]
struct Comparison {
    /// The largest relative error of each figure.
    worst: BTreeMap<String, f64>,
    wrong: Vec<String>,
}

impl Comparison {
    fn compare(&mut self, path: &str, got: &Value, want: &Value, case: &Case) {
        match (got, want) {
            (Value::Number(got), Value::Number(want)) => {
                let (got, want) = (got.as_f64().unwrap(), want.as_f64().unwrap());
                let error = if got == want { 0.0 } else { (got - want).abs() / want.abs().max(UNDERFLOW) };
                if error.is_nan() || error > CLOSE {
                    self.wrong
                        .push(format!("{path}: {got:e} instead of {want:e} ({error:e}): {}", shown(case)));
                }
                let worst = self.worst.entry(path.to_owned()).or_default();
                *worst = worst.max(error);
            }
            (Value::Array(got), Value::Array(want)) if got.len() == want.len() => {
                got.iter().zip(want).for_each(|(got, want)| self.compare(path, got, want, case));
            }
            (Value::Object(got), Value::Object(want))
                if got.len() == want.len() && got.keys().all(|key| want.contains_key(key)) =>
            {
                for (key, got) in got {
                    self.compare(&format!("{path}.{key}"), got, &want[key], case);
                }
            }
            _ if got == want => {}
            _ => self.wrong.push(format!("{path}: {got} instead of {want}: {}", shown(case))),
        }
    }
}

fn shown(case: &Case) -> String {
    case.given
        .iter()
        .filter(|(key, _)| *key != "want")
        .map(|(key, given)| format!("{key}={given} "))
        .collect()
}

#[test]
fn every_figure_is_that_of_the_file() {
    let file: Value = serde_json::from_str(include_str!("goldens/goldens.json")).unwrap();
    let samples = file["samples"].as_object().unwrap();
    let samples = samples.iter().map(|(name, sample)| (name.clone(), values(sample))).collect();
    let mut comparison = Comparison::default();
    let mut counts = BTreeMap::<String, usize>::new();
    for given in file["cases"].as_array().unwrap() {
        let case = Case { given: given.as_object().unwrap(), samples: &samples };
        *counts.entry(case.name().to_owned()).or_default() += 1;
        let got = run(&case).unwrap_or_else(|error| json!({ "error": error }));
        comparison.compare(case.name(), &got, &given["want"], &case);
    }
    for (figure, worst) in &comparison.worst {
        println!("{worst:8.1e} {figure}");
    }
    assert!(comparison.wrong.is_empty(), "{}", comparison.wrong.join("\n"));
    assert_eq!(counts, CASES.map(|(name, n)| (name.to_owned(), n)).into());
}
