//! The page to attach to an issue: what was run where, what was compared, what it means, and what is missing.

use spark_trace_analysis::derived::Derived;
use spark_trace_analysis::moment::Moment;
use spark_trace_analysis::overview::{Provenance, overview};
use spark_trace_recording::redact::Names;
use spark_trace_recording::units::{UNKNOWN, delta, known, size, unsigned};
use spark_trace_recording::{self as recording, Host, Nvidia, Recording};
use spark_trace_render::document::{Cell, Column, Document, Fit as ColumnFit, Table};
use spark_trace_render::report;
use spark_trace_study::journal::State;
use spark_trace_study::results::Run;

use super::facts::{Kv, Made, Pair, StepFacts};
use super::outcome::{self, Facts, Fit, OUTCOMES};
use super::plan::Step;
use super::preflight::Lack;

/// NVIDIA's name of the GPU that the claim is about.
const GB10: &str = "GB10";
/// A source of which no pair differs by more is left out of the table.
const SHOWN: i64 = 1 << 20;

/// What was compared in a step, for the page.
pub struct Part {
    pub step: Step,
    pub state: State,
    /// Absent while a run is missing.
    pub compared: Option<Compared>,
}

/// The first pair of a step, as `report` shows it.
pub struct Compared {
    pub document: Document,
    pub host: Host,
    pub provenance: Provenance,
}

/// Reads the first native run and the first container run. `names`: stand-ins for the names in them.
pub fn compared(
    [native, container]: &[Vec<Made>; 2],
    names: Option<&Names>,
) -> anyhow::Result<Option<Compared>> {
    let (Some(made_a), Some(made_b)) = (native.first(), container.first()) else { return Ok(None) };
    let (a, b) = recording::read_both(&made_a.recording, &made_b.recording)?;
    // Lines of an engine's log are gone with the names: what they say of the instants is taken before.
    let moment = Moment::of_runs(&Derived::from(&a), &Derived::from(&b));
    let hidden = |recording: Recording| match names {
        Some(names) => names.hidden_in(recording),
        None => Ok(recording),
    };
    let (a, b) = (hidden(a)?, hidden(b)?);
    let (name_a, name_b) = (made_a.name.as_str(), made_b.name.as_str());
    let overview = overview(Some((name_a, Derived::from(&a))), (name_b, Derived::from(&b)), moment);
    let provenance = Provenance::of(&b);
    Ok(Some(Compared { document: report::document(&overview), host: b.host, provenance }))
}

/// The whole page.
pub fn document(facts: &Facts, parts: Vec<Part>, lacks: &[Lack], commands: Option<[&str; 2]>) -> Document {
    let mut document = Document::default();
    let (fits, answer) = outcome::judge(facts);
    document.heading("What this machine says of the claim that cgroups count unified memory twice");
    answered(&mut document, answer, &fits);
    let host = parts.iter().find_map(|part| part.compared.as_ref());
    if let Some(compared) = host {
        machine(&mut document, compared);
    }
    if let Some([native, container]) = commands {
        document.heading("The commands");
        document.command(native);
        document.command(container);
    }
    runs(&mut document, &parts, commands.is_some());
    for (step, facts) in [(Step::AsFound, &facts.as_found), (Step::Dropped, &facts.dropped)] {
        if let Some(facts) = facts {
            comparison(&mut document, step, facts);
        }
    }
    outcomes(&mut document, answer, &fits);
    if !lacks.is_empty() {
        document.heading("What recordings on this machine lack");
        for lack in lacks {
            document.line(format!("{}: {}", lack.name, lack.without));
        }
    }
    for part in parts {
        if let Some(compared) = part.compared {
            document.heading(format!("In detail: {}", part.step.title()));
            document.blocks.extend(compared.document.blocks);
        }
    }
    document
}

fn answered(document: &mut Document, answer: Option<usize>, fits: &[Fit]) {
    match answer.and_then(|place| Some((place, OUTCOMES.get(place)?, fits.get(place)?))) {
        Some((place, outcome, fit)) => {
            document.own(format!("Outcome {}: {}.", place + 1, outcome.sees));
            document.own(outcome.means);
            document.line(format!("Figures: {}.", fit.why()));
            if let Some(reservation) = outcome::reservation(fits, place) {
                document.warning(reservation);
            }
        }
        None => match outcome::undecided(fits, fits.len()) {
            none if none.is_empty() => {
                document.line("No outcome fits, and none is undecided: please send this page.");
            }
            some => document.line(format!(
                "No outcome is sure yet; undecided: {some}. The table of outcomes has what each would take."
            )),
        },
    }
}

