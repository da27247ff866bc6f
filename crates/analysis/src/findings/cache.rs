//! Claims about files in the page cache.

use super::case::{Case, Judgement};
use super::groups::CACHE;
use super::run::Run;
use super::{Evidence, Side, Unit};
use crate::files::{self, FileRow};

/// Files that are shown as evidence.
const FILES: usize = 5;
const FILES_PLACE: &str = "provenance.files";

pub fn page_cache(case: &Case<'_>) -> Judgement {
    let mut evidence = case.rows_evidence(CACHE);
    if let (Some(a), Some(b)) = (&case.a, case.b()) {
        let available = |run: &Run<'_>| run.counter("meminfo.MemAvailable");
        if let Some(delta) = available(b).zip(available(a)).map(|(b, a)| b - a) {
            evidence.push(Evidence {
                what: "MemAvailable, which counts what can be reclaimed as available".to_owned(),
                value: Some(delta),
                unit: Unit::DeltaBytes,
                side: Side::Both,
                place: "samples.system: meminfo.MemAvailable".to_owned(),
            });
        }
    }
    let at_start: Option<i64> =
        CACHE.iter().filter_map(|slug| case.start_of(slug)).reduce(i64::saturating_add);
    if let Some(bytes) = at_start.filter(|bytes| bytes.abs() >= case.material) {
        let two = case.a.is_some();
        evidence.push(Evidence {
            what: "of it cached before the run began".to_owned(),
            value: Some(bytes),
            unit: if two { Unit::DeltaBytes } else { Unit::Bytes },
            side: if two { Side::Both } else { Side::B },
            place: case.place_of("file-clean"),
        });
    }
    for run in case.runs() {
        let rows = run.files.iter().filter(|row| row.bytes.abs() >= case.material / 4).take(FILES);
        evidence.extend(rows.map(|row| run.evidence(cached(row), Some(row.bytes), FILES_PLACE)));
    }
    for (row, a) in left_by_a(case).into_iter().filter(|(row, _)| row.bytes >= case.material / 4).take(FILES)
    {
        evidence.push(a.evidence(
            format!("{}: A left it cached when it ended, before B began", row.inner_path),
            Some(row.bytes),
            FILES_PLACE,
        ));
    }
    case.by_bytes(case.delta_of(CACHE), "page cache", evidence)
}

fn cached(row: &FileRow) -> String {
    let by = row
        .first_touch
        .as_ref()
        .map_or_else(String::new, |touch| format!(", first touched by {} ({})", touch.comm, touch.pid));
    format!("{}: cached since the trace began{by}, charged to {}", row.inner_path, row.payer)
}

/// Files that A had in the page cache when it ended, where B began after that on the same boot: nobody saw B find
/// them there.
pub(super) fn left_by_a<'a, 'b>(case: &'b Case<'a>) -> Vec<(FileRow, &'b Run<'a>)> {
    let (Some(a), Some(b)) = (&case.a, case.b()) else { return vec![] };
    let same_boot = a.recording.host.boot_id == b.recording.host.boot_id;
    let a_ended = a.recording.target.ended_ns;
    if !same_boot || a_ended == 0 || b.recording.target.started_ns < a_ended {
        return vec![];
    }
    files::largest(a.recording, a_ended).into_iter().filter(|row| row.bytes > 0).map(|row| (row, a)).collect()
}

pub fn dirty(case: &Case<'_>) -> Judgement {
    const DIRTY: &[&str] = &["file-dirty"];
    let evidence = case.rows_evidence(DIRTY);
    let judged = case.by_part(case.delta_of(DIRTY), "pages not written back", evidence);
    // They are page cache: that row has the bytes.
    Judgement { explains: None, ..judged }
}
