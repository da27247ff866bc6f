//! Tables of llama.cpp's benchmarks: a row is a test (tokens of the prompt, tokens generated, context before), and its speed.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use super::form::Row;

const PROMPT: &str = "prompt-throughput";
const GENERATION: &str = "generation-throughput";
const BOTH: &str = "total-throughput";
/// What the rows here can be of.
#[cfg(test)]
pub const METRICS: [&str; 3] = [PROMPT, GENERATION, BOTH];

/// A test of llama-bench, by its sizes in tokens.
#[derive(Debug, Clone, Copy, Default)]
struct Test {
    prompt: u64,
    generated: u64,
    depth: u64,
}

impl Test {
    fn row(self, value: f64) -> Option<Row> {
        let Self { prompt, generated, depth } = self;
        let (metric, test) = match (prompt, generated) {
            (0, 0) => return None,
            (_, 0) => (PROMPT, format!("pp{prompt}")),
            (0, _) => (GENERATION, format!("tg{generated}")),
            _ => (BOTH, format!("pp{prompt}-tg{generated}")),
        };
        let test = if depth > 0 { format!("{test}-d{depth}") } else { test };
        Some(Row { metric, test, value })
    }
}

/// An object of `-o json` or a line of `-o jsonl`.
pub fn bench_object(object: &Value) -> Vec<Row> {
    let of = || {
        let size = |key: &str| object.get(key)?.as_u64();
        let depth = size("n_depth").unwrap_or(0);
        Test { prompt: size("n_prompt")?, generated: size("n_gen")?, depth }
            .row(object.get("avg_ts")?.as_f64()?)
    };
    of().into_iter().collect()
}

/// `-o csv`: its columns differ by version, its first and those of the results do not.
pub fn bench_csv(text: &str) -> Vec<Row> {
    let mut header: Vec<String> = vec![];
    let mut rows = vec![];
    for line in text.lines() {
        if line.starts_with("build_commit,") && line.contains(",avg_ts") {
            header = line.trim().split(',').map(str::to_owned).collect();
        } else if !header.is_empty() && line.starts_with('"') {
            rows.extend(csv_row(&header, line));
        }
    }
    rows
}

fn csv_row(header: &[String], line: &str) -> Option<Row> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line.as_bytes());
    let record = reader.records().next()?.ok().filter(|record| record.len() == header.len())?;
    let of = |name: &str| record.get(header.iter().position(|column| column == name)?);
    let size = |name: &str| of(name)?.parse().ok();
    let depth = size("n_depth").unwrap_or(0);
    Test { prompt: size("n_prompt")?, generated: size("n_gen")?, depth }.row(of("avg_ts")?.parse().ok()?)
}

/// `pp512`, `tg128 @ d4096`, `pp512+tg128`; with a space before each number until b3000 or so.
static TEST: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^(?:pp ?(\d+))?\+?(?:tg ?(\d+))?(?: ?@ ?d ?(\d+))?$").ok());

/// `-o md`: the columns before the last two are those that differ between the tests.
pub fn bench_table(text: &str) -> Vec<Row> {
    let column = |cells: &[&str], name: &str| cells.iter().position(|cell| *cell == name);
    table(text, |header| {
        let (test, speed) = (column(header, "test")?, column(header, "t/s")?);
        Some(move |cells: &[&str]| {
            let found = TEST.as_ref()?.captures(cells.get(test)?)?;
            let size = |group: usize| found.get(group).map_or(Some(0), |digits| digits.as_str().parse().ok());
            let speed = cells.get(speed)?.split_whitespace().next()?.parse().ok()?;
            let row = Test { prompt: size(1)?, generated: size(2)?, depth: size(3)? }.row(speed)?;
            Some(vec![row])
        })
    })
}

/// Tokens of the prompt, tokens generated, sequences at a time.
fn batched((prompt, generated, sequences): (u64, u64, u64), [pp, tg, both]: [f64; 3]) -> Vec<Row> {
    let test = format!("pp{prompt}-tg{generated}-b{sequences}");
    let row = |metric, value| Row { metric, test: test.clone(), value };
    vec![row(PROMPT, pp), row(GENERATION, tg), row(BOTH, both)]
}

/// A line of `--output-format jsonl`.
pub fn batched_object(object: &Value) -> Vec<Row> {
    let of = || {
        let size = |key: &str| object.get(key)?.as_u64();
        let speed = |key: &str| object.get(key)?.as_f64();
        let speeds = [speed("speed_pp")?, speed("speed_tg")?, speed("speed")?];
        Some(batched((size("pp")?, size("tg")?, size("pl")?), speeds))
    };
    of().unwrap_or_default()
}

const BATCHED: [&str; 6] = ["PP", "TG", "B", "S_PP t/s", "S_TG t/s", "S t/s"];

pub fn batched_table(text: &str) -> Vec<Row> {
    table(text, |header| {
        let mut places = [0; BATCHED.len()];
        for (place, name) in places.iter_mut().zip(BATCHED) {
            *place = header.iter().position(|cell| *cell == name)?;
        }
        Some(move |cells: &[&str]| {
            let cell = |place: usize| cells.get(places[place]).copied();
            let size = |place: usize| cell(place)?.parse().ok();
            let speed = |place: usize| cell(place)?.parse().ok();
            Some(batched((size(0)?, size(1)?, size(2)?), [speed(3)?, speed(4)?, speed(5)?]))
        })
    })
}

/// Rows of a Markdown table. Lines of the log may stand between them.
fn table<F: Fn(&[&str]) -> Option<Vec<Row>>>(text: &str, of: impl Fn(&[&str]) -> Option<F>) -> Vec<Row> {
    let mut rows = vec![];
    let mut reader: Option<(usize, F)> = None;
    for line in text.lines().map(str::trim) {
        let Some(inner) = line.strip_prefix('|').and_then(|line| line.strip_suffix('|')) else { continue };
        let cells: Vec<&str> = inner.split('|').map(str::trim).collect();
        match (of(&cells), &reader) {
            (Some(found), _) => reader = Some((cells.len(), found)),
            (None, Some((columns, read))) if *columns == cells.len() => {
                rows.extend(read(&cells).unwrap_or_default());
            }
            (None, _) => {}
        }
    }
    rows
}
