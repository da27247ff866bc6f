//! The lists below the planes: the target's rows, and of others one sum.

use super::tables;
use crate::document::{Cell, Column, Document, Fit, Table};
use spark_trace_analysis::attribution::Report;
use spark_trace_analysis::files::FileRow;
use spark_trace_analysis::processes::ProcessRow;
use spark_trace_analysis::regions::RegionRow;
use spark_trace_analysis::signed::signed;
use spark_trace_analysis::tmpfs::TmpfsRow;
use spark_trace_analysis::whose::{Sum, Sums, Whose};
use spark_trace_recording::units::{seconds, size, unsigned};

/// Readings that are less apart count as one.
const ONE_READING_NS: u64 = 50_000_000;

/// How lists are shown.
#[derive(Debug, Clone, Copy, Default)]
pub struct Extent {
    /// Rows of each list; the others are left out, and a line says so. Absent for all that the report has.
    pub most: Option<usize>,
    /// Rows of others one by one, and not their sum alone.
    pub all: bool,
}

/// What a list is made of.
struct List<'a, T> {
    heading: String,
    cells: &'a [Cell<T>],
    rows: &'a [T],
    whose: fn(&T) -> Whose,
    /// Whether a row is listed in any case.
    is_listed: fn(&T) -> bool,
    bytes: fn(&T) -> i64,
    sums: Sums,
    /// What a row is, of several.
    noun: &'static str,
}

impl<T> List<'_, T> {
    /// The target's rows, and what others have. Nothing where there is neither.
    fn show(self, document: &mut Document, extent: Extent) {
        let others = self.sums.tracer.rows + self.sums.others.rows > 0;
        let listed: Vec<&T> = self.rows.iter().filter(|row| extent.all || (self.is_listed)(row)).collect();
        if listed.is_empty() && !others {
            return;
        }
        document.heading(self.heading);
        let most = extent.most.unwrap_or(listed.len()).min(listed.len());
        let (shown, left_out) = listed.split_at(most);
        if !shown.is_empty() {
            let mut table = Table::of(self.cells, shown.iter().copied());
            if listed.iter().any(|row| (self.whose)(row) != Whose::Target) {
                table.columns.push(Column { title: "WHOSE".to_owned(), fit: Fit::Name });
                for (cells, row) in table.rows.iter_mut().zip(shown) {
                    cells.push((self.whose)(row).as_str().to_owned());
                }
            }
            document.table(table);
        } else if !extent.all {
            document.line("none of the target's");
        }
        if !left_out.is_empty() {
            let bytes = left_out.iter().map(|row| (self.bytes)(row)).fold(0, i64::saturating_add);
            document.line(format!("{} more rows not shown: {}", left_out.len(), size(bytes)));
        }
        if !extent.all {
            for (name, sum) in [("spark-trace's own", self.sums.tracer), ("others", self.sums.others)] {
                if sum.rows > 0 {
                    document.line(others_line(name, sum, self.noun));
                }
            }
        }
    }
}

fn others_line(name: &str, sum: Sum, noun: &str) -> String {
    let plural = if sum.rows == 1 { "" } else { "s" };
    format!("{name}: {} in {} {noun}{plural}; --all lists them", size(sum.bytes), sum.rows)
}

/// Page cache by file: what came since the trace began, and apart from it what was cached before.
pub fn files(document: &mut Document, report: &Report, at: &str, extent: Extent) {
    let files = report.files.iter().filter(|row| row.bytes > 0).cloned();
    let (before, since): (Vec<_>, Vec<_>) = files.partition(FileRow::is_from_before);
    if report.target.is_snapshot() {
        document.section("Page cache by file", Table::of(tables::FILES_CACHED, &before));
        coverage(document, report);
        return;
    }
    let since = List {
        heading: format!("Page cache by file, added since the trace began, in use after {at}"),
        cells: tables::FILES,
        rows: &since,
        whose: |row| row.whose,
        is_listed: |row| row.whose == Whose::Target,
        bytes: |row| row.bytes,
        sums: report.others.files,
        noun: "file",
    };
    since.show(document, extent);
    let before = List {
        heading: "Page cache by file, cached before the trace began".to_owned(),
        cells: tables::FILES_CACHED,
        rows: &before,
        whose: |row| row.whose,
        is_listed: |row| row.whose == Whose::Target,
        bytes: |row| row.bytes,
        sums: Sums::default(),
        noun: "file",
    };
    before.show(document, extent);
}

