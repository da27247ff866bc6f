//! Every plane over time, with the numbers behind each picture.

use crate::document::{Column, Fit, Table};
use crate::html::charts::timeline::{self, Chart, Scale};
use crate::html::page::Page;
use crate::html::{HtmlError, tables};
use crate::report;
use spark_trace_analysis::overview::{Overview, Run};
use spark_trace_analysis::timeline::{Mark, Timeline, seconds_between};
use spark_trace_analysis::view::Scope;
use spark_trace_recording::units::{known, size, unsigned};

/// Rows behind a timeline.
const READINGS: usize = 40;
/// Marks that are listed.
const MARKS: usize = 100;

pub fn timelines(page: &mut Page, overview: &Overview) -> Result<(), HtmlError> {
    let mut planes: Vec<(Scope, Option<u32>)> = vec![];
    for timeline in overview.runs().flat_map(|(_, run)| &run.timelines) {
        let plane = (timeline.plane, timeline.device);
        if !planes.contains(&plane) {
            planes.push(plane);
        }
    }
    // One time axis, so that planes and runs can be read one below the other.
    let times = Scale::of(overview.runs().flat_map(|(_, run)| &run.timelines));
    for plane in planes {
        let of = |run: &'_ Run| -> Option<usize> {
            run.timelines.iter().position(|timeline| (timeline.plane, timeline.device) == plane)
        };
        // Heights of both runs mean the same.
        let both = overview.runs().filter_map(|(_, run)| run.timelines.get(of(run)?));
        let scale = times.with_heights(both);
        for (letter, run) in overview.runs() {
            if let Some(timeline) = of(run).and_then(|index| run.timelines.get(index)) {
                self::timeline(page, letter, run, timeline, scale);
            }
        }
    }
    Ok(())
}

fn timeline(page: &mut Page, letter: &str, run: &Run, timeline: &Timeline, scale: Scale) {
    let plane = match timeline.device {
        Some(index) => format!("GPU {index}"),
        None => timeline.plane.as_str().to_owned(),
    };
    let title = report::prefixed(letter, &format!("{plane} plane over time"));
    let planes = run.report.planes.iter();
    let report = planes.into_iter().find(|report| {
        report.plane == timeline.plane && report.device.as_ref().map(|device| device.index) == timeline.device
    });
    let at_ns = report.map(|report| report.at_ns);
    page.element("h3", &[], &title);
    page.within("figure", &[("class", "timeline")], |page| {
        let chart = Chart { title: &title, timeline, marks: &run.marks, at_ns, scale };
        timeline::draw(page, &chart);
        let shown = timeline.at_ns.len();
        let caption = match timeline.readings > shown {
            true => {
                format!(
                    "{shown} of {} readings are drawn: the highest per column of pixels.",
                    timeline.readings
                )
            }
            false => format!("All {shown} readings are drawn."),
        };
        page.element("figcaption", &[], &caption);
        tables::behind(page, &format!("{title}: sources"), &peaks(timeline));
        tables::behind(
            page,
            &format!("{title}: readings"),
            &readings(timeline, report.map(|report| report.peak_ns)),
        );
        if !run.marks.is_empty() {
            tables::behind(page, &format!("{title}: marks"), &marks(run));
        }
    });
}

/// The highest reading of each source, and when.
fn peaks(timeline: &Timeline) -> Table {
    let columns = [
        ("SOURCE", Fit::Name),
        ("FIRST", Fit::Number),
        ("HIGHEST SHOWN", Fit::Number),
        ("AFTER", Fit::Number),
        ("LAST", Fit::Number),
    ];
    let rows = timeline.bands.iter().map(|band| {
        let highest = band.bytes.iter().zip(&timeline.at_ns).filter_map(|(bytes, at)| Some(((*bytes)?, *at)));
        let highest = highest.max_by_key(|(bytes, at_ns)| (*bytes, std::cmp::Reverse(*at_ns)));
        vec![
            band.source.to_owned(),
            known(band.bytes.first().copied().flatten(), size),
            known(highest.map(|(bytes, _)| bytes), size),
            known(highest.map(|(_, at_ns)| at_ns), |at_ns| format!("{:.2} s", timeline.seconds(at_ns))),
            known(band.bytes.last().copied().flatten(), size),
        ]
    });
    Table { columns: columns.map(column).into(), rows: rows.collect() }
}

fn column((title, fit): (&str, Fit)) -> Column {
    Column { title: title.to_owned(), fit }
}

/// Some of the readings, the peak among them.
fn readings(timeline: &Timeline, peak_ns: Option<u64>) -> Table {
    let first = [("AFTER", Fit::Number), ("COUNTER", Fit::Number)].map(column);
    let sources = timeline.bands.iter().map(|band| column((band.source, Fit::Number)));
    let step = timeline.at_ns.len().div_ceil(READINGS).max(1);
    let peak = peak_ns.and_then(|peak_ns| {
        (0..timeline.at_ns.len())
            .min_by_key(|&index| timeline.at_ns.get(index).map(|at_ns| at_ns.abs_diff(peak_ns)))
    });
    let rows =
        timeline.at_ns.iter().enumerate().filter(|(index, _)| index % step == 0 || Some(*index) == peak);
    let rows = rows.map(|(index, &at_ns)| {
        let counter = timeline.expected.get(index).copied().flatten();
        let first = [format!("{:.2} s", timeline.seconds(at_ns)), known(counter, unsigned)];
        let sources = timeline.bands.iter().map(|band| known(band.bytes.get(index).copied().flatten(), size));
        first.into_iter().chain(sources).collect()
    });
    Table { columns: first.into_iter().chain(sources).collect(), rows: rows.collect() }
}

fn marks(run: &Run) -> Table {
    let titles = [("AFTER", Fit::Number), ("KIND", Fit::Name), ("TIMES", Fit::Number), ("WHAT", Fit::Text)];
    let started_ns = run.report.target.started_ns;
    let after = |mark: &Mark| format!("{:.3} s", seconds_between(started_ns, mark.at_ns));
    let rows = run.marks.iter().take(MARKS).map(|mark| {
        let kind = timeline::SIGNS.iter().find(|(kind, ..)| *kind == mark.kind);
        let kind = kind.map_or_else(String::new, |(_, sign, what)| format!("{sign} {what}"));
        vec![after(mark), kind, mark.count.to_string(), mark.what.clone()]
    });
    let mut rows: Vec<Vec<String>> = rows.collect();
    if let Some(left_out) = run.marks.len().checked_sub(MARKS).filter(|&left_out| left_out > 0) {
        rows.push(vec![String::new(), String::new(), String::new(), format!("and {left_out} more")]);
    }
    Table { columns: titles.map(column).into(), rows }
}
