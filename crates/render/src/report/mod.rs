//! The text of `report`, in documents that Markdown and HTML share.

use super::document::{Cell, Column, Document, Fit, Table};
use super::engine_run;
use super::kv_sentences;
use super::show::{answer, reconciled};
use spark_trace_analysis::attribution::PlaneReport;
use spark_trace_analysis::diff::{self, SourceDelta};
use spark_trace_analysis::losses::SkippedRuns;
use spark_trace_analysis::overview::{Overview, Run};
use spark_trace_analysis::view::Scope;
use spark_trace_analysis::warning::Warning;
use spark_trace_common::source::UNATTRIBUTED;
use spark_trace_recording::units::{UNKNOWN, delta, duration, known, seconds, share, size, unsigned};
use spark_trace_recording::verdict::Verdict;
use spark_trace_recording::{Health, Hook, SKIPPED};

pub(super) mod findings;
pub mod kv;

/// For issue threads: what was found, what it rests on, and nothing that needs a picture.
pub fn document(overview: &Overview) -> Document {
    let mut document = Document::default();
    document.heading(title(overview));
    headline(&mut document, overview);
    runs(&mut document, overview);
    findings::section(&mut document, &overview.findings);
    for diff in &overview.diffs {
        document.section(waterfall_title(diff), waterfall(diff));
    }
    if let Some(kv) = &overview.kv {
        document.heading("KV-cache budget");
        kv::section(&mut document, kv);
    }
    for (letter, run) in overview.runs() {
        engine(&mut document, letter, run);
    }
    for (letter, run) in overview.runs() {
        reconciliation(&mut document, letter, run);
    }
    document
}

/// The inference engine, its stages and what its device memory is for.
pub fn engine(document: &mut Document, letter: &str, run: &Run) {
    let started_ns = run.report.target.started_ns;
    if let Some(engine) = &run.report.engine {
        document.heading(prefixed(letter, &engine_run::title(engine)));
        engine_run::stages_and_parts(document, engine, started_ns);
    }
}

pub fn title(overview: &Overview) -> String {
    match &overview.a {
        Some(_) => "Memory: B compared with A".to_owned(),
        None => format!("Memory of {}", name(&overview.b)),
    }
}

/// What ran, in a few words.
pub fn name(run: &Run) -> String {
    let target = &run.report.target;
    let container = target.container.as_ref();
    let container = container.map(|container| container.name.clone().unwrap_or_else(|| container.id.clone()));
    let command = (!target.argv.is_empty()).then(|| target.argv.join(" "));
    let named = container.or(command).or_else(|| target.cgroups.first().map(|cgroup| cgroup.path.clone()));
    format!("{} {}", target.kind, named.unwrap_or_default()).trim_end().to_owned()
}

/// The answer, in two sentences or four. One instant alone has the answer of `show`.
pub fn headline(document: &mut Document, overview: &Overview) {
    if overview.a.is_none() && overview.b.report.target.is_snapshot() {
        return answer::sentences(document, &overview.b.report);
    }
    for headline in overview.headlines() {
        document.line(headline);
    }
    if let Some(kv) = &overview.kv {
        document.line(kv_sentences::headline(kv));
    }
}

/// Which runs they are, where their numbers come from and whether they may be compared.
pub fn runs(document: &mut Document, overview: &Overview) {
    for (letter, run) in overview.runs() {
        document.line(about(letter, run));
        for warning in provenance_warnings(run) {
            document.warning(prefixed(letter, &warning));
        }
        for warning in warnings(run) {
            document.warning(prefixed(letter, &warning));
        }
    }
    if let Some(moment) = &overview.moment {
        for warning in &moment.warnings {
            document.warning(warning);
        }
        document.line(&moment.reason);
    }
    let Some(comparable) = &overview.comparable else { return };
    for reason in &comparable.reasons {
        document.warning(format!("not comparable: {reason}"));
    }
    for note in &comparable.notes {
        document.line(format!("note: {note}"));
    }
}

