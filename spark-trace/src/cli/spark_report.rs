use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use super::error::Exit;
use super::{headings, output};
use crate::spark_report::commands::{self, Pair};
use crate::spark_report::facts;
use crate::spark_report::folder::{self, Folder};
use crate::spark_report::outcome::{self, Facts, OUTCOMES};
use crate::spark_report::page::{self, Part};
use crate::spark_report::plan::{self, Step};
use crate::spark_report::preflight::{self, Lack};
use spark_trace_agent::source::cache::Wanted;
use spark_trace_agent::{bug_report, is_root, snapshot};
use spark_trace_recording::parse;
use spark_trace_recording::redact::{Names, redact};
use spark_trace_recording::secrets;
use spark_trace_recording::write::{self, write_bytes};
use spark_trace_render::{escape, markdown};
use spark_trace_study::cores;
use spark_trace_study::plan::Plan;
use spark_trace_study::run::{self, Event, Options, Outcome, RunError, Signals};

/// Test the claim about the DGX Spark, and make a page to send
///
/// Records your command natively and in a container, twice each, in the order native, container, container, native. Compares
/// the recordings and says which outcome fits, and what that means for the claim that cgroups count unified memory twice. It
/// checks everything before the first run. The same command again goes on where it stopped.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The command on this machine, in one argument, such as './run.sh'. No shell runs it; it runs as root
    #[arg(long, value_name = "COMMAND")]
    native: String,
    /// The same command in a container, in one argument: 'docker run --rm [OPTIONS] IMAGE COMMAND'
    #[arg(long, value_name = "COMMAND")]
    container: String,
    /// Folder of the report: a new one, or that of a report to go on with
    #[arg(help_heading = headings::OUTPUT, short, long, value_name = "DIR", default_value = "spark-report")]
    output: PathBuf,
    /// Keep names of processes, files and images, and both commands, on the page and in the bundles
    #[arg(help_heading = headings::OUTPUT, long)]
    keep_names: bool,
    /// Then make four more runs, and drop the page cache of the whole machine before each: other programs read their files
    /// again. Most outcomes need it
    #[arg(help_heading = headings::BEFORE, long)]
    without_page_cache: bool,
    /// End a run after this time; it has failed then
    #[arg(help_heading = headings::BEFORE, long, value_name = "TIME", default_value = "1h", value_parser = parse::duration)]
    time_limit: Duration,
    /// Check everything and print what would run; run nothing
    #[arg(help_heading = headings::BEFORE, long)]
    check: bool,
}

const EXAMPLES: &str = r#"Examples:
  sudo spark-trace spark-report --check --native ./run.sh \
      --container "docker run --rm --gpus all -v $PWD:/mnt IMAGE /mnt/run.sh"
  sudo spark-trace spark-report --without-page-cache -o my-spark --native ./run.sh \
      --container "docker run --rm --gpus all -v $PWD:/mnt IMAGE /mnt/run.sh"

run.sh starts the engine, sends a few requests and ends it. docs/spark-protocol.md has more,
and how to run the files of the image natively.

DIR/send has what to attach to an issue: page.md, and a snapshot of the machine before and
after. Nothing is sent by itself. The rest of DIR stays with you: recordings have names.

Exit codes:
  0    all runs are made, and the page is written
  1    something is missing or a run failed; the last line says what to do
  2    the folder cannot be used
  64   wrong usage: a command that cannot be used, before anything ran
  130  interrupted; the same command goes on"#;

const INTERRUPTED: u8 = 130;

/// How a step ended.
enum Ended {
    Complete,
    /// Which run, and why.
    Failed(String),
    Interrupted,
}

pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let here = std::env::current_dir().context("there is no working directory")?;
    let pair = commands::read(&args.native, &args.container, &here)
        .map_err(|why| anyhow::anyhow!(why).context(Exit::Usage))?;
    let steps: &[Step] = if args.without_page_cache { &Step::ALL } else { &[Step::AsFound] };
    let plans: Vec<(Step, Plan)> =
        steps.iter().map(|&step| (step, plan::plan(&pair, step, args.time_limit))).collect();
    let folder = Folder::look(&args.output, &plans)?;
    anyhow::ensure!(
        is_root(),
        anyhow::anyhow!("recording the runs needs root, and nothing was run: repeat it with sudo")
            .context(Exit::TraceFailed)
    );
    let spark_trace = std::env::current_exe().context("cannot find the path of this program")?;
    let options: Vec<Options> = plans
        .iter()
        .map(|(step, _)| Options {
            dir: folder.of_step(*step),
            spark_trace: spark_trace.clone(),
            workload: None,
            cores: cores::read(Path::new("/")),
        })
        .collect();
    say("checking the machine");
    let mut found = preflight::look(&pair.container);
    // The steps differ in nothing that is checked.
    if let (Some((_, plan)), Some(options)) = (plans.first(), options.first()) {
        found.obstacles.extend(preflight::of_plan(plan, options));
    }
    for lack in &found.warnings {
        say(&format!("WARNING: {}", lack.sentence()));
    }
    if !found.obstacles.is_empty() {
        found.obstacles.iter().for_each(|obstacle| say(obstacle));
        return Err(anyhow::anyhow!("nothing was run; put that right and repeat the command")
            .context(Exit::TraceFailed));
    }
    if args.check {
        return checked(&plans, &options);
    }
    make(args, &pair, &folder, &plans, &options, &found.warnings)
}

