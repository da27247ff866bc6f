//! Which of many answers an engine sized its cache by, and which was the baseline before it.

use std::collections::BTreeSet;

use spark_trace_common::cuda::DEVICE_ALL;
use spark_trace_engines::{EngineLog, Figure, Position, Signal, Stage};
use spark_trace_recording::{CudaOwn, Recording};

use super::identity::{self, Identity};
pub use super::signals::{AVAILABLE, FREE, GPU_MEMORY};
use super::{FOLLOWED_PERCENT, Reading, SMALL_PERCENT, WEIGHTS_PERCENT};
use crate::memory_queries::{MemoryQueryRow, Queries};

/// A question whose answer an engine may size its cache by, and the figures of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    interface: &'static str,
    free: &'static str,
    total: &'static str,
    /// The GPU's library was called right before by the same thread, for the total: what engines do that take
    /// MemAvailable on a GPU without memory of its own.
    after_device: bool,
    /// It is about a GPU. Ordinary programs read the others too, for their own ends: only an engine's log makes one of
    /// those a KV-cache reading.
    gpu: bool,
}

const MEMINFO: &str = "/proc/meminfo";
const CUDA: &str = "cuMemGetInfo_v2";
/// MemAvailable right after cuMemGetInfo.
const PAIR: Kind =
    Kind { interface: MEMINFO, free: AVAILABLE, total: "MemTotal", after_device: true, gpu: true };
const DRIVER: Kind = Kind { interface: CUDA, free: "free", total: "total", after_device: false, gpu: true };
const NVML2: Kind = Kind { interface: "nvmlDeviceGetMemoryInfo_v2", ..DRIVER };
const NVML: Kind = Kind { interface: "nvmlDeviceGetMemoryInfo", ..DRIVER };
const AVAILABLE_ALONE: Kind = Kind { after_device: false, gpu: false, ..PAIR };

/// The first that fits counts.
const ANY: &[Kind] = &[DRIVER, NVML2, NVML, AVAILABLE_ALONE];
const PAIRS_FIRST: &[Kind] = &[PAIR, DRIVER, NVML2, NVML, AVAILABLE_ALONE];

/// Between the two calls of a pair: a few calls of a Python program on a busy machine.
const PAIR_NS: u64 = 1_000_000_000;
/// The answer and the kernel's figure are read at times a little apart.
const SAME_BYTES: u64 = 64 << 20;
/// Column of the target's device memory.
pub const DEVICE: &str = "live.device-all";

/// The readings that an engine went by.
pub struct Found {
    pub reading: Reading,
    pub baseline: Option<Reading>,
    /// Free by the counter of the engine's container, of an engine that goes by that too.
    pub container_free: Option<u64>,
}

/// One answer, with the one of the GPU's library before it.
#[derive(Debug, Clone, Copy)]
struct Answer<'a> {
    row: &'a MemoryQueryRow,
    device: Option<&'a MemoryQueryRow>,
    free: u64,
    total: Option<u64>,
}

pub fn of(recording: &Recording, queries: &Queries, identity: &Identity, log: &EngineLog) -> Option<Found> {
    let chosen = choose(recording, queries, identity, log)?;
    let Chosen { answer, found_by, of_kind, kind } = chosen;
    let baseline = baseline(recording, identity, log, &of_kind, &answer);
    let reading = |answer: &Answer<'_>, found_by| Reading {
        at_ns: answer.row.at_ns,
        since_start_ns: answer.row.at_ns.saturating_sub(recording.target.started_ns),
        free: answer.free,
        total: answer.total,
        device_free: answer.device.and_then(|row| row.values.get("free")).copied(),
        found_by,
        signal: signal(recording, answer.row, answer.free, kind),
        query: answer.row.clone(),
    };
    Some(Found {
        reading: reading(&answer, found_by),
        baseline: baseline.map(|answer| reading(&answer, found_by)),
        container_free: container_free(recording, queries, identity, answer.row.at_ns),
    })
}

