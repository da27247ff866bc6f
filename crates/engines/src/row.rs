//! What a row of the table has.

use crate::engine::{Action, Cause, Check, Engine, Formula, Moment, ParameterName, Signal, Stage};
use crate::figure::Figure;
use crate::version::{ALL, Version, VersionRange};

/// An engine: how it is recognised, how it sizes its cache, and what it writes of that.
#[derive(Debug)]
pub struct EngineRow {
    pub engine: Engine,
    /// As its makers write it.
    pub title: &'static str,
    pub signs: &'static [Sign],
    /// An engine that it runs, and the lines of which it passes on: lines of both are a log of this one.
    pub runs: Option<Engine>,
    pub variants: &'static [Variant],
    pub lines: &'static [LineRow],
    pub parameters: &'static [Parameter],
    pub advice: &'static [AdviceRow],
}

impl EngineRow {
    /// The variants that a version may be; without one all of them.
    pub fn variants_of(&self, version: Option<Version>) -> impl Iterator<Item = &'static Variant> + use<> {
        let fits = move |variant: &&Variant| version.is_none_or(|version| variant.versions.contains(version));
        self.variants.iter().filter(fits)
    }

    /// The variant where there is no doubt.
    pub fn variant(&self, version: Option<Version>) -> Option<&'static Variant> {
        let mut fitting = self.variants_of(version);
        fitting.next().filter(|_| fitting.next().is_none())
    }

    pub fn parameter(&self, name: ParameterName) -> Option<&'static Parameter> {
        self.parameters.iter().find(|parameter| parameter.name == name)
    }
}

/// What a process that is this engine has about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// An argument with this as its last part: `/opt/bin/vllm`, `-m vllm`.
    Argument(&'static str),
    /// An argument that begins with this: `vllm.entrypoints.`.
    ArgumentBegins(&'static str),
    /// The path of a library or file that is mapped contains it.
    Module(&'static str),
    /// The name of a process begins with it.
    Comm(&'static str),
}

/// How an engine of some versions sizes its cache.
#[derive(Debug)]
pub struct Variant {
    pub versions: VersionRange,
    /// On a GPU without memory of its own (cudaDeviceProp.integrated).
    pub unified: Signal,
    /// On one with memory of its own.
    pub discrete: Signal,
    /// What it may read of the system instead, where it runs in a container.
    pub in_container: Option<Signal>,
    pub readings: &'static [ReadingRow],
    pub formula: Formula,
    /// Graphs are estimated and taken off the budget. The estimate is of raw cudaMemGetInfo answers, which page cache
    /// that is reclaimed in between makes negative on unified memory.
    pub takes_off_graphs: bool,
}

/// A reading of free memory that the formula needs.
#[derive(Debug)]
pub struct ReadingRow {
    pub moment: Moment,
    /// The log's figure of the same reading.
    pub figure: Option<Figure>,
    pub position: Position,
}

/// Which of a process's readings it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The last before the stage begins.
    LastBefore(Stage),
    /// The first after the stage has ended.
    FirstAfter(Stage),
    /// The last before the line that has the first of these figures that a log states; without a log the last that a growth of
    /// device memory followed.
    LastBeforeLine(&'static [Figure]),
}

#[derive(Debug)]
pub struct Parameter {
    pub name: ParameterName,
    /// As they stand on a command line; the value is the next argument or follows `=`.
    pub flags: &'static [&'static str],
    pub environment: &'static [&'static str],
    /// The log's figure of it.
    pub figure: Option<Figure>,
    /// Where nobody sets it. None where the engine computes it.
    pub defaults: &'static [(VersionRange, f64)],
}

impl Parameter {
    /// The default of a version. Without a version only where all versions have the same.
    pub fn default_of(&self, version: Option<Version>) -> Option<f64> {
        let mut fitting = self
            .defaults
            .iter()
            .filter(|(versions, _)| version.is_none_or(|version| versions.contains(version)))
            .map(|(_, value)| *value);
        let first = fitting.next()?;
        fitting.all(|value| value == first).then_some(first)
    }
}

/// What helps against a cause with this engine.
#[derive(Debug)]
pub struct AdviceRow {
    pub cause: Cause,
    pub action: Action,
    /// The engine's own name for it, where it has one.
    pub flag: Option<&'static str>,
    pub versions: VersionRange,
}

pub const fn advice(cause: Cause, action: Action, flag: Option<&'static str>) -> AdviceRow {
    AdviceRow { cause, action, flag, versions: ALL }
}

impl AdviceRow {
    pub const fn versions(mut self, versions: VersionRange) -> Self {
        self.versions = versions;
        self
    }
}

/// A line of a log, after its prefixes.
#[derive(Debug, Clone, Copy)]
pub struct LineRow {
    /// Who writes it. More than one: it does not tell which. None: other programs write it, too.
    pub engines: &'static [Engine],
    /// A regular expression without look-around and back-references.
    pub pattern: &'static str,
    pub versions: VersionRange,
    pub fields: &'static [Field],
    /// Group with the device, pool or rank that the figures are of; absent: the rank in the line's prefix.
    pub subject: Option<usize>,
    pub marks: &'static [(Edge, Stage)],
    pub check: Option<Check>,
    /// Group with the engine's version.
    pub version: Option<usize>,
    /// The engine begins anew: figures that add up begin again.
    pub restarts: bool,
    /// Its first figure is the size of one allocation.
    pub buffer: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    Begins,
    Ends,
}

/// One number of a line.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    pub group: usize,
    pub figure: Figure,
    /// The same of a subject in the host's memory.
    pub on_host: Option<Figure>,
    pub unit: LogUnit,
    pub take: Take,
}

