//! The memory queries of the target: a line for each question, then the answers in their order.

use std::collections::BTreeMap;

use super::cuda::error;
use super::document::{Cell, Document, Fit, Table};
use spark_trace_analysis::callers::{Caller, THROUGH_RUNTIME};
use spark_trace_analysis::memory_queries::{Answer, Folded, Queries, Range, Summary, figures};
use spark_trace_recording::units::{UNKNOWN, duration, known, seconds, unsigned};
use spark_trace_recording::unlimited::{NO_LIMIT, V1_NO_LIMIT};
use spark_trace_recording::{LaterState, MemoryState};

/// Room for an answer in 80 columns.
const ANSWER_WIDTH: usize = 32;
/// What stands before a query that another one made.
const INSIDE: &str = "  ";

pub fn show(document: &mut Document, queries: &Queries, started_ns: u64) {
    let after = |at_ns: u64| seconds(at_ns.saturating_sub(started_ns));
    document.heading("The memory queries of the target, and their answers");
    for summary in &queries.summaries {
        document.line(self::summary(summary, &after));
    }
    let mut lines = Vec::new();
    for (number, row) in (1..).zip(&queries.folded) {
        lines_of(&mut lines, row, &format!("{number}"), "", &after);
    }
    document.table(Table::of(ANSWERS, &lines));
    callers(document, &lines);
    let states: Vec<_> = lines.iter().flat_map(states).collect();
    document.section(
        "The machine's memory at those answers (→ at the last of several)",
        Table::of(STATES, &states),
    );
}