pub fn prefixed(letter: &str, text: &str) -> String {
    if letter.is_empty() { text.to_owned() } else { format!("{letter}: {text}") }
}

fn about(letter: &str, run: &Run) -> String {
    prefixed(
        letter,
        &format!("{}, {}, {}; {}", run.file, name(run), machine(run), run.provenance.host.to_uppercase()),
    )
}

/// The machine and how the run went, in a line.
pub fn machine(run: &Run) -> String {
    let (target, host, tool) = (&run.report.target, &run.report.host, &run.report.tool);
    let ran = seconds(target.ended_ns.saturating_sub(target.started_ns));
    let exit = target.exit_code.map_or_else(String::new, |code| format!(", exit code {code}"));
    let model = host.model.as_ref().map_or_else(String::new, |model| format!("{model}, "));
    format!(
        "{ran}{exit}; {model}{} {}, {} CPUs, {} memory, {} KiB pages, cgroup {}, profile {}",
        host.arch,
        host.kernel,
        host.cpus,
        unsigned(host.memory_total),
        host.page_size / 1024,
        host.cgroup_version,
        tool.profile
    )
}

/// What of a run is not what it may be taken for.
pub fn provenance_warnings(run: &Run) -> impl Iterator<Item = String> {
    let host = (run.provenance.host != "measured").then(|| match run.provenance.host.as_str() {
        "emulated" => "EMULATED: the CPU was software; memory accounting is real, timing is not".to_owned(),
        "simulated" => "SIMULATED: a program replaced missing hardware".to_owned(),
        other => format!("NOT MEASURED: the recording calls its host {other:?}"),
    });
    host.into_iter().chain(run.provenance.remarks.iter().cloned())
}

/// What else must be known of a run. That a library is simulated is said already.
pub fn warnings(run: &Run) -> impl Iterator<Item = String> {
    let warnings = run.report.warnings.iter();
    warnings.filter(|warning| !matches!(warning, Warning::SimulatedLibrary { .. })).map(ToString::to_string)
}

pub fn waterfall_title(diff: &diff::Report) -> String {
    format!("From A to B by source, {} plane, each at its {}", diff.plane.as_str(), diff.at.of_a_run())
}

/// From A's level to B's: a row for each source that differs, what no source explains, and both ends.
pub fn waterfall(diff: &diff::Report) -> Table {
    let differing = diff.sources.iter().filter(|row| {
        row.source == UNATTRIBUTED || row.delta_bytes.is_none_or(|bytes| bytes != 0) && is_known(row)
    });
    let mut table = Table::of(WATERFALL, differing);
    let end = |name: &str, level: Option<i64>, change: Option<i64>| {
        let cell = |value: Option<i64>, format: fn(i64) -> String| value.map_or_else(String::new, format);
        vec![name.to_owned(), cell(change, delta), cell(level, size), String::new(), String::new()]
    };
    table.rows.insert(0, end("A", diff.a.expected, None));
    table.rows.push(end("B", diff.b.expected, diff.total_delta_bytes));
    table
}

fn is_known(row: &SourceDelta) -> bool {
    row.a_bytes.is_some() || row.b_bytes.is_some()
}

const WATERFALL: &[Cell<SourceDelta>] = &[
    ("SOURCE", Fit::Name, |row| row.source.to_owned()),
    ("DELTA", Fit::Number, |row| known(row.delta_bytes, delta)),
    ("A", Fit::Number, |row| known(row.a_bytes, size)),
    ("B", Fit::Number, |row| known(row.b_bytes, size)),
    ("SHARE", Fit::Number, |row| known(row.share, |part| share(part * 100.0))),
];