/// Ollama in a container (discover/cpu_linux.go, getCPUMemByCgroups): memory.max, or all of the machine's memory where there is
/// no limit, minus memory.current. Its GPU's process reads at another time: the last answer before that counts.
fn container_free(recording: &Recording, queries: &Queries, identity: &Identity, at_ns: u64) -> Option<u64> {
    identity.variant?.in_container.filter(|signal| *signal == Signal::CgroupCurrent)?;
    let last = |interface: &str| {
        let rows = queries.rows.iter().filter(|row| row.interface == interface && row.result == 0);
        { rows }.rfind(|row| row.at_ns <= at_ns)
    };
    let used = *last("memory.current")?.values.get("bytes")?;
    let limit = last("memory.max").and_then(|row| row.values.get("bytes")).copied();
    Some(limit.unwrap_or(recording.host.memory_total).saturating_sub(used))
}

struct Chosen<'a> {
    kind: Kind,
    of_kind: Vec<Answer<'a>>,
    answer: Answer<'a>,
    found_by: &'static str,
}

/// The last answer before an engine's log stated its budget, else the last answer about a GPU's memory that a growth of
/// device memory followed, else the last before the check that ended the engine.
fn choose<'a>(
    recording: &Recording,
    queries: &'a Queries,
    identity: &Identity,
    log: &EngineLog,
) -> Option<Chosen<'a>> {
    let kinds = kinds(recording, identity);
    let by = |found_by, pick: &dyn Fn(Kind, &[Answer<'a>]) -> Option<Answer<'a>>| {
        kinds.iter().find_map(|&kind| {
            let of_kind = answers(queries, kind, kinds.contains(&PAIR));
            let answer = pick(kind, &of_kind)?;
            Some(Chosen { kind, of_kind, answer, found_by })
        })
    };
    let written_ns = logged_ns(recording, identity, log);
    let failed_ns = failed_ns(recording, log);
    let before = |at_ns: Option<u64>, answers: &[Answer<'a>]| {
        let at_ns = at_ns?;
        answers.iter().rfind(|answer| answer.row.at_ns <= at_ns).copied()
    };
    by("log", &|_, answers| before(written_ns, answers))
        .or_else(|| {
            by("allocations", &|kind, answers| kind.gpu.then(|| followed(recording, identity, answers))?)
        })
        .or_else(|| by("failure", &|_, answers| before(failed_ns, answers)))
}

/// Which answers count for this engine.
fn kinds(recording: &Recording, identity: &Identity) -> &'static [Kind] {
    let takes_available = match identity.signal {
        Some(Signal::MemAvailable | Signal::CgroupCurrent) | None => true,
        Some(Signal::CudaMemGetInfo | Signal::Nvml) => false,
    };
    if takes_available && identity::is_shared(recording) { PAIRS_FIRST } else { ANY }
}

/// Answers of a kind in order. One that the GPU's driver asked for itself is not the engine's. Where pairs count, the first
/// of a pair is no answer by itself: its free memory is not used.
fn answers(queries: &Queries, kind: Kind, pairs_count: bool) -> Vec<Answer<'_>> {
    let mut found = Vec::new();
    let firsts: BTreeSet<u64> = match pairs_count && kind == DRIVER {
        true => answers(queries, PAIR, true).iter().filter_map(|answer| Some(answer.device?.at_ns)).collect(),
        false => BTreeSet::new(),
    };
    for (index, row) in queries.rows.iter().enumerate() {
        if row.interface != kind.interface || row.result != 0 || row.caller.inside_driver && !kind.is_driver()
        {
            continue;
        }
        let Some(&free) = row.values.get(kind.free).filter(|_| !firsts.contains(&row.at_ns)) else {
            continue;
        };
        let device = kind.after_device.then(|| device_before(queries.rows.get(..index)?, row)).flatten();
        if kind.after_device && device.is_none() {
            continue;
        }
        let total = device.and_then(|device| device.values.get(DRIVER.total)).or(row.values.get(kind.total));
        found.push(Answer { row, device, free, total: total.copied() });
    }
    found
}

impl Kind {
    fn is_driver(&self) -> bool {
        self.interface != MEMINFO
    }
}

