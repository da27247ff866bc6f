//! Every level of the run in long form: a row for each reading of each series.

use crate::csv::{self, Column, Field};
use spark_trace_analysis::levels::Line;
use spark_trace_analysis::timeline::seconds_between;
use spark_trace_recording::Recording;

use super::{Exported, Options};
use spark_trace_analysis::levels;

struct Row<'a> {
    line: &'a Line,
    /// After the target's start; readings begin before it.
    seconds: f64,
    bytes: Option<i64>,
}

fn columns<'a>() -> [Column<Row<'a>>; 5] {
    [
        ("time_seconds", |row| Field::Ratio(Some(row.seconds))),
        ("plane", |row| Field::Text(row.line.plane.to_owned())),
        ("object", |row| Field::Text(row.line.object.clone())),
        ("source", |row| Field::Text(row.line.source.clone())),
        ("bytes", |row| Field::Bytes(row.bytes)),
    ]
}

pub fn csv(recording: &Recording, _: Options) -> Exported {
    let lines = levels::lines(recording);
    let rows: Vec<_> = lines
        .iter()
        .flat_map(|line| {
            let row = |&(at_ns, bytes): &_| Row { line, seconds: seconds(recording, at_ns), bytes };
            line.points.iter().map(row)
        })
        .collect();
    Ok(csv::render(&columns(), &rows).into_bytes())
}

/// After the target's start.
pub fn seconds(recording: &Recording, at_ns: u64) -> f64 {
    seconds_between(recording.target.started_ns, at_ns)
}
