//! Collapsed stacks, as flame graph tools read them.

use super::{ExportError, Exported, Options};
use crate::stack_frames::inert;
use spark_trace_analysis::attribution;
use spark_trace_analysis::flame::{self, Flame, Row};
use spark_trace_recording::Recording;

/// The root of every stack is its kind: kinds overlap, and their sum means nothing.
pub fn export(recording: &Recording, options: Options) -> Exported {
    let flames = flames(recording, options)?;
    let lines = flames.iter().flat_map(|flame| lines(flame).map(|line| format!("{};{line}\n", flame.kind)));
    Ok(lines.collect::<String>().into_bytes().into())
}

/// The requested kinds that have any bytes.
pub fn flames(recording: &Recording, options: Options) -> Result<Vec<Flame>, ExportError> {
    let mut flames = flame::whole(&attribution::report(recording, options.at));
    flames.retain(|flame| options.stacks.is_none_or(|kind| kind.name == flame.kind));
    if flames.is_empty() {
        return Err(ExportError::NoStacks { wanted: options.stacks });
    }
    Ok(flames)
}

pub fn lines(flame: &Flame) -> impl Iterator<Item = String> {
    flame.rows.iter().map(|Row { frames, b_bytes, .. }| {
        let frames: Vec<_> = frames.iter().map(|frame| inert(frame)).collect();
        format!("{} {b_bytes}", frames.join(";"))
    })
}