/// Counters against sources on every plane, and what may be missing.
pub fn reconciliation(document: &mut Document, letter: &str, run: &Run) {
    let planes = run.report.planes.iter().flat_map(|plane| {
        let name = plane_name(plane);
        let growth = (!run.report.target.is_snapshot())
            .then(|| reconciled(format!("{name}, growth"), &plane.growth, delta));
        growth.into_iter().chain([reconciled(format!("{name}, level"), &plane.level, size)])
    });
    let rows: Vec<_> = planes.collect();
    let titles = [
        ("PLANE", Fit::Name),
        ("COUNTER", Fit::Number),
        ("SOURCES", Fit::Number),
        ("UNATTRIBUTED", Fit::Number),
        ("OF COUNTER", Fit::Number),
    ];
    let columns = titles.map(|(title, fit)| Column { title: title.to_owned(), fit });
    document.section(
        prefixed(letter, "Reconciliation: the counter of each plane against its sources"),
        Table { columns: columns.into(), rows },
    );
    lost(document, &run.report.health);
    cost(document, run);
}

pub fn plane_name(plane: &PlaneReport) -> String {
    match (plane.plane, &plane.device) {
        (Scope::Device, Some(device)) => format!("GPU {}", device.index),
        (Scope::Cgroup, _) => format!("cgroup {}", plane.cgroup_version.unwrap_or_default()),
        (scope, _) => scope.as_str().to_owned(),
    }
}

fn lost(document: &mut Document, health: &Health) {
    if health.lost_total == 0 {
        document.line("losses: none");
    }
    for loss in health.losses.iter().filter(|loss| loss.count > 0 && loss.what != SKIPPED) {
        document.warning(format!("lost in {}: {}", loss.what, loss.count));
    }
    for missed in health.hooks.iter().filter_map(SkippedRuns::of) {
        if missed.matters() {
            document.warning(missed.to_string());
        } else {
            document.line(missed.to_string());
        }
    }
    document.line(chosen_hooks(&health.hooks));
    for source in health.sources.iter().filter(|source| source.verdict != Verdict::Ok) {
        let reason = source.reason.as_deref().unwrap_or("no reason given");
        document.line(format!("{}: {}: {reason}", source.name, source.verdict));
    }
}

fn cost(document: &mut Document, run: &Run) {
    let cost = &run.report.cost;
    document.line(format!(
        "cost of tracing: agent {} CPU, {} resident; programs {} CPU, {} kernel memory",
        duration(cost.agent_cpu_ns),
        unsigned(cost.agent_rss_peak),
        known(cost.bpf_run_time_ns, duration),
        known(cost.bpf_memory, unsigned)
    ));
}

/// How many of the chosen hooks work, and why the others were not chosen.
fn chosen_hooks(hooks: &[Hook]) -> String {
    const NOT_CHOSEN: [(Verdict, &str); 2] = [
        (Verdict::Off, "off by profile, option or trigger"),
        (Verdict::NotApplicable, "without anything to see on this machine"),
    ];
    let with = |verdict: Verdict| hooks.iter().filter(|hook| hook.verdict == verdict).count();
    let others = NOT_CHOSEN.map(|(verdict, why)| (with(verdict), why));
    let chosen = hooks.len() - others.iter().map(|(count, _)| count).sum::<usize>();
    let others = others.into_iter().filter(|(count, _)| *count > 0);
    let others: String = others.map(|(count, why)| format!("; {count} {why}")).collect();
    format!("hooks: {} of {chosen} chosen hooks work{others}", with(Verdict::Ok))
}

/// Every hook with its verdict.
pub fn hooks(health: &Health) -> Table {
    Table::of(HOOKS, &health.hooks)
}

const HOOKS: &[Cell<Hook>] = &[
    ("HOOK", Fit::Name, |hook| hook.name.clone()),
    ("VERDICT", Fit::Name, |hook| hook.verdict.to_string()),
    ("MECHANISM", Fit::Name, |hook| {
        hook.mechanism.as_ref().map_or_else(|| UNKNOWN.to_owned(), ToString::to_string)
    }),
    ("HITS", Fit::Number, |hook| known(hook.hits, |hits| hits.to_string())),
    ("SKIPPED", Fit::Number, |hook| known(hook.lost, |lost| lost.to_string())),
    ("REASON", Fit::Text, |hook| hook.reason.clone().unwrap_or_default()),
];

#[cfg(test)]
pub(crate) mod tests;
