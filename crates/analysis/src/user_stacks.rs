//! How the frames of user stacks were found, where stacks were copied to be unwound.

use serde::Serialize;
use spark_trace_recording::{Recording, Way};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct UserStacks {
    /// Different stacks that were unwound by the tables of their code.
    pub unwound: u64,
    /// Different stacks by frame pointers.
    pub frame_pointers: u64,
    pub copies: u64,
    /// Copies that were not unwound: too late, or the process that unwinds had ended.
    pub not_unwound: u64,
}

/// Absent where no stack was to be unwound.
pub fn of(recording: &Recording) -> Option<UserStacks> {
    let unwinding = recording.health.unwinding?;
    let count = |way| {
        let stacks = recording.provenance.stacks.iter();
        stacks.filter(|stack| stack.way.as_ref().and_then(|found| found.known()) == Some(way)).count() as u64
    };
    Some(UserStacks {
        unwound: count(Way::EhFrame),
        frame_pointers: count(Way::FramePointers),
        copies: unwinding.copies,
        not_unwound: unwinding.late.saturating_add(unwinding.failed),
    })
}

#[cfg(test)]
mod tests {
    use spark_trace_recording::{Stack, Unwinding};
    use spark_trace_testing as testing;

    use super::*;

    #[test]
    fn stacks_are_counted_by_the_way_that_they_were_found() {
        let mut recording = testing::empty();
        assert_eq!(of(&recording), None);
        recording.health.unwinding = Some(Unwinding { copies: 9, complete: 5, taken: 6, late: 1, failed: 2 });
        let ways = [Some(Way::EhFrame), Some(Way::EhFrame), Some(Way::FramePointers), None];
        let stack = |way: Option<Way>| Stack { way: way.map(Into::into), ..Stack::default() };
        recording.provenance.stacks = ways.into_iter().map(stack).collect();
        let wanted = UserStacks { unwound: 2, frame_pointers: 1, copies: 9, not_unwound: 3 };
        assert_eq!(of(&recording), Some(wanted));
    }
}
