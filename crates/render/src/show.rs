//! The text of `show`.

use spark_trace_analysis::signed::signed;
use spark_trace_common::source::UNATTRIBUTED;

use super::csv::{self, Field};
use super::devices;
use super::document::{Column, Document, Fit, Table};
use super::limits;
use spark_trace_analysis::attribution::answer::command_line;
use spark_trace_analysis::attribution::{PlaneReport, Reconciliation, Report, SourceRow};
use spark_trace_analysis::instant_spec::InstantSpec;
use spark_trace_analysis::nearest_instant::FOLLOW_NS;
use spark_trace_analysis::view::Scope;
use spark_trace_recording::Instant;
use spark_trace_recording::units::{delta, duration, known, seconds, share, size, unsigned};
use spark_trace_recording::verdict::Verdict;

pub(super) mod answer;
mod frames;
pub mod lists;
mod rest;
mod sections;
pub mod tables;

pub use sections::{SECTIONS, Section};

/// Characters of a command line in a heading.
const COMMAND_LINE: usize = 200;

/// The row that has what is charged to a cgroup and of no kind of its own.
const KERNEL_OTHER: &str = "kernel-other";

/// Unattributed bytes of a cgroup below this need no explanation.
const WORTH_A_LINE: i64 = 1 << 20;

/// A time that would be printed as 0.0 seconds.
const JUST_BEFORE_NS: u64 = 50_000_000;

/// What the names of the NVIDIA driver's sources begin with.
const DRIVER: &str = "nvidia-";

/// What is shown, and of what.
#[derive(Debug, Clone, Default)]
pub struct Shown<'a> {
    pub parts: Parts,
    /// The recording as a shell takes it, to say how to see what is left out.
    pub file: Option<&'a str>,
}

impl Shown<'_> {
    pub const ALL: Self = Self { parts: Parts::All, file: None };
}

/// Which sections are shown.
#[derive(Debug, Clone, Default)]
pub enum Parts {
    /// What answers who took the memory: the target's own.
    #[default]
    First,
    All,
    Named(Vec<&'static Section>),
}

/// How a section is shown.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manner {
    /// Without what the answer says in short.
    pub brief: bool,
    /// Lists have the rows of others, too, and not their sum alone.
    pub all: bool,
}

impl Parts {
    const fn manner(&self) -> Manner {
        Manner { brief: matches!(self, Self::First), all: matches!(self, Self::All) }
    }
}

/// The answer, and the sections that are wanted.
pub fn document(report: &Report, Shown { parts, file }: &Shown<'_>) -> Document {
    let mut document = Document::default();
    answer::write(&mut document, report);
    let mut others = Vec::new();
    for section in SECTIONS {
        let wanted = match parts {
            Parts::First => (section.is_first)(report),
            Parts::All => true,
            Parts::Named(names) => names.iter().any(|named| named.name == section.name),
        };
        if wanted {
            (section.write)(&mut document, report, parts.manner());
        } else {
            others.extend(section.has_anything(report).then_some(section.name));
        }
    }
    if let Parts::Named(names) = parts {
        for section in names.iter().filter(|section| !section.has_anything(report)) {
            document.line(format!("{}: not in this recording", section.name));
        }
    }
    if matches!(parts, Parts::First) {
        rest::write(&mut document, report, &others, *file);
    }
    document
}

/// The time that the lists are about, and when one of them was read, where that was at another.
pub fn read_at(report: &Report, instant: Option<&Instant>) -> String {
    let (about_ns, started_ns) = (report.details_at_ns, report.target.started_ns);
    let after = |at_ns: u64| seconds(at_ns.saturating_sub(started_ns));
    match instant.map(|instant| instant.at_ns).filter(|at_ns| at_ns.abs_diff(about_ns) > FOLLOW_NS) {
        None => after(about_ns),
        Some(at_ns) if at_ns < started_ns => format!("{}, as read before it began", after(about_ns)),
        Some(at_ns) => format!("{}, as read after {}", after(about_ns), after(at_ns)),
    }
}

