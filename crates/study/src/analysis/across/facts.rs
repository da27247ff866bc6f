//! What differs between two studies besides their figures.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Difference, Kind, Of, Stored};
use crate::plan::Plan;
use crate::results::{Change, MODIFIED, Results};

/// Keys of a plan that say how a study went, and not what it measured.
const COURSE: &[&str] = &[
    "runs",
    "warmups",
    "order",
    "seed",
    "looks",
    "timeout",
    "retries",
    "give-up-after",
    "disk-space",
    "gates",
    "estimate",
];
/// Keys that say nothing of either.
const WORDS: &[&str] = &["name", "description", "primary", "models", "environments"];
/// Keys of a model that say nothing of what ran.
const OF_MODELS: &[&str] = &["name", "note", "timeout", "parameters", "architecture"];

/// A list of the plan: its key, the names in it, what a fact of one is of, and the keys that say nothing.
type List<'a> = (&'static str, &'a [String], fn(String) -> Of, &'static [&'static str]);

pub fn changes(a: &Stored, b: &Stored) -> Vec<Difference> {
    let (in_a, in_b) = (&a.results, &b.results);
    let mut found: Vec<Difference> = crate::journal::changes(&in_a.machine, &in_b.machine)
        .into_iter()
        .map(|change| {
            let (kind, of) = of_fact(&change.fact, in_a);
            // What one study does not know of its models is no difference between them.
            let known = change.before.is_some() && change.now.is_some();
            let kind = if kind == Kind::Work && !known { Kind::Course } else { kind };
            Difference { kind, of, change }
        })
        .collect();
    let written = |value: Option<Value>| match value {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text),
        Some(value) => Some(value.to_string()),
    };
    let mut add = |kind: Kind, of: Option<Of>, fact: String, before: Option<Value>, now: Option<Value>| {
        if before != now {
            let change = Change { fact, before: written(before), now: written(now) };
            found.push(Difference { kind, of, change });
        }
    };
    let plans = [&a.plan, &b.plan].map(|plan| plan.as_ref().and_then(|plan| serde_json::to_value(plan).ok()));
    let [Some(plan_a), Some(plan_b)] = plans else {
        let known = |plan: &Option<Plan>| plan.as_ref().map(|_| Value::from("known"));
        add(Kind::Course, None, "plan".to_owned(), known(&a.plan), known(&b.plan));
        return found;
    };
    for key in keys(&plan_a, &plan_b, WORDS) {
        let kind = if COURSE.contains(&key.as_str()) { Kind::Course } else { Kind::Work };
        add(kind, None, format!("plan.{key}"), plan_a.get(&key).cloned(), plan_b.get(&key).cloned());
    }
    let named = |plan: &Value, list: &str, name: &str| -> Value {
        let mut rows = plan.get(list).and_then(Value::as_array).into_iter().flatten();
        rows.find(|row| row["name"] == name).cloned().unwrap_or_default()
    };
    let lists: [List<'_>; 2] = [
        ("models", &in_a.models, Of::Model, OF_MODELS),
        ("environments", &in_a.environments, Of::Environment, &["name"]),
    ];
    for (list, names, of, without) in lists {
        for name in names {
            let (one, other) = (named(&plan_a, list, name), named(&plan_b, list, name));
            if one.is_null() || other.is_null() {
                continue;
            }
            for key in keys(&one, &other, without) {
                // Another image or other flags are what two environments of one name differ by; another kind is another environment.
                let work = list == "models" || key == "kind" || key == "values";
                let kind = if work { Kind::Work } else { Kind::Machine };
                let fact = format!("plan.{list}.{name}.{key}");
                add(kind, Some(of(name.clone())), fact, one.get(&key).cloned(), other.get(&key).cloned());
            }
        }
    }
    found
}

fn keys(a: &Value, b: &Value, without: &[&str]) -> BTreeSet<String> {
    let of =
        |value: &Value| value.as_object().into_iter().flat_map(|map| map.keys().cloned()).collect::<Vec<_>>();
    of(a).into_iter().chain(of(b)).filter(|key| !without.contains(&key.as_str())).collect()
}

/// Facts are named `image.ENVIRONMENT...` and `model.MODEL...`; of names that begin alike the longest counts.
fn of_fact(fact: &str, results: &Results) -> (Kind, Option<Of>) {
    let named = |prefix: &str, names: &[String]| {
        let rest = fact.strip_prefix(prefix)?;
        let of = |name: &&String| {
            rest.strip_prefix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        names.iter().filter(of).max_by_key(|name| name.len()).cloned()
    };
    let environment =
        ["image.", "application."].iter().find_map(|prefix| named(prefix, &results.environments));
    if let Some(environment) = environment {
        return (Kind::Machine, Some(Of::Environment(environment)));
    }
    match named("model.", &results.models) {
        // The same bytes with another time are the same model.
        Some(model) if fact.contains(MODIFIED) => (Kind::Course, Some(Of::Model(model))),
        Some(model) => (Kind::Work, Some(Of::Model(model))),
        None => (Kind::Machine, None),
    }
}