/// The last thing that a thread asked before, where that was the GPU's library, a moment ago.
fn device_before<'a>(earlier: &'a [MemoryQueryRow], row: &MemoryQueryRow) -> Option<&'a MemoryQueryRow> {
    let last = earlier.iter().rfind(|last| (last.pid, last.tid) == (row.pid, row.tid))?;
    let is_pair =
        last.interface == CUDA && last.result == 0 && row.at_ns.saturating_sub(last.at_ns) <= PAIR_NS;
    is_pair.then_some(last)
}

/// When the engine wrote the line that the table has for its last reading; where it has none, its budget or its cache.
fn logged_ns(recording: &Recording, identity: &Identity, log: &EngineLog) -> Option<u64> {
    let line = |figure| log.line_of(figure);
    let decided = || [Figure::KvBudget, Figure::KvDecided, Figure::KvAllocated].into_iter().find_map(line);
    let position = identity.variant.and_then(|variant| variant.readings.last()).map(|row| row.position);
    let line = match position {
        Some(Position::LastBeforeLine(figures)) => figures.iter().copied().find_map(line).or_else(decided),
        Some(Position::LastBefore(stage)) => mark(log, stage, true).or_else(|| line(Figure::Weights)),
        Some(Position::FirstAfter(_)) | None => decided(),
    }?;
    line_ns(recording, line)
}

fn failed_ns(recording: &Recording, log: &EngineLog) -> Option<u64> {
    line_ns(recording, log.failures.first()?.line)
}

fn mark(log: &EngineLog, stage: Stage, begins: bool) -> Option<usize> {
    let mut marks = log.marks.iter().filter(|mark| mark.stage == stage && mark.begins == begins);
    marks.next_back().map(|mark| mark.line)
}

/// Lines of a file beside the recording have no time.
fn line_ns(recording: &Recording, line: usize) -> Option<u64> {
    recording.provenance.log_lines.get(line).map(|line| line.at_ns)
}

/// The last answer that was followed by a growth of device memory that it sized, see [`Growth::is_sized_by`]. What
/// follows an answer ends with the next one of the same thread: another thread that polls does not cut it short.
/// An engine that reads before its weights alone goes by the answer that the most followed.
fn followed<'a>(recording: &Recording, identity: &Identity, answers: &[Answer<'a>]) -> Option<Answer<'a>> {
    let grown = |index: usize, answer: &Answer<'_>| {
        let later = answers.get(index + 1..).unwrap_or_default();
        let next = later.iter().find(|next| (next.row.pid, next.row.tid) == (answer.row.pid, answer.row.tid));
        growth(recording, answer.row, next.map(|next| next.row), later)
    };
    let sized = answers
        .iter()
        .enumerate()
        .rfind(|(index, answer)| grown(*index, answer).is_some_and(|growth| growth.is_sized_by(answer.free)));
    let before_weights = identity.variant.is_some_and(
        |variant| matches!(variant.readings, [row] if row.position == Position::LastBefore(Stage::Weights)),
    );
    let most = || {
        let all = answers.iter().enumerate();
        let grown = all.filter_map(|(index, answer)| Some((grown(index, answer)?.bytes, index, answer)));
        grown.filter(|(bytes, ..)| *bytes > 0).max_by_key(|(bytes, index, _)| (*bytes, *index))
    };
    if before_weights {
        return most().map(|(.., answer)| *answer);
    }
    // A known engine has a cache, however small: it is what was taken after its weights.
    let loaded = |answer: &&Answer<'_>| live_at(recording, answer.row).is_some_and(|live| live > 0);
    let known = || {
        let all =
            answers.iter().enumerate().filter(|(_, answer)| identity.engine.is_some() && loaded(answer));
        let grown = all.filter_map(|(index, answer)| Some((grown(index, answer)?.bytes, index, answer)));
        let most = grown.filter(|(bytes, ..)| *bytes > 0).max_by_key(|(bytes, index, _)| (*bytes, *index));
        most.map(|(.., answer)| answer)
    };
    sized.map(|(_, answer)| answer).or_else(known).copied()
}

