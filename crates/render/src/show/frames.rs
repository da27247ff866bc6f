//! Stacks frame by frame: a row of a table is too short for one.

use crate::document::Document;
use spark_trace_analysis::passing::{self, Stack};

/// Stacks that are shown so.
const STACKS: usize = 3;
/// Frames of each, from the caller of the allocator on.
const FRAMES: usize = 16;

/// The largest of `rows`, which are in order: what each is called and holds, and its frames, the innermost first.
pub fn largest<'a>(
    document: &mut Document,
    rows: impl Iterator<Item = ((String, u64), &'a [String])>,
    stack: Stack,
) {
    let largest = rows.filter(|((_, bytes), _)| *bytes > 0).take(STACKS);
    for (index, ((title, _), frames)) in largest.enumerate() {
        if index == 0 {
            document.heading("The largest, from the caller of the allocator outwards");
        }
        document.line(title);
        let callers = passing::callers(frames, stack);
        let more = callers.len().saturating_sub(FRAMES);
        let mut lines: Vec<_> = callers.into_iter().take(FRAMES).collect();
        if more > 0 {
            lines.push(format!("... and {more} more"));
        }
        document.listing(lines);
    }
}
