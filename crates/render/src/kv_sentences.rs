//! What a KV-cache budget says, in sentences.

use spark_trace_analysis::kv::{Advice, Budget, Failure, Note, Report, Role, Step, WhatIf, WhatIfKind};
use spark_trace_engines::{Action, Cause, Check, row};
use spark_trace_recording::units::{known, size, unsigned};

/// The answer in a sentence or two.
pub fn headline(report: &Report) -> String {
    let b = &report.b;
    match (&report.a, report.kv_delta_bytes) {
        (None, _) => of_run("", b),
        (Some(a), Some(delta)) if delta != 0 => {
            let word = if delta < 0 { "smaller" } else { "larger" };
            let first =
                format!("The KV cache of B is {} {word} than that of A.", size(delta.saturating_abs()));
            format!("{first} {} {}", of_run("A", a), of_run("B", b))
        }
        (Some(a), _) => format!("{} {}", of_run("A", a), of_run("B", b)),
    }
}

fn of_run(letter: &str, budget: &Budget) -> String {
    let reading = &budget.reading;
    let who = if letter.is_empty() { String::new() } else { format!("{letter}: ") };
    let engine = match (budget.engine.title, &budget.engine.version) {
        (Some(title), Some(version)) => format!("{title} {version}: "),
        (Some(title), None) => format!("{title}: "),
        (None, _) => String::new(),
    };
    let of = reading.total.map_or_else(String::new, |total| format!(" of {}", unsigned(total)));
    let mut text =
        format!("{who}{engine}{} returned {}{of} free", reading.query.interface, unsigned(reading.free));
    if reading.device_free.is_some() {
        text.push_str(" (MemAvailable; cuMemGetInfo was called for the total)");
    }
    if let Some(kv) = budget.figures.budget() {
        text.push_str(&format!("; KV-cache budget {}", size(kv)));
    }
    if let Some(taken) = budget.figures.taken_of_it() {
        text.push_str(&format!(", of which {} was allocated", unsigned(taken)));
    }
    // What MemAvailable counts as free costs nothing.
    if budget.reclaimable > 0 && budget.reserve.is_none() {
        text.push_str(&format!("; {} of the memory in use was reclaimable", unsigned(budget.reclaimable)));
    }
    text.push('.');
    if let Some(failure) = &budget.failure {
        text.push(' ');
        text.push_str(&failed(failure));
    }
    if let Some(costs) = dearest(budget) {
        text.push_str(&format!(" The cache would be {} larger {}.", size(costs.delta), what_if(costs)));
    }
    text
}

/// What would have given the most, of what is not a setting.
fn dearest(budget: &Budget) -> Option<&WhatIf> {
    // Rows are in this order.
    budget.what_if.iter().find(|row| row.kind != WhatIfKind::Fraction && row.delta > 0)
}

/// The condition of a row of what-if.
pub fn what_if(row: &WhatIf) -> String {
    let subject = row.subject.as_deref().unwrap_or("a process");
    match row.kind {
        WhatIfKind::Reclaimable => "with reclaimable memory dropped before the reading".to_owned(),
        WhatIfKind::Dirty => {
            "with dirty pages of files written back and dropped before the reading".to_owned()
        }
        WhatIfKind::Pool => "with the pools of NVIDIA's driver emptied before the reading".to_owned(),
        WhatIfKind::Process => format!("without the memory of {subject}"),
        WhatIfKind::Child => format!("without the memory of {subject}, which the engine started"),
        WhatIfKind::OutsideProcess => format!("without the memory of {subject}, which is not the target's"),
        WhatIfKind::Outside => "without the memory of processes outside of the target".to_owned(),
        WhatIfKind::Pinned => "without the host memory that the target pinned".to_owned(),
        WhatIfKind::Graphs => "without the estimate for CUDA graphs".to_owned(),
        WhatIfKind::Transient => "without the peak of the dummy run".to_owned(),
        WhatIfKind::Fraction => known(row.fraction, |fraction| format!("with a fraction of {fraction}")),
    }
}

