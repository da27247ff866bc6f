//! What is on the screen: rows for the list that the user has come to, and the lines around it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use spark_trace_common::source::UNATTRIBUTED;

use super::{Order, Step, Tab, TracingCost, Ui};
use spark_trace_analysis::drilldown::{self, Detail, Holder};
use spark_trace_analysis::live_frame::{Frame, PlaneFrame, SourceFrame};
use spark_trace_analysis::memory_queries;
use spark_trace_recording::Recording;
use spark_trace_recording::units::{self, UNKNOWN, delta, known, percent, size, unsigned};
use spark_trace_recording::unlimited::{NO_LIMIT, V1_NO_LIMIT};
use spark_trace_render::{engine_run, memory_use};

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub cells: Vec<String>,
    /// Where Enter leads; absent where it leads nowhere.
    pub step: Option<Step>,
    /// Levels of the latest readings.
    pub history: Vec<Option<i64>>,
    bytes: Option<i64>,
    growth: Option<i64>,
}

/// A column of the list: its title, and whether it holds numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    pub title: &'static str,
    pub number: bool,
    /// Takes the room that is left; there is one.
    pub wide: bool,
}

const fn number(title: &'static str) -> Column {
    Column { title, number: true, wide: false }
}

const fn name(title: &'static str) -> Column {
    Column { title, number: false, wide: false }
}

const fn wide(title: &'static str) -> Column {
    Column { title, number: false, wide: true }
}

const SOURCES: &[Column] = &[
    name("SOURCE"),
    number("BYTES"),
    number("GROWTH"),
    number("PER SECOND"),
    name("CHG"),
    name("RECL"),
    wide("LATEST READINGS"),
];
const SOURCES_BY_GROWTH: &[Column] = &[
    name("SOURCE"),
    number("GROWTH"),
    number("BYTES"),
    number("PER SECOND"),
    name("CHG"),
    name("RECL"),
    wide("LATEST READINGS"),
];
const CGROUPS: &[Column] = &[number("BYTES"), number("OWN"), number("GROWTH"), wide("CGROUP")];
const PROCESSES: &[Column] = &[number("RESIDENT"), number("GROWTH"), wide("PROCESS")];
const DETAILS: &[Column] = &[number("BYTES"), name("COUNTS"), wide("WHAT")];
const STACK: &[Column] = &[number("#"), wide("FRAME, INNERMOST FIRST")];

/// Everything that is drawn.
#[derive(Debug, Clone)]
pub struct Screen {
    pub frame: Frame,
    /// The plane's sum, counter and residual: always in sight.
    pub headline: String,
    /// Who uses the GPUs' memory and the machine's, and the stage that the inference engine is in.
    pub above: Vec<String>,
    /// From the plane down to the list.
    pub trail: String,
    pub columns: &'static [Column],
    pub rows: Vec<Row>,
    /// Said where there are no rows.
    pub empty: &'static str,
    pub queries: Vec<String>,
    pub health: String,
}

impl Screen {
    pub fn new(ui: &Ui, recording: &Recording, frame: Frame, spent: TracingCost) -> Self {
        let (columns, mut rows, empty) = list(ui, recording, &frame);
        if !ui.filter.is_empty() {
            let wanted = ui.filter.to_lowercase();
            rows.retain(|row| row.cells.iter().any(|cell| cell.to_lowercase().contains(&wanted)));
        }
        sort(&mut rows, ui.order);
        let started_ns = recording.target.started_ns;
        Self {
            headline: headline(ui, &frame),
            above: above(&frame, started_ns),
            trail: std::iter::once(ui.tab.title())
                .chain(ui.path.iter().map(Step::short))
                .collect::<Vec<_>>()
                .join(" > "),
            columns,
            rows,
            empty,
            queries: queries(&frame, started_ns),
            health: health(&frame, spent),
            frame,
        }
    }
}

/// In sight above every list, and in the one frame of `top --once`.
fn above(frame: &Frame, started_ns: u64) -> Vec<String> {
    let used = frame.memory_use.iter().flat_map(memory_use::lines);
    let engine = frame.engine.iter().flat_map(|engine| engine_run::now(engine, started_ns));
    used.chain(engine).collect()
}

type List = (&'static [Column], Vec<Row>, &'static str);

