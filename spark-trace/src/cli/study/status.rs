use std::path::PathBuf;

use anyhow::Context;
use clap::ValueEnum;
use serde::Serialize;

use crate::cli::bounded::bounded;
use crate::cli::error::Exit;
use crate::cli::output;
use spark_trace_render::document::{Document, Fit, Table};
use spark_trace_render::{json, terminal};
use spark_trace_study::journal::{LOST, State};
use spark_trace_study::report::happened;
use spark_trace_study::results::{Happening, Run};
use spark_trace_study::{JOURNAL, StudyError, read_journal, run};

/// Show the progress of a study
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  spark-trace study status my-study\n  spark-trace study status my-study --format json"
)]
pub struct Args {
    /// Folder of the study
    dir: PathBuf,
    /// Form of the output
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    #[command(flatten)]
    width: output::WidthArg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// Stop a running study after the current run
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  sudo spark-trace study stop my-study")]
pub struct StopArgs {
    /// Folder of the study
    dir: PathBuf,
}

#[derive(Debug, Serialize)]
struct Status {
    name: String,
    planned: usize,
    succeeded: usize,
    failed: usize,
    lost: usize,
    /// Not to be made: a gate stayed closed, or the model kept failing.
    left_out: usize,
    running: bool,
    /// Begun and not ended.
    under_way: Option<u32>,
    next: Option<u32>,
    complete: bool,
    cells: Vec<Cell>,
    happenings: Vec<Happening>,
}

#[derive(Debug, Serialize)]
struct Cell {
    environment: String,
    model: String,
    planned: usize,
    succeeded: usize,
    failed: usize,
    lost: usize,
    left_out: usize,
}

pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let journal = args.dir.join(JOURNAL);
    if !journal.is_file() {
        return Err(StudyError::NoStudy { dir: args.dir.clone() }.into());
    }
    let running = run::is_running(&args.dir);
    let status = bounded(&[&args.dir], move || Ok(status(&read_journal(&journal)?, running)))?;
    match args.format {
        Format::Json => output::print(&json::render(&status)?),
        Format::Table => {
            output::print(terminal::render(&document(&status), output::style(args.width)).as_bytes())
        }
    }
}

fn status(state: &State, running: bool) -> Status {
    let lost = |run: &&Run| run.failure.as_deref() == Some(LOST);
    let mut cells = vec![];
    for model in &state.plan.models {
        for environment in &state.plan.environments {
            let here = |name: &str, other: &str| name == environment.name && other == model.name;
            // A run that only warmed up again stands for none of the plan.
            let planned = |run: &Run| {
                state.slots.iter().any(|slot| slot.number == run.number && slot.warmup == run.warmup)
            };
            let runs = state.runs.iter().filter(|run| here(&run.environment, &run.model) && planned(run));
            let left_out = state.slots.iter().filter(|slot| state.left_out.contains(&slot.number));
            cells.push(Cell {
                environment: environment.name.clone(),
                model: model.name.clone(),
                planned: state.slots.iter().filter(|slot| here(&slot.environment, &slot.model)).count(),
                succeeded: runs.clone().filter(|run| run.failure.is_none()).count(),
                failed: runs.clone().filter(|run| run.failure.is_some() && !lost(run)).count(),
                lost: runs.filter(lost).count(),
                left_out: left_out.filter(|slot| here(&slot.environment, &slot.model)).count(),
            });
        }
    }
    let sum = |count: fn(&Cell) -> usize| cells.iter().map(count).sum();
    let next = state.next().map(|next| next.slot.number);
    Status {
        name: state.plan.name.clone(),
        planned: state.slots.len(),
        succeeded: sum(|cell| cell.succeeded),
        failed: sum(|cell| cell.failed),
        lost: sum(|cell| cell.lost),
        left_out: sum(|cell| cell.left_out),
        running,
        under_way: state.open.map(|(number, _)| number).filter(|_| running),
        next,
        complete: next.is_none(),
        cells,
        happenings: state.happenings.clone(),
    }
}

fn document(status: &Status) -> Document {
    let mut document = Document::default();
    let what = match (status.running, status.complete) {
        (true, _) => "running",
        (false, true) => "complete",
        (false, false) => "not running; `spark-trace study resume` goes on",
    };
    document.line(format!("{}: {} of {} runs, {what}", status.name, status.succeeded, status.planned));
    if let Some(number) = status.under_way {
        document.line(format!("run {number} is under way"));
    }
    if status.failed > 0 {
        document.warning(format!(
            "{} runs have failed; their logs are in the journal and below runs/",
            status.failed
        ));
    }
    document.table(Table::of(
        &[
            ("MODEL", Fit::Name, |cell: &Cell| cell.model.clone()),
            ("ENVIRONMENT", Fit::Name, |cell| cell.environment.clone()),
            ("PLANNED", Fit::Number, |cell| cell.planned.to_string()),
            ("SUCCEEDED", Fit::Number, |cell| cell.succeeded.to_string()),
            ("FAILED", Fit::Number, |cell| cell.failed.to_string()),
            ("LOST", Fit::Number, |cell| cell.lost.to_string()),
            ("LEFT OUT", Fit::Number, |cell| cell.left_out.to_string()),
        ],
        &status.cells,
    ));
    for happening in &status.happenings {
        document.line(happened(happening));
    }
    document
}

pub fn stop(args: &StopArgs) -> anyhow::Result<Exit> {
    if !args.dir.join(JOURNAL).is_file() {
        return Err(StudyError::NoStudy { dir: args.dir.clone() }.into());
    }
    if !run::is_running(&args.dir) {
        eprintln!("spark-trace: no runner is at work on it");
        return Ok(Exit::Fine);
    }
    run::request_stop(&args.dir).context(Exit::TraceFailed)?;
    eprintln!("spark-trace: the study ends after the run under way");
    Ok(Exit::Fine)
}
