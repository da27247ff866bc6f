//! Events that wait, in their order, because one look at a process's mappings serves all of them. They are taken out of the
//! kernel's buffer meanwhile, which has room for a tenth of a second of them and no more.

use std::{collections::VecDeque, time::Duration};

use aya::maps::{MapData, RingBuf};
use tokio::time::Instant;

/// Bytes of events that wait; with more of them none waits any more.
const MOST: usize = 16 << 20;

#[derive(Debug, Default)]
pub(super) struct PutOff {
    records: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Absent where none waits any longer.
    pub until: Option<Instant>,
}

impl PutOff {
    pub const fn has_room(&self) -> bool {
        self.bytes < MOST
    }

    /// Whether it is too early to go on.
    pub fn still_waits(&self) -> bool {
        self.has_room() && self.until.is_some_and(|until| Instant::now() < until)
    }

    /// Puts the first of them off for so long.
    pub fn put(&mut self, record: Vec<u8>, how_long: Duration) {
        self.bytes += record.len();
        self.records.push_front(record);
        self.until = Some(Instant::now() + how_long);
    }

    /// Takes what comes after them out of the kernel's buffer.
    pub fn take_out(&mut self, events: &mut RingBuf<MapData>) {
        while self.has_room() {
            let Some(item) = events.next() else { return };
            self.append(item.to_vec());
        }
    }

    fn append(&mut self, record: Vec<u8>) {
        self.bytes += record.len();
        self.records.push_back(record);
    }

    pub fn pop(&mut self) -> Option<Vec<u8>> {
        let record = self.records.pop_front()?;
        self.bytes -= record.len();
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_stays_in_its_order_and_has_a_bound() {
        let mut put_off = PutOff::default();
        assert!(!put_off.still_waits() && put_off.has_room());
        put_off.put(vec![1], Duration::from_secs(3600));
        put_off.append(vec![2; MOST - 1]);
        assert!(!put_off.still_waits(), "too many");
        // Taken up and put off again, it is the first as before.
        let first = put_off.pop().unwrap();
        put_off.put(first, Duration::ZERO);
        assert!(!put_off.still_waits(), "long enough");
        assert_eq!(put_off.pop(), Some(vec![1]));
        assert_eq!(put_off.pop().map(|record| record[0]), Some(2));
        assert_eq!((put_off.pop(), put_off.bytes), (None, 0));
    }
}