/// What a path leads to: the next step down, where there is one.
fn list(ui: &Ui, recording: &Recording, frame: &Frame) -> List {
    let (source, cgroup, pid) = ui.focus();
    let at_ns = frame.at_ns;
    if let Some(Step::Detail(_, frames)) = ui.path.last() {
        return (
            STACK,
            frames.iter().enumerate().map(|(index, frame)| stack_row(index, frame)).collect(),
            NO_STACK,
        );
    }
    if source.is_none() && ui.tab != Tab::Process {
        return (if ui.delta { SOURCES_BY_GROWTH } else { SOURCES }, sources(ui, frame), NO_PLANE);
    }
    if cgroup.is_none() && pid.is_none() && ui.tab != Tab::Process {
        let holders = drilldown::cgroups(recording, at_ns, source);
        if !holders.is_empty() {
            let before = ui.mark.as_ref().map(|marked| {
                let holders = marked.holders.cgroups(source);
                holders.into_iter().map(|holder| (holder.key, holder.own)).collect()
            });
            let rows = holders.into_iter().map(|holder| {
                let growth = grown(before.as_ref(), holder.key, holder.own);
                cgroup_row(holder, growth)
            });
            return (CGROUPS, rows.collect(), NOBODY);
        }
    }
    if pid.is_none() && drilldown::has_processes(source) {
        let holders = drilldown::processes(recording, at_ns, source, cgroup);
        let before = ui.mark.as_ref().map(|marked| {
            let holders = marked.holders.processes(source);
            holders.into_iter().map(|holder| (holder.key, holder.bytes)).collect()
        });
        let parent = level(ui, recording, frame, source, cgroup);
        let rows = holders.into_iter().map(|holder| {
            let growth = grown(before.as_ref(), holder.key, holder.bytes);
            let holder = holder.within(parent);
            process_row(holder, growth)
        });
        return (PROCESSES, rows.collect(), NOBODY);
    }
    let parent = pid.and_then(|pid| {
        let holders = drilldown::processes(recording, at_ns, source, cgroup);
        holders.into_iter().find(|holder| holder.key == pid)?.bytes
    });
    let parent = parent.or_else(|| level(ui, recording, frame, source, cgroup));
    let details = drilldown::details(recording, at_ns, source, cgroup, pid);
    let details = details.into_iter().map(|detail| detail.within(parent)).map(detail_row);
    (DETAILS, details.collect(), drilldown::nothing(source))
}

const NO_PLANE: &str = "this plane is not read here";
const NOBODY: &str = "no attributable holder";
const NO_STACK: &str = "no stack was taken";

/// What a list is part of: a cgroup's level of the source, or the plane's. Nothing it has can be more.
fn level(
    ui: &Ui,
    recording: &Recording,
    frame: &Frame,
    source: Option<&'static str>,
    cgroup: Option<u64>,
) -> Option<i64> {
    let source = source?;
    if let Some(cgroup) = cgroup {
        let holders = drilldown::cgroups(recording, frame.at_ns, Some(source));
        return holders.into_iter().find(|holder| holder.key == cgroup)?.bytes;
    }
    let device =
        ui.path.iter().find_map(|step| if let Step::Source(_, device) = step { Some(*device) } else { None });
    let mut planes = frame.planes.iter().filter(|plane| Some(plane.plane) == ui.tab.scope());
    let plane = planes.find(|plane| plane.device == device.flatten())?;
    plane.sources.iter().find(|row| row.source == source)?.bytes
}

fn sources(ui: &Ui, frame: &Frame) -> Vec<Row> {
    let Some(scope) = ui.tab.scope() else { return Vec::new() };
    let planes: Vec<&PlaneFrame> = frame.planes.iter().filter(|plane| plane.plane == scope).collect();
    let several = planes.len() > 1;
    let rows = planes.iter().flat_map(|plane| {
        let has_any = |row: &&SourceFrame| {
            row.source == UNATTRIBUTED
                || row.bytes.is_some_and(|bytes| bytes != 0)
                || row.delta.is_some_and(|delta| delta != 0)
        };
        plane.sources.iter().filter(has_any).map(move |row| source_row(row, plane.device, several, ui.delta))
    });
    rows.collect()
}

fn source_row(row: &SourceFrame, device: Option<u32>, several: bool, by_growth: bool) -> Row {
    let title = match device.filter(|_| several) {
        Some(device) => format!("{device}: {}", row.source),
        None => row.source.to_owned(),
    };
    let (level, growth) = (known(row.bytes, size), known(row.delta, delta));
    let (first, second) = if by_growth { (growth, level) } else { (level, growth) };
    let rate = known(row.rate, delta);
    let [charged, reclaimable] = [row.charged, row.reclaimable].map(|word| shortened(word).to_owned());
    Row {
        cells: vec![title, first, second, rate, charged, reclaimable, String::new()],
        step: Some(Step::Source(row.source, device)),
        history: row.history.clone(),
        bytes: row.bytes,
        growth: row.delta,
    }
}

/// Words of the taxonomy that are too long for a narrow screen; the help has both.
pub const SHORTENED: &[(&str, &str)] =
    &[("depends", "some"), ("after writeback", "sync"), ("by swap", "swap"), ("partly", "part")];