/// What ran, and on which machine.
fn run(document: &mut Document, report: &Report, _manner: Manner) {
    let (target, host, tool) = (&report.target, &report.host, &report.tool);
    let name =
        target.container.as_ref().map(|container| container.name.as_ref().unwrap_or(&container.id).clone());
    let command = (!target.argv.is_empty()).then(|| command_line(&target.argv, COMMAND_LINE));
    let named = [name, command].into_iter().flatten().collect::<Vec<_>>().join(": ");
    document.heading(format!("{} {named}", target.kind));
    let ran = seconds(target.ended_ns.saturating_sub(target.started_ns));
    let exit = target.exit_code.map_or_else(String::new, |code| format!(", exit code {code}"));
    document.line(match target.is_snapshot() {
        true => format!("one instant, read within {ran}; no trace"),
        false => format!("{ran}{exit}; profile {}", tool.profile),
    });
    document.line(format!(
        "{} {}, {} CPUs, {} memory, {} KiB pages, cgroup {}, {}",
        host.arch,
        host.kernel,
        host.cpus,
        unsigned(host.memory_total),
        host.page_size / 1024,
        host.cgroup_version,
        host.provenance
    ));
}

/// A plane's sources; `brief` leaves out what the answer says in short.
fn plane(document: &mut Document, report: &Report, plane: &PlaneReport, brief: bool) {
    let since_start = |at_ns: u64| seconds(at_ns.saturating_sub(report.target.started_ns));
    let what = match plane.plane {
        Scope::System => "System: all memory in use".to_owned(),
        Scope::Cgroup => {
            let whose = if report.target.is_snapshot() { "all cgroups together" } else { "the target" };
            format!("Cgroup {}: memory charged to {whose}", plane.cgroup_version.unwrap_or_default())
        }
        Scope::Device => devices::title(plane.device.as_ref()),
    };
    let snapshot = report.target.is_snapshot();
    let peak = if snapshot { String::new() } else { format!("; peak after {}", since_start(plane.peak_ns)) };
    document.heading(format!("{what}{peak}"));
    document.table(sources(report, plane));
    if plane.plane == Scope::Cgroup {
        let several = plane.roots.len() > 1;
        report.limits.iter().for_each(|limit| document.line(limits::line(limit, several)));
        report.containers.iter().for_each(|container| document.line(limits::beyond(container)));
        if let Some(line) = removed(report, plane) {
            document.line(line);
        }
    }
    explain_unattributed(document, plane);
    if let Some(line) = uncounted(report, plane) {
        document.line(line);
    }
    if !brief {
        reconcile(document, report, plane);
    }
    if let Some(device) = &plane.device {
        devices::details(document, device);
    }
    let snapshot = report.target.is_snapshot();
    for root in plane.roots.iter().filter(|_| !snapshot && !brief) {
        let (sampled, kernel) = (known(root.sampled_peak, unsigned), known(root.kernel_peak, unsigned));
        document.line(format!("{}: highest reading {sampled}, kernel's own peak {kernel}", root.shown));
    }
}

/// The plane's own counter against its sources.
fn reconcile(document: &mut Document, report: &Report, plane: &PlaneReport) {
    let since_start = |at_ns: u64| seconds(at_ns.saturating_sub(report.target.started_ns));
    let snapshot = report.target.is_snapshot();
    let at = match report.at {
        InstantSpec::Peak => format!("the peak ({})", since_start(plane.at_ns)),
        InstantSpec::End => format!("the end ({})", since_start(plane.at_ns)),
        InstantSpec::Kv(_) => format!("the {} ({})", report.at.of_a_run(), since_start(plane.at_ns)),
        InstantSpec::SinceStart(_) | InstantSpec::Time(_) => since_start(plane.at_ns),
    };
    let reconciled =
        [("growth to", &plane.growth, delta as fn(i64) -> String), ("level at", &plane.level, size)];
    // One instant has grown from nothing that is known.
    let rows = reconciled.into_iter().skip(usize::from(snapshot)).map(|(what, sums, format)| {
        let what = if snapshot { "level".to_owned() } else { format!("{what} {at}") };
        self::reconciled(what, sums, format)
    });
    let titles =
        [("", Fit::Name), ("COUNTER", Fit::Number), ("SOURCES", Fit::Number), ("UNATTRIBUTED", Fit::Number)];
    let columns = titles.into_iter().chain([("OF COUNTER", Fit::Number)]).map(column);
    document.table(Table { columns: columns.collect(), rows: rows.collect() });
}