/// A GPU of the kind that the claim is about, and a real one.
pub fn is_gb10(host: &Host) -> bool {
    let named = host.gpus.iter().any(|gpu| gpu.name.as_deref().is_some_and(|name| name.contains(GB10)));
    named && !host.nvidia.as_ref().is_some_and(|nvidia| nvidia.simulated || nvidia.is_stand_in())
}

fn machine(document: &mut Document, compared: &Compared) {
    let Compared { host, provenance, .. } = compared;
    let unknown = || UNKNOWN.to_owned();
    let gpus: Vec<&str> = host.gpus.iter().map(|gpu| gpu.name.as_deref().unwrap_or("unnamed")).collect();
    let driver =
        |of: fn(&Nvidia) -> Option<String>| host.nvidia.as_ref().and_then(of).unwrap_or_else(unknown);
    let rows = [
        ("model", host.model.clone().unwrap_or_else(unknown)),
        ("architecture", host.arch.clone()),
        ("kernel", host.kernel.clone()),
        ("page size", unsigned(host.page_size)),
        ("memory", unsigned(host.memory_total)),
        ("swap", unsigned(host.swap_total)),
        ("cgroup", host.cgroup_version.clone()),
        ("GPUs", if gpus.is_empty() { "none".to_owned() } else { gpus.join(", ") }),
        ("NVIDIA driver", driver(|nvidia| nvidia.driver_version.clone())),
        ("CUDA driver", driver(|nvidia| nvidia.cuda_driver_version.clone())),
        ("spark-trace", env!("CARGO_PKG_VERSION").to_owned()),
        ("figures are", provenance.host.clone()),
    ];
    document.heading("The machine");
    if !is_gb10(host) {
        document.warning(
            "this is no GB10 (DGX Spark): what was found holds for this machine, and says nothing on the claim about that one",
        );
    }
    for remark in &provenance.remarks {
        document.warning(remark);
    }
    const CELLS: &[Cell<(&str, String)>] =
        &[("WHAT", ColumnFit::Name, |row| row.0.to_owned()), ("VALUE", ColumnFit::Text, |row| row.1.clone())];
    document.table(Table::of(CELLS, &rows));
}

/// What is shown of an attempt.
const ATTEMPT: &[(&str, ColumnFit)] = &[
    ("STEP", ColumnFit::Name),
    ("RUN", ColumnFit::Name),
    ("ATTEMPT", ColumnFit::Number),
    ("TOOK", ColumnFit::Number),
    ("MEMFREE AT START", ColumnFit::Number),
    ("CACHED AT START", ColumnFit::Number),
    ("RESULT", ColumnFit::Text),
];

/// One attempt, as it went. `named`: with why it failed, which can hold paths.
fn attempt(step: Step, run: &Run, named: bool) -> Vec<String> {
    let at_start = |name: &str| known(run.state.get(name), |gib| format!("{gib:.2} GiB"));
    let took = run.ended_s.zip(run.started_s).map(|(end, start)| end - start);
    let result = match &run.failure {
        None => "recorded".to_owned(),
        Some(why) if named => format!("failed: {why}"),
        Some(_) => "failed".to_owned(),
    };
    vec![
        step.title().to_owned(),
        format!("{} {}", run.environment, run.iteration),
        run.attempt.to_string(),
        known(took, |seconds| format!("{seconds:.1} s")),
        at_start("mem-free"),
        at_start("cached"),
        result,
    ]
}

fn runs(document: &mut Document, parts: &[Part], named: bool) {
    let columns = ATTEMPT.iter().map(|&(title, fit)| Column { title: title.to_owned(), fit }).collect();
    let of =
        |part: &Part| part.state.runs.iter().map(|run| attempt(part.step, run, named)).collect::<Vec<_>>();
    let rows = parts.iter().flat_map(of).collect();
    document.section("The runs, in their order", Table { columns, rows });
    if parts.iter().any(|part| part.state.boots > 0) {
        document.warning(
            "the machine was started again between the runs: those before and those after began with other page caches",
        );
    }
}

const PAIRS: &[Cell<Pair>] = &[
    ("A", ColumnFit::Name, |pair| pair.a.clone()),
    ("B", ColumnFit::Name, |pair| pair.b.clone()),
    ("MACHINE", ColumnFit::Number, |pair| known(pair.total, delta)),
    ("CHARGED TO THE TARGET", ColumnFit::Number, |pair| known(pair.charged, delta)),
    ("KV CACHE", ColumnFit::Number, |pair| known(pair.kv.as_ref().ok().and_then(|kv| kv.delta), delta)),
    ("COUNTED TWICE", ColumnFit::Name, |pair| {
        pair.double_counting.map_or(UNKNOWN, |verdict| verdict.as_str()).to_owned()
    }),
    ("COMPARABLE", ColumnFit::Name, |pair| {
        match (pair.against.is_empty(), pair.start.is_empty()) {
            (false, _) => "no",
            (true, false) => "but for the start",
            (true, true) => "yes",
        }
        .to_owned()
    }),
];

