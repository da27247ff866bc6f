//! A flame graph as a picture of its own, with the library's search and zoom.

use inferno::flamegraph::{self, TextTruncateDirection};

use super::folded::{flames, lines};
use super::{ExportError, Exported, Options};
use spark_trace_recording::Recording;

/// One kind of bytes: the requested one, else the first that there is. Kinds overlap, and a picture of
/// several would have their sum as its root.
pub fn export(recording: &Recording, options: Options) -> Exported {
    let flames = flames(recording, options)?;
    let flame = flames.first().ok_or(ExportError::NoStacks { wanted: options.stacks })?;
    let mut settings = flamegraph::Options::default();
    settings.title = format!("{}: {}", flame.title, options.at.of_a_run());
    settings.count_name = "bytes".to_owned();
    // The same recording gives the same bytes.
    settings.deterministic = true;
    settings.text_truncate_direction = TextTruncateDirection::Right;
    let lines: Vec<_> = lines(flame).collect();
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut settings, lines.iter().map(String::as_str), &mut svg)?;
    Ok(svg.into())
}