fn summary(summary: &Summary, after: &impl Fn(u64) -> String) -> String {
    let interface = interface(&summary.interface, summary.directory.as_deref());
    let times = match (summary.count, summary.inside) {
        (0, inside) => return format!("{interface}: {inside} times, only from inside the calls above"),
        (count, 0) => times(count),
        (count, inside) => format!("{} and {inside} from inside other calls", times(count)),
    };
    let failed = if summary.failed == 0 { String::new() } else { format!(", {} failed", summary.failed) };
    let answer = |what: &str, answer: &Option<Answer>| {
        let answer = answer.as_ref()?;
        Some(format!(
            ", {what} after {} {}",
            after(answer.at_ns),
            answer_in_words(&summary.interface, answer)
        ))
    };
    let last = summary.last.as_ref().filter(|_| summary.count > 1).cloned();
    let answers = [answer("first", &summary.first), answer("last", &last)];
    let answers: String = answers.into_iter().flatten().collect();
    format!("{interface}: {times}{failed}{answers}; {}", summary.processes.join(", "))
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

fn answer_in_words(interface: &str, answer: &Answer) -> String {
    let values =
        answer.values.iter().map(|(name, &value)| (name.clone(), Range { least: value, most: value }));
    in_words(interface, answer.text.as_deref(), &values.collect())
}

type Values = BTreeMap<String, Range>;

/// The figures that matter, or how many others there are.
fn in_words(interface: &str, text: Option<&str>, values: &Values) -> String {
    if let Some(text) = text {
        return text.to_owned();
    }
    let figures = figures(interface).iter().filter_map(|name| {
        let range = values.get(*name)?;
        // A file with one figure is named after it.
        let name = if *name == "bytes" { String::new() } else { format!("{name} ") };
        Some(format!("{name}{}", self::range(range)))
    });
    let figures: Vec<_> = figures.collect();
    match (figures.is_empty(), values.len()) {
        (false, _) => figures.join(", "),
        (true, 0) => UNKNOWN.to_owned(),
        (true, count) => format!("{count} figures"),
    }
}

fn range(range: &Range) -> String {
    // As recordings of 0.1.0 have it.
    let limit = |bytes: u64| if bytes >= V1_NO_LIMIT { NO_LIMIT.to_owned() } else { unsigned(bytes) };
    let (least, most) = (limit(range.least), limit(range.most));
    if least == most { least } else { format!("{least} to {most}") }
}

fn interface(interface: &str, directory: Option<&str>) -> String {
    match (directory, interface.strip_prefix("/proc/PID/")) {
        (Some(pid), Some(file)) => format!("/proc/{pid}/{file}"),
        (Some(directory), None) => format!("{directory}/{interface}"),
        (None, _) => interface.to_owned(),
    }
}

/// One line of the table of answers.
struct Line {
    number: String,
    after: String,
    inside: String,
    row: Folded,
}

fn lines_of(lines: &mut Vec<Line>, row: &Folded, number: &str, inside: &str, after: &impl Fn(u64) -> String) {
    lines.push(Line {
        number: number.to_owned(),
        after: after(row.first_ns),
        inside: inside.to_owned(),
        row: row.clone(),
    });
    for (index, nested) in (1..).zip(&row.nested) {
        lines_of(lines, nested, &format!("{number}.{index}"), &format!("{inside}{INSIDE}"), after);
    }
}

const ANSWERS: &[Cell<Line>] = &[
    ("NO", Fit::Name, |line| line.number.clone()),
    ("AFTER", Fit::Number, |line| line.after.clone()),
    ("TIMES", Fit::Number, |line| line.row.count.to_string()),
    ("PROCESS", Fit::Text, |line| format!("{} {}", line.row.pid, line.row.comm)),
    ("QUERY", Fit::Text, |line| {
        format!("{}{}", line.inside, interface(&line.row.interface, line.row.directory.as_deref()))
    }),
    // Numbers are not cut; the other figures are in the lines above.
    ("ANSWER", Fit::Name, |line| match line.row.result {
        0 => {
            let answer = in_words(&line.row.interface, line.row.text.as_deref(), &line.row.values);
            let first = answer.split(", ").next().unwrap_or_default();
            if answer.len() <= ANSWER_WIDTH { answer } else { first.to_owned() }
        }
        result => error(line.row.result_name, result),
    }),
];

/// Each caller once, with the numbers of its queries: they are too long for a column.
fn callers(document: &mut Document, lines: &[Line]) {
    let mut callers: Vec<(&Caller, Vec<&str>)> = Vec::new();
    let interface = lines.iter().filter(|line| line.inside.is_empty() && !line.row.caller.label.is_empty());
    for line in interface {
        match callers.iter_mut().find(|(caller, _)| **caller == line.row.caller) {
            Some((_, numbers)) => numbers.push(&line.number),
            None => callers.push((&line.row.caller, vec![&line.number])),
        }
    }
    for (caller, numbers) in callers {
        let through = caller.through.filter(|&through| through == THROUGH_RUNTIME);
        let through = through.map_or_else(String::new, |through| format!(" through the {through}"));
        document.line(format!("{}: called{through} by {}", numbers.join(", "), caller.label));
    }
}

/// The state at an answer, and where several are one line also at the last of them.
fn states(line: &Line) -> Vec<(String, MemoryState)> {
    let first = line.row.first_state.clone().map(|state| (line.number.clone(), state));
    let last = line.row.last_state.clone().filter(|_| line.row.count > 1);
    let last = last.map(|state| (format!("→{}", line.number), state));
    // A query that another one made stands beside nearly the same.
    if line.inside.is_empty() { first.into_iter().chain(last).collect() } else { vec![] }
}

const STATES: &[Cell<(String, MemoryState)>] = &[
    ("NO", Fit::Name, |(number, _)| number.clone()),
    ("FREE", Fit::Number, |(_, state)| unsigned(state.mem_free.unwrap_or(state.free))),
    ("PAGE CACHE", Fit::Number, |(_, state)| unsigned(state.file)),
    ("DIRTY", Fit::Number, |(_, state)| unsigned(state.dirty)),
    ("SHMEM", Fit::Number, |(_, state)| unsigned(state.shmem)),
    ("CHARGED", Fit::Number, |(_, state)| unsigned(state.cgroup_usage)),
    ("AVAILABLE", Fit::Number, |(_, state)| {
        known(later(state).and_then(|later| later.mem_available), unsigned)
    }),
    ("AGE", Fit::Number, |(_, state)| known(later(state).map(|later| later.age_ns), duration)),
];

const fn later(state: &MemoryState) -> Option<&LaterState> {
    state.later.as_ref()
}
