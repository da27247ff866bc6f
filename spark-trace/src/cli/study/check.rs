use std::path::PathBuf;

use clap::ValueEnum;

use super::shared::{needs_workload, options, time};
use crate::cli::error::Exit;
use crate::cli::headings;
use crate::cli::output;
use spark_trace_recording::units::{UNKNOWN, count};
use spark_trace_render::document::{Cell, Document, Fit, Table};
use spark_trace_render::{Style, escape, json, terminal};
use spark_trace_study::check::{Finding, Here, Report, Severity, Subject, check};
use spark_trace_study::estimate::ModelTime;
use spark_trace_study::journal::State;
use spark_trace_study::plan::Plan;
use spark_trace_study::results::Run;
use spark_trace_study::run::Options;
use spark_trace_study::schedule::{Slot, schedule};
use spark_trace_study::{JOURNAL, StudyError, read_journal};

/// Check that a plan can run here, and estimate how long it takes
///
/// Looks at engines, images, files, mounts, limits, cores, GPU and disk, and changes nothing. `study run` and `study resume` check
/// first, too.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The plan, or the folder of a study that has begun
    plan: PathBuf,
    /// Folder of the study [default: the plan's name]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Output format
    #[arg(help_heading = headings::OUTPUT, long, value_enum, default_value = "table")]
    format: Format,
    #[command(flatten)]
    width: output::WidthArg,
    /// The reference workload, for `{workload}` [default: beside this program, or in PATH]
    #[arg(long, value_name = "PATH")]
    workload: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  spark-trace study check study.toml
  spark-trace study check my-study      # the runs that are left, with the times of those that were made

Exit codes: 0 it can run, 1 something is fatal, 2 wrong plan.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let (plan, text, state) = if args.plan.is_dir() {
        let journal = args.plan.join(JOURNAL);
        if !journal.is_file() {
            return Err(StudyError::NoStudy { dir: args.plan.clone() }.into());
        }
        let state = read_journal(&journal)?;
        (state.plan.clone(), serde_json::to_string(&state.plan)?, Some(state))
    } else {
        let text = std::fs::read_to_string(&args.plan).map_err(StudyError::io(&args.plan))?;
        let plan =
            Plan::parse(&text).map_err(|source| StudyError::Plan { path: args.plan.clone(), source })?;
        (plan, text, None)
    };
    let folder = if state.is_some() { Some(args.plan.clone()) } else { args.dir.clone() };
    let dir = folder.unwrap_or_else(|| plan.name.clone().into());
    let options = options(&dir, args.workload.as_deref(), needs_workload(&text))?;
    let report = match &state {
        Some(state) => left(state, &options),
        None => look(&plan, &options, &schedule(&plan), &[]),
    };
    match args.format {
        Format::Json => output::print(&json::render(&report)?)?,
        Format::Table => output::print(self::text(&report, output::style(args.width)).as_bytes())?,
    };
    Ok(if report.can_run { Exit::Fine } else { Exit::TraceFailed })
}

/// Checks what is left of a study.
pub fn left(state: &State, options: &Options) -> Report {
    let slots: Vec<Slot> = state.left().cloned().collect();
    look(&state.plan, options, &slots, &state.runs)
}

pub fn look(plan: &Plan, options: &Options, left: &[Slot], done: &[Run]) -> Report {
    check(&Subject { plan, options, machine: &Here, left, done })
}

/// Prints what is not fine; whether the study can run.
pub fn passes(report: &Report) -> bool {
    for finding in report.findings.iter().filter(|finding| finding.severity > Severity::Fine) {
        eprintln!("{}", escape::line(&line(finding)));
    }
    eprintln!("{}", total(report));
    if !report.can_run {
        let fatal = report.findings.iter().filter(|finding| finding.severity == Severity::Fatal).count();
        let findings = count(fatal, "fatal finding", "fatal findings");
        eprintln!("spark-trace: {findings}: nothing was run; correct the plan, or use --no-check");
    }
    report.can_run
}

pub fn text(report: &Report, style: Style) -> String {
    terminal::render(&document(report), style)
}

fn document(report: &Report) -> Document {
    let mut document = Document::default();
    let verdict = if report.can_run { "can run" } else { "cannot run" };
    document.heading(format!("{} {verdict} on this machine", report.name));
    for finding in &report.findings {
        document.line(line(finding));
    }
    document.section("Time", Table::of(TIMES, &report.times));
    document.line(total(report));
    document
}

fn line(finding: &Finding) -> String {
    let subject = if finding.subject.is_empty() { String::new() } else { format!("{}: ", finding.subject) };
    let next = finding.next.as_ref().map_or_else(String::new, |next| format!("; next: {next}"));
    format!("{:8}{}: {subject}{}{next}", finding.severity.as_str(), finding.check, finding.found)
}

const TIMES: &[Cell<ModelTime>] = &[
    ("MODEL", Fit::Name, |row| row.model.clone()),
    ("RUNS", Fit::Number, |row| row.runs.to_string()),
    ("A RUN", Fit::Number, |row| known(row.run_s)),
    ("TIMEOUT", Fit::Number, |row| known(Some(row.timeout_s))),
    ("HOURS", Fit::Number, |row| {
        row.hours().map_or_else(|| UNKNOWN.to_owned(), |hours| format!("{hours:.1}"))
    }),
    ("BASIS", Fit::Text, |row| row.basis.clone()),
];

fn known(seconds: Option<f64>) -> String {
    let duration = seconds.and_then(|seconds| std::time::Duration::try_from_secs_f64(seconds).ok());
    duration.map_or_else(|| UNKNOWN.to_owned(), time)
}

fn total(report: &Report) -> String {
    let runs = count(report.runs, "run", "runs");
    match report.hours {
        Some(hours) => {
            let all = known(Some(hours * 3600.0));
            format!("{runs}: about {all} with the plan's cooldown, without retries and waiting for gates")
        }
        None => format!("{runs}: the time is unknown, because that of a model is"),
    }
}
