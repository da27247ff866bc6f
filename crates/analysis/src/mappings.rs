//! Which user stacks mapped the address space that is still mapped.
//!
//! Mapped is not resident: regions say what was touched. Mappings that a fork copies are not seen.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::names::Names;
use spark_trace_recording::word::Word;
use spark_trace_recording::{Mapping, Recording, Way};

/// Large mappings of one kind from one user stack.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MappingRow {
    /// `anon`, `shared-anon`, `file`, `heap`, or `unknown`.
    pub kind: String,
    /// Innermost first.
    pub frames: Vec<String>,
    pub calls: u64,
    /// Bytes mapped until the instant.
    pub bytes_mapped: u64,
    /// Of those still mapped at the instant.
    pub bytes: u64,
    /// How the frames were found; absent where it is not known, and where they were found both ways.
    pub way: Option<Word<Way>>,
}

/// Who mapped: kind and stack.
pub(super) type Key<'a> = (&'a str, Option<u32>);

/// Mappings by user stack up to `at_ns`, the most still mapped first.
pub fn rows(recording: &Recording, at_ns: u64) -> Vec<MappingRow> {
    by_frames(&Names::new(recording), &by_stack(recording, at_ns))
}

/// What was mapped with one key, and what of it is mapped still.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Mapped {
    pub calls: u64,
    pub bytes_mapped: u64,
    pub bytes: u64,
}

/// Mappings up to `at_ns` by kind and id of the user stack.
pub(super) fn by_stack(recording: &Recording, at_ns: u64) -> BTreeMap<Key<'_>, Mapped> {
    let processes = &recording.provenance.processes;
    let processes: BTreeMap<_, _> = processes.iter().map(|process| (process.pid, process)).collect();
    // exec replaces the whole address space.
    let replaced = |mapping: &Mapping| {
        let exec_ns = processes.get(&mapping.pid).and_then(|process| process.exec_ns);
        exec_ns.is_some_and(|exec_ns| mapping.at_ns < exec_ns && exec_ns <= at_ns)
    };
    let mut events: Vec<_> = recording.provenance.mappings.iter().collect();
    events.retain(|mapping| mapping.at_ns <= at_ns && !replaced(mapping));
    // Buffers of several CPUs are drained one after the other.
    events.sort_by_key(|mapping| mapping.at_ns);

    let mut spaces: BTreeMap<u32, Space<'_>> = BTreeMap::new();
    let mut mapped: BTreeMap<Key<'_>, Mapped> = BTreeMap::new();
    for mapping in events {
        if let Some((key, bytes)) = spaces.entry(mapping.pid).or_default().apply(mapping) {
            let row = mapped.entry(key).or_default();
            row.calls += 1;
            row.bytes_mapped = row.bytes_mapped.saturating_add(bytes);
        }
    }
    // Of a row that goes on after the instant nobody knows how many came before; it is a second at most.
    for row in recording.provenance.brief_mappings.iter().filter(|row| row.last_ns <= at_ns) {
        let exec_ns = processes.get(&row.pid).and_then(|process| process.exec_ns);
        if exec_ns.is_none_or(|exec_ns| row.last_ns >= exec_ns || exec_ns > at_ns) {
            let sum = mapped.entry((row.kind.as_deref().unwrap_or("unknown"), row.stack)).or_default();
            sum.calls = sum.calls.saturating_add(row.calls);
            sum.bytes_mapped = sum.bytes_mapped.saturating_add(row.calls.saturating_mul(row.length));
        }
    }
    let ended = |pid: &u32| processes.get(pid).and_then(|process| process.ended_ns);
    spaces.retain(|pid, _| ended(pid).is_none_or(|ended_ns| ended_ns > at_ns));
    for (key, bytes) in still_mapped(spaces.values()) {
        mapped.entry(key).or_default().bytes = bytes;
    }
    mapped
}

/// Stacks with the same frames are one row: a JIT, a second copy of a library, or the addresses in which a walk without
/// frame pointers ends give them several ids.
fn by_frames(names: &Names<'_>, mapped: &BTreeMap<Key<'_>, Mapped>) -> Vec<MappingRow> {
    let mut groups: BTreeMap<(&str, Vec<String>), MappingRow> = BTreeMap::new();
    for ((kind, stack), mapped) in mapped {
        let frames = names.resolved(*stack);
        let way = names.way(*stack);
        let row = groups
            .entry((kind, frames))
            .or_insert_with(|| MappingRow { way: way.clone(), ..MappingRow::default() });
        if row.way != way {
            row.way = None;
        }
        row.calls += mapped.calls;
        row.bytes_mapped = row.bytes_mapped.saturating_add(mapped.bytes_mapped);
        row.bytes = row.bytes.saturating_add(mapped.bytes);
    }
    let named =
        groups.into_iter().map(|((kind, frames), row)| MappingRow { kind: kind.to_owned(), frames, ..row });
    let mut rows: Vec<_> = named.collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.bytes));
    rows
}

