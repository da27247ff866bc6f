//! Copies of stacks that no event has named yet.

use std::collections::HashMap;

use aya::maps::{MapData, RingBuf};
use spark_trace_common::{capacities::STACK_COPY_RING_BYTES, stack_copy::StackCopy};
use zerocopy::FromBytes;

use super::walk::Copied;

/// Copies that are kept: as many as their buffer has room for. Only those of events that were lost stay for long.
const MOST: usize = STACK_COPY_RING_BYTES as usize / size_of::<StackCopy>();

pub struct Copies {
    ring: RingBuf<MapData>,
    waiting: HashMap<u64, Copied>,
}

impl Copies {
    pub fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring, waiting: HashMap::new() }
    }

    /// The copy of a number, which was made before its event.
    pub fn take(&mut self, number: u64) -> Option<Copied> {
        while let Some(record) = self.ring.next() {
            let Some((found, copied)) = decode(&record) else { continue };
            if self.waiting.len() >= MOST {
                // Events come in the order of their copies on each CPU, so these are of events that do not come any more.
                self.waiting.clear();
            }
            self.waiting.insert(found, copied);
        }
        self.waiting.remove(&number)
    }
}

fn decode(record: &[u8]) -> Option<(u64, Copied)> {
    let (copy, _) = StackCopy::read_from_prefix(record).ok()?;
    let bytes = copy.bytes.get(..usize::try_from(copy.length).ok()?)?.to_vec();
    let StackCopy { instruction, registers, start, .. } = copy;
    Some((copy.number, Copied { instruction, registers, start, bytes }))
}
