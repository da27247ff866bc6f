//! What `show`, `diff` and `top` say of the inference engine.

use spark_trace_analysis::diff::engine::PartDelta;
use spark_trace_analysis::engine_now::{EngineNow, StageNow};
use spark_trace_analysis::engine_run::{
    BreakdownRow, Buffer, Buffers, EngineRun, Evidence, FigureRow, FreeFall, Part, PartName, StageRow,
    Together,
};
use spark_trace_engines::{Check, Engine, Stage, Unit, Version, row};
use spark_trace_recording::units::{delta, known, seconds, share, size, unsigned};

use super::document::{Cell, Document, Fit, Table};

/// The engine, its stages and what its device memory is for; its log's figures where not `brief`.
pub fn show(document: &mut Document, report: &EngineRun, started_ns: u64, brief: bool) {
    document.heading(title(report));
    stages_and_parts(document, report, started_ns);
    if !brief {
        document.section("Figures of the engine's log", Table::of(FIGURES, &report.figures));
    }
}

/// What is below its title.
pub fn stages_and_parts(document: &mut Document, report: &EngineRun, started_ns: u64) {
    if report.engine.is_none() {
        document.line(unknown(&report.candidates));
    }
    for check in &report.failures {
        document.warning(failure(*check));
    }
    let after = |at_ns: u64| seconds(at_ns.saturating_sub(started_ns));
    let stages: Vec<TimedStage> = report
        .stages
        .iter()
        .map(|row| (row.clone(), after(row.span.begin_ns), known(row.span.end_ns, after)))
        .collect();
    if !stages.is_empty() {
        document.table(Table::of(STAGES, &stages));
    }
    for row in &report.stages {
        row.free_fall.iter().for_each(|fall| document.line(free_fall(row, *fall)));
    }
    if let Some(parts) = &report.parts {
        let rows: Vec<_> = parts.parts.iter().map(|part| (part.clone(), parts.bytes)).collect();
        document.section(
            format!("Device memory by use, {} after {}", unsigned(parts.bytes), after(parts.at_ns)),
            Table::of(PARTS, &rows),
        );
    }
    buffers(document, &report.buffers);
    document.section(
        "Device memory by the engine's log and by the recording",
        Table::of(BREAKDOWN, &report.breakdown),
    );
}

/// What an engine measures is more than what it takes by calls.
fn free_fall(row: &StageRow, fall: FreeFall) -> String {
    let logged = fall.logged_bytes.map_or_else(String::new, |bytes| format!(" (its log: {})", size(bytes)));
    let parts = row.growth_bytes.and_then(|calls| Some((calls, fall.bytes.checked_sub(calls)?)));
    let parts = parts.map_or_else(String::new, |(calls, rest)| {
        format!(": {} by its calls, {} by the driver itself and by others", size(calls), size(rest))
    });
    let stage = stage(row.stage);
    format!("In {stage} the engine saw free memory fall by {}{logged}{parts}", size(fall.bytes))
}

/// Buffers of the log beside their allocations.
fn buffers(document: &mut Document, buffers: &Buffers) {
    document.section("Buffers of the engine's log and their allocations", Table::of(BUFFERS, &buffers.rows));
    if let Some(Together { logged_bytes, traced_bytes }) = buffers.together {
        document.line(format!(
            "One caller allocated all of them: {} in the log, {} in the recording",
            unsigned(logged_bytes),
            unsigned(traced_bytes)
        ));
    }
}

pub fn title(report: &EngineRun) -> String {
    named(report.title, report.version)
}

fn named(title: Option<&str>, version: Option<Version>) -> String {
    let version = version.map_or_else(String::new, |version| format!(" {version}"));
    format!("Engine: {}{version}", title.unwrap_or("unknown"))
}

