//! docs/reference/benchmarks.md, made from the table. `SPARK_TRACE_BLESS=1 cargo test` writes it anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use super::form::{Benchmark, Form};
use super::table::BENCHMARKS;
use crate::figures::{Better, METRICS};

const HEAD: &str = "\
# Benchmarks whose reports are read

<!-- Made from the tables in crates/study/src/benchmarks/table.rs and crates/study/src/figures.rs;
     `SPARK_TRACE_BLESS=1 cargo test -p spark-trace-study --lib` writes it anew. -->

`spark-trace study` reads these reports from a run's log and from its files of results ([studies](../studies.md#metrics)).
";

#[test]
fn the_manual_is_made_from_the_table() {
    let mut text = HEAD.to_owned();
    text += "\n| Benchmark | Versions | Forms | Metrics |\n|---|---|---|---|\n";
    for benchmark in BENCHMARKS {
        let Benchmark { name, engine, versions, forms } = benchmark;
        let (kinds, metrics) = (kinds(forms), metrics(forms));
        writeln!(text, "| {engine}: `{name}` | {versions} | {kinds} | {metrics} |").unwrap();
    }
    text += "\n| Metric | Meaning | Unit | Better |\n|---|---|---|---|\n";
    for metric in METRICS.iter().filter(|metric| metric.is_of_benchmarks()) {
        let better = match metric.better {
            Better::More => "more",
            Better::Less => "less",
            Better::None => "",
        };
        writeln!(text, "| `{}` | {} | {} | {better} |", metric.name, metric.title, metric.unit).unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/benchmarks.md");
    spark_trace_testing::golden(path, &text);
}

fn kinds(forms: &[Form]) -> String {
    let kinds: Vec<&str> = forms
        .iter()
        .map(|form| match form {
            Form::Text { .. } => "text",
            Form::Json { .. } | Form::Objects(_) => "JSON, JSON lines",
            Form::Table { form, .. } => form,
        })
        .collect();
    kinds.join("; ")
}

fn metrics(forms: &[Form]) -> String {
    let of = |form: &Form| -> Vec<&'static str> {
        match form {
            Form::Text { labels, .. } => labels.iter().map(|label| label.metric).collect(),
            Form::Json { keys, .. } => keys.iter().map(|key| key.metric).collect(),
            Form::Objects(_) | Form::Table { .. } => super::llama::METRICS.to_vec(),
        }
    };
    let found: BTreeSet<&str> = forms.iter().flat_map(of).collect();
    let known = METRICS.iter().filter(|metric| found.contains(metric.name));
    known.map(|metric| format!("`{}`", metric.name)).collect::<Vec<_>>().join(", ")
}