/// What the engine went by, in a line of its own.
pub fn engine(budget: &Budget) -> String {
    let engine = &budget.engine;
    let Some(title) = engine.title else {
        let names: Vec<_> = engine.candidates.iter().filter_map(|&found| Some(row(found)?.title)).collect();
        let candidates = match names.as_slice() {
            [] => String::new(),
            names => format!("; candidates: {}", names.join(", ")),
        };
        return format!(
            "engine: unknown{candidates}. No arithmetic is applied: state it with --engine, or give its log with --log"
        );
    };
    let version = known(engine.version.as_ref(), ToString::to_string);
    let by = engine.found_by.map_or("", |by| by.as_str());
    let signal = engine.signal.map_or("", |signal| signal.as_str());
    format!("engine: {title}, version {version} (found by {by}); its signal is {signal}")
}

pub fn failed(failure: &Failure) -> String {
    let sizes = || Some((size(failure.free?), size(failure.needed?), size(failure.needed? - failure.free?)));
    let figures = match sizes() {
        Some((free, needed, missing)) => format!(": {free} free, {needed} needed, {missing} missing"),
        None => String::new(),
    };
    let what = match failure.check {
        Check::FreeBelowRequested => "Less memory was free at the start than the fraction stands for",
        Check::FreeGrewInProfiling => {
            "More memory was free after profiling than before it: another program gave memory back"
        }
        Check::CacheBelowOneRequest => "The cache is too small for one request of the greatest length",
        Check::NothingLeftForCache => "Nothing was left for a cache",
        Check::RanksUnbalanced => "One rank had much less free memory than the others",
        Check::ModelAboveSystemMemory => "The model needs more of the system's memory than is available",
        Check::DoesNotFit => "The model and its context do not fit into the free memory",
        Check::AllocationFailed => "An allocation failed",
    };
    format!("The engine ended before it had a cache. {what}{figures}.")
}

pub const fn note(note: Note) -> &'static str {
    match note {
        Note::OwnMemory => "the GPU has memory of its own: page cache does not reduce its KV cache",
        Note::NoLog => {
            "no lines of the engine's log: its figures are computed from the trace (record with --log, or use --log FILE)"
        }
        Note::LogWithoutLines => {
            "the log file has no line of a known engine: the figures are computed from the trace"
        }
        Note::UnknownEngine => "the engine is unknown: its formula is not guessed",
        Note::UnknownVersion => {
            "the version is unknown, and versions of this engine differ in signal or formula: those of the newest are used"
        }
        Note::NoBaseline => {
            "the reading before the weights is not in the recording: record the engine from its start"
        }
        Note::OneOfSeveral => {
            "several processes of the target have device memory: the figures are those of the process that queried"
        }
        Note::OneOfSeveralGpus => {
            "the process has memory on several GPUs: the answer is about one of them, the allocations are of all"
        }
        Note::FractionFromAllocations => {
            "no log or argument states the fraction: it follows from the bytes that were allocated, if no limit was set"
        }
        Note::NegativeGraphs => {
            "the estimate for CUDA graphs is negative: page cache was reclaimed between its two readings, and the cache is \
             too large by as much"
        }
        Note::NotLimited => "the whole context fits: free memory does not limit this cache",
        Note::LayersOnHost => {
            "the stated context does not fit: layers go to the host's memory, and their cache with them"
        }
        Note::ContainerCounter => {
            "the engine also reads the container's counter (limit minus memory.current). Page cache of the container counts as \
             used there, memory of the driver does not. The counter decides which loaded models are unloaded, not the size of \
             this cache"
        }
        Note::GapAtReading => {
            "the memory levels were not read for a time just before or after a reading: who had what then is of a look \
             farther away (`show` has the gaps)"
        }
        Note::Losses => {
            "events were lost while this was recorded: what is attributed may be too little (`show` has the losses)"
        }
    }
}

pub const fn role(role: Role, is_one: bool) -> &'static str {
    match role {
        Role::Outside if is_one => "a process outside of the target",
        Role::Engine => "the engine",
        Role::Child => "started by the engine",
        Role::Other => "another process of the target",
        Role::Outside => "all processes outside of the target",
    }
}

/// What to do, and the risk of it.
pub fn advice(advice: &Advice) -> (String, &'static str) {
    let bytes = known(advice.bytes, unsigned);
    let subject = advice.subject.as_deref();
    let (what, risk) = action(advice.action).map_or(UNKNOWN_ACTION, |(_, what, risk)| (*what, *risk));
    let mut text = what.replace("BYTES", &bytes);
    let who = match (subject, advice.cause == Cause::Others.as_str()) {
        (Some(subject), _) => subject.to_owned(),
        (None, true) => "other programs".to_owned(),
        (None, false) => "it".to_owned(),
    };
    text = text.replace("WHO", &who);
    if let Some(flag) = &advice.flag {
        text.push_str(&format!(": {flag}"));
    }
    (text, risk)
}

