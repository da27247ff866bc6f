//! The questions that a study is about, and how small a difference answers them with no.

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A metric that the plan names before there are runs. Its p are adjusted for those of the other primary metrics alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Primary {
    pub metric: String,
    /// What is expected, in the plan's own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hypothesis: Option<String>,
    /// Absent for that of all metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin: Option<Margin>,
}

/// Means that differ by no more are the same.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Margin {
    /// In the metric's unit.
    Within(f64),
    /// Percent of the baseline's mean.
    Percent(f64),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    metric: String,
    hypothesis: Option<String>,
    margin: Option<Margin>,
}

impl<'de> Deserialize<'de> for Primary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NameOrQuestion)
    }
}

/// `"kv-cache"` or `{ metric = "kv-cache", ... }`; by hand, so that an error names the key that is wrong.
struct NameOrQuestion;

impl<'de> Visitor<'de> for NameOrQuestion {
    type Value = Primary;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a metric's name or a table with `metric`")
    }

    fn visit_str<E: serde::de::Error>(self, metric: &str) -> Result<Primary, E> {
        Ok(Primary { metric: metric.to_owned(), hypothesis: None, margin: None })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Primary, A::Error> {
        let Question { metric, hypothesis, margin } = Question::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Primary { metric, hypothesis, margin })
    }
}

impl Margin {
    /// In the unit of a metric whose baseline has this mean.
    pub fn of(self, baseline: f64) -> f64 {
        match self {
            Self::Within(size) => size,
            Self::Percent(percent) => (baseline * percent / 100.0).abs(),
        }
    }

    pub fn size(self) -> f64 {
        match self {
            Self::Within(size) | Self::Percent(size) => size,
        }
    }

    pub const fn is_absolute(self) -> bool {
        matches!(self, Self::Within(_))
    }

    pub fn written(self, unit: &str) -> String {
        match self {
            Self::Within(size) => format!("{size} {unit}").trim_end().to_owned(),
            Self::Percent(percent) => format!("{percent} %"),
        }
    }
}

/// Where a plan names none: the first of each line that the study has. Three questions: how fast, how much memory, how large a cache.
const OTHERWISE: [&[&str]; 3] = [
    &["output-throughput", "generation-throughput", "total-throughput", "request-throughput", "duration"],
    &["peak-memory", "system-growth", "system-used"],
    &["kv-cache", "kv-tokens"],
];

/// The primary metrics of a study that has these.
pub fn of(declared: &[Primary], metrics: &[String]) -> Vec<Primary> {
    if !declared.is_empty() {
        return declared.to_vec();
    }
    let has = |name: &&&str| metrics.iter().any(|metric| metric == **name);
    let first = OTHERWISE.iter().filter_map(|names| names.iter().find(has));
    first.map(|name| Primary { metric: (*name).to_owned(), hypothesis: None, margin: None }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    fn plan(primary: &str) -> Result<Plan, crate::plan::PlanError> {
        Plan::parse(&format!(
            "name = \"p\"\nruns = 2\nprimary = {primary}\n[[environments]]\nname = \"a\"\nkind = \"native\"\n\
             [[models]]\nname = \"m\"\n[workload]\ncommand = [\"true\"]\n[[metrics]]\nname = \"mine\"\nregex = \"(x)\"\n"
        ))
    }

    #[test]
    fn a_plan_names_its_questions() {
        let text = "[\"output-throughput\", { metric = \"mine\", margin = { within = 0.5 } }, \
                    { metric = \"kv-cache\", hypothesis = \"smaller in Docker\", margin = { percent = 3 } }]";
        let read = plan(text).unwrap();
        let names: Vec<_> = read.primary.iter().map(|primary| primary.metric.as_str()).collect();
        assert_eq!(names, ["output-throughput", "mine", "kv-cache"]);
        assert_eq!(read.primary[1].margin, Some(Margin::Within(0.5)));
        assert_eq!(read.primary[2].margin.map(|margin| margin.of(-200.0)), Some(6.0));
        // The journal keeps it as JSON.
        let again: Plan = serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
        assert_eq!(again.primary, read.primary);
    }

    #[test]
    fn questions_without_a_metric_or_margin_are_refused() {
        for (wrong, said) in [
            ("[\"no-such\"]", "no metric"),
            ("[\"kv-cache\", \"kv-cache\"]", "twice"),
            ("[{ metric = \"kv-cache\", margin = { within = 0 } }]", "above 0"),
            ("[{ metric = \"kv-cache\", margin = { within = -1 } }]", "above 0"),
            ("[{ metric = \"kv-cache\", margin = { percent = inf } }]", "above 0"),
            ("[{ metric = \"kv-cache\", margn = 1 }]", "margn"),
        ] {
            let error = plan(wrong).unwrap_err().to_string();
            assert!(error.contains(said), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_study_without_a_plan_has_three_questions_at_most() {
        let named = |names: &[&str]| {
            let metrics: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            of(&[], &metrics).into_iter().map(|primary| primary.metric).collect::<Vec<_>>()
        };
        let all: Vec<&str> = crate::figures::METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(named(&all), ["output-throughput", "peak-memory", "kv-cache"]);
        assert_eq!(named(&["duration", "system-used", "gpu-power"]), ["duration", "system-used"]);
        assert!(named(&["gpu-power"]).is_empty());
    }
}
