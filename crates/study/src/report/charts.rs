//! Charts of a comparison: the runs in their order, how the values lie, and the sources with their intervals. No text
//! stands for a value that is not in a table below.

use super::tables::{interval, number, step as written};
use crate::analysis::Comparison;
use crate::analysis::compare::Point;
use spark_trace_render::html::charts::{Anchor, decimal_steps, line, percent, picture, rect, text};
use spark_trace_render::html::page::Page;

const HEIGHT: f64 = 220.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 24.0;
/// Room for the numbers of the axis.
const LEFT: f64 = 0.09;
const DOT: &str = "4.5";

/// Places of values between two ends.
struct Scale {
    least: f64,
    span: f64,
}

impl Scale {
    fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let least = values.clone().fold(f64::INFINITY, f64::min);
        let most = values.fold(f64::NEG_INFINITY, f64::max);
        // Values that are all the same lie in the middle.
        let margin = if most > least { (most - least) * 0.06 } else { most.abs().max(1.0) * 0.05 };
        Self { least: least - margin, span: most - least + 2.0 * margin }
    }

    fn part(&self, value: f64) -> f64 {
        (value - self.least) / self.span
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + self.part(value) * (1.0 - LEFT)
    }

    fn y(&self, value: f64) -> f64 {
        TOP + (1.0 - self.part(value)) * (HEIGHT - TOP - BOTTOM)
    }

    fn steps(&self, most: u32) -> Vec<f64> {
        decimal_steps(self.least, self.least + self.span, most)
    }
}

/// A filled circle is the baseline, a hollow square the other: nobody needs to distinguish colours.
fn mark(page: &mut Page, of_a: bool, x: f64, y: f64) {
    let (cx, cy) = (percent(x), format!("{y:.1}"));
    if of_a {
        page.within("circle", &[("class", "a"), ("cx", &cx), ("cy", &cy), ("r", DOT)], |_| ());
    } else {
        let y = format!("{:.1}", y - 4.5);
        let attributes = [
            ("class", "b"),
            ("x", cx.as_str()),
            ("y", y.as_str()),
            ("width", "9"),
            ("height", "9"),
            ("transform", "translate(-4.5 0)"),
        ];
        page.within("rect", &attributes, |_| ());
    }
}

fn values(row: &Comparison) -> impl Iterator<Item = f64> + Clone + '_ {
    row.a_values.iter().chain(&row.b_values).map(|point| point.value)
}

fn legend(page: &mut Page, row: &Comparison) {
    mark(page, true, 0.0, 10.0);
    text(page, "axis", 0.02, 14.0, Anchor::Start, &format!("A {}", row.a_name));
    mark(page, false, 0.4, 10.0);
    text(page, "axis", 0.42, 14.0, Anchor::Start, &format!("B {}", row.b_name));
}

/// Lines across the chart from `y` to `y`, with their values below.
fn across(page: &mut Page, steps: &[f64], x: impl Fn(f64) -> f64, y: (f64, f64), height: f64) {
    for &step in steps {
        let x = x(step);
        line(page, "grid", (x, x), y);
        text(page, "axis", x, height - 6.0, Anchor::at(x), &written(step, steps));
    }
}

/// Every run in the order in which they were run: what drifts is seen here.
pub fn order(page: &mut Page, row: &Comparison) {
    let scale = Scale::of(values(row));
    let numbers = || row.a_values.iter().chain(&row.b_values).map(|point| f64::from(point.number));
    let (first, last) = (numbers().fold(f64::INFINITY, f64::min), numbers().fold(0.0, f64::max));
    let x = |number: u32| LEFT + 0.02 + (f64::from(number) - first) / (last - first).max(1.0) * (0.96 - LEFT);
    let title = format!("{} run by run", row.subject.title);
    let description = format!(
        "{} of {} runs each, in the order of running; A has a mean of {}, B of {} {}.",
        row.subject.name,
        row.a.n.max(row.b.n),
        number(row.a.mean),
        number(row.b.mean),
        row.subject.unit
    );
    picture(page, "chart", HEIGHT as u32, (&title, &description), |page| {
        legend(page, row);
        let steps = scale.steps(5);
        for &step in &steps {
            line(page, "grid", (LEFT, 1.0), (scale.y(step), scale.y(step)));
            text(page, "axis", LEFT - 0.01, scale.y(step) + 4.0, Anchor::End, &written(step, &steps));
        }
        text(page, "axis", LEFT, HEIGHT - 6.0, Anchor::Start, &format!("run {first:.0}"));
        text(page, "axis", 1.0, HEIGHT - 6.0, Anchor::End, &format!("run {last:.0}"));
        let points = |of_a: bool, points: &[Point], page: &mut Page| {
            for point in points {
                mark(page, of_a, x(point.number), scale.y(point.value));
                if point.outlier {
                    text(
                        page,
                        "axis",
                        x(point.number),
                        scale.y(point.value) - 8.0,
                        Anchor::Middle,
                        "outlier",
                    );
                }
            }
        };
        points(true, &row.a_values, page);
        points(false, &row.b_values, page);
    });
}

