//! What the NVIDIA driver holds of system memory, cheap enough to be read at every sample.
//!
//! No counter has it. It is in the page rows whose stack leads into the driver; which those are is decided once
//! for each row, and only they are read after that.

use aya::maps::{MapData, StackTraceMap};
use spark_trace_common::map_records::{PAGE_CHARGED, PageKey, PageRow};

use super::{
    bpf::{Object, ObjectError, Wire},
    page_size,
    symbols::Stacks,
};
use crate::decode::mobility;
use spark_trace_recording::classify::classify;

/// The sources that are the driver's.
pub const SOURCES: [&str; 2] = ["nvidia-sysmem", "nvidia-managed"];

/// Bytes that the driver holds, allocated since the programs attached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DriverBytes {
    /// In the order of [`SOURCES`].
    sources: [SourceBytes; SOURCES.len()],
}

/// Bytes of one source, by who requested them: tasks of the target, or others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SourceBytes {
    pub target: Bytes,
    pub others: Bytes,
}

/// Bytes charged to a memory cgroup, and those in none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bytes {
    pub charged: u64,
    pub uncharged: u64,
}

impl DriverBytes {
    /// What is in use of the source called `slug`; `None` where that is not one of [`SOURCES`].
    pub fn of(&self, slug: &str) -> Option<SourceBytes> {
        SOURCES.iter().position(|s| *s == slug).map(|i| self.sources[i])
    }

    pub fn total(&self) -> u64 {
        self.sources.iter().map(SourceBytes::total).sum()
    }

    /// Each source with what is in use of it.
    pub fn by_source(&self) -> impl Iterator<Item = (&'static str, SourceBytes)> {
        SOURCES.into_iter().zip(self.sources)
    }

    fn add(&mut self, source: usize, row: &PageRow) {
        let bytes_of_source = &mut self.sources[source];
        // Tasks outside the target have no cgroup of their own in a key.
        let bytes =
            if row.key.cgroup != 0 { &mut bytes_of_source.target } else { &mut bytes_of_source.others };
        let sum = if row.key.class & PAGE_CHARGED != 0 { &mut bytes.charged } else { &mut bytes.uncharged };
        *sum += live_bytes(row);
    }
}

impl SourceBytes {
    pub const fn total(&self) -> u64 {
        self.target.total() + self.others.total()
    }
}

impl Bytes {
    pub const fn total(&self) -> u64 {
        self.charged + self.uncharged
    }
}

/// Bytes of a row that were allocated and not freed.
pub(super) fn live_bytes(row: &PageRow) -> u64 {
    row.allocs.saturating_sub(row.frees) * allocation_bytes(&row.key)
}

/// Bytes of each allocation of a key.
pub(super) fn allocation_bytes(key: &PageKey) -> u64 {
    page_size() << (key.order() & 31)
}

/// Which page rows are the driver's, as far as there are rows.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// Rows up to this number have been looked at.
    looked_at: u32,
    /// Rows among them that had nothing in them yet.
    empty: Vec<u32>,
    /// Number and index in [`SOURCES`].
    driver: Vec<(u32, usize)>,
}

impl Rows {
    /// What the NVIDIA driver has now, as far as the page programs have seen it being taken and given back: without them it
    /// is 0.
    pub(super) fn read(&mut self, object: &Object, stacks: &mut Stacks) -> Result<DriverBytes, ObjectError> {
        let numbers = object.page_rows()?;
        let map = object.page_row_map()?;
        // Rows exist from the first to the last number, so one that cannot be read is none.
        let read = |number: u32| map.get(&number, 0).ok().map(|Wire(row)| row);
        let new = numbers.start.max(self.looked_at + 1)..numbers.end;
        self.looked_at = self.looked_at.max(numbers.end - 1);
        let undecided: Vec<u32> = std::mem::take(&mut self.empty).into_iter().chain(new).collect();
        if !undecided.is_empty() {
            let traces: StackTraceMap<&MapData> = object.map("KERNEL_STACKS")?;
            for number in undecided {
                let Some(row) = read(number) else { continue };
                if row.allocs == 0 {
                    self.empty.push(number);
                } else if let Some(stack) = stacks.kernel_by_id(row.key.stack, &traces) {
                    let verdict = classify(&stacks.frames(stack), Some(mobility(row.key.class)));
                    let source = SOURCES.iter().position(|slug| *slug == verdict.source);
                    self.driver.extend(source.map(|source| (number, source)));
                }
            }
        }
        let mut bytes = DriverBytes::default();
        for (number, source) in &self.driver {
            if let Some(row) = read(*number) {
                bytes.add(*source, &row);
            }
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_common::map_records::PAGE_ORDER_SHIFT;

    #[test]
    fn bytes_are_split_by_charge_and_by_target() {
        let row = |cgroup, class, allocs, frees| PageRow {
            key: PageKey { cgroup, stack: 1, class },
            allocs,
            frees,
        };
        let page = page_size();
        let mut bytes = DriverBytes::default();
        bytes.add(0, &row(7, 0, 5, 2));
        bytes.add(0, &row(0, 9 << PAGE_ORDER_SHIFT, 2, 0));
        bytes.add(1, &row(7, PAGE_CHARGED | 1 << PAGE_ORDER_SHIFT, 4, 1));
        let sysmem = bytes.of("nvidia-sysmem").unwrap();
        assert_eq!(sysmem.target, Bytes { charged: 0, uncharged: 3 * page });
        assert_eq!(sysmem.others, Bytes { charged: 0, uncharged: 1024 * page });
        assert_eq!(sysmem.total(), 1027 * page);
        assert_eq!(bytes.of("nvidia-managed").unwrap().target, Bytes { charged: 6 * page, uncharged: 0 });
        assert_eq!(bytes.of("anon"), None);
        // More frees than allocations can be seen while both go on.
        assert_eq!(live_bytes(&row(0, 0, 1, 2)), 0);
    }
}
