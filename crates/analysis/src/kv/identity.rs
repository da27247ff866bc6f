//! Which engine it was, of which version, and so what it reads and how it computes.

use serde::Serialize;

use spark_trace_engines::{
    self as engines, ENGINES, Engine, EngineLog, EngineRow, Formula, Signal, Variant, Version, VersionRange,
};
use spark_trace_recording::Recording;

use super::signals;
use crate::engine_evidence::{EngineBy, recognise};

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