/// Bytes still mapped, by who mapped them.
fn still_mapped<'a, 's>(spaces: impl Iterator<Item = &'s Space<'a>>) -> BTreeMap<Key<'a>, u64>
where
    'a: 's,
{
    let mut mapped = BTreeMap::new();
    for space in spaces {
        let ranges = space.ranges.iter().map(|(start, &(end, key))| (key, end - start));
        for (key, bytes) in ranges.chain(space.heap.iter().map(|(&key, &bytes)| (key, bytes))) {
            let sum: &mut u64 = mapped.entry(key).or_default();
            *sum = sum.saturating_add(bytes);
        }
    }
    mapped
}

/// One address space: who mapped which range.
#[derive(Default)]
struct Space<'a> {
    /// Start to end (exclusive) and key; ranges do not overlap.
    ranges: BTreeMap<u64, (u64, Key<'a>)>,
    /// Growth of the heap, which moves only its end.
    heap: BTreeMap<Key<'a>, u64>,
}

impl<'a> Space<'a> {
    /// Applies an event; what it maps, if it maps something.
    fn apply(&mut self, mapping: &'a Mapping) -> Option<(Key<'a>, u64)> {
        let key = (mapping.kind.as_deref().unwrap_or("unknown"), mapping.stack);
        let length = mapping.length.unsigned_abs();
        match mapping.op.as_str() {
            "mmap" => self.map(mapping.address, length, key),
            "munmap" => {
                self.unmap(mapping.address, length);
                return None;
            }
            "mremap" => {
                let former = mapping.detail.unwrap_or(0).unsigned_abs();
                // Older recordings have the new place alone: what shrank in place gives up its end.
                let from = mapping.from.unwrap_or(mapping.address);
                // A range keeps its kind where it moves.
                let kind = self.kind_at(from).unwrap_or(key.0);
                self.unmap(from, former);
                self.map(mapping.address, length, (kind, mapping.stack));
                return Some(((kind, mapping.stack), length));
            }
            "brk" if mapping.length > 0 => {
                let mapped = self.heap.entry(("heap", mapping.stack)).or_default();
                *mapped = mapped.saturating_add(length);
                return Some((("heap", mapping.stack), length));
            }
            "brk" => {
                self.shrink_heap(length);
                return None;
            }
            // madvise changes what is resident, not what is mapped.
            _ => return None,
        }
        Some((key, length))
    }