/// What is found between whole lines of the runs.
fn say(text: &str) {
    eprintln!("spark-trace: {}", escape::line(text));
}

fn checked(plans: &[(Step, Plan)], options: &[Options]) -> anyhow::Result<Exit> {
    let mut text = String::new();
    for ((step, plan), options) in plans.iter().zip(options) {
        text.push_str(step.title());
        text.push('\n');
        for (slot, line) in run::dry_run(plan, options)? {
            let words: Vec<_> = line.iter().map(|word| output::quoted(word)).collect();
            text.push_str(&format!("  {:10} {}\n", slot.environment, escape::line(&words.join(" "))));
        }
    }
    text.push_str("Everything is there; nothing was run.\n");
    output::print(text.as_bytes())
}

fn make(
    args: &Args,
    pair: &Pair,
    folder: &Folder,
    plans: &[(Step, Plan)],
    options: &[Options],
    lacks: &[Lack],
) -> anyhow::Result<Exit> {
    let signals = Signals::catch().context("cannot catch signals").context(Exit::TraceFailed)?;
    folder.make()?;
    // A report that goes on has it from its beginning.
    if !folder.path().join(folder::BEFORE).exists() {
        take_snapshot(folder, folder::BEFORE)?;
    }
    let mut ended = Ended::Complete;
    let mut runs = 0;
    for ((step, plan), options) in plans.iter().zip(options) {
        // A program of the step before may have written here.
        if !folder.begun_with(*step, plan)? {
            run::create(&options.dir, plan, &options.spark_trace).context(Exit::TraceFailed)?;
        }
        ended = go_on(*step, options, &signals, &mut runs)?;
        if !matches!(ended, Ended::Complete) {
            break;
        }
    }
    let folder_name = folder.path().display();
    if matches!(ended, Ended::Interrupted) {
        eprintln!();
        say(&format!("interrupted; what was recorded is in {folder_name}; the same command goes on with it"));
        return Ok(Exit::Child(INTERRUPTED));
    }
    // One that was complete already only gets its page anew.
    if runs > 0 || !folder.path().join(folder::AFTER).exists() {
        take_snapshot(folder, folder::AFTER)?;
    }
    // Anew each time: whether names are kept is chosen anew, too.
    bundle(folder, args, [folder::BEFORE, folder::BUNDLE_BEFORE])?;
    bundle(folder, args, [folder::AFTER, folder::BUNDLE_AFTER])?;
    write_page(args, pair, folder, lacks)?;
    match ended {
        Ended::Failed(why) => Err(anyhow::anyhow!(
            "{why}; what was recorded is in {folder_name}; put that right, and the same command goes on with it"
        )
        .context(Exit::TraceFailed)),
        _ => Ok(Exit::Fine),
    }
}

/// Makes the runs that are left of a step, and counts them.
fn go_on(step: Step, options: &Options, signals: &Signals, runs: &mut u32) -> anyhow::Result<Ended> {
    let mut failed = None;
    let mut stopped = Ok(());
    let mut report = |event: Event<'_>| match event {
        Event::Command(_) => {}
        Event::Note(text) => say(&text),
        Event::Begin { slot, attempt, total } => {
            let again = if attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
            *runs += 1;
            eprint!("[{}/{total}] {}: {}{again} ... ", slot.number, step.title(), slot.environment);
        }
        Event::End { run, took, .. } => match &run.failure {
            None => eprintln!("{:.1} s", took.as_secs_f64()),
            Some(why) => {
                let why = escape::line(why).to_string();
                eprintln!("FAILED: {why}");
                let log = options.dir.join(step_log(run));
                failed = Some(format!(
                    "the {} run failed: {why}; its output is in {}",
                    run.environment,
                    log.display()
                ));
                // The others could be compared with nothing.
                stopped = run::request_stop(&options.dir);
            }
        },
    };
    let outcome = run::run(options, signals, &mut report);
    stopped.context(Exit::TraceFailed)?;
    match outcome {
        Ok(Outcome::Complete) => Ok(Ended::Complete),
        Ok(Outcome::Stopped) => {
            Ok(Ended::Failed(failed.unwrap_or_else(|| "the runs were stopped".to_owned())))
        }
        Err(RunError::Interrupted) => Ok(Ended::Interrupted),
        Err(error) => {
            eprintln!();
            Err(error).context(Exit::TraceFailed)
        }
    }
}

