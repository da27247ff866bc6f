//! A study of 72 data sets, read and reported as a user's is, against what scipy, statsmodels and exact arithmetic
//! (`goldens/make.py`) say of them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use serde_json::Value;
use spark_trace_study::Results;
use spark_trace_study::analysis::{self, Options};

/// How far a figure may be from the file's, relative to it.
const CLOSE: f64 = 1e-9;

fn at<'a>(row: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(row, |value, key| &value[key])
}

/// What is not equal, with its place.
fn differing(path: &str, found: &Value, wanted: &Value, wrong: &mut Vec<String>) {
    match (found, wanted) {
        (Value::Number(found), Value::Number(wanted)) => {
            let (found, wanted) = (found.as_f64().unwrap(), wanted.as_f64().unwrap());
            let error = if found == wanted { 0.0 } else { ((found - wanted) / wanted).abs() };
            if error.is_nan() || error > CLOSE {
                wrong.push(format!("{path}: {found:e} instead of {wanted:e} ({error:.1e})"));
            }
        }
        (Value::Array(found), Value::Array(wanted)) if found.len() == wanted.len() => {
            found.iter().zip(wanted).for_each(|(found, wanted)| differing(path, found, wanted, wrong));
        }
        (Value::Object(found), Value::Object(wanted)) => {
            for (key, wanted) in wanted {
                let found = found.get(key).unwrap_or(&Value::Null);
                differing(&format!("{path}.{key}"), found, wanted, wrong);
            }
        }
        _ if found == wanted => {}
        _ => wrong.push(format!("{path}: {found} instead of {wanted}")),
    }
}

#[test]
fn every_figure_of_a_report_is_that_of_scipy_and_statsmodels() {
    let results: Results = serde_json::from_str(include_str!("goldens/studies.json")).unwrap();
    let wanted: Value = serde_json::from_str(include_str!("goldens/wanted.json")).unwrap();
    let report = analysis::report(&results, Options { resamples: 400, seed: 1, ..Options::default() });
    let report = serde_json::to_value(&report).unwrap();
    let rows = report["comparisons"].as_array().unwrap();
    let row = |model: &str, metric: &str| {
        let of = |row: &&Value| row["model"] == model && row["subject"]["name"] == metric;
        rows.iter().find(of).unwrap_or(&Value::Null)
    };
    let (mut wrong, mut figures) = (vec![], 0);
    for (model, all) in wanted["models"].as_object().unwrap() {
        for (path, wanted) in all.as_object().unwrap() {
            let found = at(row(model, "output-throughput"), path);
            differing(&format!("{model} {path}"), found, wanted, &mut wrong);
            figures += 1;
        }
    }
    for (model, rate) in wanted["rates"].as_object().unwrap() {
        differing(&format!("{model} rate"), &row(model, "gpu-power")["p_fdr"], rate, &mut wrong);
    }
    assert!(wrong.is_empty(), "{} of {figures}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(figures > 2000 && wanted["models"].as_object().unwrap().len() >= 70, "{figures}");
}