    fn kind_at(&self, address: u64) -> Option<&'a str> {
        let (_, &(end, (kind, _))) = self.ranges.range(..=address).next_back()?;
        (end > address).then_some(kind)
    }

    /// Maps a range, over whatever was there (MAP_FIXED).
    fn map(&mut self, start: u64, length: u64, key: Key<'a>) {
        self.unmap(start, length);
        if length > 0 {
            self.ranges.insert(start, (start.saturating_add(length), key));
        }
    }

    /// Unmaps a range; what only overlaps it keeps its rest.
    fn unmap(&mut self, start: u64, length: u64) {
        let end = start.saturating_add(length);
        let overlapping: Vec<_> = self
            .ranges
            .range(..end)
            .rev()
            .map(|(&from, &(to, key))| (from, to, key))
            .take_while(|&(_, to, _)| to > start)
            .collect();
        for (from, to, key) in overlapping {
            self.ranges.remove(&from);
            if from < start {
                self.ranges.insert(from, (start, key));
            }
            if to > end {
                self.ranges.insert(end, (to, key));
            }
        }
    }

    /// Takes from whoever grew the heap; who grew its end last is not kept.
    fn shrink_heap(&mut self, mut length: u64) {
        for mapped in self.heap.values_mut() {
            let taken = length.min(*mapped);
            *mapped -= taken;
            length -= taken;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_recording::BriefMappings;
    use spark_trace_testing::{empty, stack};

    /// A recording with these events of process 1, a nanosecond apart: operation, address, length, stack.
    fn with(events: &[(&str, u64, i64, u32)]) -> Recording {
        let mut recording = empty();
        stack(&mut recording.provenance, "user", &["libc:mmap", "arena_new"]);
        stack(&mut recording.provenance, "user", &["libc:mmap", "load_weights"]);
        for (at_ns, &(op, address, length, stack)) in (1..).zip(events) {
            let kind = (op != "munmap").then(|| "anon".to_owned());
            let op = op.to_owned();
            let stack = (stack > 0).then_some(stack);
            recording.provenance.mappings.push(Mapping {
                at_ns,
                pid: 1,
                op,
                address,
                length,
                kind,
                detail: None,
                stack,
                from: None,
            });
        }
        recording
    }

    fn live(events: &[(&str, u64, i64, u32)]) -> Vec<(String, u64, u64)> {
        let rows = rows(&with(events), u64::MAX);
        rows.into_iter()
            .map(|row| (row.frames.last().cloned().unwrap_or_default(), row.calls, row.bytes))
            .collect()
    }

    #[test]
    fn brief_mappings_count_as_mapped_and_not_as_mapped_still() {
        let mut recording = with(&[("mmap", 100, 100, 1)]);
        let brief = |pid, calls, last_ns| BriefMappings {
            pid,
            kind: Some("anon".to_owned()),
            stack: Some(1),
            length: 7,
            calls,
            last_ns,
            ..BriefMappings::default()
        };
        recording.provenance.brief_mappings = vec![brief(1, 1000, 50), brief(2, 5, 60), brief(1, 9, 100)];
        let at = |at_ns| {
            let rows = rows(&recording, at_ns);
            rows.iter().map(|row| (row.calls, row.bytes_mapped, row.bytes)).collect::<Vec<_>>()
        };
        assert_eq!(at(49), [(1, 100, 100)]);
        assert_eq!(at(60), [(1006, 100 + 7 * 1005, 100)]);
        assert_eq!(at(u64::MAX), [(1015, 100 + 7 * 1014, 100)]);
    }

    #[test]
    fn unmapping_the_middle_leaves_both_ends() {
        let events = [("mmap", 100, 100, 1), ("mmap", 300, 50, 2), ("munmap", 140, 20, 0)];
        assert_eq!(live(&events), [("arena_new".into(), 1, 80), ("load_weights".into(), 1, 50)]);
    }

    #[test]
    fn mapping_over_a_mapping_takes_its_place() {
        let events = [("mmap", 100, 100, 1), ("mmap", 150, 100, 2)];
        assert_eq!(live(&events), [("load_weights".into(), 1, 100), ("arena_new".into(), 1, 50)]);
    }

    #[test]
    fn one_unmapping_may_end_several_mappings() {
        let events =
            [("mmap", 100, 10, 1), ("mmap", 110, 10, 1), ("mmap", 120, 10, 1), ("munmap", 105, 20, 0)];
        assert_eq!(live(&events), [("arena_new".into(), 3, 10)]);
    }

    #[test]
    fn the_heap_grows_and_shrinks() {
        let events = [("brk", 0, 100, 1), ("brk", 0, -30, 2)];
        assert_eq!(live(&events), [("arena_new".into(), 1, 70)]);
    }

    #[test]
    fn later_events_and_ended_processes_do_not_count() {
        let mut recording = with(&[("mmap", 100, 10, 1), ("mmap", 200, 10, 1)]);
        assert_eq!(rows(&recording, 1)[0].bytes, 10);
        recording.provenance.processes =
            vec![spark_trace_recording::Process { pid: 1, ended_ns: Some(5), ..Default::default() }];
        assert_eq!(rows(&recording, 9)[0].bytes, 0);
    }

    #[test]
    fn exec_replaces_the_address_space() {
        let mut recording = with(&[("mmap", 100, 10, 1), ("mmap", 200, 5, 2)]);
        recording.provenance.processes =
            vec![spark_trace_recording::Process { pid: 1, exec_ns: Some(2), ..Default::default() }];
        assert_eq!(rows(&recording, 1)[0].bytes, 10);
        assert_eq!(rows(&recording, 9)[0].bytes, 5);
    }

    #[test]
    fn remapping_in_place_changes_the_length() {
        let mut recording = with(&[("mmap", 100, 100, 1), ("mremap", 100, 40, 2)]);
        recording.provenance.mappings[1].detail = Some(100);
        let mapped: u64 = rows(&recording, 9).iter().map(|row| row.bytes).sum();
        assert_eq!(mapped, 40);
    }

    #[test]
    fn a_range_that_moves_keeps_its_kind_and_leaves_nothing_behind() {
        let mut recording = with(&[("mmap", 100, 100, 1), ("mmap", 300, 50, 1), ("mremap", 500, 200, 2)]);
        let moved = &mut recording.provenance.mappings[2];
        (moved.kind, moved.detail, moved.from) = (None, Some(100), Some(100));
        let rows = rows(&recording, 9);
        let found: Vec<_> = rows.iter().map(|row| (row.kind.as_str(), row.bytes)).collect();
        assert_eq!(found, [("anon", 200), ("anon", 50)]);
        assert!(rows[0].frames.last().is_some_and(|frame| frame.contains("load_weights")), "{rows:?}");
    }

    #[test]
    fn hostile_ranges_do_not_overflow() {
        live(&[
            ("mmap", u64::MAX, i64::MAX, 1),
            ("munmap", 0, i64::MIN, 0),
            ("brk", 0, i64::MIN, 1),
            ("mmap", 5, 0, 1),
        ]);
    }
}
