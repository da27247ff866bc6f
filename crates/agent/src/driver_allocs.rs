//! What was requested of the NVIDIA driver, read from the maps of the programs on its functions.

use std::collections::HashMap;

use aya::maps::{MapData, StackTraceMap};
use spark_trace_common::map_records::{DriverKey, DriverKind};

use super::{
    bpf::{Object, ObjectError},
    symbols::Stacks,
};
use spark_trace_recording::DriverAllocs;

/// The rows so far, and the keys they belong to.
#[derive(Debug, Default)]
pub(super) struct DriverRequests {
    rows: Vec<DriverAllocs>,
    index: HashMap<DriverKey, usize>,
    /// Rows whose stacks have no id yet: their places, and what the kernel side calls the stack.
    without_stack: Vec<(usize, i32)>,
}

impl DriverRequests {
    /// Reads all rows once, as the state at the instants `slots`.
    pub(super) fn read(
        &mut self,
        object: &Object,
        stacks: &mut Stacks,
        slots: &[usize],
    ) -> Result<(), ObjectError> {
        let traces: StackTraceMap<&MapData> = object.map("KERNEL_STACKS")?;
        for row in &mut self.rows {
            row.live.set_each(slots, None);
        }
        for (key, counted) in object.driver_rows()? {
            let index = *self.index.entry(key).or_insert_with(|| {
                stacks.note_kernel(key.stack, &traces);
                self.without_stack.push((self.rows.len(), key.stack));
                self.rows.push(DriverAllocs {
                    kind: kind(key.kind).to_owned(),
                    cgroup: key.cgroup,
                    pid: key.tgid,
                    ..DriverAllocs::default()
                });
                self.rows.len() - 1
            });
            let row = &mut self.rows[index];
            (row.allocs, row.frees) = (counted.allocs, counted.frees);
            (row.bytes_allocated, row.bytes_freed) = (counted.bytes_allocated, counted.bytes_freed);
            row.live.set_each(slots, Some(counted.bytes_allocated.saturating_sub(counted.bytes_freed)));
        }
        Ok(())
    }

    /// Gives the rows their stacks, which takes the kernel's symbols.
    pub(super) fn find_stacks(&mut self, stacks: &mut Stacks) {
        for (row, stack) in self.without_stack.drain(..) {
            self.rows[row].stack = stacks.noted_kernel(stack);
        }
    }

    /// All rows, every `live` vector of length `len`.
    pub(super) fn snapshot(&mut self, len: usize) -> Vec<DriverAllocs> {
        self.rows.iter_mut().for_each(|row| row.live.resize(len));
        self.rows.clone()
    }
}

const fn kind(kind: u32) -> &'static str {
    const SYSMEM: u32 = DriverKind::Sysmem as u32;
    const PINNED: u32 = DriverKind::Pinned as u32;
    match kind {
        SYSMEM => "sysmem",
        PINNED => "pinned",
        _ => "managed",
    }
}
