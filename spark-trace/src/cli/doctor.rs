use std::path::PathBuf;

use anyhow::Context;
use clap::ValueEnum;

use super::headings;
use super::{error::Exit, log::LogArgs, output};
use spark_trace_agent::attach_plan::Exclusion;
use spark_trace_agent::doctor::{
    self, CheckRow, Report,
    hooks::{HookRow, UNTRIED},
};
use spark_trace_recording::LibraryFile;
use spark_trace_recording::parse;
use spark_trace_recording::units::UNKNOWN;
use spark_trace_recording::verdict::Verdict;
use spark_trace_render::{
    document::{Cell, Document, Fit, Table},
    json, markdown, terminal,
};

/// Check what this machine can record, and list what is missing
///
/// Loads and attaches every hook for a moment, makes and removes a cgroup, queries the container engines, and
/// checks everything else that a recording uses. Leaves nothing changed.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Output format
    #[arg(help_heading = headings::OUTPUT, long, value_enum, default_value = "table")]
    format: Format,

    #[command(flatten)]
    width: output::WidthArg,

    /// Do not use this attach mechanism (tp_btf, fentry, fexit, kprobe, ...), for all hooks or for one; the next
    /// available one is used
    #[arg(help_heading = headings::HOOKS, long, value_name = "[HOOK:]NAME", alias = "without-mechanism")]
    exclude_mechanism: Vec<Exclusion>,

    /// NVIDIA's management library (libnvidia-ml.so.1), if it is not in a standard location
    #[arg(help_heading = headings::HOOKS, long, value_name = "PATH", value_parser = parse::file)]
    nvml: Option<PathBuf>,

    #[command(flatten)]
    logging: LogArgs,
}

const EXAMPLES: &str = "\
Examples:
  sudo spark-trace doctor
  sudo spark-trace doctor --format json | jq '.hooks[] | select(.verdict != \"ok\")'
  sudo spark-trace doctor --format markdown   # for an issue; has no names except sudo's user

Exit codes:
  0   a recording can be made here
  1   it cannot; the first lines give the reason. Without root the checks that need root are skipped";

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// Tables for a terminal
    Table,
    /// Everything, for programs
    Json,
    /// Tables for an issue
    Markdown,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let _log = args.logging.start().context(Exit::TraceFailed)?;
    let report = doctor::run(args.nvml, &args.exclude_mechanism);
    let bytes = match args.format {
        Format::Table => terminal::render(&document(&report), output::style(args.width)).into_bytes(),
        Format::Json => json::render(&report)?,
        Format::Markdown => markdown::render(&document(&report)).into_bytes(),
    };
    output::print(&bytes)?;
    Ok(if report.can_record { Exit::Fine } else { Exit::TraceFailed })
}

/// The verdict, both tables, then what each fault costs.
fn document(report: &Report) -> Document {
    let mut document = Document::default();
    let verdict = if report.can_record { "can be made" } else { "cannot be made" };
    document.heading(format!("Recordings {verdict} on this machine (spark-trace {})", report.tool_version));
    if let Some(obstacle) = &report.obstacle {
        document.warning(obstacle);
    }
    let attached = report.hooks.iter().filter(|hook| hook.verdict == Verdict::Ok.as_str()).count();
    let others = report.hooks.iter().filter(|hook| does_not_apply(hook)).count();
    document.line(format!(
        "{attached} of {} hooks attach{}; {} of {} checks passed",
        report.hooks.len() - others,
        if others > 0 { format!(" ({others} more do not apply to this machine)") } else { String::new() },
        report.checks.iter().filter(|check| !check.status.is_fault()).count(),
        report.checks.len()
    ));
    document.section("Hooks, attached for a moment", Table::of(HOOKS, &report.hooks));
    if !report.libraries.is_empty() {
        document.section("CUDA libraries, attached to for a moment", Table::of(LIBRARIES, &report.libraries));
    }
    document.section("Checks", Table::of(CHECKS, &report.checks));
    let faults: Vec<_> = hook_faults(report).into_iter().chain(check_faults(report)).collect();
    if !faults.is_empty() {
        document.heading("What is missing, what it costs, how to get it");
        for fault in faults {
            document.line(fault);
        }
    }
    document
}

const HOOKS: &[Cell<HookRow>] = &[
    ("HOOK", Fit::Name, |row| row.name.to_owned()),
    ("VERDICT", Fit::Name, |row| row.verdict.to_owned()),
    ("ATTACHED TO", Fit::Text, |row| {
        [row.mechanism, row.target].into_iter().flatten().collect::<Vec<_>>().join(" ")
    }),
    ("RAN", Fit::Number, |row| row.hits.map_or_else(|| UNKNOWN.to_owned(), |hits| hits.to_string())),
];

const LIBRARIES: &[Cell<LibraryFile>] = &[
    ("LIBRARY", Fit::Name, |row| row.library.clone()),
    ("VERDICT", Fit::Name, |row| row.verdict.to_string()),
    ("FUNCTIONS", Fit::Number, |row| row.attached.to_string()),
    ("MISSING", Fit::Number, |row| row.missing.len().to_string()),
    ("PATH", Fit::Text, |row| {
        let simulated = if row.simulated { "SIMULATED " } else { "" };
        let reason = row.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        format!("{simulated}{}{reason}", row.path)
    }),
];

const CHECKS: &[Cell<CheckRow>] = &[
    ("CHECK", Fit::Name, |row| row.name.to_owned()),
    ("STATUS", Fit::Name, |row| row.status.as_str().to_owned()),
    ("FOUND", Fit::Text, |row| row.found.clone()),
];

/// There is nothing here that the hook could see: nothing is missing without it.
fn does_not_apply(hook: &HookRow) -> bool {
    hook.verdict == Verdict::NotApplicable.as_str()
}

fn hook_faults(report: &Report) -> Vec<String> {
    let is_fault = |hook: &&HookRow| hook.verdict != Verdict::Ok.as_str() && !does_not_apply(hook);
    let faulty: Vec<_> = report.hooks.iter().filter(is_fault).collect();
    // One cause, one line: the obstacle above has said it.
    if faulty.len() == report.hooks.len() && faulty.iter().all(|hook| hook.verdict == UNTRIED) {
        return vec!["- all hooks: untried, for the reason at the top".to_owned()];
    }
    let fault = |hook: &&HookRow| {
        let reason = hook.reason.as_deref().unwrap_or("no reason given");
        let fault = sentence(&format!("hook {}: {}: {reason}", hook.name, hook.verdict));
        format!("- {fault} Without it: {}.", hook.without)
    };
    faulty.iter().map(fault).collect()
}

fn check_faults(report: &Report) -> Vec<String> {
    let faulty = report.checks.iter().filter(|check| check.status.is_fault());
    let fault = |check: &CheckRow| {
        let fault = sentence(&format!("{}: {}: {}", check.name, check.status.as_str(), check.found));
        format!("- {fault} Without it: {}. To get it: {}.", check.without, check.remedy)
    };
    faulty.map(fault).collect()
}

/// Ends what others wrote with one full stop.
fn sentence(text: &str) -> String {
    format!("{}.", text.trim_end_matches(['.', '?', ' ']))
}