/// Where the engine is, and what its device memory is for: one line or two.
pub fn now(engine: &EngineNow, started_ns: u64) -> Vec<String> {
    let after = |at_ns: u64| seconds(at_ns.saturating_sub(started_ns));
    let place = match engine.stage {
        None => "stage unknown".to_owned(),
        Some(StageNow { stage: on, begin_ns, end_ns: None, .. }) => {
            format!("{} since {}", stage(on), after(begin_ns))
        }
        Some(StageNow { stage: last, end_ns: Some(end_ns), .. }) => {
            format!("after {}, which ended at {}", stage(last), after(end_ns))
        }
    };
    let state = format!("{}: {place}", named(engine.title, engine.version));
    let parts = engine.parts.as_ref().map(|parts| {
        let parts = parts.parts.iter().map(|row| format!("{} {}", part(row.part), unsigned(row.bytes)));
        format!("Its device memory: {}", parts.collect::<Vec<_>>().join(", "))
    });
    std::iter::once(state).chain(parts).collect()
}

fn unknown(candidates: &[Engine]) -> String {
    let titles: Vec<_> = candidates.iter().map(|engine| row(*engine).map_or("", |row| row.title)).collect();
    match titles.as_slice() {
        [] => "No sign of an engine that spark-trace knows.".to_owned(),
        titles => format!("The evidence fits more than one: {}.", titles.join(", ")),
    }
}

fn failure(check: Check) -> String {
    let (_, text) =
        FAILURES.iter().find(|(known, _)| *known == check).copied().unwrap_or((check, check.as_str()));
    format!("The engine ended: {text}.")
}

const FAILURES: &[(Check, &str)] = &[
    (Check::FreeBelowRequested, "less memory is free at the start than its fraction stands for"),
    (Check::FreeGrewInProfiling, "more memory was free after profiling than before it"),
    (Check::CacheBelowOneRequest, "the KV cache is too small for one request of the greatest length"),
    (Check::NothingLeftForCache, "no memory is left for the KV cache"),
    (Check::RanksUnbalanced, "one rank has much less free memory than the others"),
    (Check::ModelAboveSystemMemory, "the model needs more of the system's memory than is available"),
    (Check::DoesNotFit, "the model does not fit with the parameters that were set"),
    (Check::AllocationFailed, "an allocation failed"),
];

type TimedStage = (StageRow, String, String);

const STAGES: &[Cell<TimedStage>] = &[
    ("STAGE", Fit::Name, |(row, ..)| stage(row.stage).to_owned()),
    ("FROM", Fit::Number, |(_, from, _)| from.clone()),
    ("TO", Fit::Number, |(.., to)| to.clone()),
    ("DEVICE MEMORY", Fit::Number, |(row, ..)| known(row.growth_bytes, delta)),
    ("KNOWN BY", Fit::Own, |(row, ..)| evidence(row.evidence).to_owned()),
];

const PARTS: &[Cell<(Part, u64)>] = &[
    ("USE", Fit::Name, |(row, _)| part(row.part).to_owned()),
    ("BYTES", Fit::Number, |(row, _)| unsigned(row.bytes)),
    ("SHARE", Fit::Number, |(row, whole)| share(row.bytes as f64 * 100.0 / (*whole).max(1) as f64)),
    ("IN THE LOG", Fit::Number, |(row, _)| known(row.logged_bytes, unsigned)),
    ("KNOWN BY", Fit::Own, |(row, _)| row.evidence.map_or("the rest", evidence).to_owned()),
];

const BUFFERS: &[Cell<Buffer>] = &[
    ("USE", Fit::Name, |row| part(row.part).to_owned()),
    ("DEVICE", Fit::Name, |row| known(row.device.clone(), |device| device)),
    ("LOGGED", Fit::Number, |row| unsigned(row.logged_bytes)),
    ("TRACED", Fit::Number, |row| known(row.traced_bytes, unsigned)),
];

