//! The sources of one plane over a run, one on the other, and what happened meanwhile.

use super::super::page::Page;
use super::{Anchor, binary_steps, decimal_steps, line, palette, percent, picture_with, text};
use spark_trace_analysis::timeline::{Band, Mark, MarkKind, Timeline, seconds_between};
use spark_trace_recording::units::{size, unsigned};

/// Bands that a reader can distinguish; the others become one.
pub const BANDS: usize = 9;

const MARKS_HEIGHT: f64 = 20.0;
const PLOT: f64 = 260.0;
const AXIS: f64 = 20.0;
/// The plot's own units across: it is stretched to the width there is.
const ACROSS: f64 = 1000.0;
/// A band is named in the picture where it is this high at least.
const ROOM: f64 = 18.0;

/// Axes that charts to be compared have in common.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Seconds after the start.
    pub from: f64,
    pub to: f64,
    pub highest: u64,
}

impl Scale {
    /// The same times, and heights that `timelines` fit in.
    pub fn with_heights<'a>(self, timelines: impl IntoIterator<Item = &'a Timeline>) -> Self {
        Self { highest: timelines.into_iter().map(Timeline::highest).max().unwrap_or(1).max(1), ..self }
    }

    /// That all of `timelines` fit in.
    pub fn of<'a>(timelines: impl IntoIterator<Item = &'a Timeline>) -> Self {
        let mut scale = Self { from: f64::INFINITY, to: f64::NEG_INFINITY, highest: 1 };
        for timeline in timelines {
            let ends = [timeline.at_ns.first(), timeline.at_ns.last()].into_iter().flatten();
            for seconds in ends.map(|&at_ns| timeline.seconds(at_ns)) {
                (scale.from, scale.to) = (scale.from.min(seconds), scale.to.max(seconds));
            }
            scale.highest = scale.highest.max(timeline.highest());
        }
        scale
    }

    /// How far along a time is: 0 to 1 for what is shown.
    pub fn part(&self, seconds: f64) -> f64 {
        let span = self.to - self.from;
        if span > 0.0 { (seconds - self.from) / span } else { 0.5 }
    }

    /// Downwards, as SVG counts. Room is left for the topmost line.
    fn y(&self, bytes: f64) -> f64 {
        PLOT - bytes / (self.highest as f64 * 1.04) * PLOT
    }
}

/// Signs of marks: distinct in form, named by the legend.
pub const SIGNS: &[(MarkKind, &str, &str)] = &[
    (MarkKind::Kv, "★", "KV-cache reading"),
    (MarkKind::Query, "▼", "memory query"),
    (MarkKind::Phase, "◆", "phase"),
    (MarkKind::Stage, "▶", "stage of the engine"),
    (MarkKind::Exec, "●", "exec"),
];

pub fn sign(kind: MarkKind) -> &'static str {
    SIGNS.iter().find(|(of, ..)| *of == kind).map_or("", |(_, sign, _)| sign)
}

pub struct Chart<'a> {
    pub title: &'a str,
    pub timeline: &'a Timeline,
    pub marks: &'a [Mark],
    /// The instant that the report is about.
    pub at_ns: Option<u64>,
    pub scale: Scale,
}

pub fn draw(page: &mut Page, chart: &Chart<'_>) {
    let (bands, others) = chart.timeline.folded(BANDS);
    // What no source explains lies on top.
    let place = bands.len().saturating_sub(1);
    let mut bands = bands;
    bands.splice(place..place, others);
    let description = format!(
        "{} readings between {:.1} s and {:.1} s after the start; highest {}. The numbers are in the table below.",
        chart.timeline.readings,
        chart.scale.from,
        chart.scale.to,
        unsigned(chart.timeline.highest())
    );
    let height = (MARKS_HEIGHT + PLOT + AXIS) as u32;
    page.within(
        "div",
        &[("class", "zoomable"), ("tabindex", "0"), ("role", "group"), ("aria-label", chart.title)],
        |page| {
            let spoken = spoken(chart);
            let data = [("data-spoken", spoken.as_str())];
            picture_with(page, "chart timeline", height, (chart.title, &description), &data, |page| {
                areas(page, chart, &bands);
                axes(page, chart);
                names(page, chart, &bands);
                marks(page, chart);
            });
        },
    );
    legend(page, chart, &bands);
}

