//! Axes: round steps whose numbers stand at their lines and never over each other.

use super::minus;
use crate::report::tables::step as written;
use spark_trace_render::html::charts::decimal_steps;
use spark_trace_render::scene::letters::width;
use spark_trace_render::scene::{Anchor, Ink, Scene, Size, WIDTH};

/// Room below a plot for numbers and title.
pub const BELOW: f64 = 34.0;
/// Between two numbers of an axis.
const GAP: f64 = 8.0;

/// Values between two places of a picture.
pub struct Axis {
    least: f64,
    span: f64,
    from: f64,
    to: f64,
    /// Round values, and what is written at them.
    steps: Vec<(f64, String)>,
}

/// Least and most of what is finite.
fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let finite = values.filter(|value| value.is_finite());
    let ends = finite
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| (least.min(value), most.max(value)));
    if ends.0 <= ends.1 { ends } else { (0.0, 1.0) }
}

impl Axis {
    /// From left to right.
    pub fn across(values: impl Iterator<Item = f64>, (from, to): (f64, f64)) -> Self {
        let mut axis = Self::new(values, from, to);
        for most in (2..=6).rev() {
            axis.take_steps(most, false);
            let fits = |pair: &[(f64, String)]| {
                let half = |text: &str| width(Size::Axis, text) / 2.0;
                axis.at(pair[1].0) - half(&pair[1].1) - axis.at(pair[0].0) - half(&pair[0].1) >= GAP
            };
            if axis.steps.windows(2).all(fits) {
                break;
            }
        }
        axis
    }

    /// From below upwards. Its numbers are at the left.
    pub fn upwards(values: impl Iterator<Item = f64>, (below, above): (f64, f64)) -> Self {
        let mut axis = Self::new(values, below, above);
        axis.take_steps(5, false);
        axis
    }

    /// Of runs, which are whole: the first and the last at the ends.
    pub fn counting(numbers: impl Iterator<Item = u32>, (from, to): (f64, f64)) -> Self {
        let (least, most) = ends(numbers.map(f64::from));
        let mut axis = Self { least, span: (most - least).max(1.0), from, to, steps: vec![] };
        axis.take_steps(6, true);
        axis
    }

    fn new(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (least, most) = ends(values);
        // Values that are all the same lie in the middle.
        let margin = if most > least { (most - least) * 0.06 } else { most.abs().max(1.0) * 0.05 };
        Self { least: least - margin, span: most - least + 2.0 * margin, from, to, steps: vec![] }
    }

    fn take_steps(&mut self, most: u32, whole: bool) {
        let steps = decimal_steps(self.least, self.least + self.span, most);
        let kept = steps.iter().filter(|step| !whole || step.fract() == 0.0);
        let text = |step: f64| if whole { format!("{step:.0}") } else { minus(&written(step, &steps)) };
        self.steps = kept.map(|&step| (step, text(step))).collect();
    }

    pub fn at(&self, value: f64) -> f64 {
        self.from + (value - self.least) / self.span * (self.to - self.from)
    }

    /// Room that the numbers of an axis upwards need at the left.
    pub fn room(&self) -> f64 {
        self.steps.iter().map(|(_, text)| width(Size::Axis, text)).fold(0.0, f64::max) + 10.0
    }

    /// Lines through the plot between `top` and `bottom`, numbers and title below it.
    pub fn draw_across(&self, scene: &mut Scene, (top, bottom): (f64, f64), title: &str) {
        for (step, text) in &self.steps {
            let x = self.at(*step);
            scene.line(Ink::Grid, (x, top), (x, bottom));
            let half = width(Size::Axis, text) / 2.0;
            // What would leave the picture is left out: a number beside its line is a wrong one.
            if x - half >= 0.0 && x + half <= WIDTH {
                scene.text(Size::Axis, (x, bottom + 14.0), Anchor::Middle, text.as_str());
            }
        }
        scene.text(Size::Axis, ((self.from + self.to) / 2.0, bottom + 29.0), Anchor::Middle, title);
    }

    /// Lines from `left` to `right`, numbers at their left, the title above at `title_y`.
    pub fn draw_upwards(&self, scene: &mut Scene, (left, right): (f64, f64), (title, title_y): (&str, f64)) {
        for (step, text) in &self.steps {
            let y = self.at(*step);
            scene.line(Ink::Grid, (left, y), (right, y));
            scene.text(Size::Axis, (left - 6.0, y + 4.0), Anchor::End, text.as_str());
        }
        scene.text(Size::Axis, (2.0, title_y), Anchor::Start, title);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_at_their_lines_and_apart() {
        for values in [[0.21970, 0.22012], [-1234.5, 98765.4], [1e-9, 3e-9], [5.0, 5.0], [-3e12, 3e12]] {
            let axis = Axis::across(values.into_iter(), (40.0, 376.0));
            let mut scene = Scene::new("", "", 100.0);
            axis.draw_across(&mut scene, (0.0, 60.0), "");
            let mut last = f64::NEG_INFINITY;
            let mut lines = vec![];
            for item in &scene.items {
                match item {
                    spark_trace_render::scene::Item::Line { from, .. } => lines.push(from.0),
                    spark_trace_render::scene::Item::Text { at, text, size, .. } if !text.is_empty() => {
                        assert!(lines.contains(&at.0), "{text} is at no line");
                        let half = width(*size, text) / 2.0;
                        assert!(at.0 - half > last && at.0 + half <= WIDTH, "{text} of {values:?}");
                        last = at.0 + half;
                    }
                    _ => {}
                }
            }
            assert!(last > 0.0, "{values:?} has no numbers");
        }
    }

    #[test]
    fn runs_are_whole() {
        let axis = Axis::counting([1, 2, 3].into_iter(), (0.0, 100.0));
        assert_eq!(axis.steps.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), ["1", "2", "3"]);
        assert_eq!((axis.at(1.0), axis.at(3.0)), (0.0, 100.0));
    }
}
