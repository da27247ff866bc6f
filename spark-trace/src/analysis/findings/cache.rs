//! Claims about files in the page cache.

use std::collections::BTreeMap;

use super::case::{Case, Judgement, Run};
use super::table::CACHE;
use super::{Evidence, Side, Unit, Verdict};
use crate::analysis::files::{self, FileRow};
use crate::units;

/// Files that are told as evidence.
const FILES: usize = 5;
/// Copies of a file have as much of it cached, to within this part: one of them may have been read a little less.
const ALIKE_PERCENT: i64 = 2;
/// Smaller copies do not matter.
const COPY_BYTES: i64 = 1 << 20;

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
    format!("{}: cached since the trace began{by}, charged to {}", row.inner_path, row.charged_to)
}

/// Files that A had in the page cache when it ended, where B began after that on the same boot: nobody saw B find
/// them there.
fn left_by_a<'a, 'b>(case: &'b Case<'a>) -> Vec<(FileRow, &'b Run<'a>)> {
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
    let judged = case.by_bytes(case.delta_of(DIRTY), "pages not written back", evidence);
    // They are page cache: that row has the bytes.
    Judgement { explains: None, ..judged }
}

/// Copies of one file.
struct Copies<'a> {
    name: String,
    /// Bytes that would not be there were it one file.
    surplus: i64,
    copies: Vec<(FileRow, &'a str)>,
}

pub fn duplicates(case: &Case<'_>) -> Judgement {
    let mut found: Vec<Copies<'_>> = Vec::new();
    for run in case.runs() {
        found.extend(copies(run.files.iter().cloned().map(|row| (row, run.name()))));
    }
    if let Some(b) = case.b() {
        let left = left_by_a(case).into_iter().map(|(row, _)| (row, "A, left cached"));
        let both = left.chain(b.files.iter().cloned().map(|row| (row, "B")));
        found.extend(
            copies(both).into_iter().filter(|copies| copies.copies.iter().any(|(_, run)| *run != "B")),
        );
    }
    found.sort_by_key(|copies| std::cmp::Reverse(copies.surplus));
    found.dedup_by(|a, b| a.name == b.name && a.surplus == b.surplus);
    let most = found.iter().map(|copies| copies.surplus).fold(0, i64::saturating_add);
    let evidence = found.iter().take(FILES).map(|copies| {
        let places = copies.copies.iter().map(|(row, run)| {
            format!("{} (inode {} of {}, {run})", row.path.as_deref().unwrap_or("?"), row.inode, row.device)
        });
        let places: Vec<_> = places.collect();
        Evidence {
            what: format!("{} is cached {} times: {}", copies.name, places.len(), places.join(", ")),
            value: Some(copies.surplus),
            unit: Unit::Bytes,
            side: Side::Both,
            place: FILES_PLACE.to_owned(),
        }
    });
    let evidence = evidence.collect();
    if most >= case.material {
        let because = format!("{} would not be cached if they were the same files", units::size(most));
        return Judgement::new(Verdict::Supported, because, evidence);
    }
    // What was cached before the trace has no name here.
    let unnamed = case.b().and_then(|b| b.start.bytes("file-clean")).unwrap_or(0);
    let because = match unnamed {
        0 => "no file is cached twice".to_owned(),
        older => format!(
            "of the files cached since the traces began none of weight is cached twice; {} that were cached before have no \
             names here",
            units::unsigned(older)
        ),
    };
    Judgement::new(Verdict::Refuted, because, evidence)
}

/// Files of one name with as much cached.
fn copies<'a>(rows: impl Iterator<Item = (FileRow, &'a str)>) -> Vec<Copies<'a>> {
    let mut by_name: BTreeMap<String, Vec<(FileRow, &'a str)>> = BTreeMap::new();
    for (row, run) in rows.filter(|(row, _)| row.bytes >= COPY_BYTES) {
        let Some(name) = row.path.as_deref().and_then(|path| path.rsplit('/').next()) else { continue };
        by_name.entry(name.to_owned()).or_default().push((row, run));
    }
    let several = by_name.into_iter().filter_map(|(name, copies)| {
        let mut one_each: Vec<(FileRow, &str)> = Vec::new();
        for (row, run) in copies {
            // One file may be charged to several cgroups, and be in both runs.
            match one_each
                .iter_mut()
                .find(|(known, _)| (&known.device, known.inode) == (&row.device, row.inode))
            {
                Some((known, known_run)) if *known_run == run => known.bytes += row.bytes,
                Some(_) => {}
                None => one_each.push((row, run)),
            }
        }
        let largest = one_each.iter().map(|(row, _)| row.bytes).max()?;
        one_each.retain(|(row, _)| (largest - row.bytes) * 100 <= largest * ALIKE_PERCENT);
        let all: i64 = one_each.iter().map(|(row, _)| row.bytes).sum();
        (one_each.len() > 1).then_some(Copies { name, surplus: all - largest, copies: one_each })
    });
    several.collect()
}