/// The bands, from the lowest up.
fn areas(page: &mut Page, chart: &Chart<'_>, bands: &[Band]) {
    let view = format!("0 0 {ACROSS} {PLOT}");
    let (y, height) = (format!("{MARKS_HEIGHT}"), format!("{PLOT}"));
    let attributes = [
        ("y", y.as_str()),
        ("width", "100%"),
        ("height", &height),
        ("viewBox", &view),
        ("preserveAspectRatio", "none"),
    ];
    let xs: Vec<f64> = chart.timeline.at_ns.iter().map(|&at_ns| x(chart, at_ns) * ACROSS).collect();
    page.within("svg", &attributes, |page| {
        let mut below = vec![0.0; xs.len()];
        for band in bands {
            let above: Vec<f64> =
                below.iter().zip(&band.bytes).map(|(sum, bytes)| sum + height_of(*bytes)).collect();
            let path = outline(chart, &xs, &below, &above);
            page.within(
                "path",
                &[("class", "band"), ("fill", &palette::of(band.source)), ("d", &path)],
                |_| (),
            );
            below = above;
        }
        let counted = chart.timeline.expected.iter().zip(&xs);
        let points =
            counted.filter_map(|(bytes, x)| Some(format!("{x:.1},{:.1}", chart.scale.y((*bytes)? as f64))));
        let points: Vec<_> = points.collect();
        if !points.is_empty() {
            page.within("polyline", &[("class", "counter"), ("points", &points.join(" "))], |_| ());
        }
    });
}

/// What is not known is in no row; a residual below zero has no height.
fn height_of(bytes: Option<i64>) -> f64 {
    bytes.unwrap_or(0).max(0) as f64
}

fn outline(chart: &Chart<'_>, xs: &[f64], below: &[f64], above: &[f64]) -> String {
    let point = |(x, bytes): (&f64, &f64)| format!("{x:.1} {:.1}", chart.scale.y(*bytes));
    let there = xs.iter().zip(above).map(point);
    let back = xs.iter().zip(below).rev().map(point);
    format!("M{}Z", there.chain(back).collect::<Vec<_>>().join("L"))
}

fn x(chart: &Chart<'_>, at_ns: u64) -> f64 {
    chart.scale.part(chart.timeline.seconds(at_ns))
}

fn axes(page: &mut Page, chart: &Chart<'_>) {
    for bytes in binary_steps(chart.scale.highest as f64, 6) {
        let y = MARKS_HEIGHT + chart.scale.y(bytes);
        line(page, "grid", (0.0, 1.0), (y, y));
        text(page, "axis", 0.0, y - 3.0, Anchor::Start, &size(bytes as i64));
    }
    let bottom = MARKS_HEIGHT + PLOT;
    line(page, "base", (0.0, 1.0), (bottom, bottom));
    for seconds in decimal_steps(chart.scale.from, chart.scale.to, 6) {
        let x = chart.scale.part(seconds);
        line(page, "base", (x, x), (bottom, bottom + 4.0));
        text(page, "axis", x, bottom + 16.0, edge(x), &format!("{} s", (seconds * 1e6).round() / 1e6));
    }
}

/// Only what would be cut off at an edge does not stand in the middle of its place.
fn edge(x: f64) -> Anchor {
    match x {
        x if x < 0.02 => Anchor::Start,
        x if x > 0.98 => Anchor::End,
        _ => Anchor::Middle,
    }
}

/// Places where a band's name may stand: not at the edges, where the axis is and letters would be cut.
const NAME_PLACES: [f64; 8] = [0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8, 0.88];

