use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context;

use super::check;
use super::shared::{needs_workload, options, time};
use crate::cli::error::Exit;
use crate::cli::{headings, output};
use spark_trace_agent as live;
use spark_trace_render::escape;
use spark_trace_study::plan::Plan;
use spark_trace_study::run::{self, Event, Options, Outcome, Signals};
use spark_trace_study::schedule::schedule;
use spark_trace_study::{JOURNAL, StudyError, read_journal};

/// Run a plan
///
/// Runs one recording at a time. After Ctrl-C, a crash or a reboot use `study resume`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The plan; `study init` writes one
    plan: PathBuf,
    /// Folder of the study, to be created [default: the plan's name]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print the order, all commands and what `study check` finds; run nothing
    #[arg(help_heading = headings::BEFORE, long)]
    dry_run: bool,
    /// Run although `study check` finds something fatal
    #[arg(help_heading = headings::BEFORE, long)]
    no_check: bool,
    /// The reference workload, for `{workload}` [default: beside this program, or in PATH]
    #[arg(long, value_name = "PATH")]
    workload: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  spark-trace study run study.toml --dry-run
  sudo spark-trace study run study.toml --dir my-study

Exit codes: 0 complete or stopped, 1 failed, 2 wrong plan, 130 interrupted.";

/// Continue a study that was stopped or interrupted
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  sudo spark-trace study resume my-study")]
pub struct ResumeArgs {
    /// Folder of the study
    dir: PathBuf,
    /// Go on although `study check` finds something fatal
    #[arg(long)]
    no_check: bool,
    /// The reference workload, for `{workload}` [default: beside this program, or in PATH]
    #[arg(long, value_name = "PATH")]
    workload: Option<PathBuf>,
}

/// Read the figures of all runs again from their recordings and logs
///
/// Use it after an update of spark-trace. The journal keeps the earlier figures.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  sudo spark-trace study reread my-study")]
pub struct RereadArgs {
    /// Folder of the study
    dir: PathBuf,
}

const INTERRUPTED: u8 = 130;

pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let text = std::fs::read_to_string(&args.plan).map_err(StudyError::io(&args.plan))?;
    let plan = Plan::parse(&text).map_err(|source| StudyError::Plan { path: args.plan.clone(), source })?;
    let dir = args.dir.clone().unwrap_or_else(|| plan.name.clone().into());
    let options = options(&dir, args.workload.as_deref(), needs_workload(&text))?;
    if args.dry_run {
        return dry_run(&plan, &options);
    }
    needs_root()?;
    if !args.no_check && !check::passes(&check::look(&plan, &options, &schedule(&plan), &[])) {
        return Ok(Exit::TraceFailed);
    }
    run::create(&options.dir, &plan, &options.spark_trace).context(Exit::TraceFailed)?;
    go_on(&options)
}

pub fn resume(args: &ResumeArgs) -> anyhow::Result<Exit> {
    let journal = args.dir.join(JOURNAL);
    if !journal.is_file() {
        return Err(StudyError::NoStudy { dir: args.dir.clone() }.into());
    }
    let state = read_journal(&journal)?;
    let plan = serde_json::to_string(&state.plan)?;
    let options = options(&args.dir, args.workload.as_deref(), needs_workload(&plan))?;
    needs_root()?;
    if !args.no_check && !check::passes(&check::left(&state, &options)) {
        return Ok(Exit::TraceFailed);
    }
    go_on(&options)
}

pub fn reread(args: &RereadArgs) -> anyhow::Result<Exit> {
    let options = options(&args.dir, None, false)?;
    let signals = Signals::catch().context("cannot catch signals").context(Exit::TraceFailed)?;
    let read = run::reread(&options, &signals)?;
    eprintln!("spark-trace: read {read} runs again");
    Ok(Exit::Fine)
}

fn needs_root() -> anyhow::Result<()> {
    anyhow::ensure!(live::is_root(), "recording the runs needs root: use sudo");
    Ok(())
}

fn dry_run(plan: &Plan, options: &Options) -> anyhow::Result<Exit> {
    let lines = run::dry_run(plan, options)?;
    let mut text = String::new();
    writeln!(text, "{}: {} runs in {}", plan.name, lines.len(), options.dir.display())?;
    for (slot, line) in lines {
        let kind = if slot.warmup { " (warm-up)" } else { "" };
        let (environment, model) = (slot.environment, slot.model);
        writeln!(
            text,
            "{:4}  {environment:16} {model:20} {:3}{kind}  {}",
            slot.number,
            slot.iteration,
            shown(&line)
        )?;
    }
    text.push_str(&check::text(
        &check::look(plan, options, &schedule(plan), &[]),
        output::style(output::WidthArg::default()),
    ));
    output::print(text.as_bytes())
}

/// A command line to be read and repeated.
fn shown(line: &[String]) -> String {
    let words: Vec<_> = line.iter().map(|word| output::quoted(word)).collect();
    escape::line(&words.join(" ")).to_string()
}

fn go_on(options: &Options) -> anyhow::Result<Exit> {
    let signals = Signals::catch().context("cannot catch signals").context(Exit::TraceFailed)?;
    // Whether a run has begun its line and not ended it.
    let mut begun = false;
    let mut report = |event: Event<'_>| match event {
        Event::Command(line) => eprintln!("$ {}", shown(line)),
        Event::Note(text) => {
            let end = if std::mem::take(&mut begun) { "\n" } else { "" };
            eprintln!("{end}{}", escape::line(&text));
        }
        Event::Begin { slot, attempt, total } => {
            let again = if attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
            let kind = if slot.warmup { "warm-up" } else { "run" };
            begun = true;
            eprint!(
                "[{}/{total}] {} of {}, {kind} {}{again} ... ",
                slot.number, slot.environment, slot.model, slot.iteration
            );
        }
        Event::End { run, took, left } => {
            let left = left.map_or_else(String::new, |left| format!("; about {} left", time(left)));
            begun = false;
            match &run.failure {
                None => eprintln!("{}{left}", time(took)),
                Some(why) => eprintln!("FAILED: {}{left}", escape::line(why)),
            }
        }
    };
    match run::run(options, &signals, &mut report) {
        Ok(Outcome::Complete) => {
            let dir = options.dir.display();
            eprintln!("complete; next: spark-trace study report {dir} -o {dir}/site");
            Ok(Exit::Fine)
        }
        Ok(Outcome::Stopped) => {
            eprintln!("stopped; `spark-trace study resume {}` goes on", options.dir.display());
            Ok(Exit::Fine)
        }
        Err(run::RunError::Interrupted) => {
            eprintln!("\ninterrupted; `spark-trace study resume {}` goes on", options.dir.display());
            Ok(Exit::Child(INTERRUPTED))
        }
        Err(error) => {
            eprintln!();
            Err(error).context(Exit::TraceFailed)
        }
    }
}