/// The last answer of the same process before its weights.
fn baseline<'a>(
    recording: &Recording,
    identity: &Identity,
    log: &EngineLog,
    answers: &[Answer<'a>],
    deciding: &Answer<'_>,
) -> Option<Answer<'a>> {
    let rows = identity.variant?.readings;
    let (first, _) = rows.split_first().filter(|(_, more)| !more.is_empty())?;
    let earlier = answers
        .iter()
        .filter(|answer| answer.row.pid == deciding.row.pid && answer.row.at_ns < deciding.row.at_ns);
    let loaded_ns = match first.position {
        Position::LastBefore(stage) => mark(log, stage, true).and_then(|line| line_ns(recording, line)),
        Position::FirstAfter(_) | Position::LastBeforeLine(_) => None,
    };
    let whole = own_live_at(recording, deciding.row)?;
    // The log's are those of all processes; buffers between them may be there before the weights.
    let processes = with_memory(recording).len().max(1) as u64;
    let weights = log.size(Figure::Weights).map(|weights| weights / processes);
    let has_room_for = |live: u64, weights: u64| live.saturating_add(weights) <= whole;
    let is_little = |live: u64| u128::from(live) * 100 <= u128::from(whole) * u128::from(WEIGHTS_PERCENT);
    let empty = |answer: &&Answer<'_>| {
        let live = own_live_at(recording, answer.row);
        live.is_some_and(|live| is_little(live) || weights.is_some_and(|weights| has_room_for(live, weights)))
    };
    let before_log = |answer: &&Answer<'_>| loaded_ns.is_none_or(|at_ns| answer.row.at_ns <= at_ns);
    // The log's line may come out late, but never before the reading.
    earlier.filter(empty).rfind(before_log).copied()
}

/// Device memory of the target at an answer, and what it took after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Growth {
    before: u64,
    bytes: u64,
}

impl Growth {
    /// Whether what was taken is a cache that an answer of `free` bytes sized.
    fn is_sized_by(self, free: u64) -> bool {
        let is_part = |part: u64, whole: u64, percent: u64| {
            u128::from(part) * 100 >= u128::from(whole) * u128::from(percent)
        };
        let large = is_part(self.bytes, free, FOLLOWED_PERCENT);
        let small = self.bytes > self.before
            && is_part(self.before, self.bytes, WEIGHTS_PERCENT)
            && is_part(self.bytes, free, SMALL_PERCENT);
        self.bytes > 0 && (large || small)
    }
}