/// How much of the page cache has a name.
fn coverage(document: &mut Document, report: &Report) {
    let Some(named) = report.cache_named else { return };
    let of = match named.of.filter(|of| *of >= named.bytes) {
        Some(of) => format!(" of {}", unsigned(of)),
        None => String::new(),
    };
    document.line(format!(
        "found: {}{of}, in {} files; --files DIR searches more",
        unsigned(named.bytes),
        named.files
    ));
}

pub fn stacks(document: &mut Document, report: &Report, at: &str, extent: Extent) {
    let list = List {
        heading: format!(
            "Kernel and driver pages by stack, allocated since the trace began, in use after {at}"
        ),
        cells: tables::STACKS,
        rows: &report.stacks,
        whose: |row| row.whose,
        is_listed: |row| row.is_listed(),
        bytes: |row| signed(row.bytes),
        sums: report.others.stacks,
        noun: "stack",
    };
    list.show(document, extent);
}

pub fn processes(document: &mut Document, report: &Report) {
    let cells: &[Cell<ProcessRow>] = match report.target.is_snapshot() {
        true => tables::PROCESSES_NOW,
        false => tables::PROCESSES,
    };
    let heading = match report.processes.len() {
        0 | 1 => "Processes",
        // Also what a fork has from its parent.
        _ => "Processes; shared pages count in each process",
    };
    document.section(heading, Table::of(cells, &report.processes));
}

/// Mappings are read of one process after another, as they grow: the heading or the rows say when.
pub fn regions(document: &mut Document, report: &Report, most: Option<usize>) {
    let started_ns = report.target.started_ns;
    let after = |at_ns: u64| seconds(at_ns.saturating_sub(started_ns));
    let most = most.unwrap_or(usize::MAX).min(report.regions.len());
    let (rows, left_out) = report.regions.split_at(most);
    let mut table = Table::of(tables::REGIONS, rows);
    let left_out = |document: &mut Document| {
        if !left_out.is_empty() {
            let bytes = left_out.iter().map(|row| row.rss).fold(0, u64::saturating_add);
            document.line(format!("{} more rows not shown: {} resident", left_out.len(), unsigned(bytes)));
        }
    };
    if report.target.is_snapshot() {
        document.section("Mappings by name, of the largest processes", table);
        left_out(document);
        return;
    }
    let from_ns = rows.iter().map(|row| row.read_from_ns).min().unwrap_or(0);
    // Of one process PSS is beside it.
    let shared = match rows.iter().any(|row| row.processes > 1) {
        true => "; in RSS, shared pages count in each process",
        false => "",
    };
    let until_ns = rows.iter().map(|row| row.read_until_ns).max().unwrap_or(0);
    if until_ns.saturating_sub(from_ns) <= ONE_READING_NS {
        document.section(format!("Mappings by name, read after {}{shared}", after(from_ns)), table);
        left_out(document);
        return;
    }
    let read = |row: &RegionRow| match row.read_until_ns - row.read_from_ns <= ONE_READING_NS {
        true => after(row.read_from_ns),
        false => format!("{} to {}", after(row.read_from_ns), after(row.read_until_ns)),
    };
    table.columns.insert(3, Column { title: "READ AFTER".to_owned(), fit: Fit::Number });
    for (cells, row) in table.rows.iter_mut().zip(rows) {
        cells.insert(3, read(row));
    }
    let about = after(report.details_at_ns);
    document.section(
        format!("Mappings by name, for each process from the reading nearest to {about}{shared}"),
        table,
    );
    left_out(document);
}

/// File systems in memory: those of the target, and of the machine's what it shares with it and has changed.
pub fn tmpfs(document: &mut Document, report: &Report, extent: Extent) {
    // A machine has a dozen empty ones.
    let used = |row: &&TmpfsRow| row.highest() > Some(0);
    let rows: Vec<_> = report.tmpfs.iter().filter(used).cloned().collect();
    let cells = match (report.target.is_snapshot(), rows.iter().any(|row| row.bytes_at_peak.is_some())) {
        (true, _) => tables::TMPFS_NOW,
        (false, true) => tables::TMPFS_PEAK,
        (false, false) => tables::TMPFS,
    };
    let list = List {
        heading: "Memory file systems".to_owned(),
        cells,
        rows: &rows,
        whose: |row| row.whose,
        is_listed: |row| row.whose == Whose::Target,
        bytes: |row| signed(row.highest().unwrap_or(0)),
        sums: report.others.tmpfs,
        noun: "file system",
    };
    list.show(document, extent);
    for row in rows.iter().filter(|row| extent.all || row.whose == Whose::Target) {
        if !row.notes.is_empty() {
            document.line(format!("{}: {}", row.shown, row.notes.join("; ")));
        }
    }
}