fn column((title, fit): (&str, Fit)) -> Column {
    Column { title: title.to_owned(), fit }
}

/// The plane's own counter against its sources.
pub(super) fn reconciled(what: String, sums: &Reconciliation, format: fn(i64) -> String) -> Vec<String> {
    vec![
        what,
        known(sums.expected, format),
        format(sums.attributed),
        known(sums.residual, format),
        known(sums.residual_percent, share),
    ]
}

/// Rows with anything in them; `unattributed` in any case.
pub(super) fn sources(report: &Report, plane: &PlaneReport) -> Table {
    let columns = level_columns(report, plane);
    let rows = plane.sources.iter().filter(|row| {
        let levels = columns.iter().map(|(_, level)| level(row));
        row.source == UNATTRIBUTED || levels.flatten().any(|bytes| bytes != 0)
    });
    type Last = (&'static str, Fit, fn(&SourceRow) -> String);
    let last: &[Last] = match report.target.is_snapshot() {
        true => &[
            ("CHARGED", Fit::Name, |row| row.charged.to_owned()),
            ("RECLAIMABLE", Fit::Name, |row| row.reclaimable.to_owned()),
        ],
        false => &[("GROWTH", Fit::Number, |row| known(row.growth, delta))],
    };
    let cells = |row: &SourceRow| {
        let levels = columns.iter().map(|(_, level)| known(level(row), size));
        let last = last.iter().map(|(.., cell)| cell(row));
        std::iter::once(row.source.to_owned()).chain(levels).chain(last).collect()
    };
    let rows = rows.map(cells).collect();
    let titles = columns.iter().map(|(title, _)| (title.as_str(), Fit::Number));
    let last = last.iter().map(|(title, fit, _)| (*title, *fit));
    let titles = std::iter::once(("SOURCE", Fit::Name)).chain(titles).chain(last);
    Table { columns: titles.map(column).collect(), rows }
}

type Level = (String, fn(&SourceRow) -> Option<i64>);

/// The instants to show: those of the run, then the requested one or the other plane's peak.
fn level_columns(report: &Report, plane: &PlaneReport) -> Vec<Level> {
    if report.target.is_snapshot() {
        return vec![("BYTES".to_owned(), |row| row.bytes)];
    }
    let mut columns: Vec<Level> = vec![
        ("START".to_owned(), |row| row.bytes_at_start),
        ("PEAK".to_owned(), |row| row.bytes_at_peak),
        ("END".to_owned(), |row| row.bytes_at_end),
    ];
    match (report.at, plane.plane) {
        (InstantSpec::Kv(_) | InstantSpec::SinceStart(_) | InstantSpec::Time(_), _) => {
            columns.insert(1, (format!("AT {}", report.at), |row| row.bytes))
        }
        (_, Scope::System) if report.planes.cgroup.is_some() => {
            columns.insert(2, ("CGROUP PEAK".to_owned(), |row| row.bytes_at_cgroup_peak));
        }
        (_, Scope::Cgroup) if report.planes.system.is_some() => {
            columns.insert(2, ("SYSTEM PEAK".to_owned(), |row| row.bytes_at_system_peak));
        }
        (_, Scope::Device) if report.planes.cgroup.is_some() => {
            columns.insert(2, ("CGROUP PEAK".to_owned(), |row| row.bytes_at_cgroup_peak));
        }
        _ => {}
    }
    columns
}

/// What hooks saw of sources that no counter of the plane gives, and which row has it instead.
///
/// Of a system nothing counts them. To a cgroup all charged kernel memory is counted together.
fn explain_unattributed(document: &mut Document, plane: &PlaneReport) {
    let (whole, uncounted) = match plane.plane {
        Scope::System => (UNATTRIBUTED, [UNATTRIBUTED, KERNEL_OTHER]),
        Scope::Cgroup => (KERNEL_OTHER, [UNATTRIBUTED, UNATTRIBUTED]),
        // Hooks see pages of the system.
        Scope::Device => return,
    };
    let seen = plane.sources.iter().filter(|row| row.bytes.is_none() || uncounted.contains(&row.source));
    let seen: Vec<_> = seen
        .filter_map(|row| {
            let bytes = row.observed.filter(|&bytes| bytes > 0)?;
            let name = if row.source == UNATTRIBUTED { "stacks of no known source" } else { row.source };
            Some(format!("{name} {}{}", unsigned(bytes), charged(row)))
        })
        .collect();
    if !seen.is_empty() {
        document.line(format!("of {whole}, hooks saw allocated since the start: {}", seen.join(", ")));
    }
    // Each allocation of the driver is charged or not, which levels do not show.
    let drivers = plane.sources.iter().filter(|row| row.source.starts_with(DRIVER) && row.bytes.is_some());
    let drivers = drivers.filter_map(|row| Some((row, row.observed.filter(|&bytes| bytes > 0)?)));
    for (row, bytes) in drivers {
        document.line(format!(
            "of {}, hooks saw {} allocated since the start{}",
            row.source,
            unsigned(bytes),
            charged(row)
        ));
    }
}

/// What the column END is of a cgroup that is gone: charged then, and no leak.
fn removed(report: &Report, plane: &PlaneReport) -> Option<String> {
    let root = |path: &str| report.target.cgroups.iter().find(|cgroup| cgroup.path == path);
    let roots: Vec<_> = plane.roots.iter().filter_map(|row| root(&row.path)).collect();
    let removed_ns = roots.iter().map(|cgroup| cgroup.removed_ns).collect::<Option<Vec<_>>>()?;
    let end = plane.sources.iter().filter_map(|row| row.bytes_at_end).fold(0, i64::saturating_add);
    let last_ns = removed_ns.into_iter().max().filter(|_| end >= WORTH_A_LINE)?;
    let before = match last_ns.saturating_sub(plane.end_ns) {
        0..JUST_BEFORE_NS => "just".to_owned(),
        ns => seconds(ns),
    };
    let left = roots.iter().map(|cgroup| cgroup.usage_at_removal).collect::<Option<Vec<_>>>();
    let left = left.map(|bytes| bytes.into_iter().fold(0, u64::saturating_add));
    let freed = match left {
        Some(0) => "; all of it was freed by then".to_owned(),
        Some(bytes) => format!(
            "; at removal {} were still charged: page cache and kernel memory that the kernel may reclaim",
            unsigned(bytes)
        ),
        None => String::new(),
    };
    let cgroups = if roots.len() > 1 { "cgroups were" } else { "cgroup was" };
    Some(format!("END is the last reading, {before} before the {cgroups} removed{freed}"))
}

/// How much of `unattributed` the kernel's own batches may be, where it is worth a line.
fn uncounted(report: &Report, plane: &PlaneReport) -> Option<String> {
    let most = plane.uncounted_at_most?;
    let unattributed = plane.level.residual.filter(|&bytes| bytes.abs() >= WORTH_A_LINE)?;
    let cpus = report.host.cpus;
    let within = match unattributed.unsigned_abs() <= most {
        true => "unattributed is within",
        false => "unattributed is more than",
    };
    Some(format!("{within} the kernel's own delay in counting: up to {} on {cpus} CPUs", unsigned(most)))
}

/// How a driver's pages are split between charged and not; of other sources the level's plane shows it.
fn charged(row: &SourceRow) -> String {
    let (Some(charged), Some(uncharged)) = (row.observed_charged, row.observed_uncharged) else {
        return String::new();
    };
    match (row.source.starts_with(DRIVER), charged, uncharged) {
        (false, ..) => String::new(),
        (true, 0, _) => " (uncharged)".to_owned(),
        (true, _, 0) => " (charged)".to_owned(),
        (true, ..) => format!(" ({} charged, {} uncharged)", unsigned(charged), unsigned(uncharged)),
    }
}

/// Hooks and sources that do not run, and why.
fn hooks(document: &mut Document, report: &Report, _manner: Manner) {
    let failed =
        report.health.hooks.iter().filter(|hook| hook.verdict != Verdict::Ok && hook.verdict != Verdict::Off);
    let rows: Vec<Vec<String>> = failed
        .map(|hook| {
            vec![hook.name.clone(), hook.verdict.to_string(), hook.reason.clone().unwrap_or_default()]
        })
        .collect();
    let columns = [("HOOK", Fit::Name), ("VERDICT", Fit::Name), ("REASON", Fit::Text)].map(column);
    document.section("Hooks that do not run", Table { columns: columns.into(), rows });
    for source in report.health.sources.iter().filter(|source| source.verdict != Verdict::Ok) {
        let reason = source.reason.as_deref().unwrap_or("no reason given");
        document.line(format!("{}: {}: {reason}", source.name, source.verdict));
    }
    for loss in report.health.losses.iter().filter(|loss| loss.count > 0) {
        document.warning(format!("lost in {}: {}", loss.what, loss.count));
    }
}

/// The same in a few words: absent where nothing was counted.
pub fn cost_in_short(report: &Report) -> Option<String> {
    let (cost, target) = (&report.cost, &report.target);
    let ran_ns = target.ended_ns.checked_sub(target.started_ns).filter(|ns| *ns > 0)?;
    if cost.agent_cpu_ns == 0 || target.is_snapshot() {
        return None;
    }
    let programs = match (cost.bpf_run_time_ns, cost.bpf_memory) {
        (Some(ns), Some(bytes)) => format!("; in the kernel {}, {}", seconds(ns), unsigned(bytes)),
        (Some(ns), None) => format!("; in the kernel {}", seconds(ns)),
        (None, _) => String::new(),
    };
    Some(format!(
        "Cost of tracing {}: {} of CPU time, {}{programs}.",
        seconds(ran_ns),
        seconds(cost.agent_cpu_ns.saturating_add(cost.reader.map_or(0, |reader| reader.cpu_ns))),
        unsigned(cost.agent_rss_peak)
    ))
}

/// What the tracing itself took.
fn cost(document: &mut Document, report: &Report, _manner: Manner) {
    let cost = &report.cost;
    document.heading(if report.target.is_snapshot() { "Cost" } else { "Cost of tracing" });
    document.line(format!(
        "agent {} CPU, {} resident; programs {} CPU, {} kernel memory",
        duration(cost.agent_cpu_ns),
        unsigned(cost.agent_rss_peak),
        known(cost.bpf_run_time_ns, duration),
        known(cost.bpf_memory, unsigned)
    ));
    if let Some(reader) = &cost.reader {
        document.line(format!(
            "reader of symbols {} CPU, {} resident",
            duration(reader.cpu_ns),
            known(reader.rss_peak, unsigned)
        ));
    }
    if let Some(nvml) = &cost.nvml {
        document.line(format!(
            "NVML {} readings in {}, the longest {}, after {} to start it",
            nvml.readings,
            duration(nvml.calls_ns),
            duration(nvml.longest_ns),
            duration(nvml.start_ns)
        ));
    }
}

fn count(bytes: Option<u64>) -> Field {
    Field::Bytes(bytes.map(signed))
}

/// A row with the name of the plane it is on.
pub type PlaneRow = (String, SourceRow);

pub fn csv_rows(report: &Report) -> Vec<PlaneRow> {
    let name = |plane: &PlaneReport| match &plane.device {
        Some(device) => format!("{}:{}", plane.plane.as_str(), device.index),
        None => plane.plane.as_str().to_owned(),
    };
    let planes = report.planes.iter();
    planes.flat_map(|plane| plane.sources.iter().map(move |row| (name(plane), row.clone()))).collect()
}

pub const CSV: &[csv::Column<PlaneRow>] = &[
    ("plane", |(plane, _)| Field::Text(plane.clone())),
    ("source", |(_, row)| Field::Text(row.source.to_owned())),
    ("bytes_at_start", |(_, row)| Field::Bytes(row.bytes_at_start)),
    ("bytes_at_peak", |(_, row)| Field::Bytes(row.bytes_at_peak)),
    ("bytes_at_end", |(_, row)| Field::Bytes(row.bytes_at_end)),
    ("bytes_at_system_peak", |(_, row)| Field::Bytes(row.bytes_at_system_peak)),
    ("bytes_at_cgroup_peak", |(_, row)| Field::Bytes(row.bytes_at_cgroup_peak)),
    ("bytes", |(_, row)| Field::Bytes(row.bytes)),
    ("growth", |(_, row)| Field::Bytes(row.growth)),
    ("observed", |(_, row)| count(row.observed)),
    ("observed_charged", |(_, row)| count(row.observed_charged)),
    ("observed_uncharged", |(_, row)| count(row.observed_uncharged)),
    ("charged", |(_, row)| Field::Text(row.charged.to_owned())),
    ("reclaimable", |(_, row)| Field::Text(row.reclaimable.to_owned())),
];
