//! Which of many answers is the KV-cache reading, if any is.

use spark_trace_common::cuda::DEVICE_ALL;

use crate::kv::{FOLLOWED_PERCENT, Reading, SMALL_PERCENT, WEIGHTS_PERCENT};
use crate::memory_queries::{self, MemoryQueryRow, Queries};
use spark_trace_recording::Recording;
use spark_trace_recording::framework_log as log;

/// A question whose answer an engine may size its cache by, and the figures of the answer.
struct Reader {
    interface: &'static str,
    free: &'static str,
    total: &'static str,
    /// It is about a GPU. Ordinary programs read the others too, for their own ends: only an engine's log makes one of
    /// those a KV-cache reading.
    gpu: bool,
}

/// The first that fits counts.
const READERS: &[Reader] = &[
    Reader { interface: "cuMemGetInfo_v2", free: "free", total: "total", gpu: true },
    Reader { interface: "nvmlDeviceGetMemoryInfo_v2", free: "free", total: "total", gpu: true },
    Reader { interface: "nvmlDeviceGetMemoryInfo", free: "free", total: "total", gpu: true },
    // Engines on unified memory read it.
    Reader { interface: "/proc/meminfo", free: "MemAvailable", total: "MemTotal", gpu: false },
];

/// The answer and the kernel's figure are read at times a little apart.
const SAME_BYTES: u64 = 64 << 20;
/// What an answer agrees with that no page cache counts against.
pub const GPU_MEMORY: &str = "the GPU's own memory";
/// Column of the target's device memory.
pub const DEVICE: &str = "live.device-all";

/// The KV-cache reading, where there is one: the last answer before an engine's log stated its budget, else the last answer
/// about a GPU's memory that a growth of device memory followed.
pub fn of(recording: &Recording) -> Option<Reading> {
    let queries = memory_queries::report(recording)?;
    let before_log = || {
        let written_ns = logged_ns(recording)?;
        READERS.iter().find_map(|reader| {
            let answer = reader.answers(&queries).filter(|row| row.at_ns <= written_ns).last()?;
            Some((reader, answer, "log"))
        })
    };
    let followed = || {
        READERS
            .iter()
            .filter(|reader| reader.gpu)
            .find_map(|reader| Some((reader, reader.followed(recording, &queries)?, "allocations")))
    };
    let (reader, query, found_by) = before_log().or_else(followed)?;
    let free = *query.values.get(reader.free)?;
    Some(Reading {
        at_ns: query.at_ns,
        since_start_ns: query.at_ns.saturating_sub(recording.target.started_ns),
        free,
        total: query.values.get(reader.total).copied(),
        found_by,
        signal: signal(recording, query, free),
        query: query.clone(),
    })
}

/// When the framework wrote its budget for the last time.
fn logged_ns(recording: &Recording) -> Option<u64> {
    let mut lines = recording.provenance.log_lines.iter().rev();
    lines.find(|line| log::is_budget(&line.text)).map(|line| line.at_ns)
}

impl Reader {
    fn answers<'a>(&self, queries: &'a Queries) -> impl Iterator<Item = &'a MemoryQueryRow> {
        queries.rows.iter().filter(|row| {
            row.interface == self.interface && row.result == 0 && row.values.contains_key(self.free)
        })
    }

    /// The last answer that was followed by a growth of device memory that it sized, see [`Growth::is_sized_by`]. What
    /// follows an answer ends with the next one of the same thread: another thread that polls does not cut it short.
    fn followed<'a>(&self, recording: &Recording, queries: &'a Queries) -> Option<&'a MemoryQueryRow> {
        let answers: Vec<_> = self.answers(queries).collect();
        let sized = answers.iter().enumerate().rev().find(|(index, row)| {
            let later = answers.get(index + 1..).unwrap_or_default();
            let next = later.iter().find(|next| (next.pid, next.tid) == (row.pid, row.tid));
            let Some((grown, free)) =
                growth(recording, row, next.copied(), later).zip(row.values.get(self.free))
            else {
                return false;
            };
            grown.is_sized_by(*free)
        });
        sized.map(|(_, row)| *row)
    }
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
    later: &[&MemoryQueryRow],
) -> Option<Growth> {
    let before = live_at(recording, answer)?;
    let until_ns = next.map_or(u64::MAX, |next| next.at_ns);
    let told = later.iter().filter(|row| row.at_ns <= until_ns).filter_map(|row| told(row));
    let totals = recording.provenance.cuda_totals.iter();
    let all = totals.filter(|total| total.pid.is_none() && total.kind == DEVICE_ALL);
    let highest_of_all =
        all.filter(|total| (answer.at_ns..=until_ns).contains(&total.peak_ns)).map(|all| all.peak);
    let sampled = highest(recording, answer.at_ns, until_ns);
    let most = told.chain(highest_of_all).chain(sampled).max()?;
    Some(Growth { before, bytes: most.saturating_sub(before) })
}

/// Device memory of the target at an answer.
pub fn live_at(recording: &Recording, query: &MemoryQueryRow) -> Option<u64> {
    told(query).or_else(|| highest(recording, 0, query.at_ns))
}

/// The same as it was summed up when the answer came, if it was.
fn told(query: &MemoryQueryRow) -> Option<u64> {
    const KINDS: [&str; 3] = ["device", "async", "physical"];
    let later = query.state.as_ref()?.later.as_ref()?;
    Some(KINDS.iter().filter_map(|kind| later.cuda_live.get(*kind)).sum())
}

/// Most device memory that readings between two times show.
pub fn highest(recording: &Recording, from_ns: u64, to_ns: u64) -> Option<u64> {
    let series = &recording.samples.cuda;
    let column = series.columns.get(DEVICE)?;
    let readings = series.begin_ns.iter().zip(column.iter());
    readings.filter(|(at_ns, _)| (from_ns..=to_ns).contains(at_ns)).filter_map(|(_, live)| live).max()
}

/// Which figure of the kernel's, or the GPU's, the answer is.
fn signal(recording: &Recording, query: &MemoryQueryRow, free: u64) -> Option<&'static str> {
    if query.interface == "/proc/meminfo" {
        return Some("MemAvailable");
    }
    if recording.host.gpus.iter().any(|gpu| gpu.memory_total.is_some()) {
        return Some(GPU_MEMORY);
    }
    let state = query.state.as_ref()?;
    let later = state.later.as_ref();
    let figures = [
        ("MemFree", state.mem_free.or(Some(state.free))),
        ("MemAvailable", later.and_then(|later| later.mem_available)),
    ];
    let near = figures.into_iter().filter_map(|(name, value)| Some((name, value?.abs_diff(free))));
    near.filter(|(_, gap)| *gap <= SAME_BYTES).min_by_key(|(_, gap)| *gap).map(|(name, _)| name)
}
