//! Timelines for a terminal: at most 20 lines each, with letters that differ so that colours are not needed.

use spark_trace_common::source::UNATTRIBUTED;
use unicode_width::UnicodeWidthStr;

use super::html::charts::palette;
use super::html::charts::timeline::{SIGNS, Scale, sign};
use super::{Style, USUAL_WIDTH, ascii};
use spark_trace_analysis::timeline::{Band, Mark, MarkKind, Timeline};
use spark_trace_recording::units::{size, unsigned};

/// Lines of the picture itself; title, marks, axis and legend take up to eight more.
const ROWS: usize = 12;
const BANDS: usize = 8;
/// Room for a size and what divides it from the picture.
const LEFT: usize = 11;
/// One for each band, from the lowest up; no two that are alike stand side by side.
const LETTERS: [char; BANDS + 1] = ['█', '░', '▓', '#', '▒', '+', '%', 'o', '='];
const REST: char = '·';

/// Colours of the 256 that terminals have for those of the charts.
const COLOURS: &[(&str, u8)] = &[
    ("blue", 32),
    ("sky", 117),
    ("orange", 214),
    ("yellow", 227),
    ("purple", 175),
    ("red", 166),
    ("green", 36),
    ("grey", 245),
    ("white", 252),
];

pub fn render(timelines: &[Timeline], marks: &[Mark], style: Style) -> String {
    let times = Scale::of(timelines);
    let plots: Vec<_> = timelines.iter().map(|timeline| plot(timeline, times, marks, style)).collect();
    let text = plots.join("\n");
    if style.ascii { ascii::of(&text) } else { text }
}

/// Columns that a picture has on a terminal of that width.
pub const fn columns(style: Style) -> usize {
    width(style).saturating_sub(LEFT)
}

/// A picture has a width, whatever the place it goes to.
const fn width(style: Style) -> usize {
    match style.width {
        Some(width) => width,
        None => USUAL_WIDTH,
    }
}

struct Plot<'a> {
    timeline: &'a Timeline,
    bands: Vec<Band>,
    scale: Scale,
    columns: usize,
    style: Style,
}

/// On the time axis that all planes have in common.
fn plot(timeline: &Timeline, times: Scale, marks: &[Mark], style: Style) -> String {
    let (mut bands, others) = timeline.folded(BANDS);
    // What no source explains lies on top.
    let top = bands.len().saturating_sub(1);
    bands.splice(top..top, others);
    let plot =
        Plot { timeline, bands, scale: times.with_heights([timeline]), columns: columns(style), style };
    let mut lines = vec![plot.title()];
    lines.extend(plot.marks(marks));
    lines.extend(plot.picture());
    lines.extend(plot.axis());
    lines.extend(plot.legend(marks));
    lines.join("\n") + "\n"
}