/// The unit as it stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogUnit {
    /// Also where the log says GB and divides by 2^30.
    GiB,
    MiB,
    /// The same, where a negative number was printed without its sign: 2^44 too large (llama.cpp#19437).
    WrappedMiB,
    KiB,
    Bytes,
    /// A number and its unit in one group: `121.7 GiB`.
    Text,
    /// `12,345` too.
    Count,
    Ratio,
    Percent,
    Seconds,
    /// `true` and `enabled` are 1, anything else is 0.
    Flag,
}

/// Which counts where a figure is stated more than once for the same subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    First,
    Last,
    /// All of them, since the engine last began.
    Sum,
}

pub const fn field(group: usize, figure: Figure, unit: LogUnit) -> Field {
    Field { group, figure, on_host: None, unit, take: Take::Last }
}

pub const fn gib(group: usize, figure: Figure) -> Field {
    field(group, figure, LogUnit::GiB)
}

pub const fn mib(group: usize, figure: Figure) -> Field {
    field(group, figure, LogUnit::MiB)
}

pub const fn count(group: usize, figure: Figure) -> Field {
    field(group, figure, LogUnit::Count)
}

pub const fn ratio(group: usize, figure: Figure) -> Field {
    field(group, figure, LogUnit::Ratio)
}

pub const fn seconds(group: usize, figure: Figure) -> Field {
    field(group, figure, LogUnit::Seconds)
}

pub const fn text(group: usize, figure: Figure) -> Field {
    field(group, figure, LogUnit::Text)
}

impl Field {
    pub const fn sum(mut self) -> Self {
        self.take = Take::Sum;
        self
    }

    pub const fn first(mut self) -> Self {
        self.take = Take::First;
        self
    }

    pub const fn on_host(mut self, figure: Figure) -> Self {
        self.on_host = Some(figure);
        self
    }
}

pub const fn line(engines: &'static [Engine], pattern: &'static str, fields: &'static [Field]) -> LineRow {
    LineRow {
        engines,
        pattern,
        versions: ALL,
        fields,
        subject: None,
        marks: &[],
        check: None,
        version: None,
        restarts: false,
        buffer: false,
    }
}

impl LineRow {
    pub const fn versions(mut self, versions: VersionRange) -> Self {
        self.versions = versions;
        self
    }

    pub const fn subject(mut self, group: usize) -> Self {
        self.subject = Some(group);
        self
    }

    pub const fn marks(mut self, marks: &'static [(Edge, Stage)]) -> Self {
        self.marks = marks;
        self
    }

    pub const fn fails(mut self, check: Check) -> Self {
        self.check = Some(check);
        self
    }

    pub const fn version(mut self, group: usize) -> Self {
        self.version = Some(group);
        self
    }

    pub const fn buffer(mut self) -> Self {
        self.buffer = true;
        self
    }

    pub const fn restarts(mut self) -> Self {
        self.restarts = true;
        self
    }
}
