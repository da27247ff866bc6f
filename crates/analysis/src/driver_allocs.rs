//! What was requested of the NVIDIA driver, and by whom.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::names::{self, Names};
use crate::nearest_instant;
use spark_trace_recording::Recording;

/// Allocations of one kind, process and kernel stack since the trace began.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct DriverAllocRow {
    /// `sysmem`, `pinned` or `managed`.
    pub kind: String,
    /// 0 for all that are not the target's.
    pub pid: u32,
    pub comm: String,
    /// Innermost first.
    pub frames: Vec<String>,
    /// Bytes requested and not freed at the instant.
    pub live: u64,
    pub allocs: u64,
    pub frees: u64,
    pub bytes_allocated: u64,
    pub bytes_freed: u64,
}

/// What was requested of the driver at the instant that fits `at_ns` best, the most of what lived first.
pub fn rows(recording: &Recording, at_ns: u64) -> Vec<DriverAllocRow> {
    let names = Names::new(recording);
    let instant = nearest_instant::index(recording, at_ns);
    let mut groups: BTreeMap<(&str, u32, Vec<String>), DriverAllocRow> = BTreeMap::new();
    for allocs in &recording.provenance.driver_allocs {
        let frames: Vec<_> = names.frames(allocs.stack).iter().map(|symbol| names::frame(symbol)).collect();
        let row =
            groups.entry((&allocs.kind, allocs.pid, frames)).or_insert_with_key(|(kind, pid, frames)| {
                DriverAllocRow {
                    kind: (*kind).to_owned(),
                    pid: *pid,
                    comm: if *pid == 0 { "(not the target's)".to_owned() } else { names.comm(*pid) },
                    frames: frames.clone(),
                    ..DriverAllocRow::default()
                }
            });
        let live = instant.and_then(|index| allocs.live.get(index));
        for (sum, value) in [
            (&mut row.live, live.unwrap_or(0)),
            (&mut row.allocs, allocs.allocs),
            (&mut row.frees, allocs.frees),
            (&mut row.bytes_allocated, allocs.bytes_allocated),
            (&mut row.bytes_freed, allocs.bytes_freed),
        ] {
            *sum = sum.saturating_add(value);
        }
    }
    let mut rows: Vec<_> = groups.into_values().collect();
    rows.sort_by_key(|row| std::cmp::Reverse((row.live, row.bytes_allocated)));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_recording::DriverAllocs;
    use spark_trace_testing as testing;
    use spark_trace_testing::{MIB, SECOND, START};

    #[test]
    fn what_lives_at_the_instant_comes_first() {
        let mut recording = testing::container();
        let stack = testing::stack(&mut recording.provenance, "kernel", &["nvidia:nv_alloc_pages"]);
        for (kind, pid, mib) in [("pinned", 4242, 2), ("sysmem", 4242, 64), ("sysmem", 0, 8)] {
            recording.provenance.driver_allocs.push(DriverAllocs {
                kind: kind.into(),
                pid,
                stack: Some(stack),
                allocs: 1,
                bytes_allocated: mib * MIB,
                live: [Some(0), Some(mib * MIB), Some(0)].into(),
                ..DriverAllocs::default()
            });
        }
        let found: Vec<_> = rows(&recording, START + 5 * SECOND)
            .into_iter()
            .map(|row| (row.kind, row.comm, row.live / MIB, row.frames))
            .collect();
        let frames = || vec!["nv_alloc_pages [nvidia]".to_owned()];
        assert_eq!(found[0], ("sysmem".to_owned(), "python3".to_owned(), 64, frames()));
        assert_eq!(found[1], ("sysmem".to_owned(), "(not the target's)".to_owned(), 8, frames()));
        assert_eq!(found[2].0, "pinned");
        assert!(rows(&recording, START + 10 * SECOND).iter().all(|row| row.live == 0));
    }
}