/// How far device memory rose above what it was at an answer, up to the next one. Known exactly are its levels at other
/// answers and its highest level at all, for they are sums of calls; what happened in between is known from samples.
fn growth(
    recording: &Recording,
    answer: &MemoryQueryRow,
    next: Option<&MemoryQueryRow>,
    later: &[Answer<'_>],
) -> Option<Growth> {
    let before = live_at(recording, answer)?;
    let until_ns = next.map_or(u64::MAX, |next| next.at_ns);
    let summed =
        later.iter().filter(|answer| answer.row.at_ns <= until_ns).filter_map(|answer| summed(answer.row));
    let totals = recording.provenance.cuda_totals.iter();
    let all = totals.filter(|total| total.pid.is_none() && total.kind == DEVICE_ALL);
    let highest_of_all =
        all.filter(|total| (answer.at_ns..=until_ns).contains(&total.peak_ns)).map(|all| all.peak);
    let sampled = highest(recording, answer.at_ns, until_ns);
    let most = summed.chain(highest_of_all).chain(sampled).max()?;
    Some(Growth { before, bytes: most.saturating_sub(before) })
}

/// Device memory of the target at an answer.
pub fn live_at(recording: &Recording, query: &MemoryQueryRow) -> Option<u64> {
    summed(query).or_else(|| highest(recording, 0, query.at_ns))
}

/// Processes of the target that had device memory.
pub fn with_memory(recording: &Recording) -> BTreeSet<u32> {
    let totals = recording.provenance.cuda_totals.iter();
    let with = totals.filter(|total| total.kind == DEVICE_ALL && total.peak > 0);
    with.filter_map(|total| total.pid).collect()
}

/// Device memory of the process that queried. Absent where it has none, or in older recordings.
pub fn own(query: &MemoryQueryRow) -> Option<CudaOwn> {
    query.state.as_ref()?.later.as_ref()?.cuda_own
}

/// Device memory at an answer: of its process if that has any, of the target otherwise.
pub fn own_live_at(recording: &Recording, query: &MemoryQueryRow) -> Option<u64> {
    own(query).map(|own| own.live).or_else(|| live_at(recording, query))
}

/// Kinds of device memory.
const KINDS: [&str; 3] = ["device", "async", "physical"];

/// The same as it was summed up when the answer came, if it was.
fn summed(query: &MemoryQueryRow) -> Option<u64> {
    let later = query.state.as_ref()?.later.as_ref()?;
    Some(KINDS.iter().filter_map(|kind| later.cuda_live.get(*kind)).sum())
}

/// A cache is there where device memory has grown by so much of all that it grows by after the reading...
const MOST_PERCENT: u64 = 90;
/// ...and by no more than this of it until the next level that is known: graphs and workspaces come later.
const LEVEL_PERCENT: u64 = 1;

/// What was taken for the cache: how far device memory rose in one go after a reading.
pub fn taken(recording: &Recording, reading: &Reading) -> Option<u64> {
    let base = live_at(recording, &reading.query)?;
    let mut levels: Vec<(u64, u64)> = sampled(recording, reading.at_ns, u64::MAX).collect();
    let later = recording.provenance.queries.iter().filter(|query| query.at_ns > reading.at_ns);
    levels.extend(later.filter_map(|query| {
        let later = query.state.as_ref()?.later.as_ref()?;
        Some((query.at_ns, KINDS.iter().filter_map(|kind| later.cuda_live.get(*kind)).sum()))
    }));
    risen(base, levels)
}

/// The first lasting rise above `base` among levels with their times.
pub fn risen(base: u64, mut levels: Vec<(u64, u64)>) -> Option<u64> {
    levels.sort_unstable();
    let grown: Vec<u64> = levels.into_iter().map(|(_, level)| level.saturating_sub(base)).collect();
    let most = grown.iter().copied().max()?;
    let percent = |bytes: u64, of: u64| u128::from(bytes) * 100 / u128::from(of.max(1));
    let is_level = |index: usize, bytes: u64| {
        let next = grown.get(index + 1).copied().unwrap_or(bytes);
        percent(bytes, most) >= u128::from(MOST_PERCENT)
            && percent(next.saturating_sub(bytes), bytes) < u128::from(LEVEL_PERCENT)
    };
    grown.iter().enumerate().find(|(index, bytes)| is_level(*index, **bytes)).map(|(_, bytes)| *bytes)
}

/// Most device memory that readings between two times show.
pub fn highest(recording: &Recording, from_ns: u64, to_ns: u64) -> Option<u64> {
    sampled(recording, from_ns, to_ns).map(|(_, live)| live).max()
}

fn sampled(recording: &Recording, from_ns: u64, to_ns: u64) -> impl Iterator<Item = (u64, u64)> {
    let series = &recording.samples.cuda;
    let column = series.columns.get(DEVICE).into_iter().flat_map(|column| column.iter());
    let readings = series.begin_ns.iter().copied().zip(column);
    let readings = readings.filter(move |(at_ns, _)| (from_ns..=to_ns).contains(at_ns));
    readings.filter_map(|(at_ns, live)| Some((at_ns, live?)))
}

/// Which figure of the kernel's, or the GPU's, the answer is.
fn signal(recording: &Recording, query: &MemoryQueryRow, free: u64, kind: Kind) -> Option<&'static str> {
    if !kind.is_driver() {
        return Some(AVAILABLE);
    }
    if !identity::is_shared(recording) {
        return Some(GPU_MEMORY);
    }
    let state = query.state.as_ref()?;
    let later = state.later.as_ref();
    let figures = [
        (FREE, state.mem_free.or(Some(state.free))),
        (AVAILABLE, later.and_then(|later| later.mem_available)),
    ];
    let near = figures.into_iter().filter_map(|(name, value)| Some((name, value?.abs_diff(free))));
    near.filter(|(_, gap)| *gap <= SAME_BYTES).min_by_key(|(_, gap)| *gap).map(|(name, _)| name)
}
