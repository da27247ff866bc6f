//! In which state runs began, and how values went within each environment.

use super::tables::{number, signed, to_spread};
use crate::analysis::Comparison;
use crate::analysis::compare::written_p;
use crate::analysis::diagnostics::{State, Within};
use crate::figures;
use spark_trace_recording::units::UNKNOWN;
use spark_trace_render::document::{Cell, Fit, Table};

/// One figure of the machine when runs began, of one model in two environments.
struct Start {
    state: State,
    /// Metrics whose difference it can have made.
    matters: Vec<String>,
}

const START: &[Cell<Start>] = &[
    ("AT THE START", Fit::Name, |row| row.state.name.clone()),
    ("UNIT", Fit::Name, |row| figures::state_unit(&row.state.name).to_owned()),
    ("A MEAN", Fit::Number, |row| number(row.state.a_mean)),
    ("B MEAN", Fit::Number, |row| number(row.state.b_mean)),
    ("B - A", Fit::Number, |row| signed(row.state.b_mean - row.state.a_mean)),
    ("HEDGES' G", Fit::Number, |row| {
        row.state.hedges_g.map_or_else(|| UNKNOWN.to_owned(), |g| format!("{g:+.2}"))
    }),
    ("P (WELCH)", Fit::Number, |row| row.state.p.map_or_else(|| UNKNOWN.to_owned(), written_p)),
    ("MATTERS FOR", Fit::Text, |row| match row.matters.is_empty() {
        true => "none".to_owned(),
        false => row.matters.join(", "),
    }),
];

/// Each figure once: it is the same for all metrics of a model.
pub fn start<'a>(rows: impl Iterator<Item = &'a Comparison>) -> Table {
    let mut starts: Vec<Start> = vec![];
    for row in rows {
        for state in &row.diagnostics.state {
            let place = starts.iter().position(|start| start.state.name == state.name).unwrap_or_else(|| {
                starts.push(Start { state: state.clone(), matters: vec![] });
                starts.len() - 1
            });
            if state.matters {
                starts[place].matters.push(row.subject.name.clone());
            }
        }
    }
    Table::of(START, &starts)
}

/// The values of one metric in one environment, in the order of running.
struct Course {
    metric: String,
    within: Within,
}

const COURSE: &[Cell<Course>] = &[
    ("METRIC", Fit::Name, |row| row.metric.clone()),
    ("ENVIRONMENT", Fit::Name, |row| row.within.environment.clone()),
    ("FIRST", Fit::Number, |row| to_spread(row.within.first, Some(row.within.range))),
    ("LAST", Fit::Number, |row| to_spread(row.within.last, Some(row.within.range))),
    ("RANGE", Fit::Number, |row| number(row.within.range)),
    ("PER RUN", Fit::Number, |row| row.within.per_run.map_or_else(|| UNKNOWN.to_owned(), signed)),
    ("MANN-KENDALL P", Fit::Number, |row| {
        row.within.drift.as_ref().map_or_else(|| UNKNOWN.to_owned(), |drift| written_p(drift.p))
    }),
    ("LAG-1 R", Fit::Number, |row| {
        row.within.lag1.as_ref().map_or_else(|| UNKNOWN.to_owned(), |lag| format!("{:+.2}", lag.r))
    }),
];

pub fn course<'a>(rows: impl Iterator<Item = &'a Comparison>) -> Table {
    let of = |row: &Comparison| -> Vec<Course> {
        let metric = &row.subject.name;
        row.diagnostics
            .within
            .iter()
            .map(|within| Course { metric: metric.clone(), within: within.clone() })
            .collect()
    };
    let courses: Vec<Course> = rows.flat_map(of).collect();
    Table::of(COURSE, &courses)
}
