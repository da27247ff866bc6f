//! Which engine it was, of which version, and so what it reads and how it computes.

use serde::Serialize;

use spark_trace_engines::{
    self as engines, ENGINES, Engine, EngineLog, EngineRow, Formula, Signal, Variant, Version, VersionRange,
};
use spark_trace_recording::{Recording, words};

use super::signals;

words! {
    /// What an engine was recognised by.
    pub enum EngineBy {
        /// The user says so.
        Option = "option",
        Log = "log",
        Arguments = "arguments",
        /// A library that a process had mapped.
        Modules = "modules",
        /// The name of a process.
        Processes = "processes",
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct Identity {
    /// Absent where nothing tells, or several fit.
    pub engine: Option<Engine>,
    /// As its makers write it.
    pub title: Option<&'static str>,
    pub version: Option<Version>,
    #[serde(serialize_with = "by")]
    pub found_by: Option<EngineBy>,
    /// Engines that some of the evidence fits.
    pub candidates: Vec<Engine>,
    /// What it takes for the free memory. Of an unknown engine, what its calls are like.
    pub signal: Option<Signal>,
    pub formula: Option<Formula>,
    /// Versions that the evidence leaves open size their caches in different ways: the newest counts.
    pub version_open: bool,
    #[serde(skip)]
    pub row: Option<&'static EngineRow>,
    #[serde(skip)]
    pub variant: Option<&'static Variant>,
}

fn by<S: serde::Serializer>(by: &Option<EngineBy>, serializer: S) -> Result<S::Ok, S::Error> {
    match by {
        Some(by) => serializer.serialize_str(by.as_str()),
        None => serializer.serialize_none(),
    }
}

/// `chosen` is the user's word for it.
pub fn of(recording: &Recording, log: &EngineLog, chosen: Option<Engine>) -> Identity {
    let (engine, found_by, candidates) = match chosen {
        Some(engine) => (Some(engine), Some(EngineBy::Option), vec![engine]),
        None => recognise(recording, log),
    };
    let row = engine.and_then(engines::row);
    let versions = log.version.filter(|_| log.engine == engine || log.engine.is_none());
    let range = versions.map_or(log.versions, VersionRange::only);
    let open =
        row.into_iter().flat_map(|row| row.variants).filter(|variant| variant.versions.overlaps(&range));
    let open: Vec<&Variant> = open.collect();
    let shared = is_shared(recording);
    let signal_of = |variant: &Variant| if shared { variant.unified } else { variant.discrete };
    // The newest is what most people run.
    let variant = open.last().copied();
    let differ = |a: &&Variant, b: &&Variant| a.formula != b.formula || signal_of(a) != signal_of(b);
    Identity {
        engine,
        title: row.map(|row| row.title),
        version: versions,
        found_by,
        candidates,
        signal: variant.map(signal_of),
        formula: variant.map(|variant| variant.formula),
        version_open: variant.is_some_and(|last| open.iter().any(|other| differ(&last, other))),
        row,
        variant,
    }
}

impl Identity {
    /// Where no evidence names an engine: those that go by such a signal on a GPU without memory of its own.
    pub fn with_candidates(mut self, signal: Option<&str>) -> Self {
        let wanted = match signal {
            Some(signals::AVAILABLE) => Signal::MemAvailable,
            Some(signals::FREE) => Signal::CudaMemGetInfo,
            _ => return self,
        };
        if self.engine.is_none() && self.candidates.is_empty() {
            let newest =
                |row: &&EngineRow| row.variants.last().is_some_and(|variant| variant.unified == wanted);
            self.candidates = ENGINES.iter().filter(newest).map(|row| row.engine).collect();
        }
        self
    }
}

/// The GPU has no memory of its own, as far as is known.
pub fn is_shared(recording: &Recording) -> bool {
    !recording.host.gpus.iter().any(|gpu| gpu.memory_total.is_some())
}

type Found = (Option<Engine>, Option<EngineBy>, Vec<Engine>);

/// The log first: what a process is called and what it has mapped may be of something else that it runs.
fn recognise(recording: &Recording, log: &EngineLog) -> Found {
    let ways: [(EngineBy, Vec<Vec<Engine>>); 4] = [
        (EngineBy::Log, log.engine.into_iter().map(|engine| vec![engine]).collect()),
        (EngineBy::Arguments, arguments(recording)),
        (EngineBy::Processes, comms(recording).map(engines::by_comm).collect()),
        (EngineBy::Modules, modules(recording).map(engines::by_module).collect()),
    ];
    let mut candidates = log.candidates.clone();
    for (way, evidence) in ways {
        let (engine, fitting) = engines::decide(evidence.iter().map(Vec::as_slice));
        candidates.extend(fitting);
        if engine.is_some() {
            candidates.sort_unstable();
            candidates.dedup();
            return (engine, Some(way), candidates);
        }
    }
    candidates.sort_unstable();
    candidates.dedup();
    (None, None, candidates)
}

fn arguments(recording: &Recording) -> Vec<Vec<Engine>> {
    let processes = recording.provenance.processes.iter().map(|process| process.argv.as_slice());
    processes.chain([recording.target.argv.as_slice()]).map(engines::by_arguments).collect()
}

/// Processes name themselves later than at their start: files remember who touched them first.
fn comms(recording: &Recording) -> impl Iterator<Item = &str> {
    let started = recording.provenance.processes.iter().map(|process| process.comm.as_str());
    let touched = recording.provenance.files.iter().filter_map(|file| file.first_touch.as_ref());
    started.chain(touched.map(|touch| touch.comm.as_str()))
}

fn modules(recording: &Recording) -> impl Iterator<Item = &str> {
    let frames = recording.provenance.symbols.iter().filter_map(|symbol| symbol.module.as_deref());
    frames.chain(recording.provenance.regions.iter().map(|region| region.name.as_str()))
}
