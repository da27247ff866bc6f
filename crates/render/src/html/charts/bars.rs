//! How much each source holds at one instant.

use super::super::page::Page;
use super::{Anchor, line, palette, percent, picture, text};
use spark_trace_analysis::attribution::PlaneReport;
use spark_trace_analysis::kv::Used;
use spark_trace_analysis::signed::signed;
use spark_trace_recording::units::{delta, known, size, unsigned};

const ROW: f64 = 38.0;
const BAR: f64 = 16.0;

struct Bar {
    source: &'static str,
    label: String,
    bytes: i64,
    /// A level to compare with.
    before: Option<i64>,
}

/// Sources of one plane that hold anything, with their growth since the start.
pub fn plane(page: &mut Page, title: &str, plane: &PlaneReport) {
    let rows = plane.sources.iter().filter(|row| row.bytes.is_some_and(|bytes| bytes != 0));
    let bars = rows.map(|row| Bar {
        source: row.source,
        label: format!(
            "{} {}{}",
            row.source,
            known(row.bytes, size),
            row.growth.map_or_else(String::new, |growth| format!(" ({} since the start)", delta(growth)))
        ),
        bytes: row.bytes.unwrap_or(0),
        before: row.bytes_at_start,
    });
    draw(
        page,
        title,
        "One bar per source; the short line is its level at the start.",
        &bars.collect::<Vec<_>>(),
    );
}

/// What was in use when the KV cache got its size.
pub fn used(page: &mut Page, title: &str, used: &[Used]) {
    let bars = used.iter().map(|row| Bar {
        source: row.source,
        label: format!("{} {} (reclaimable: {})", row.source, unsigned(row.bytes), row.reclaimable),
        bytes: signed(row.bytes),
        before: None,
    });
    draw(page, title, "A bar for each source.", &bars.collect::<Vec<_>>());
}

fn draw(page: &mut Page, title: &str, description: &str, bars: &[Bar]) {
    if bars.is_empty() {
        return;
    }
    let levels = bars.iter().flat_map(|bar| [Some(bar.bytes), bar.before]).flatten();
    let most = levels.max().unwrap_or(1).max(1) as f64;
    picture(page, "chart", (bars.len() as f64 * ROW) as u32 + 4, (title, description), |page| {
        for (row, bar) in (0..).zip(bars) {
            let y = f64::from(row) * ROW;
            text(page, "label", 0.0, y + 14.0, Anchor::Start, &bar.label);
            let width = percent((bar.bytes as f64 / most).max(0.001));
            let (fill, y_bar, height) = (palette::of(bar.source), format!("{}", y + 19.0), format!("{BAR}"));
            let attributes = [
                ("class", "bar"),
                ("x", "0"),
                ("y", &y_bar),
                ("width", &width),
                ("height", &height),
                ("fill", &fill),
            ];
            page.within("rect", &attributes, |_| ());
            if let Some(before) = bar.before.filter(|&before| before > 0) {
                let x = before as f64 / most;
                line(page, "before", (x, x), (y + 17.0, y + 37.0));
            }
        }
    });
}
