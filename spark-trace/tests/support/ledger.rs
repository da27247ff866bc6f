//! Comparing numbers: all deviations of a test are reported, not only the first.

use std::ops::RangeInclusive;

use serde_json::Value;

pub const MIB: i64 = 1 << 20;

/// What was found wrong so far.
#[derive(Debug, Default)]
pub struct Faults(Vec<String>);

impl Faults {
    pub fn expect(&mut self, fine: bool, what: impl FnOnce() -> String) {
        if !fine {
            self.0.push(what());
        }
    }

    /// `measured` must be `truth` within 1 % or 1 MiB, whichever is more. Returns the deviation in bytes.
    pub fn near(&mut self, what: &str, measured: i64, truth: i64) -> i64 {
        self.within(what, measured, truth..=truth)
    }

    /// The same where the truth moved between two readings of it.
    pub fn within(&mut self, what: &str, measured: i64, truth: RangeInclusive<i64>) -> i64 {
        let tolerance = (truth.end() / 100).max(MIB);
        let deviation = if measured < *truth.start() {
            measured - truth.start()
        } else {
            (measured - truth.end()).max(0)
        };
        self.expect(deviation.abs() <= tolerance, || {
            format!("{what}: {measured} bytes, truth {truth:?}: off by {deviation}, tolerance {tolerance}")
        });
        deviation
    }

    /// All of them.
    pub fn into_list(self) -> Vec<String> {
        self.0
    }

    /// Panics with all of them.
    pub fn finish(self) {
        assert!(self.0.is_empty(), "{} faults:\n{}", self.0.len(), self.0.join("\n"));
    }
}

/// The one farther from zero.
pub fn worst(a: i64, b: i64) -> i64 {
    if b.abs() > a.abs() { b } else { a }
}

pub fn int(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("no whole number: {value}"))
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

pub fn array(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("no list: {value}"))
}

/// Bytes of a source at its plane's peak in a `show` report.
pub fn source(show: &Value, plane: &str, slug: &str) -> i64 {
    int(&source_row(&show["planes"][plane], slug)["bytes_at_peak"])
}

/// Row of a source in a plane of `show`, or in a `diff`.
pub fn source_row<'a>(report: &'a Value, slug: &str) -> &'a Value {
    let row = array(&report["sources"]).iter().find(|row| row["source"] == slug);
    row.unwrap_or_else(|| panic!("no source {slug} in {}", report["sources"]))
}

/// Bytes of one source that a workload allocated, by its report.
pub fn allocated(report: &Value, slug: &str) -> i64 {
    sources(report, slug).map(|source| int(&source["bytes"])).sum()
}

/// Bytes of a file in the page cache by the workload's own measure: from after its read to the end of the
/// hold. A daemon of the machine may take idle pages in between.
pub fn cached(report: &Value, kind: &str) -> RangeInclusive<i64> {
    let of_kind = |source: &&Value| source["kind"] == kind;
    let detail = &array(&report["sources"]).iter().find(of_kind).expect("no such source")["detail"];
    let resident = |when: &str| int(&detail[when]["resident"]);
    let (first, last) = (resident("cache_after"), resident("at_hold_end"));
    first.min(last)..=first.max(last)
}

fn sources<'a>(report: &'a Value, slug: &'a str) -> impl Iterator<Item = &'a Value> {
    array(&report["sources"]).iter().filter(move |source| source["source"] == slug)
}

/// Row of a file in a list of files: the only one that fits.
pub fn file_row(files: &Value, fits: impl Fn(&Value) -> bool) -> &Value {
    let rows: Vec<_> = array(files).iter().filter(|row| fits(row)).collect();
    assert_eq!(rows.len(), 1, "rows of the file: {rows:#?}");
    rows[0]
}

/// Begin of a workload's first phase.
pub fn first_phase_ns(report: &Value) -> i64 {
    array(&report["phases"]).iter().map(|phase| int(&phase["begin_ns"])).min().expect("no phases")
}

/// When a phase of a recording was.
pub fn phase_ns(recording: &Value, name: &str) -> i64 {
    let phase = array(&recording["phases"]).iter().find(|phase| phase["name"] == name);
    int(&phase.unwrap_or_else(|| panic!("no phase {name}: {}", recording["phases"]))["at_ns"])
}

/// Column of the system's samples at the reading whose window has `at_ns`, or the nearest.
pub fn system_at(recording: &Value, column: &str, at_ns: i64) -> i64 {
    let system = &recording["samples"]["system"];
    nearest(system, column, at_ns)
}

/// Value of a column at the reading nearest to `at_ns`.
pub fn nearest(series: &Value, column: &str, at_ns: i64) -> i64 {
    int(&series["columns"][column][nearest_reading(series, at_ns)])
}

/// Index of the reading nearest to `at_ns`.
pub fn nearest_reading(series: &Value, at_ns: i64) -> usize {
    let begins = array(&series["begin_ns"]).iter().map(int);
    let nearest = begins.enumerate().min_by_key(|(_, begin)| begin.abs_diff(at_ns));
    nearest.expect("no readings").0
}

/// What our buffers and maps could not take, and the runs of programs that the kernel skipped while another ran on the
/// same CPU. The latter are few, depend on the kernel, and are reported; of the former there must be none.
pub fn losses(health: &Value) -> (i64, i64) {
    let rows = array(&health["losses"]).iter().map(|loss| (&loss["what"], int(&loss["count"])));
    let (skipped, lost): (Vec<_>, Vec<_>) = rows.partition(|(what, _)| *what == "skipped_runs");
    let sum = |rows: Vec<(&Value, i64)>| rows.iter().map(|(_, count)| count).sum();
    (sum(lost), sum(skipped))
}
