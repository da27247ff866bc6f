//! The largest allocations, each by itself: sums by caller do not tell a buffer from another of the same caller.

use std::collections::{BTreeSet, HashMap};

use spark_trace_common::cuda::Kind;
use spark_trace_recording::{CudaAllocation, CudaAllocs};

/// Allocations that are kept: far more than a program has of buffers, and a small recording.
const MOST: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Largest {
    kept: HashMap<u64, Kept>,
    /// What goes first where there is no room: what has been freed, then the smallest, then the oldest.
    order: BTreeSet<(bool, u64, u64)>,
    next: u64,
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    row: usize,
    bytes: u64,
    allocated_ns: u64,
    freed_ns: Option<u64>,
}

impl Kept {
    const fn place(&self, number: u64) -> (bool, u64, u64) {
        (self.freed_ns.is_none(), self.bytes, number)
    }
}

impl Largest {
    /// The number that it is known by; absent of addresses without memory, and of memory that another process allocated.
    pub(super) fn began(&mut self, row: usize, kind: Kind, bytes: u64, allocated_ns: u64) -> Option<u64> {
        if matches!(kind, Kind::Reserved | Kind::Imported) {
            return None;
        }
        let number = self.next;
        self.next += 1;
        let new = Kept { row, bytes, allocated_ns, freed_ns: None };
        self.kept.insert(number, new);
        self.order.insert(new.place(number));
        if self.kept.len() > MOST
            && let Some((.., least)) = self.order.pop_first()
        {
            self.kept.remove(&least);
        }
        Some(number)
    }

    pub(super) fn ended(&mut self, number: Option<u64>, at_ns: u64) {
        let Some((number, kept)) = number.and_then(|number| Some((number, self.kept.get_mut(&number)?)))
        else {
            return;
        };
        self.order.remove(&kept.place(number));
        kept.freed_ns = Some(at_ns);
        self.order.insert(kept.place(number));
    }

    /// In the order in which they were allocated; `rows` have what each is of.
    pub(super) fn all(&self, rows: &[CudaAllocs]) -> Vec<CudaAllocation> {
        let mut numbers: Vec<_> = self.kept.iter().collect();
        numbers.sort_unstable_by_key(|(number, _)| **number);
        let allocation = |(_, kept): (&u64, &Kept)| {
            let row = rows.get(kept.row)?;
            Some(CudaAllocation {
                pid: row.pid,
                kind: row.kind.clone(),
                device: row.device,
                function: row.function.clone(),
                stack: row.stack,
                bytes: kept.bytes,
                allocated_ns: kept.allocated_ns,
                freed_ns: kept.freed_ns,
            })
        };
        numbers.into_iter().filter_map(allocation).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_stays_and_then_what_is_large() {
        let mut largest = Largest::default();
        let rows = [CudaAllocs { pid: 7, kind: "device".into(), ..CudaAllocs::default() }];
        let mut began = |bytes, at_ns| largest.began(0, Kind::Device, bytes, at_ns);
        let small = began(1, 1);
        let large = began(1 << 40, 2);
        let medium = began(1 << 20, 3);
        largest.ended(large, 4);
        for index in 0..MOST as u64 - 2 {
            largest.began(0, Kind::Device, 1 << 10, 5 + index);
        }
        let bytes: Vec<u64> = largest.all(&rows).iter().map(|row| row.bytes).collect();
        assert_eq!(bytes.len(), MOST);
        assert_eq!(&bytes[..2], [1, 1 << 20], "the one that was freed went first");
        largest.ended(large, 6);
        largest.began(0, Kind::Device, 2, 1000);
        largest.ended(medium, 2000);
        let all = largest.all(&rows);
        assert_eq!((all[0].bytes, all[0].freed_ns), (1 << 20, Some(2000)), "the smallest went next");
        largest.ended(small, 3000);
        assert_eq!((all.len(), largest.kept.len(), largest.order.len()), (MOST, MOST, MOST));
        assert_eq!(largest.began(0, Kind::Reserved, 1 << 50, 1), None);
    }
}
