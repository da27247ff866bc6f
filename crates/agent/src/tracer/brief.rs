//! Storms of mappings: a program that maps and unmaps memory tens of thousands of times a second. Of mappings that are made
//! and removed again between two readings, and that no reading shows, rows by place are kept and not each one.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::Write;

use spark_trace_common::event::MappingOp;
use spark_trace_recording::{BriefMappings, Mapping, journal::Entry};

use super::{Tracer, TracerError};
use crate::now_ns;

/// Events of mappings between two readings that are kept one by one. With more of them mappings wait for their removal, and those
/// of the next interval, too.
const FEW: u32 = 200;
/// Mappings that wait, and places between two readings. Where there are more they go to the recording at once.
const MOST_WAITING: usize = 4_096;
const MOST_PLACES: usize = 4_096;
/// Readings whose times are remembered: events may be as much behind.
const READINGS: usize = 64;

/// What brief mappings are counted by: process, kind, user stack, bytes.
type Place = (u32, Option<String>, Option<u32>, i64);

/// Brief mappings since the last reading.
#[derive(Debug, Default)]
pub(super) struct Brief {
    events: u32,
    storm: bool,
    /// Mappings that may be removed before the next reading, by process and address. They do not overlap.
    waiting: BTreeMap<(u32, u64), Mapping>,
    places: HashMap<Place, Row>,
    /// When the last readings began.
    readings: VecDeque<u64>,
}

#[derive(Debug, Default)]
struct Row {
    /// Mappings of the place that wait now, and the most that have.
    now: u64,
    most: u64,
    calls: u64,
    first_ns: u64,
    last_ns: u64,
}

/// What becomes of an event.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Settled {
    /// Events for the recording, in their order.
    pub events: Vec<Mapping>,
    /// There is no room for more.
    pub is_full: bool,
}

fn place_of(mapping: &Mapping) -> Place {
    (mapping.pid, mapping.kind.clone(), mapping.stack, mapping.length)
}

impl Brief {
    /// Whether a removal is that of a mapping that waits, which makes both one of a row.
    pub fn removes(&mut self, pid: u32, address: u64, length: i64, at_ns: u64) -> bool {
        self.events = self.events.saturating_add(1);
        let Some(made) = self.waiting.get(&(pid, address)) else { return false };
        // Events that are behind may have a reading between them.
        let oldest = self.readings.front().is_none_or(|oldest| *oldest <= made.at_ns);
        let between = self.readings.iter().any(|began| (made.at_ns..=at_ns).contains(began));
        if made.length != length || !oldest || between {
            return false;
        }
        let made_ns = made.at_ns;
        let Some(row) = self.places.get_mut(&place_of(made)) else { return false };
        if row.calls == 0 {
            row.first_ns = made_ns;
        }
        row.calls += 1;
        row.now = row.now.saturating_sub(1);
        row.last_ns = at_ns;
        self.waiting.remove(&(pid, address));
        true
    }

    /// Takes an event that is no such removal.
    pub fn take(&mut self, op: MappingOp, mapping: Mapping) -> Settled {
        if op != MappingOp::Munmap {
            self.events = self.events.saturating_add(1);
        }
        let length = mapping.length.unsigned_abs();
        let mut events = match op {
            MappingOp::Mmap | MappingOp::Munmap => self.touch(mapping.pid, mapping.address, length),
            MappingOp::Mremap => {
                let former = mapping.detail.unwrap_or(0).unsigned_abs();
                let mut events = self.touch(mapping.pid, mapping.from.unwrap_or(mapping.address), former);
                events.extend(self.touch(mapping.pid, mapping.address, length));
                events
            }
            MappingOp::Brk | MappingOp::Madvise => Vec::new(),
        };
        self.storm |= self.events > FEW;
        if op == MappingOp::Mmap && self.storm {
            let row = self.places.entry(place_of(&mapping)).or_default();
            row.now += 1;
            row.most = row.most.max(row.now);
            self.waiting.insert((mapping.pid, mapping.address), mapping);
        } else {
            events.push(mapping);
        }
        let is_full = self.waiting.len() >= MOST_WAITING || self.places.len() >= MOST_PLACES;
        Settled { events, is_full }
    }