const BREAKDOWN: &[Cell<BreakdownRow>] = &[
    ("ROW", Fit::Name, |row| row.of.as_str().to_owned()),
    ("LOGGED", Fit::Number, |row| size(row.logged_bytes)),
    ("TRACED", Fit::Number, |row| known(row.traced_bytes, size)),
    ("TRACED MINUS LOGGED", Fit::Number, |row| {
        known(row.traced_bytes.and_then(|traced| traced.checked_sub(row.logged_bytes)), delta)
    }),
];

const FIGURES: &[Cell<FigureRow>] = &[
    ("FIGURE", Fit::Name, |row| row.figure.to_owned()),
    ("OF", Fit::Text, |row| row.subject.clone().unwrap_or_default()),
    ("VALUE", Fit::Number, value),
];

fn value(row: &FigureRow) -> String {
    match (row.unit, row.value.whole()) {
        (Unit::Bytes, Some(bytes)) => size(bytes),
        (Unit::Count, Some(count)) => count.to_string(),
        (Unit::Seconds, _) => format!("{:.1} s", row.value.real()),
        _ => format!("{:.3}", row.value.real()),
    }
}

pub fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Weights => "weights",
        Stage::Profiling => "profiling",
        Stage::KvAllocation => "KV allocation",
        Stage::GraphCapture => "graph capture",
        Stage::Serving => "serving",
    }
}

fn part(part: PartName) -> &'static str {
    match part {
        PartName::Weights => "weights",
        PartName::KvCache => "KV cache",
        PartName::Compute => "compute buffers",
        PartName::Graphs => "graphs",
        PartName::Workspace => "workspace",
    }
}

fn evidence(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::Log => "the engine's log",
        Evidence::Calls => "readings of free memory",
        Evidence::Allocations => "traced buffers",
        Evidence::Sum => "the log; the sum was traced",
    }
}

pub fn diff(document: &mut Document, rows: &[PartDelta]) {
    document.section("Device memory of the engine by use", Table::of(DELTAS, rows));
}

const DELTAS: &[Cell<PartDelta>] = &[
    ("USE", Fit::Name, |row| part(row.part).to_owned()),
    ("A", Fit::Number, |row| known(row.a_bytes, unsigned)),
    ("B", Fit::Number, |row| known(row.b_bytes, unsigned)),
    ("DELTA", Fit::Number, |row| known(row.delta_bytes, delta)),
];

#[cfg(test)]
mod tests {
    use spark_trace_analysis::engine_run::Parts;

    use super::*;

    const GIB: u64 = 1 << 30;
    const SECOND: u64 = 1_000_000_000;

    fn engine(stage: Option<StageNow>, parts: Option<Parts>) -> EngineNow {
        EngineNow {
            engine: Engine::Vllm,
            title: Some("vLLM"),
            version: Version::parse("0.25.1"),
            stage,
            parts,
        }
    }

    #[test]
    fn where_an_engine_is() {
        assert_eq!(now(&engine(None, None), 0), ["Engine: vLLM 0.25.1: stage unknown"]);
        let stage = |end_ns| StageNow {
            stage: Stage::KvAllocation,
            begin_ns: 20 * SECOND,
            end_ns,
            evidence: Evidence::Log,
        };
        let ended = engine(Some(stage(Some(25 * SECOND))), None);
        assert_eq!(now(&ended, SECOND), ["Engine: vLLM 0.25.1: after KV allocation, which ended at 24.0 s"]);
        let part = |part, bytes| Part { part, bytes, evidence: None, logged_bytes: None };
        let parts = vec![part(PartName::Weights, 11 * GIB), part(PartName::KvCache, 113 * GIB)];
        let parts = Parts { at_ns: 0, bytes: 124 * GIB, parts };
        assert_eq!(
            now(&engine(Some(stage(None)), Some(parts)), SECOND),
            [
                "Engine: vLLM 0.25.1: KV allocation since 19.0 s",
                "Its device memory: weights 11.00 GiB, KV cache 113.00 GiB"
            ]
        );
    }
}
