//! Stacks of the kernel by its numbers and by the recording's.

use std::collections::HashMap;

use aya::maps::{MapData, StackTraceMap};

use super::symbols::Stacks;

/// Kernel-side stack ids and the recording's.
#[derive(Debug, Default)]
pub(super) struct KernelStacks(HashMap<u32, u32>);

impl KernelStacks {
    /// The recording's id of a stack, if one could be taken.
    pub(super) fn of(
        &mut self,
        stack: i32,
        traces: &StackTraceMap<&MapData>,
        stacks: &mut Stacks,
    ) -> Option<u32> {
        let id = u32::try_from(stack).ok()?;
        Some(*self.0.entry(id).or_insert_with(|| {
            let frames: Vec<u64> = traces
                .get(&id, 0)
                .map(|trace| trace.frames().iter().map(|frame| frame.ip).collect())
                .unwrap_or_default();
            stacks.kernel(&frames)
        }))
    }
}
