//! From A's level to B's, a step for each source.

use spark_trace_common::source::UNATTRIBUTED;

use super::super::page::Page;
use super::{Anchor, line, picture, rect, text};
use crate::report::waterfall_title;
use spark_trace_analysis::diff::Report;
use spark_trace_recording::units::{delta, known, size};

const ROW: f64 = 38.0;
const BAR: f64 = 14.0;
/// Steps that are drawn; the table has all.
const MOST: usize = 12;
/// Room beside the first and the last level.
const MARGIN: f64 = 0.06;

struct Step {
    source: &'static str,
    from: i64,
    to: i64,
}

/// Nothing where one of the levels is not known.
pub fn draw(page: &mut Page, report: &Report) {
    let (Some(a), Some(b)) = (report.a.expected, report.b.expected) else { return };
    let (steps, left_out) = steps(report, a);
    let levels = steps.iter().flat_map(|step| [step.from, step.to]).chain([a, b]);
    let (least, most) = levels.fold((i64::MAX, i64::MIN), |(least, most), x| (least.min(x), most.max(x)));
    let span = (most as f64 - least as f64).max(1.0);
    let place = |level: i64| MARGIN + (level as f64 - least as f64) / span * (1.0 - 2.0 * MARGIN);
    let description = format!(
        "A is {}, B is {}, {}. The axis goes from {} to {}{}. {}",
        size(a),
        size(b),
        known(report.total_delta_bytes, delta),
        size(least),
        size(most),
        if least == 0 { "" } else { " and does not begin at zero" },
        left_out
    );
    let rows = steps.len() as f64 + 2.0;
    let height = (rows * ROW) as u32 + 22;
    picture(page, "chart", height, (&waterfall_title(report), &description), |page| {
        end(page, 0.0, place(a), &format!("A {}", size(a)));
        for (row, step) in (1..).zip(&steps) {
            self::step(page, f64::from(row) * ROW, step, &place);
        }
        end(page, (rows - 1.0) * ROW, place(b), &format!("B {}", size(b)));
        let y = f64::from(height) - 5.0;
        text(page, "axis", 0.0, y, Anchor::Start, &format!("◂ {}", size(least)));
        text(page, "axis", 1.0, y, Anchor::End, &format!("{} ▸", size(most)));
    });
    page.element("p", &[("class", "note")], &description);
}

/// In the taxonomy's order, the largest only; `unattributed` and what is too small to be drawn are last.
fn steps(report: &Report, a: i64) -> (Vec<Step>, String) {
    let mut differing: Vec<_> = report
        .sources
        .iter()
        .filter(|row| row.source != UNATTRIBUTED)
        .filter_map(|row| Some((row.source, row.delta_bytes.filter(|&bytes| bytes != 0)?)))
        .collect();
    differing.sort_by_key(|(_, bytes)| std::cmp::Reverse(bytes.unsigned_abs()));
    let small = differing.split_off(differing.len().min(MOST));
    let order = |source: &str| report.sources.iter().position(|row| row.source == source);
    differing.sort_by_key(|(source, _)| order(source));
    let left_out = match small.len() {
        0 => String::new(),
        count => {
            let bytes = small.iter().map(|(_, bytes)| *bytes).fold(0, i64::saturating_add);
            differing.push((spark_trace_analysis::timeline::OTHERS, bytes));
            format!("The {count} smallest differences are one step: {}.", delta(bytes))
        }
    };
    differing.extend(report.residual_bytes.map(|bytes| (UNATTRIBUTED, bytes)));
    let mut level = a;
    let steps = differing.into_iter().map(|(source, bytes)| {
        let from = level;
        level = level.saturating_add(bytes);
        Step { source, from, to: level }
    });
    (steps.collect(), left_out)
}

/// A level that is no step: where the run ends up.
fn end(page: &mut Page, y: f64, x: f64, label: &str) {
    line(page, "level", (x, x), (y + 20.0, y + ROW));
    text(page, "strong", x, y + 16.0, Anchor::at(x), label);
}

fn step(page: &mut Page, y: f64, step: &Step, place: &impl Fn(i64) -> f64) {
    let (from, to) = (place(step.from), place(step.to));
    let bytes = step.to.saturating_sub(step.from);
    let (class, sign) = match bytes {
        0 => ("more", "="),
        bytes if bytes > 0 => ("more", "▲"),
        _ => ("less", "▼"),
    };
    let middle = (from + to) / 2.0;
    let label = format!("{} {sign} {}", step.source, delta(bytes));
    // At the sides the label ends with the bar, so that it is not cut off.
    let (anchor, x) = match Anchor::at(middle) {
        Anchor::Start => (Anchor::Start, from.min(to)),
        Anchor::Middle => (Anchor::Middle, middle),
        Anchor::End => (Anchor::End, from.max(to)),
    };
    text(page, "label", x, y + 14.0, anchor, &label);
    if bytes != 0 {
        // Too short to be seen is drawn as a line.
        let width = (to - from).abs().max(0.002);
        rect(page, class, (from.min(to), width), (y + 20.0, BAR));
    }
    line(page, "link", (to, to), (y + 20.0, y + ROW + 20.0));
}
