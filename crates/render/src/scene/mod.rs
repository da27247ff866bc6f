//! One picture, several writers: what a figure consists of, in units of its own. [`svg`] writes it into a page or a file,
//! [`pdf`] into a file for papers. A writer draws what is here and decides nothing.

pub mod letters;
pub mod pdf;
pub mod svg;

/// Units that a picture is wide. As a file it has one column of a paper, 3.5 inches, where letters of 11 units are 7 points.
pub const WIDTH: f64 = 384.0;
/// Points of a unit in a file.
pub const POINTS: f64 = 252.0 / WIDTH;

/// Around letters, units.
const HALO: f64 = 3.0;

#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    /// Read aloud instead of the picture.
    pub title: String,
    pub description: String,
    pub height: f64,
    pub items: Vec<Item>,
}

/// From the upper left corner. Later items are drawn over earlier ones.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    Line { ink: Ink, from: (f64, f64), to: (f64, f64) },
    Rect { ink: Ink, at: (f64, f64), size: (f64, f64) },
    Circle { ink: Ink, middle: (f64, f64), radius: f64 },
    Text { size: Size, at: (f64, f64), anchor: Anchor, text: String },
}

/// Where a text stands against its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// Letters of an axis, or of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    Axis,
    Label,
}

impl Size {
    pub const fn units(self) -> f64 {
        match self {
            Self::Axis => 11.0,
            Self::Label => 12.0,
        }
    }

    pub const fn class(self) -> &'static str {
        match self {
            Self::Axis => "axis",
            Self::Label => "label",
        }
    }
}

/// What a stroke or an area means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    A,
    B,
    Grid,
    Zero,
    Range,
    Median,
    Quartiles,
    StepA,
    StepB,
    Bar,
    Margin,
    Interval,
    Outlier,
}

/// How a file shows an ink. A page has its own colours, by class, for light and dark.
#[derive(Debug)]
pub struct Look {
    ink: Ink,
    pub class: &'static str,
    pub fill: Option<Colour>,
    pub stroke: Option<(Colour, f64)>,
    pub dash: Option<(f64, f64)>,
}

/// Red, green and blue, of 255.
pub type Colour = (u8, u8, u8);

// Okabe and Ito's blue and vermilion: distinct to everybody, and in grey. Shapes and dashes differ, too.
const BLUE: Colour = (0, 114, 178);
const RED: Colour = (213, 94, 0);
const BLACK: Colour = (27, 31, 36);
const GREY: Colour = (87, 96, 106);
const RULE: Colour = (208, 215, 222);
const PALE: Colour = (234, 238, 242);
const WHITE: Colour = (255, 255, 255);

const fn filled(ink: Ink, class: &'static str, fill: Colour, stroke: Option<(Colour, f64)>) -> Look {
    Look { ink, class, fill: Some(fill), stroke, dash: None }
}

const fn drawn(ink: Ink, class: &'static str, stroke: (Colour, f64), dash: Option<(f64, f64)>) -> Look {
    Look { ink, class, fill: None, stroke: Some(stroke), dash }
}

const LOOKS: &[Look] = &[
    filled(Ink::A, "a", BLUE, Some((WHITE, 0.75))),
    filled(Ink::B, "b", WHITE, Some((RED, 1.5))),
    drawn(Ink::Grid, "grid", (RULE, 0.75), None),
    drawn(Ink::Zero, "zero", (GREY, 1.0), None),
    drawn(Ink::Range, "range", (GREY, 1.25), None),
    drawn(Ink::Median, "median", (BLACK, 1.75), None),
    filled(Ink::Quartiles, "quartiles", PALE, Some((GREY, 1.0))),
    drawn(Ink::StepA, "step-a", (BLUE, 1.5), None),
    drawn(Ink::StepB, "step-b", (RED, 1.5), Some((4.0, 2.5))),
    filled(Ink::Bar, "value", PALE, Some((GREY, 1.0))),
    filled(Ink::Margin, "margin", PALE, None),
    drawn(Ink::Interval, "interval", (BLACK, 1.5), None),
    drawn(Ink::Outlier, "outlier", (BLACK, 1.0), None),
];

impl Ink {
    pub fn look(self) -> &'static Look {
        // Every ink has a row: a test looks.
        LOOKS.iter().find(|look| look.ink == self).unwrap_or(&LOOKS[0])
    }
}

impl Scene {
    pub fn new(title: impl Into<String>, description: impl Into<String>, height: f64) -> Self {
        Self { title: title.into(), description: description.into(), height, items: vec![] }
    }

    pub fn line(&mut self, ink: Ink, from: (f64, f64), to: (f64, f64)) {
        self.items.push(Item::Line { ink, from, to });
    }

    pub fn rect(&mut self, ink: Ink, at: (f64, f64), size: (f64, f64)) {
        self.items.push(Item::Rect { ink, at, size });
    }

    pub fn circle(&mut self, ink: Ink, middle: (f64, f64), radius: f64) {
        self.items.push(Item::Circle { ink, middle, radius });
    }

    pub fn text(&mut self, size: Size, at: (f64, f64), anchor: Anchor, text: impl Into<String>) {
        self.items.push(Item::Text { size, at, anchor, text: text.into() });
    }
}

/// A chart of damaged numbers is empty, not broken.
pub(super) fn finite(value: f64) -> f64 {
    if value.is_finite() { value.clamp(-1e5, 1e5) } else { 0.0 }
}

#[cfg(test)]
mod tests;