fn comparison(document: &mut Document, step: Step, facts: &StepFacts) {
    let pairs: Vec<&Pair> = facts.pairs().collect();
    document.heading(format!("B minus A, {}", step.title()));
    document.table(Table::of(PAIRS, pairs.iter().copied()));
    document.line("The first rows are native against container; the last two are runs of one side.");
    for pair in &pairs {
        document.line(format!("{} and {}: {}", pair.a, pair.b, pair.at));
        for reason in pair.against.iter().chain(&pair.start) {
            document.warning(format!("{} and {}: {reason}", pair.a, pair.b));
        }
    }
    sources(document, &pairs);
    for pair in &facts.between {
        if let Ok(kv) = &pair.kv {
            key_value(document, pair, kv);
        }
    }
    // The reason is the same for runs of one program.
    if let Some(Err(why)) = facts.between.iter().map(|pair| &pair.kv).find(|kv| kv.is_err()) {
        document.line(format!("KV cache: {why}"));
    }
}

/// The machine's memory by source, a column for each pair.
fn sources(document: &mut Document, pairs: &[&Pair]) {
    let column = |title: String, fit| Column { title, fit };
    let columns = std::iter::once(column("SOURCE".to_owned(), ColumnFit::Name));
    let columns = columns.chain(
        pairs
            .iter()
            .map(|pair| column(format!("{} MINUS {}", pair.b, pair.a).to_uppercase(), ColumnFit::Number)),
    );
    let known_sources = spark_trace_common::source::SOURCES.iter().map(|source| source.slug);
    let rows = known_sources.filter_map(|slug| {
        let bytes: Vec<Option<i64>> = pairs.iter().map(|pair| pair.sources.get(slug).copied()).collect();
        let is_shown = bytes.iter().flatten().any(|bytes| bytes.saturating_abs() >= SHOWN);
        let cells = bytes.into_iter().map(|bytes| known(bytes, delta));
        is_shown.then(|| std::iter::once(slug.to_owned()).chain(cells).collect())
    });
    let table = Table { columns: columns.collect(), rows: rows.collect() };
    document.section("The machine's memory by source (differences below 1 MiB are left out)", table);
}

fn key_value(document: &mut Document, pair: &Pair, kv: &Kv) {
    let [signal_a, signal_b] = kv.signals.map(|signal| signal.unwrap_or("no counter of the machine"));
    let [cache_a, cache_b] = kv.cache.map(|bytes| known(bytes, size));
    let [free_a, free_b] = kv.free.map(unsigned);
    document.line(format!(
        "KV cache of {} and {} ({}): {free_a} and {free_b} free by the readings, which agree with {signal_a} and {signal_b}; the \
         engine's arithmetic gives {cache_a} and {cache_b}, {}",
        pair.a,
        pair.b,
        kv.engine.unwrap_or("engine unknown"),
        known(kv.delta, delta)
    ));
    if let Some(bytes) = kv.b_with_state_of_a {
        document.line(format!("B's KV cache with A's memory at the readings: {}", size(bytes)));
    }
}

fn outcomes(document: &mut Document, answer: Option<usize>, fits: &[Fit]) {
    let column = |title: &str, fit| Column { title: title.to_owned(), fit };
    let columns = vec![
        column("", ColumnFit::Number),
        column("WHAT WOULD BE SEEN", ColumnFit::Own),
        column("HERE", ColumnFit::Name),
        column("BECAUSE", ColumnFit::Text),
        column("WHAT IT MEANS FOR THE CLAIM", ColumnFit::Own),
    ];
    let row = |(place, (outcome, fit)): (usize, (&outcome::Outcome, &Fit))| {
        let word =
            if Some(place) == answer { format!("{}: the answer", fit.word()) } else { fit.word().to_owned() };
        vec![
            (place + 1).to_string(),
            outcome.sees.to_owned(),
            word,
            fit.why().to_owned(),
            outcome.means.to_owned(),
        ]
    };
    let rows = OUTCOMES.iter().zip(fits).enumerate().map(row).collect();
    document.heading("Outcomes: the first that fits is the answer");
    document.table(Table { columns, rows });
}