const UNKNOWN_ACTION: (&str, &str) = ("Change this", "unknown");

type Words = (&'static str, &'static str, &'static str);

fn action(word: &str) -> Option<&'static Words> {
    ACTIONS.iter().find(|(action, ..)| *action == word)
}

const OTHER_RUN: &str = "the other program loses its memory";
const LESS_ROOM: &str =
    "less memory for activations of longer prompts and for other programs: the run may end out of memory";

#[rustfmt::skip]
const ACTIONS: &[Words] = &[
    (Action::DropPageCache.as_str(), "Drop the page cache (BYTES) right before the engine reads free memory: after the weights are loaded it counts as used, although it is reclaimable", "every program on the machine reads its files from disk again; harmless otherwise"),
    (Action::ReadDirectly.as_str(), "Read the weights past the page cache", "the next start reads them from disk again"),
    (Action::EndOthers.as_str(), "End WHO (BYTES), or start it after the engine", OTHER_RUN),
    (Action::RaiseFraction.as_str(), "Let the cache take more of the memory", LESS_ROOM),
    (Action::LowerFraction.as_str(), "Let the engine take less of the memory", "the cache is smaller"),
    (Action::StateCacheSize.as_str(), "State the size of the cache, so that no reading decides it", LESS_ROOM),
    (Action::CompileBefore.as_str(), "Compile before the engine reads free memory (a second start finds the compiler's cache): WHO had BYTES at the reading", "none, where the cache of the compiler is kept"),
    (Action::LowerBatch.as_str(), "Lower the peak of the dummy run (BYTES)", "longer prompts are worked on in more steps"),
    (Action::LowerContext.as_str(), "Lower the longest context", "longer requests are refused"),
    (Action::DisableGraphs.as_str(), "Go without CUDA graphs (BYTES)", "the engine is slower"),
    (Action::DisableGraphEstimate.as_str(), "Do not take the estimate for CUDA graphs (BYTES) off the cache", "graphs are captured into memory that may be missing"),
    (Action::DisableHostTier.as_str(), "Go without the copy of the cache in host memory (BYTES): it is the same memory", "requests that are swapped out are computed again"),
    (Action::WriteBack.as_str(), "Write dirty pages (BYTES) back before the page cache is dropped: dirty pages stay", "the disk is busy meanwhile"),
    (Action::LowerWatermark.as_str(), "Check what the kernel keeps free for itself (BYTES): MemAvailable is lower by as much", "with less, the kernel is late to reclaim memory"),
    (Action::Unpin.as_str(), "Pin less host memory before the reading (BYTES): it can be neither reclaimed nor used by the cache", "copies to the GPU may be slower"),
    (Action::SetLimit.as_str(), "Set a limit for the container, or none: the engine goes by its counter", "the container ends where it needs more"),
    (Step::DropFile.as_str(), "Drop only WHO (BYTES) from the page cache: posix_fadvise(POSIX_FADV_DONTNEED) after reading it does the same in a program", "the next start reads the file from disk; pages that a process has mapped stay"),
    (Step::ShareWorkspace.as_str(), "Put the workspace (engines, caches; BYTES of page cache are files of the container's own layer) on one directory of the host for native and container runs alike, so that both find the same files", "files stay on the host after the container is gone, owned by the container's user"),
    (Step::CheckSharedMemory.as_str(), "Check whether earlier processes left shared memory behind (BYTES in use)", "looking is harmless; removing a segment that is in use breaks its program"),
    (Step::EmptyPools.as_str(), "Empty the pools of NVIDIA's driver (BYTES) before the engine reads free memory: they are what programs have freed, and count as used", "the driver's next allocations take longer"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_recording::word::Words;

    #[test]
    fn every_action_has_its_words() {
        for word in
            Action::ALL.iter().map(|action| action.as_str()).chain(Step::ALL.iter().map(|step| step.as_str()))
        {
            assert!(action(word).is_some(), "{word}");
        }
    }
}
