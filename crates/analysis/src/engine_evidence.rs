//! Which inference engine a recording is of: by its log, else by arguments, names and libraries of processes.

use spark_trace_engines::{self as engines, Engine, EngineLog};
use spark_trace_recording::{Recording, words};

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

/// The engine, what it was recognised by, and every engine that some of the evidence fits.
type Found = (Option<Engine>, Option<EngineBy>, Vec<Engine>);

/// The log first: what a process is called and what it has mapped may be of something else that it runs.
pub fn recognise(recording: &Recording, log: &EngineLog) -> Found {
    let ways: [(EngineBy, Vec<Vec<Engine>>); 4] = [
        (EngineBy::Log, log.engine.into_iter().map(|engine| vec![engine]).collect()),
        (EngineBy::Arguments, arguments(recording)),
        (EngineBy::Processes, comms(recording).map(engines::by_comm).collect()),
        (EngineBy::Modules, modules(recording).map(engines::by_module).collect()),
    ];
    let mut candidates = log.candidates.clone();
    let mut found = (None, None);
    for (way, evidence) in ways {
        let (engine, fitting) = engines::decide(evidence.iter().map(Vec::as_slice));
        candidates.extend(fitting);
        if engine.is_some() {
            found = (engine, Some(way));
            break;
        }
    }
    candidates.sort_unstable();
    candidates.dedup();
    (found.0, found.1, candidates)
}

/// What the recording's own lines of the log state.
pub fn log_of(recording: &Recording) -> EngineLog {
    engines::parse(recording.provenance.log_lines.iter().map(|line| line.text.as_str()))
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
