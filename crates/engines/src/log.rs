//! What the lines of a log say: the engine, its version, its figures, its stages, and the check that ended it. Pure.

use std::sync::LazyLock;

use regex::bytes::{RegexSet, RegexSetBuilder};
use regex::{Captures, Regex};
use serde::Serialize;

use crate::engine::{Check, Engine, Stage};
use crate::figure::{Figure, Fold};
use crate::number::{Value, value};
use crate::prefix::{Clean, clean};
use crate::recognise::decide;
use crate::row::{Edge, EngineRow, Field, LineRow, Take, Variant};
use crate::table::{COMMON_LINES, ENGINES, row};
use crate::version::{ALL, Version, VersionRange};

/// Kept of figures, of marks and of failures: far more than an engine writes.
const MOST: usize = 4096;
/// Kept of a subject's name.
const LONGEST_SUBJECT: usize = 64;

/// Memory of the automaton that looks for all of them at once.
const AUTOMATON: usize = 8 << 20;

/// All lines of all engines.
static ROWS: LazyLock<Vec<&'static LineRow>> =
    LazyLock::new(|| ENGINES.iter().flat_map(|row| row.lines).chain(COMMON_LINES).collect());
/// Bytes, for classes of all of Unicode's characters make an automaton that outgrows its memory, and slow.
static ANY: LazyLock<Option<RegexSet>> = LazyLock::new(|| {
    let patterns = ROWS.iter().map(|row| row.pattern);
    RegexSetBuilder::new(patterns).unicode(false).dfa_size_limit(AUTOMATON).build().ok()
});
static EACH: LazyLock<Vec<Option<Regex>>> =
    LazyLock::new(|| ROWS.iter().map(|row| Regex::new(row.pattern).ok()).collect());

/// What a log says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EngineLog {
    /// Absent where no engine, or more than one, writes such lines.
    pub engine: Option<Engine>,
    /// Every engine that writes any of them.
    pub candidates: Vec<Engine>,
    /// Absent where no line states it.
    pub version: Option<Version>,
    /// Versions that write these lines.
    pub versions: VersionRange,
    pub figures: Vec<FigureValue>,
    /// In the order of their lines.
    pub marks: Vec<Mark>,
    pub failures: Vec<Failure>,
    /// Sizes of single allocations, in the order of their lines.
    pub buffers: Vec<BufferLine>,
}

impl Default for EngineLog {
    fn default() -> Self {
        Self {
            engine: None,
            candidates: Vec::new(),
            version: None,
            versions: ALL,
            figures: Vec::new(),
            marks: Vec::new(),
            failures: Vec::new(),
            buffers: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FigureValue {
    pub figure: Figure,
    /// The device, pool or rank that it is of; absent where the line names none.
    pub subject: Option<String>,
    pub value: Value,
    /// Which line, counted from 0.
    pub line: usize,
    /// The row that it is from: others replace it.
    #[serde(skip)]
    row: usize,
}

/// A line that states the size of one allocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BufferLine {
    pub figure: Figure,
    /// The device that it is on.
    pub subject: Option<String>,
    pub bytes: u64,
    pub line: usize,
}

/// A line at which a stage begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Mark {
    pub stage: Stage,
    pub begins: bool,
    pub line: usize,
}

/// A check that ended the engine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failure {
    pub check: Check,
    pub line: usize,
    /// Those of its line.
    pub figures: Vec<(Figure, Value)>,
}

impl EngineLog {
    /// Of one figure all subjects.
    pub fn of(&self, figure: Figure) -> impl Iterator<Item = &FigureValue> {
        self.figures.iter().filter(move |found| found.figure == figure)
    }

    /// Bytes of a figure. Negative ones are no fault of ours: engines write them.
    pub fn bytes(&self, figure: Figure) -> Option<i64> {
        self.folded(figure)?.whole()
    }

    /// Bytes that cannot be negative.
    pub fn size(&self, figure: Figure) -> Option<u64> {
        u64::try_from(self.bytes(figure)?).ok()
    }

    pub fn count(&self, figure: Figure) -> Option<u64> {
        self.size(figure)
    }

    /// A ratio, or seconds.
    pub fn real(&self, figure: Figure) -> Option<f64> {
        Some(self.folded(figure)?.real())
    }

    /// The last line that states a figure.
    pub fn line_of(&self, figure: Figure) -> Option<usize> {
        self.of(figure).map(|found| found.line).max()
    }