/// Median, quartiles and range of both, and every value.
pub fn boxes(page: &mut Page, row: &Comparison) {
    const ROW: f64 = 46.0;
    let scale = Scale::of(values(row));
    let title = format!("{}: median, quartiles, range", row.subject.title);
    let description = format!(
        "A: median {}, quartiles {} to {}. B: median {}, quartiles {} to {} {}.",
        number(row.a.median),
        number(row.a.q1),
        number(row.a.q3),
        number(row.b.median),
        number(row.b.q1),
        number(row.b.q3),
        row.subject.unit
    );
    let height = 2.0 * ROW + 24.0;
    picture(page, "chart", height as u32, (&title, &description), |page| {
        let steps = scale.steps(5);
        for &step in &steps {
            line(page, "grid", (scale.x(step), scale.x(step)), (0.0, 2.0 * ROW));
            text(
                page,
                "axis",
                scale.x(step),
                height - 6.0,
                Anchor::at(scale.x(step)),
                &written(step, &steps),
            );
        }
        let sides = [("A", &row.a, &row.a_values, true), ("B", &row.b, &row.b_values, false)];
        for (place, (name, described, points, of_a)) in (0..).zip(sides) {
            let middle = f64::from(place) * ROW + ROW / 2.0;
            text(page, "strong", 0.0, middle + 4.0, Anchor::Start, name);
            line(page, "level", (scale.x(described.min), scale.x(described.max)), (middle, middle));
            let width = scale.x(described.q3) - scale.x(described.q1);
            rect(page, "quartiles", (scale.x(described.q1), width.max(0.002)), (middle - 11.0, 22.0));
            line(
                page,
                "median",
                (scale.x(described.median), scale.x(described.median)),
                (middle - 15.0, middle + 15.0),
            );
            points.iter().for_each(|point| mark(page, of_a, scale.x(point.value), middle));
        }
    });
}

/// How many runs have at most a value.
pub fn cumulative(page: &mut Page, row: &Comparison) {
    let scale = Scale::of(values(row));
    let title = format!("{}: part of the runs with at most this value", row.subject.title);
    let description = "Empirical distribution functions of A (solid) and B (dashed).".to_owned();
    picture(page, "chart", HEIGHT as u32, (&title, &description), |page| {
        let y = |part: f64| TOP + (1.0 - part) * (HEIGHT - TOP - BOTTOM);
        text(
            page,
            "axis",
            0.0,
            14.0,
            Anchor::Start,
            &format!("A {} solid, B {} dashed", row.a_name, row.b_name),
        );
        for part in [0.0, 0.5, 1.0] {
            line(page, "grid", (LEFT, 1.0), (y(part), y(part)));
            text(page, "axis", LEFT - 0.01, y(part) + 4.0, Anchor::End, &format!("{:.0} %", part * 100.0));
        }
        let steps = scale.steps(5);
        for &step in &steps {
            text(
                page,
                "axis",
                scale.x(step),
                HEIGHT - 6.0,
                Anchor::at(scale.x(step)),
                &written(step, &steps),
            );
        }
        for (class, points) in [("step-a", &row.a_values), ("step-b", &row.b_values)] {
            let mut values: Vec<f64> = points.iter().map(|point| point.value).collect();
            values.sort_by(f64::total_cmp);
            let n = values.len() as f64;
            let mut last = (LEFT, y(0.0));
            for (below, value) in (1..).zip(values) {
                let (x, up) = (scale.x(value), y(f64::from(below) / n));
                line(page, class, (last.0, x), (last.1, last.1));
                line(page, class, (x, x), (last.1, up));
                last = (x, up);
            }
            line(page, class, (last.0, 1.0), (last.1, last.1));
        }
    });
}

/// How much each source differs, with its interval.
pub fn sources(page: &mut Page, rows: &[&Comparison]) {
    const ROW: f64 = 40.0;
    if rows.is_empty() {
        return;
    }
    let ends = |row: &&Comparison| {
        let (low, high) = row.ci.unwrap_or((row.difference, row.difference));
        [0.0, low, high, row.difference]
    };
    let scale = Scale::of(rows.iter().flat_map(ends));
    // No numbers stand at the left of these.
    let x = |value: f64| scale.part(value);
    let title = "Sources of memory: B minus A";
    let description =
        "A bar for each source that differs, GiB; the line across its end is the 95 % confidence interval.";
    let height = rows.len() as f64 * ROW + 24.0;
    picture(page, "chart", height as u32, (title, description), |page| {
        across(page, &scale.steps(6), x, (0.0, height - 20.0), height);
        for (place, row) in (0..).zip(rows) {
            let y = f64::from(place) * ROW;
            let label = format!("{} {} ({})", row.subject.name, number(row.difference), interval(row.ci));
            text(page, "label", 0.0, y + 13.0, Anchor::Start, &label);
            let (from, to) = (x(0.0).min(x(row.difference)), x(0.0).max(x(row.difference)));
            let class = if row.difference < 0.0 { "less" } else { "more" };
            rect(page, class, (from, (to - from).max(0.002)), (y + 19.0, 12.0));
            if let Some((low, high)) = row.ci {
                line(page, "median", (x(low), x(high)), (y + 25.0, y + 25.0));
                line(page, "median", (x(low), x(low)), (y + 20.0, y + 30.0));
                line(page, "median", (x(high), x(high)), (y + 20.0, y + 30.0));
            }
        }
    });
}
