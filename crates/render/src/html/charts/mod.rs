//! Charts as SVG in the page: one file each. They have no width of their own but percentages, so they fit a phone and a
//! wide screen with letters of one size. Each has a title, a description and, below it, its numbers as a table.

use super::page::Page;

pub mod bars;
pub mod flame;
pub mod palette;
pub mod timeline;
pub mod waterfall;

/// Part of the chart's width.
pub fn percent(part: f64) -> String {
    // A chart of damaged numbers is empty, not broken.
    let part = if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 };
    format!("{:.2}%", part * 100.0)
}

/// A chart as a picture with a name and a description.
pub fn picture(
    page: &mut Page,
    class: &'static str,
    height: u32,
    (title, description): (&str, &str),
    draw: impl FnOnce(&mut Page),
) {
    picture_with(page, class, height, (title, description), &[], draw);
}

/// A picture with something for the script beside it.
pub fn picture_with(
    page: &mut Page,
    class: &'static str,
    height: u32,
    (title, description): (&str, &str),
    data: super::page::Attributes<'_>,
    draw: impl FnOnce(&mut Page),
) {
    let (title_id, description_id) = (page.id("title"), page.id("desc"));
    let (labelled, height) = (format!("{title_id} {description_id}"), height.to_string());
    let attributes = [
        ("class", class),
        ("role", "img"),
        ("aria-labelledby", labelled.as_str()),
        ("width", "100%"),
        ("height", &height),
    ];
    let attributes: Vec<_> = attributes.into_iter().chain(data.iter().copied()).collect();
    page.within("svg", &attributes, |page| {
        page.element("title", &[("id", &title_id)], title);
        page.element("desc", &[("id", &description_id)], description);
        draw(page);
    });
}

pub fn rect(page: &mut Page, class: &'static str, (x, width): (f64, f64), (y, height): (f64, f64)) {
    let (y, height) = (format!("{y:.1}"), format!("{height:.1}"));
    let attributes =
        [("class", class), ("x", &percent(x)), ("width", &percent(width)), ("y", &y), ("height", &height)];
    page.within("rect", &attributes, |_| ());
}

/// Where a text stands against its x.
#[derive(Debug, Clone, Copy)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

impl Anchor {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }

    /// Texts near an edge grow away from it.
    pub fn at(part: f64) -> Self {
        match part {
            part if part < 0.25 => Self::Start,
            part if part > 0.75 => Self::End,
            _ => Self::Middle,
        }
    }
}

pub fn text(page: &mut Page, class: &'static str, x: f64, y: f64, anchor: Anchor, text: &str) {
    let y = format!("{y:.1}");
    let attributes = [("class", class), ("x", &percent(x)), ("y", &y), ("text-anchor", anchor.as_str())];
    page.element("text", &attributes, text);
}

pub fn line(page: &mut Page, class: &'static str, (x1, x2): (f64, f64), (y1, y2): (f64, f64)) {
    let (y1, y2) = (format!("{y1:.1}"), format!("{y2:.1}"));
    let attributes = [("class", class), ("x1", &percent(x1)), ("x2", &percent(x2)), ("y1", &y1), ("y2", &y2)];
    page.within("line", &attributes, |_| ());
}

/// Steps of an axis of bytes up to `highest`: a power of two, at most `most` of them.
pub fn binary_steps(highest: f64, most: u32) -> Vec<f64> {
    if !(1.0..f64::MAX).contains(&highest) {
        return vec![];
    }
    let unit = (highest / f64::from(most)).max(1.0).log2().ceil().exp2();
    (1..=most).map(|step| f64::from(step) * unit).take_while(|&step| step <= highest).collect()
}

/// What people count in.
const DECIMAL: [f64; 4] = [1.0, 2.0, 5.0, 10.0];

/// Round numbers from `from` to `to`, at most `most` of them and one.
pub fn decimal_steps(from: f64, to: f64, most: u32) -> Vec<f64> {
    let rough = (to - from) / f64::from(most);
    let power = 10f64.powf(rough.log10().floor());
    if !power.is_normal() || !from.is_finite() {
        return vec![];
    }
    let unit = DECIMAL.map(|factor| factor * power).into_iter().find(|&unit| unit >= rough).unwrap_or(rough);
    let first = (from / unit).ceil();
    // Adding zero: there is no second before the start that is "-0".
    (0..=most).map(|step| (first + f64::from(step)) * unit + 0.0).take_while(|&step| step <= to).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stay_in_the_chart() {
        assert_eq!(percent(0.5), "50.00%");
        assert_eq!((percent(-1.0).as_str(), percent(7.0).as_str()), ("0.00%", "100.00%"));
        assert_eq!((percent(f64::NAN).as_str(), percent(f64::INFINITY).as_str()), ("0.00%", "0.00%"));
    }

    #[test]
    fn axes_have_round_steps() {
        const GIB: f64 = 1024.0 * 1024.0 * 1024.0;
        assert_eq!(binary_steps(2.2 * GIB, 6), [0.5, 1.0, 1.5, 2.0].map(|step| step * GIB));
        assert_eq!(decimal_steps(-0.05, 2.2, 6), [0.0, 0.5, 1.0, 1.5, 2.0]);
        assert_eq!(decimal_steps(-25.0, 25.0, 6), [-20.0, -10.0, 0.0, 10.0, 20.0]);
        for highest in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(binary_steps(highest, 6).is_empty() && decimal_steps(0.0, highest, 6).is_empty());
        }
        for highest in [1.0, 3.0, 1e18] {
            assert!((1..=6).contains(&binary_steps(highest, 6).len()), "{highest}");
        }
        for (from, to) in [(-1e9, 1e9), (1e-9, 2e-9), (-1.8e10, 1.8e10)] {
            assert!((2..=7).contains(&decimal_steps(from, to, 6).len()), "{from} to {to}");
        }
    }
}