    /// The engine's row.
    pub fn row(&self) -> Option<&'static EngineRow> {
        row(self.engine?)
    }

    /// The ways of sizing that the version, or the lines, leave open.
    pub fn variants(&self) -> Vec<&'static Variant> {
        let range = self.version.map_or(self.versions, VersionRange::only);
        let variants = self.row().into_iter().flat_map(|row| row.variants);
        variants.filter(|variant| variant.versions.overlaps(&range)).collect()
    }

    /// Of several subjects one value.
    fn folded(&self, figure: Figure) -> Option<Value> {
        let values = self.of(figure).map(|found| found.value);
        let pick = match figure.fold() {
            Fold::Sum => Value::plus,
            Fold::Least => Value::least,
            Fold::Most => Value::most,
        };
        values.reduce(pick)
    }

    /// Where a figure is stated anew for one subject, the buffer has been allocated anew.
    fn buffer(&mut self, new: BufferLine, take: Take) {
        if take == Take::Last {
            self.buffers.retain(|old| (old.figure, &old.subject) != (new.figure, &new.subject));
        }
        // One that only fits parameters has no memory.
        if new.bytes > 0 && self.buffers.len() < MOST {
            self.buffers.push(new);
        }
    }

    fn set(&mut self, new: FigureValue, take: Take) {
        let has_room = self.figures.len() < MOST;
        let same = |old: &&mut FigureValue| old.figure == new.figure && old.subject == new.subject;
        match self.figures.iter_mut().find(same) {
            Some(old) if take == Take::First => old.line = old.line.min(new.line),
            Some(old) if take == Take::Sum && old.row == new.row => {
                old.value = old.value.plus(new.value);
                old.line = new.line;
            }
            Some(old) => *old = new,
            None if has_room => self.figures.push(new),
            None => {}
        }
    }
}

/// Makes what lines are compared with, which takes time: before the first line is there.
pub fn prepare() {
    let _ = (is_known(""), EACH.len());
}

/// Whether a line is one that is read here.
pub fn is_known(line: &str) -> bool {
    ANY.as_ref().is_some_and(|any| any.is_match(clean(line).text.as_bytes()))
}

/// Whether a line states a figure.
pub fn states(line: &str, figure: Figure) -> bool {
    parse(std::iter::once(line)).of(figure).next().is_some()
}

pub fn parse_text(text: &str) -> EngineLog {
    parse(text.lines())
}

/// What lines say. Of a figure that is stated more than once for one subject its row says which counts.
pub fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> EngineLog {
    let mut log = EngineLog::default();
    let mut evidence: Vec<&'static [Engine]> = Vec::new();
    let mut ranges = Vec::new();
    for (index, line) in lines.enumerate() {
        let clean = clean(line);
        let add = |evidence: &mut Vec<&'static [Engine]>, engines| {
            if !evidence.contains(&engines) {
                evidence.push(engines);
            }
        };
        for engines in &clean.engines {
            add(&mut evidence, engines);
        }
        let Some(any) = ANY.as_ref() else { continue };
        for matched in &any.matches(clean.text.as_bytes()) {
            let Some((row, captures)) = matched_row(matched, &clean.text) else { continue };
            add(&mut evidence, row.engines);
            if row.versions != ALL && !ranges.contains(&(row.engines, row.versions)) {
                ranges.push((row.engines, row.versions));
            }
            read(&mut log, (matched, row), &captures, &clean, index);
        }
    }
    (log.engine, log.candidates) = decide(evidence.into_iter());
    let own = ranges.iter().filter(|(engines, _)| log.engine.is_some_and(|engine| engines.contains(&engine)));
    log.versions = own.fold(ALL, |all, (_, range)| all.and(range));
    log
}

fn matched_row<'t>(index: usize, text: &'t str) -> Option<(&'static LineRow, Captures<'t>)> {
    Some((ROWS.get(index)?, EACH.get(index)?.as_ref()?.captures(text)?))
}

/// Adds what one line says by one row.
fn read(
    log: &mut EngineLog,
    (index, row): (usize, &LineRow),
    captures: &Captures<'_>,
    clean: &Clean,
    line: usize,
) {
    if row.restarts {
        log.figures.retain(|found| !is_summed(found));
        log.buffers.clear();
    }
    let group = |group: usize| captures.get(group).map(|found| found.as_str());
    if let Some(version) = row.version.and_then(group).and_then(Version::parse) {
        log.version = Some(version);
    }
    let subject = row.subject.map_or(clean.rank.as_deref(), group);
    let subject = subject.map(|name| name.chars().take(LONGEST_SUBJECT).collect::<String>());
    let mut stated = Vec::new();
    for field in row.fields {
        let Some(found) = group(field.group).and_then(|text| value(text, field.unit)) else { continue };
        let figure = meant(field, subject.as_deref());
        stated.push((figure, found));
        log.set(FigureValue { figure, subject: subject.clone(), value: found, line, row: index }, field.take);
    }
    if row.buffer
        && let (Some(field), Some((figure, value))) = (row.fields.first(), stated.first())
    {
        log.buffer(BufferLine { figure: *figure, subject, bytes: positive(*value), line }, field.take);
    }
    for (edge, stage) in row.marks {
        if log.marks.len() < MOST {
            log.marks.push(Mark { stage: *stage, begins: *edge == Edge::Begins, line });
        }
    }
    if let Some(check) = row.check
        && log.failures.len() < MOST
    {
        log.failures.push(Failure { check, line, figures: stated });
    }
}

fn positive(value: Value) -> u64 {
    value.whole().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0)
}

fn meant(field: &Field, subject: Option<&str>) -> Figure {
    field.on_host.filter(|_| subject.is_some_and(is_host)).unwrap_or(field.figure)
}

/// Whether a buffer of this name is in the host's memory: `CPU`, `CPU_Mapped`, `CPU_REPACK`, `CUDA_Host`, `cpu`.
fn is_host(subject: &str) -> bool {
    subject.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("cpu")) || subject.ends_with("Host")
}

fn is_summed(found: &FigureValue) -> bool {
    let fields = ROWS.get(found.row).map_or(&[][..], |row| row.fields);
    fields.iter().any(|field| field.take == Take::Sum)
}
