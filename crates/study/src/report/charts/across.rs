//! Many comparisons in one picture: by model, by metric, by source.

use super::axes::{Axis, BELOW};
use super::{mark, minus};
use crate::analysis::Comparison;
use crate::report::tables::number;
use spark_trace_render::scene::letters::{fitting, width};
use spark_trace_render::scene::{Anchor, Ink, Scene, Size, WIDTH};

const ROW: f64 = 36.0;
/// Of the largest difference; less is no bar that can be seen.
const SHOWN: f64 = 0.01;
const ENDS: (f64, f64) = (14.0, WIDTH - 14.0);

/// One metric in all models and environments, each as a part of its baseline, so that the margin is the same for all.
pub fn models(rows: &[&Comparison]) -> Option<(Scene, String)> {
    let first = rows.first()?;
    let what = format!("{}: B minus A, % of A", first.subject.title);
    let label = |row: &Comparison| format!("{}: {} against {}", row.model, row.b_name, row.a_name);
    forest(rows, (&what, &format!("{} in all models", first.subject.title)), label)
}

/// All metrics of one model and environment.
pub fn metrics(rows: &[&Comparison]) -> Option<(Scene, String)> {
    let first = rows.first()?;
    let title = format!("{}: {} (B) against {} (A)", first.model, first.b_name, first.a_name);
    forest(rows, ("B minus A, % of A", &title), |row| row.subject.title.clone())
}

/// A part of the baseline's mean, percent: the difference and the ends of its interval.
fn part(row: &Comparison) -> Option<(f64, Option<(f64, f64)>)> {
    let of_a = |value: f64| value / row.a.mean.abs() * 100.0;
    let difference = Some(of_a(row.difference)).filter(|part| part.is_finite())?;
    Some((difference, row.ci.map(|(low, high)| (of_a(low), of_a(high)))))
}

fn forest(
    rows: &[&Comparison],
    (axis_title, title): (&str, &str),
    label: impl Fn(&Comparison) -> String,
) -> Option<(Scene, String)> {
    let rows: Vec<_> = rows.iter().filter_map(|row| Some((*row, part(row)?))).collect();
    if rows.is_empty() {
        return None;
    }
    let caption = format!(
        "{title}: differences in percent of the baseline's mean with 95 % confidence intervals (not adjusted for their \
         number). The band is the margin of equivalence."
    );
    let mut scene = Scene::new(title, &caption, 0.0);
    let bottom = rows.len() as f64 * ROW + 4.0;
    let margin = |row: &Comparison| row.margin.map_or(0.0, |margin| margin / row.a.mean.abs() * 100.0);
    let ends = rows.iter().flat_map(|(row, (by, ci))| {
        let (low, high) = ci.unwrap_or((*by, *by));
        [*by, low, high, -margin(row), margin(row)]
    });
    let axis = Axis::across(ends.chain([0.0]), ENDS);
    for (place, (row, _)) in (0..).zip(&rows) {
        let (low, high) = (axis.at(-margin(row)), axis.at(margin(row)));
        scene.rect(Ink::Margin, (low, f64::from(place) * ROW), (high - low, ROW));
    }
    axis.draw_across(&mut scene, (0.0, bottom), axis_title);
    scene.line(Ink::Zero, (axis.at(0.0), 0.0), (axis.at(0.0), bottom));
    for (place, (row, (by, ci))) in (0..).zip(&rows) {
        let top = f64::from(place) * ROW;
        // Nothing is neither more nor less.
        let percent = format!("{by:+.2} %").replace("+0.00", "0.00").replace("-0.00", "0.00");
        let figures = format!("{}, {}", minus(&percent), row.verdict.as_str());
        name_and_figures(&mut scene, top + 13.0, &label(row), &figures);
        let y = top + 25.0;
        if let Some((low, high)) = ci {
            interval(&mut scene, (axis.at(*low), axis.at(*high)), y);
        }
        mark(&mut scene, true, (axis.at(*by), y));
    }
    scene.height = bottom + BELOW;
    Some((scene, caption))
}

fn name_and_figures(scene: &mut Scene, y: f64, name: &str, figures: &str) {
    let room = WIDTH - 4.0 - width(Size::Axis, figures) - 10.0;
    scene.text(Size::Label, (2.0, y), Anchor::Start, fitting(Size::Label, name, room));
    scene.text(Size::Axis, (WIDTH - 2.0, y), Anchor::End, figures);
}

fn interval(scene: &mut Scene, (low, high): (f64, f64), y: f64) {
    scene.line(Ink::Interval, (low, y), (high, y));
    for end in [low, high] {
        scene.line(Ink::Interval, (end, y - 4.0), (end, y + 4.0));
    }
}

/// How much each source differs, with its interval.
pub fn sources(rows: &[&Comparison], title: &str) -> Option<(Scene, String)> {
    let first = rows.first()?;
    let most = rows.iter().map(|row| row.difference.abs()).fold(0.0, f64::max);
    // The others are in the table.
    let rows: Vec<&Comparison> =
        rows.iter().copied().filter(|row| row.difference.abs() >= most * SHOWN).collect();
    let caption = format!(
        "{}, {title}: {} (B) minus {} (A), GiB, of sources that differ by at least {} % of the largest difference, with 95 % confidence intervals (not adjusted for their number).",
        first.model,
        first.b_name,
        first.a_name,
        SHOWN * 100.0
    );
    let mut scene = Scene::new(format!("{title}: B minus A"), &caption, 0.0);
    let ends = |row: &&Comparison| {
        let (low, high) = row.ci.unwrap_or((row.difference, row.difference));
        [0.0, low, high, row.difference]
    };
    let axis = Axis::across(rows.iter().flat_map(ends), ENDS);
    let bottom = rows.len() as f64 * ROW + 4.0;
    axis.draw_across(&mut scene, (0.0, bottom), "B \u{2212} A (GiB)");
    let zero = axis.at(0.0);
    for (place, row) in (0..).zip(&rows) {
        let top = f64::from(place) * ROW;
        let figures = minus(&format!("{} GiB", number(row.difference)));
        name_and_figures(&mut scene, top + 13.0, &row.subject.title, &figures);
        let end = axis.at(row.difference);
        scene.rect(Ink::Bar, (zero.min(end), top + 19.0), ((end - zero).abs().max(1.0), 12.0));
        if let Some((low, high)) = row.ci {
            interval(&mut scene, (axis.at(low), axis.at(high)), top + 25.0);
        }
    }
    scene.line(Ink::Zero, (zero, 0.0), (zero, bottom));
    scene.height = bottom + BELOW;
    Some((scene, caption))
}
