//! Charts as SVG in the page: one file each. They have no width of their own but percentages, so they fit a phone and a
//! wide screen with letters of one size. Each has a title, a description and, below it, its numbers as a table.

use super::page::Page;

pub mod bars;
pub mod fill;
pub mod flame;
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
            part if part < 0.1 => Self::Start,
            part if part > 0.9 => Self::End,
            _ => Self::Middle,
        }
    }
}

pub fn text(page: &mut Page, class: &'static str, x: f64, y: f64, anchor: Anchor, text: &str) {
    let y = format!("{y:.1}");
    let attributes =
        [("class", class), ("x", &percent(x)), ("y", &y), ("text-anchor", anchor.as_str())];
    page.element("text", &attributes, text);
}

pub fn line(page: &mut Page, class: &'static str, (x1, x2): (f64, f64), (y1, y2): (f64, f64)) {
    let (y1, y2) = (format!("{y1:.1}"), format!("{y2:.1}"));
    let attributes =
        [("class", class), ("x1", &percent(x1)), ("x2", &percent(x2)), ("y1", &y1), ("y2", &y2)];
    page.within("line", &attributes, |_| ());
}

/// Round steps of an axis up to `highest`, `about` this many.
pub fn steps(highest: f64, about: u32, base: f64) -> Vec<f64> {
    if !highest.is_finite() || highest <= 0.0 {
        return vec![];
    }
    let rough = highest / f64::from(about.max(1));
    // Powers of the base, and what people count in between them.
    let mut unit = base.powf(rough.log(base).floor());
    if !unit.is_normal() {
        return vec![];
    }
    for factor in [2.0, 2.5, 2.0] {
        if unit < rough {
            unit *= factor;
        }
    }
    while unit < rough {
        unit *= 2.0;
    }
    let count = (highest / unit).floor().min(100.0) as u32;
    (1..=count).map(|step| f64::from(step) * unit).collect()
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
        assert_eq!(steps(10.0, 5, 10.0), [2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(steps(0.0, 5, 10.0), Vec::<f64>::new());
        for highest in [1e-9, 0.7, 3.0, 99.0, 1e18] {
            let steps = steps(highest, 4, 1024.0);
            assert!((1..=8).contains(&steps.len()), "{highest}: {steps:?}");
        }
        assert!(steps(f64::MIN_POSITIVE, 4, 1024.0).len() < 101);
    }
}