impl Plot<'_> {
    fn title(&self) -> String {
        let plane = match self.timeline.device {
            Some(index) => format!("GPU {index}"),
            None => self.timeline.plane.as_str().to_owned(),
        };
        let (readings, highest) = (self.timeline.readings, unsigned(self.timeline.highest()));
        format!("{plane} plane over time: {readings} readings, highest {highest}")
    }

    /// Signs above the picture; of several in one column the one that matters most.
    fn marks(&self, marks: &[Mark]) -> Option<String> {
        let mut kinds: Vec<Option<MarkKind>> = vec![None; self.columns];
        for mark in marks {
            let part = self.scale.part(self.timeline.seconds(mark.at_ns));
            let column = (0.0..=1.0).contains(&part).then(|| self.column(part));
            if let Some(kind) = column.and_then(|column| kinds.get_mut(column)) {
                *kind = Some(kind.map_or(mark.kind, |before| before.min(mark.kind)));
            }
        }
        kinds.iter().any(Option::is_some).then(|| {
            let signs: String = kinds.iter().map(|kind| kind.map_or(" ", sign)).collect();
            format!("{:LEFT$}{}", "", signs.trim_end())
        })
    }

    fn column(&self, part: f64) -> usize {
        ((part * self.columns as f64) as usize).min(self.columns.saturating_sub(1))
    }

    fn picture(&self) -> Vec<String> {
        let readings: Vec<Option<usize>> = (0..self.columns).map(|column| self.reading(column)).collect();
        let highest = self.scale.highest as f64;
        let row = |row: usize| {
            // The level in the middle of the line.
            let level = (ROWS - row) as f64 - 0.5;
            let level = level / ROWS as f64 * highest;
            let label = match row % 4 {
                0 => size(((ROWS - row) as f64 / ROWS as f64 * highest) as i64),
                _ => String::new(),
            };
            let cells = readings.iter().map(|reading| reading.and_then(|index| self.band(index, level)));
            let line = self.cells(&cells.collect::<Vec<_>>());
            format!("{label:>width$} ┤{line}", width = LEFT - 2)
        };
        (0..ROWS).map(row).collect()
    }

    /// The highest reading in a column, or the nearest where it has none; before the first and after the last nothing.
    fn reading(&self, column: usize) -> Option<usize> {
        let place = |index: usize| {
            let at_ns = self.timeline.at_ns.get(index).copied().unwrap_or(0);
            self.scale.part(self.timeline.seconds(at_ns))
        };
        let all = 0..self.timeline.at_ns.len();
        let (first, last) = (self.column(place(0)), self.column(place(all.end.checked_sub(1)?)));
        if !(first..=last).contains(&column) {
            return None;
        }
        let inside = all.clone().filter(|&index| self.column(place(index)) == column);
        let level = |index: &usize| self.timeline.expected.get(*index).copied().flatten();
        let middle = (column as f64 + 0.5) / self.columns as f64;
        let distance = |index: usize| (place(index) - middle).abs();
        inside.max_by_key(level).or_else(|| all.min_by(|&a, &b| distance(a).total_cmp(&distance(b))))
    }

    /// The band that `level` lies in at reading `index`.
    fn band(&self, index: usize, level: f64) -> Option<usize> {
        let mut sum = 0.0;
        self.bands.iter().position(|band| {
            sum += band.bytes.get(index).copied().flatten().unwrap_or(0).max(0) as f64;
            level < sum
        })
    }

    fn cells(&self, cells: &[Option<usize>]) -> String {
        let mut line = String::new();
        for run in cells.chunk_by(|a, b| a == b) {
            let Some(&band) = run.first() else { continue };
            let text: String = run.iter().map(|_| band.map_or(' ', |band| self.letter(band))).collect();
            line += &band.map_or_else(|| text.clone(), |band| self.coloured(band, &text));
        }
        if self.style.colour { line } else { line.trim_end().to_owned() }
    }

    fn coloured(&self, band: usize, text: &str) -> String {
        let source = self.bands.get(band).map_or("", |band| band.source);
        let colour = COLOURS.iter().find(|(name, _)| *name == palette::colour(source));
        match colour.filter(|_| self.style.colour) {
            Some((_, colour)) => format!("\x1b[38;5;{colour}m{text}\x1b[0m"),
            None => text.to_owned(),
        }
    }

    /// Seconds after the start below the picture: first, middle and last.
    fn axis(&self) -> [String; 2] {
        let (from, to) = (self.scale.from, self.scale.to);
        let labels = [from, f64::midpoint(from, to), to].map(|seconds| {
            // Adding zero: there is no "-0".
            format!("{:.1} s", (seconds * 10.0).round() / 10.0 + 0.0)
        });
        let [first, middle, last] = &labels;
        let room = self.columns.saturating_sub(first.len() + middle.len() + last.len());
        let (before, after) = (" ".repeat(room / 2), " ".repeat(room - room / 2));
        let rule = "─".repeat(self.columns);
        [
            format!("{:>width$} └{rule}", "0", width = LEFT - 2),
            format!("{:LEFT$}{first}{before}{middle}{after}{last}", ""),
        ]
    }

    /// What no source explains looks the same in every picture.
    fn letter(&self, band: usize) -> char {
        let is_rest = self.bands.get(band).is_some_and(|band| band.source == UNATTRIBUTED);
        if is_rest { REST } else { LETTERS.get(band).copied().unwrap_or(REST) }
    }

    fn legend(&self, marks: &[Mark]) -> Vec<String> {
        let bands = self.bands.iter().enumerate().rev().map(|(index, band)| {
            let text = format!("{} {}", band.source, size(band.highest()));
            (2 + text.width(), format!("{} {text}", self.coloured(index, &self.letter(index).to_string())))
        });
        let signs = SIGNS.iter().filter(|(kind, ..)| marks.iter().any(|mark| mark.kind == *kind));
        let signs = signs.map(|(_, sign, what)| (2 + what.width(), format!("{sign} {what}")));
        let mut lines: Vec<(usize, String)> = vec![];
        for (width, item) in bands.chain(signs) {
            match lines.last_mut() {
                Some((used, line)) if *used + 2 + width <= self::width(self.style) => {
                    *used += 2 + width;
                    line.push_str("  ");
                    line.push_str(&item);
                }
                _ => lines.push((width, item)),
            }
        }
        lines.into_iter().map(|(_, line)| line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_analysis::timeline;
    use spark_trace_testing as testing;
    use spark_trace_testing::{SECOND, START};

    fn plots(style: Style) -> Vec<String> {
        let recording = testing::cuda();
        let marks = timeline::marks(&recording, (START, START + 11 * SECOND), columns(style));
        let timelines = timeline::all(&recording, columns(style));
        timelines.iter().map(|timeline| plot(timeline, Scale::of(&timelines), &marks, style)).collect()
    }

    #[test]
    fn a_plot_fits_and_needs_no_colour() {
        for width in [80, 200] {
            for plot in plots(Style { width: Some(width), ..Style::default() }) {
                assert!(plot.lines().count() <= 20, "{plot}");
                assert!(plot.lines().all(|line| line.width() <= width), "{plot}");
                assert!(!plot.contains('\x1b'));
                assert!(plot.contains("unattributed") && plot.contains("▼ memory query"), "{plot}");
            }
        }
    }

    #[test]
    fn letters_are_the_same_with_colours() {
        let plain = plots(Style::default());
        let coloured = plots(Style { colour: true, ..Style::default() });
        assert!(coloured.iter().all(|plot| plot.contains("\x1b[38;5;")));
        let stripped = |text: &str| -> String {
            let parts = text.split('\x1b').enumerate();
            let kept =
                parts.map(|(index, part)| if index == 0 { part } else { part.split_once('m').unwrap().1 });
            kept.collect::<String>().lines().map(|line| line.trim_end().to_owned() + "\n").collect()
        };
        assert_eq!(coloured.iter().map(|plot| stripped(plot)).collect::<Vec<_>>(), plain);
    }

    #[test]
    fn every_letter_is_another() {
        let mut letters = LETTERS.to_vec();
        letters.push(REST);
        letters.sort_unstable();
        letters.dedup();
        assert_eq!(letters.len(), LETTERS.len() + 1);
    }
}
