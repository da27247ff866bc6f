//! Room among rows of brief mappings.

use super::super::provenance::BriefMappings;

/// Rows of one place are apart by so much, until there are many rows.
const APART_NS: u64 = 1_000_000_000;
/// With so many rows each place has one for all times to come, ...
const MANY: usize = 2_000;
/// ... and with so many no place is added.
const MOST: usize = 4_000;

/// Adds a row to that of its place. Calls that there was no room for.
pub fn add(rows: &mut Vec<BriefMappings>, new: BriefMappings) -> u64 {
    let apart = if rows.len() < MANY { APART_NS } else { u64::MAX };
    let same = |row: &&mut BriefMappings| {
        (row.pid, row.stack, row.length) == (new.pid, new.stack, new.length)
            && row.kind == new.kind
            && new.last_ns.saturating_sub(row.first_ns) < apart
    };
    // The latest first: a place that goes on is among them.
    if let Some(row) = rows.iter_mut().rev().find(same) {
        row.calls = row.calls.saturating_add(new.calls);
        row.most = row.most.max(new.most);
        row.first_ns = row.first_ns.min(new.first_ns);
        row.last_ns = row.last_ns.max(new.last_ns);
        return 0;
    }
    if rows.len() >= MOST {
        return new.calls;
    }
    rows.push(new);
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pid: u32, calls: u64, at_s: u64) -> BriefMappings {
        let (first_ns, last_ns) = (at_s * APART_NS, at_s * APART_NS + 5);
        BriefMappings { pid, length: 4096, calls, most: calls, first_ns, last_ns, ..BriefMappings::default() }
    }

    #[test]
    fn rows_of_a_place_are_one_within_a_second_and_no_call_is_lost() {
        let mut rows = Vec::new();
        let later = BriefMappings { first_ns: 7, last_ns: APART_NS - 1, ..row(1, 2, 0) };
        for new in [row(1, 3, 0), row(2, 1, 0), later, row(1, 4, 1)] {
            assert_eq!(add(&mut rows, new), 0);
        }
        let counted: Vec<_> = rows.iter().map(|row| (row.pid, row.calls, row.most, row.last_ns)).collect();
        assert_eq!(counted, [(1, 5, 3, APART_NS - 1), (2, 1, 1, 5), (1, 4, 4, APART_NS + 5)]);
    }

    #[test]
    fn many_seconds_and_many_places_have_a_bound() {
        let mut rows = Vec::new();
        let kept = (0..5_000).map(|second| add(&mut rows, row(1, 1, second))).sum::<u64>();
        assert_eq!((kept, rows.len()), (0, MANY));
        assert_eq!(rows.iter().map(|row| row.calls).sum::<u64>(), 5_000);
        let lost: u64 = (2..5_000).map(|pid| add(&mut rows, row(pid, 1, 0))).sum();
        assert_eq!((rows.len(), lost), (MOST, 4_998 - (MOST - MANY) as u64));
    }
}