/// Where a run's output is, below the step's folder.
fn step_log(run: &spark_trace_study::results::Run) -> String {
    let slot = spark_trace_study::schedule::Slot {
        number: run.number,
        environment: run.environment.clone(),
        model: run.model.clone(),
        iteration: run.iteration,
        warmup: run.warmup,
        round: run.round,
    };
    format!("{}/{}", slot.folder(run.attempt), spark_trace_study::files::LOG)
}

/// Writes the machine as it is now.
fn take_snapshot(folder: &Folder, name: &str) -> anyhow::Result<()> {
    say("reading the machine's memory");
    let wanted = Wanted { directories: vec![], most: 200, time: Duration::from_secs(1) };
    let options = snapshot::Options { files: wanted, min_region: 1 << 20, nvml: None };
    let recording = snapshot::take(&options).context(Exit::TraceFailed)?;
    write::write(&recording, &folder.path().join(name), replace())?;
    Ok(())
}

/// Writes a bundle of a snapshot, to send.
fn bundle(folder: &Folder, args: &Args, [name, bundle]: [&str; 2]) -> anyhow::Result<()> {
    let recording = spark_trace_recording::read(&folder.path().join(name))?;
    let sent =
        if args.keep_names { recording } else { redact(&recording).context("cannot replace the names")? };
    let contents = bug_report::contents(&sent, !args.keep_names).context(Exit::TraceFailed)?;
    write_bytes(&contents, &folder.path().join(folder::SEND).join(bundle), replace())?;
    Ok(())
}

fn replace() -> spark_trace_recording::WriteOptions {
    spark_trace_recording::WriteOptions { force: true, ..folder::write_options() }
}

/// Compares what is there, and writes the page.
fn write_page(args: &Args, pair: &Pair, folder: &Folder, lacks: &[Lack]) -> anyhow::Result<()> {
    // One name has one stand-in on the whole page.
    let names = (!args.keep_names).then(Names::new);
    let (mut facts, mut parts) = (Facts::default(), vec![]);
    for step in Step::ALL {
        let Some(begun) = folder.begun(step)? else { continue };
        let made = facts::made(&begun.dir, &begun.state);
        if made.is_some() {
            say(&format!("comparing the recordings: {}", step.title()));
        }
        let compared = made.as_ref().map(|made| page::compared(made, names.as_ref())).transpose()?.flatten();
        let found = made.as_ref().map(facts::of_step).transpose()?;
        match step {
            Step::AsFound => facts.as_found = found,
            Step::Dropped => facts.dropped = found,
        }
        parts.push(Part { step, state: begun.state, compared });
    }
    if facts.as_found.is_none() && facts.dropped.is_none() {
        // Nothing is there to be compared: why was said.
        return Ok(());
    }
    let shown = |line: &[String]| {
        let mut line = line.to_vec();
        secrets::hide(&mut line);
        line.iter().map(|word| output::quoted(word)).collect::<Vec<_>>().join(" ")
    };
    let lines = [shown(&pair.native), shown(&pair.container.line)];
    let commands = args.keep_names.then_some([lines[0].as_str(), lines[1].as_str()]);
    let document = page::document(&facts, parts, lacks, commands);
    let path = folder.path().join(folder::SEND).join(folder::PAGE);
    let replace = spark_trace_recording::WriteOptions { force: true, ..folder::write_options() };
    write_bytes(markdown::render(&document).as_bytes(), &path, replace)?;
    conclude(args, &facts, &path);
    Ok(())
}

fn conclude(args: &Args, facts: &Facts, page: &Path) {
    let (fits, answer) = outcome::judge(facts);
    match answer.and_then(|place| Some((place + 1, OUTCOMES.get(place)?, fits.get(place)?))) {
        Some((number, outcome, fit)) => {
            say(&format!("outcome {number}: {} ({})", outcome.sees, fit.why()));
            say(outcome.means);
            if let Some(reservation) = outcome::reservation(&fits, number - 1) {
                say(&reservation);
            }
        }
        None if facts.as_found.is_some() && facts.dropped.is_none() && !args.without_page_cache => {
            say(
                "no outcome is sure without runs whose page cache was dropped: repeat the command with --without-page-cache",
            );
        }
        None => say("no outcome is sure: the page has what each would take"),
    }
    say(&format!("wrote {}; read it, then attach what is beside it to an issue", page.display()));
}