    /// Something else happens to a range: what waits there is not brief as a whole.
    fn touch(&mut self, pid: u32, start: u64, length: u64) -> Vec<Mapping> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let end = start.saturating_add(length);
        let touched = self.waiting.range((pid, 0)..(pid, end)).rev();
        let touched =
            touched.take_while(|((_, at), made)| at.saturating_add(made.length.unsigned_abs()) > start);
        let touched: Vec<_> = touched.map(|(key, _)| *key).collect();
        touched.into_iter().rev().filter_map(|key| self.leave(key)).collect()
    }

    /// Takes out what waits under a key.
    fn leave(&mut self, key: (u32, u64)) -> Option<Mapping> {
        let made = self.waiting.remove(&key)?;
        if let Some(row) = self.places.get_mut(&place_of(&made)) {
            row.now = row.now.saturating_sub(1);
        }
        Some(made)
    }

    /// A reading shows what waits. Gives that, and the rows since the last reading.
    pub fn reading(&mut self, began_ns: u64) -> (Vec<Mapping>, Vec<BriefMappings>) {
        self.storm = self.events > FEW;
        self.events = 0;
        if self.readings.len() == READINGS {
            self.readings.pop_front();
        }
        self.readings.push_back(began_ns);
        self.empty()
    }

    /// Takes everything out.
    pub fn empty(&mut self) -> (Vec<Mapping>, Vec<BriefMappings>) {
        let mut waiting: Vec<Mapping> = std::mem::take(&mut self.waiting).into_values().collect();
        waiting.sort_by_key(|mapping| mapping.at_ns);
        let rows = std::mem::take(&mut self.places).into_iter().filter(|(_, row)| row.calls > 0);
        let rows = rows.map(|((pid, kind, stack, length), row)| BriefMappings {
            pid,
            kind,
            stack,
            length: length.unsigned_abs(),
            calls: row.calls,
            most: row.most,
            first_ns: row.first_ns,
            last_ns: row.last_ns,
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by_key(|row| row.first_ns);
        (waiting, rows)
    }
}

impl<W: Write> Tracer<W> {
    /// Takes a mapping event into the recording, or into a row of those that were brief.
    pub(super) fn settle_mapping(&mut self, op: MappingOp, mapping: Mapping) -> Result<(), TracerError> {
        let Settled { events, is_full } = self.brief.take(op, mapping);
        for event in events {
            self.journal.add(Entry::Mapping(event))?;
        }
        if is_full { self.empty_brief() } else { Ok(()) }
    }

    /// A reading begins.
    pub(super) fn brief_until_reading(&mut self) -> Result<(), TracerError> {
        let (waiting, rows) = self.brief.reading(now_ns());
        self.add_brief(waiting, rows)
    }

    /// No more events come, or there is no more room.
    pub fn empty_brief(&mut self) -> Result<(), TracerError> {
        let (waiting, rows) = self.brief.empty();
        self.add_brief(waiting, rows)
    }

    fn add_brief(&mut self, waiting: Vec<Mapping>, rows: Vec<BriefMappings>) -> Result<(), TracerError> {
        for mapping in waiting {
            self.journal.add(Entry::Mapping(mapping))?;
        }
        for row in rows {
            self.journal.add(Entry::BriefMappings(row))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;

    fn mapping(address: u64, pages: i64, at_ns: u64) -> Mapping {
        let (op, kind) = ("mmap".to_owned(), Some("anon".to_owned()));
        Mapping {
            at_ns,
            pid: 7,
            op,
            address,
            length: pages * 4096,
            kind,
            stack: Some(3),
            ..Mapping::default()
        }
    }

    fn storm() -> Brief {
        let mut brief = Brief { storm: true, ..Brief::default() };
        brief.readings.push_back(1);
        brief
    }

    #[test]
    fn few_mappings_are_kept_one_by_one_and_of_very_many_the_rest_waits() {
        let mut brief = Brief::default();
        for n in 0..u64::from(FEW) {
            let made = mapping(n * PAGE, 1, 10 + n);
            assert_eq!(brief.take(MappingOp::Mmap, made.clone()).events, [made]);
        }
        assert!(!brief.storm);
        assert_eq!(brief.take(MappingOp::Mmap, mapping(1 << 30, 1, 900)), Settled::default());
        assert_eq!(brief.reading(1000), (vec![mapping(1 << 30, 1, 900)], vec![]));
        assert!(brief.storm);
        assert_eq!(brief.take(MappingOp::Mmap, mapping(0, 1, 1001)), Settled::default());
        // What waits is shown by the next reading, and that interval was none of a storm.
        assert_eq!(brief.reading(2000), (vec![mapping(0, 1, 1001)], vec![]));
        assert!(!brief.storm);
    }

    #[test]
    fn what_is_removed_before_a_reading_is_counted_by_place() {
        let mut brief = storm();
        for (n, at_ns) in [(0, 10), (1, 11), (0, 30)] {
            if n == 0 && at_ns == 30 {
                assert!(brief.removes(7, 0, 8192, 20) && brief.removes(7, 2 * PAGE, 8192, 21));
            }
            assert_eq!(brief.take(MappingOp::Mmap, mapping(2 * n * PAGE, 2, at_ns)), Settled::default());
        }
        assert!(!brief.removes(8, 0, 8192, 40), "another process's");
        assert!(brief.removes(7, 0, 8192, 40));
        assert!(!brief.removes(7, 0, 8192, 41), "it is gone");
        let (waiting, rows) = brief.reading(100);
        assert_eq!(waiting, []);
        let [row] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!((row.pid, row.stack, row.length, row.calls, row.most), (7, Some(3), 8192, 3, 2));
        assert_eq!((row.first_ns, row.last_ns), (10, 40));
    }

    #[test]
    fn a_mapping_that_something_else_happened_to_is_kept_itself() {
        let made = || mapping(8 * PAGE, 4, 10);
        // Removed in part; something mapped over its end; moved away.
        let other =
            |op: &str, address: u64, pages: i64| Mapping { op: op.to_owned(), ..mapping(address, pages, 11) };
        let moved = Mapping { from: Some(8 * PAGE), detail: Some(4 * 4096), ..other("mremap", 99 * PAGE, 5) };
        let touches = [
            (MappingOp::Munmap, other("munmap", 10 * PAGE, 1)),
            (MappingOp::Munmap, other("munmap", 0, 9)),
            (MappingOp::Mremap, moved),
        ];
        for (op, touch) in touches {
            let mut brief = storm();
            brief.take(MappingOp::Mmap, made());
            assert!(!brief.removes(7, touch.address, touch.length, 11));
            assert_eq!(brief.take(op, touch.clone()).events, [made(), touch]);
            assert!(!brief.removes(7, 8 * PAGE, 4 * 4096, 12));
            assert_eq!(brief.empty(), (vec![], vec![]));
        }
        let mut brief = storm();
        brief.take(MappingOp::Mmap, made());
        let over = mapping(11 * PAGE, 4, 11);
        assert_eq!(brief.take(MappingOp::Mmap, over.clone()).events, [made()]);
        let beside = other("munmap", 12 * PAGE, 1);
        assert_eq!(brief.take(MappingOp::Munmap, beside.clone()).events, [over, beside]);
    }

    #[test]
    fn a_reading_in_between_shows_both_events_even_if_they_come_late() {
        let mut brief = storm();
        brief.take(MappingOp::Mmap, mapping(0, 1, 10));
        assert_eq!(brief.reading(50).0.len(), 1);
        brief.storm = true;
        // Both are older and newer than the reading, and are taken after it.
        brief.take(MappingOp::Mmap, mapping(PAGE, 1, 40));
        assert!(!brief.removes(7, PAGE, 4096, 60));
        // Older than any reading that is remembered.
        (2..70).for_each(|n| drop(brief.reading(100 * n)));
        brief.storm = true;
        brief.take(MappingOp::Mmap, mapping(PAGE, 1, 40));
        assert!(!brief.removes(7, PAGE, 4096, 41));
    }

    #[test]
    fn what_waits_has_a_bound() {
        let mut brief = storm();
        let full = (0..).find(|n| brief.take(MappingOp::Mmap, mapping(n * PAGE, 1, 10)).is_full);
        assert_eq!(full, Some(MOST_WAITING as u64 - 1));
        assert_eq!(brief.empty().0.len(), MOST_WAITING);
    }
}