fn shortened(word: &'static str) -> &'static str {
    SHORTENED.iter().find(|(long, _)| *long == word).map_or(word, |(_, short)| short)
}

fn plain(cells: Vec<String>, step: Option<Step>, bytes: Option<i64>) -> Row {
    Row { cells, step, history: Vec::new(), bytes, growth: None }
}

/// Growth since the mark; who was not there then has grown from nothing.
fn grown<K: Ord>(before: Option<&BTreeMap<K, Option<i64>>>, key: K, now: Option<i64>) -> Option<i64> {
    let then = match before?.get(&key) {
        Some(then) => (*then)?,
        None => 0,
    };
    Some(now?.saturating_sub(then))
}

fn cgroup_row(holder: Holder<u64>, growth: Option<i64>) -> Row {
    let cells =
        vec![known(holder.bytes, size), known(holder.own, size), known(growth, delta), holder.name.clone()];
    Row { growth, ..plain(cells, Some(Step::Cgroup(holder.key, holder.name)), holder.own) }
}

fn process_row(holder: Holder<u32>, growth: Option<i64>) -> Row {
    let cells = vec![known(holder.bytes, size), known(growth, delta), holder.name.clone()];
    // In the path a process is its name and number.
    let short = holder.name.split_once(") ").map_or(holder.name.clone(), |(short, _)| format!("{short})"));
    Row { growth, ..plain(cells, Some(Step::Process(holder.key, short)), holder.bytes) }
}

fn detail_row(detail: Detail) -> Row {
    let text = match detail.frames.is_empty() {
        true => detail.what.clone(),
        false => format!("{}: {}", detail.what, detail.frames.join(" <- ")),
    };
    let cells = vec![size(detail.bytes), detail.counts.to_owned(), text];
    let step = (!detail.frames.is_empty()).then_some(Step::Detail(detail.what, detail.frames));
    plain(cells, step, Some(detail.bytes))
}

fn stack_row(index: usize, frame: &str) -> Row {
    plain(vec![index.to_string(), frame.to_owned()], None, None)
}

/// What is not explained is last in any order.
fn sort(rows: &mut [Row], order: Order) {
    let residual = |row: &Row| matches!(row.step, Some(Step::Source(UNATTRIBUTED, _)));
    rows.sort_by_key(|row| {
        let amount = match order {
            Order::Bytes => row.bytes,
            Order::Growth => row.growth.or(row.bytes),
            // As they came.
            Order::Name => None,
        };
        // What has shrunk is no growth.
        (residual(row), Reverse(amount))
    });
}

fn headline(ui: &Ui, frame: &Frame) -> String {
    // Processes are in the system's memory.
    let scope = ui.tab.scope().unwrap_or(spark_trace_analysis::view::Scope::System);
    let Some(plane) = frame.planes.iter().find(|plane| plane.plane == scope) else {
        return format!("{}: not read here", scope.as_str());
    };
    format!(
        "{} {}  attributed {}  unattributed {} ({})",
        scope.as_str(),
        known(plane.level.expected, size),
        size(plane.level.attributed),
        known(plane.level.residual, size),
        known(plane.level.residual_percent, units::share),
    )
}

fn queries(frame: &Frame, started_ns: u64) -> Vec<String> {
    let lines = frame.queries.iter().map(|query| {
        let figures = memory_queries::figures(&query.interface).iter().filter_map(|name| {
            let bytes = *query.values.get(*name)?;
            let value = if bytes >= V1_NO_LIMIT { NO_LIMIT.to_owned() } else { unsigned(bytes) };
            Some(if *name == "bytes" { value } else { format!("{name} {value}") })
        });
        let figures: Vec<_> = figures.collect();
        let after = (i128::from(query.at_ns) - i128::from(started_ns)) as f64 / 1e9;
        let answer = match (&query.text, figures.is_empty()) {
            // cgroup v2 has this word for it.
            (Some(text), _) if text == "max" => format!(": {NO_LIMIT}"),
            (Some(text), _) => format!(": {text}"),
            (None, true) => String::new(),
            (None, false) => format!(": {}", figures.join(", ")),
        };
        format!("{after:.1} s  {} ({}) queried {}{answer}", query.comm, query.pid, query.interface)
    });
    lines.collect()
}

fn health(frame: &Frame, spent: TracingCost) -> String {
    let share = |ns: u64| percent(ns as f64 / spent.elapsed_ns.max(1) as f64 * 100.0);
    let agent = format!("{} of a CPU", share(spent.agent_ns));
    said(frame, &agent, &spent.programs_ns.map_or_else(|| UNKNOWN.to_owned(), share))
}

/// The same of one frame alone, whose trace has just begun: loading programs is most of what it took.
pub fn health_until(frame: &Frame) -> String {
    let agent = format!("{} of CPU time since it was started", units::duration(frame.agent_cpu_ns));
    said(frame, &agent, &known(frame.programs_ns, units::duration))
}

fn said(frame: &Frame, agent: &str, programs: &str) -> String {
    let skipped = |count: u64| format!("{count} runs of hooks skipped");
    let lost = match (frame.entries_lost, frame.lost.saturating_sub(frame.entries_lost)) {
        (0, 0) => "nothing lost".to_owned(),
        (0, runs) => skipped(runs),
        (entries, runs) => {
            let what = frame.most_lost.as_deref().unwrap_or("entries");
            let runs = if runs > 0 { format!(", {}", skipped(runs)) } else { String::new() };
            format!("{entries} entries lost, most of {what}{runs}")
        }
    };
    let hooks = match frame.hooks.wanted {
        0 => "no hooks".to_owned(),
        wanted => format!("hooks {} of {wanted}", frame.hooks.ok),
    };
    format!("{hooks} | {lost} | agent {agent}, {} | programs {programs}", unsigned(frame.agent_rss_peak),)
}
