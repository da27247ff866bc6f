//! Buffers whose sizes an engine logs, found among its allocations.

use serde::Serialize;
use spark_trace_engines::{EngineLog, Figure};
use spark_trace_recording::{CudaAllocation, CudaAllocs, Recording};

use super::part_name::PartName;

/// What a buffer of a figure is for.
const PARTS: &[(Figure, PartName)] = &[
    (Figure::Weights, PartName::Weights),
    (Figure::KvAllocated, PartName::KvCache),
    // The state of recurrent layers is what other layers have a KV cache for.
    (Figure::RecurrentState, PartName::KvCache),
    (Figure::Compute, PartName::Compute),
];
/// Kinds of memory that such a buffer is allocated as.
const KINDS: &[&str] = &["device", "async", "managed"];
/// A log has two decimals of a MiB.
const SLACK: u64 = 16 << 10;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Buffer {
    pub part: PartName,
    /// The device that the log names.
    pub device: Option<String>,
    pub logged_bytes: u64,
    /// The allocation of that size; absent where it is not in the recording by itself.
    pub traced_bytes: Option<u64>,
    /// Of that allocation.
    pub allocated_ns: Option<u64>,
    pub freed_ns: Option<u64>,
    /// When the log's line came.
    pub logged_ns: Option<u64>,
    /// Its bytes of the sum, where the recording has that alone. What rounding adds or takes is in the last one.
    #[serde(skip)]
    of_sum: u64,
}

/// An engine frees its buffers within this.
const FREES_NS: u64 = 500_000_000;

/// Buffers that one caller allocated, where the recording has no more than its sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Together {
    pub logged_bytes: u64,
    pub traced_bytes: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Buffers {
    /// In the order of the log.
    pub rows: Vec<Buffer>,
    /// All of them, where a row of the recording has just their number and their sum.
    pub together: Option<Together>,
}

pub fn find(recording: &Recording, log: &EngineLog) -> Buffers {
    let mut rows: Vec<Buffer> = log
        .buffers
        .iter()
        .filter_map(|line| {
            let (_, part) = PARTS.iter().find(|(figure, _)| *figure == line.figure)?;
            Some(Buffer {
                part: *part,
                device: line.subject.clone(),
                logged_bytes: line.bytes,
                traced_bytes: None,
                allocated_ns: None,
                freed_ns: None,
                logged_ns: recording.provenance.log_lines.get(line.line).map(|line| line.at_ns),
                of_sum: line.bytes,
            })
        })
        .collect();
    one_by_one(&mut rows, &recording.provenance.cuda_largest);
    let together = if rows.iter().all(|row| row.traced_bytes.is_some()) {
        None
    } else {
        together(&mut rows, &recording.provenance.cuda_allocs)
    };
    Buffers { rows, together }
}

/// A line is written after its allocation: the nearest in size is taken, then the latest, and each for one line only.
fn one_by_one(rows: &mut [Buffer], largest: &[CudaAllocation]) {
    let mut left: Vec<&CudaAllocation> =
        largest.iter().filter(|allocation| KINDS.contains(&allocation.kind.as_str())).collect();
    for row in rows {
        let fits = |allocation: &CudaAllocation| {
            allocation.bytes.abs_diff(row.logged_bytes) <= SLACK
                && row.logged_ns.is_none_or(|at_ns| allocation.allocated_ns <= at_ns)
        };
        let fitting = left.iter().enumerate().filter(|(_, allocation)| fits(allocation));
        let nearest = fitting.min_by_key(|(_, allocation)| {
            let later = std::cmp::Reverse(allocation.allocated_ns);
            (allocation.bytes.abs_diff(row.logged_bytes), later)
        });
        let Some((index, _)) = nearest else { continue };
        let allocation = left.swap_remove(index);
        row.traced_bytes = Some(allocation.bytes);
        (row.allocated_ns, row.freed_ns) = (Some(allocation.allocated_ns), allocation.freed_ns);
    }
}

/// A recording without single allocations has sums by caller, and their levels at some instants.
fn together(rows: &mut [Buffer], allocs: &[CudaAllocs]) -> Option<Together> {
    let count = u64::try_from(rows.len()).ok()?;
    let logged_bytes = rows.iter().map(|row| row.logged_bytes).fold(0, u64::saturating_add);
    let is_it = |caller: &&CudaAllocs| {
        KINDS.contains(&caller.kind.as_str())
            && caller.allocs == count
            && caller.bytes_allocated.abs_diff(logged_bytes) <= SLACK * count
    };
    let mut callers = allocs.iter().filter(is_it);
    // Of two that fit, either may be it.
    let caller = callers.next().filter(|_| callers.next().is_none())?;
    let mut before = Some(0_u64);
    let mut logged = 0_u64;
    for (row, number) in rows.iter_mut().zip(1..) {
        logged = logged.saturating_add(row.logged_bytes);
        let near = |level: &u64| level.abs_diff(logged) <= SLACK * number;
        let levels = caller.live.iter().flatten();
        let level = levels.chain([caller.bytes_allocated]).find(near);
        row.traced_bytes = row.traced_bytes.or_else(|| level?.checked_sub(before?));
        row.of_sum = row.traced_bytes.unwrap_or(row.logged_bytes);
        before = level;
    }
    let sum = rows.iter().map(|row| row.of_sum).fold(0, u64::saturating_add);
    if let Some(last) = rows.iter_mut().rfind(|row| row.traced_bytes.is_none()) {
        last.of_sum = caller.bytes_allocated.saturating_sub(sum - last.of_sum);
    }
    Some(Together { logged_bytes, traced_bytes: caller.bytes_allocated })
}

/// How the bytes of a part are known by its buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Each is an allocation.
    Allocations(u64),
    /// The log has each, and the recording has their sum.
    Sum(u64),
}

impl Buffers {
    /// When the engine wrote a line that it writes right before it frees its buffers. The line was read at `read_ns`: later,
    /// where the machine is busy or a container's client passes it on, so buffers may be free by then.
    pub fn before_their_end(&self, read_ns: u64) -> u64 {
        let all_freed = self.rows.iter().map(|row| row.freed_ns).collect::<Option<Vec<_>>>();
        let ended_ns =
            all_freed.and_then(|freed| freed.into_iter().max()).map_or(read_ns, |ns| ns.min(read_ns));
        let complete_ns = self.rows.iter().filter_map(|row| row.allocated_ns).max().unwrap_or(0);
        ended_ns.saturating_sub(FREES_NS).max(complete_ns).min(read_ns)
    }

    /// Bytes of a part in use at a time; absent where the log states no buffer of it, or one that is not in the recording.
    pub fn of(&self, part: PartName, at_ns: u64) -> Option<Known> {
        let own: Vec<&Buffer> = self.rows.iter().filter(|row| row.part == part).collect();
        if own.is_empty() {
            return None;
        }
        let in_use = own.iter().filter(|row| row.is_in_use(at_ns));
        let traced = in_use.clone().filter_map(|row| row.traced_bytes).fold(0, u64::saturating_add);
        if own.iter().all(|row| row.traced_bytes.is_some()) {
            return Some(Known::Allocations(traced));
        }
        self.together?;
        Some(Known::Sum(in_use.map(|row| row.of_sum).fold(0, u64::saturating_add)))
    }
}

impl Buffer {
    /// Without an allocation of its own it is in use from its line on.
    fn is_in_use(&self, at_ns: u64) -> bool {
        let began = self.allocated_ns.or(self.logged_ns).is_some_and(|began| began <= at_ns);
        began && self.freed_ns.is_none_or(|freed| freed > at_ns)
    }
}
