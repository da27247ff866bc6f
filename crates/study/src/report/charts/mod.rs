//! Charts of comparisons. No chart shows a value that is not in a table.

mod across;
mod axes;
mod runs;

pub use across::{metrics, models, sources};
pub use runs::{boxes, cumulative, order, pairs};

use crate::analysis::Comparison;
use crate::report::tables::number;
use spark_trace_render::scene::letters::{fitting, width};
use spark_trace_render::scene::{Anchor, Ink, Scene, Size, WIDTH};

/// Of files, below the site.
pub const FOLDER: &str = "figures";
/// LaTeX keeps a few floats until there is a page for them.
pub const FLOATS: usize = 8;
/// Half of a mark.
const MARK: f64 = 4.0;

/// A picture with what a paper says below it.
#[derive(Debug, Clone)]
pub struct Figure {
    /// Of its files, without what kind of file it is.
    pub name: String,
    pub caption: String,
    /// Of many comparisons: models, metrics or sources.
    pub across: bool,
    pub scene: Scene,
}

/// What a comparison's own charts are, with the ends of their names.
pub type Draw = fn(&Comparison) -> Option<(Scene, String)>;
pub const OF_ONE: &[(&str, Draw)] =
    &[("pairs", pairs), ("order", order), ("spread", boxes), ("distribution", cumulative)];

/// A filled circle is the baseline, a hollow square the other: nobody needs to distinguish colours.
fn mark(scene: &mut Scene, of_a: bool, (x, y): (f64, f64)) {
    match of_a {
        true => scene.circle(Ink::A, (x, y), MARK),
        false => scene.rect(Ink::B, (x - MARK + 0.5, y - MARK + 0.5), (2.0 * MARK - 1.0, 2.0 * MARK - 1.0)),
    }
}

/// How a side is drawn in the legend.
enum Sign {
    Mark(bool),
    Stroke(Ink),
    Ring,
}

/// Signs and what they mean, in as many rows as they need; where the rows end.
fn legend(scene: &mut Scene, entries: &[(Sign, String)]) -> f64 {
    const ROW: f64 = 16.0;
    const SIGN: f64 = 16.0;
    let (mut x, mut y) = (2.0, 12.0);
    for (sign, text) in entries {
        let text = fitting(Size::Axis, text, WIDTH - SIGN - 4.0);
        let room = SIGN + width(Size::Axis, &text);
        if x > 2.0 && x + room > WIDTH {
            (x, y) = (2.0, y + ROW);
        }
        match sign {
            Sign::Mark(of_a) => mark(scene, *of_a, (x + 6.0, y - 4.0)),
            Sign::Stroke(ink) => scene.line(*ink, (x, y - 4.0), (x + 12.0, y - 4.0)),
            Sign::Ring => scene.circle(Ink::Outlier, (x + 6.0, y - 4.0), MARK + 2.5),
        }
        scene.text(Size::Axis, (x + SIGN, y), Anchor::Start, text);
        x += room + 12.0;
    }
    y + ROW
}

/// What is measured, and in what.
fn measured(row: &Comparison) -> String {
    in_unit(&row.subject.title, &row.subject.unit)
}

fn in_unit(title: &str, unit: &str) -> String {
    match unit {
        "" => title.to_owned(),
        unit => format!("{title} ({unit})"),
    }
}

/// As figures write it: a minus is no hyphen.
fn minus(text: &str) -> String {
    text.replace('-', "\u{2212}")
}

/// The result, for a caption.
fn result(row: &Comparison) -> String {
    let unit = &row.subject.unit;
    let interval = row.ci.map_or_else(String::new, |(low, high)| {
        format!(" (95 % CI {} to {})", minus(&number(low)), minus(&number(high)))
    });
    let difference = minus(&number(row.difference));
    format!("B minus A is {difference} {unit}{interval}; verdict: {}.", row.verdict.as_str())
}