/// Each band's name where it is highest, if there is room for letters.
fn names(page: &mut Page, chart: &Chart<'_>, bands: &[Band]) {
    let xs: Vec<f64> = chart.timeline.at_ns.iter().map(|&at_ns| x(chart, at_ns)).collect();
    let mut below = [0.0; NAME_PLACES.len()];
    for band in bands {
        let heights = NAME_PLACES.map(|place| between(&xs, band, place));
        let places = NAME_PLACES.iter().zip(&heights).zip(&below);
        // Of equals the last is taken, and the middle is the best place.
        let best = places.rev().max_by(|((_, a), _), ((_, b), _)| a.total_cmp(b));
        if let Some(((&x, height), below)) = best
            && chart.scale.y(0.0) - chart.scale.y(*height) >= ROOM
        {
            let y = MARKS_HEIGHT + chart.scale.y(below + height / 2.0) + 4.0;
            text(page, "name", x, y, Anchor::Middle, band.source);
        }
        for (sum, height) in below.iter_mut().zip(heights) {
            *sum += height;
        }
    }
}

/// A band's height between two readings, as the picture has it; none before the first and after the last.
fn between(xs: &[f64], band: &Band, place: f64) -> f64 {
    let after = xs.partition_point(|&x| x < place);
    let height = |index: usize| band.bytes.get(index).map_or(0.0, |bytes| height_of(*bytes));
    let Some((before, (&from, &to))) =
        after.checked_sub(1).and_then(|before| Some((before, (xs.get(before)?, xs.get(after)?))))
    else {
        return 0.0;
    };
    let part = if to > from { (place - from) / (to - from) } else { 0.0 };
    height(before) + (height(after) - height(before)) * part
}

fn marks(page: &mut Page, chart: &Chart<'_>) {
    let bottom = MARKS_HEIGHT + PLOT;
    if let Some(at_ns) = chart.at_ns {
        let x = x(chart, at_ns);
        line(page, "instant", (x, x), (MARKS_HEIGHT, bottom));
    }
    for mark in chart.marks {
        let x = x(chart, mark.at_ns);
        if !(0.0..=1.0).contains(&x) {
            continue;
        }
        let seconds = seconds_between(chart.timeline.started_ns, mark.at_ns);
        page.within("g", &[("class", "mark")], |page| {
            page.element("title", &[], &format!("{seconds:.3} s: {}", mark.what));
            line(page, "mark", (x, x), (MARKS_HEIGHT - 6.0, bottom));
            text(page, "sign", x, MARKS_HEIGHT - 6.0, edge(x), sign(mark.kind));
        });
    }
}

fn legend(page: &mut Page, chart: &Chart<'_>, bands: &[Band]) {
    page.within("ul", &[("class", "legend"), ("aria-label", "Legend")], |page| {
        for band in bands.iter().rev() {
            page.within("li", &[], |page| {
                palette::swatch(page, band.source);
                page.text(&format!(" {} (at most {})", band.source, size(band.highest())));
            });
        }
        page.within("li", &[], |page| {
            page.fixed("<span class=\"sign line\" aria-hidden=\"true\">━</span> ");
            page.text("the plane's own counter");
        });
        if chart.at_ns.is_some() {
            page.within("li", &[], |page| {
                page.fixed("<span class=\"sign\" aria-hidden=\"true\">┃</span> ");
                page.text("the instant of this report");
            });
        }
        let present = SIGNS.iter().filter(|(kind, ..)| chart.marks.iter().any(|mark| mark.kind == *kind));
        for (_, sign, what) in present {
            page.within("li", &[], |page| {
                page.element("span", &[("class", "sign"), ("aria-hidden", "true")], sign);
                page.text(&format!(" {what}"));
            });
        }
    });
}

/// What to say where the pointer is, as the script reads it: `x%=words|x%=words`.
fn spoken(chart: &Chart<'_>) -> String {
    let at = |(index, &at_ns): (usize, &u64)| {
        let level = chart.timeline.expected.get(index).copied().flatten();
        let bands = chart.timeline.bands.iter().filter_map(|band| {
            let bytes = band.bytes.get(index).copied().flatten().filter(|&bytes| bytes != 0)?;
            Some(format!("{} {}", band.source, size(bytes)))
        });
        let total = level.map(|level| format!("{} in all", unsigned(level)));
        let said: Vec<_> = total.into_iter().chain(bands).collect();
        let place = percent(x(chart, at_ns));
        format!("{place}={:.2} s: {}", chart.timeline.seconds(at_ns), said.join(", "))
    };
    chart.timeline.at_ns.iter().enumerate().map(at).collect::<Vec<_>>().join("|")
}
