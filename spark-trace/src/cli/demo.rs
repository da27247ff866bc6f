use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::ValueEnum;
use serde::Serialize;

use super::headings;
use super::{error::Exit, output};
use crate::demo::{self, DemoError, Event, Options, Outcome, Place, explain};
use spark_trace_agent::subject::command::Invoker;
use spark_trace_analysis::{
    attribution, diff,
    instant_spec::InstantSpec,
    sort::{Arrange, Sort},
    view::Scope,
};
use spark_trace_host::output_file::{WriteOptions, make_directories};
use spark_trace_recording as recording;
use spark_trace_render::{FORMATS, Format, escape, json, show::Shown};

/// Record a known workload twice and explain the difference
///
/// Records a workload natively and in a container, shows both recordings and compares them.
/// Each command line is printed before it runs. Takes about ten seconds.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Where the recordings go [default: ./spark-trace-demo, with the time in its name if that exists]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// The static reference workload [default: $SPARK_TRACE_WORKLOAD, else spark-trace-workload beside this
    /// program or in PATH]
    #[arg(help_heading = headings::CONTENT, long, value_name = "PATH")]
    workload: Option<PathBuf>,

    /// The workload that loads a CUDA driver, for a run of inference [default: $SPARK_TRACE_CUDA_WORKLOAD].
    /// Without a GPU it uses the simulated driver in its directory
    #[arg(help_heading = headings::CONTENT, long, value_name = "PATH")]
    cuda_workload: Option<PathBuf>,

    /// Where the second run takes place [default: the first that works]
    #[arg(help_heading = headings::CONTENT, long, value_enum, value_name = "PLACE")]
    place: Option<PlaceArg>,

    /// Replace the files of an earlier demo in DIR
    #[arg(long)]
    force: bool,

    /// Keep the image and the files of the runs, to repeat the commands by hand
    #[arg(long)]
    keep: bool,

    /// Output format
    #[arg(help_heading = headings::OUTPUT, long, value_enum, default_value = "text")]
    format: FormatArg,

    #[command(flatten)]
    width: output::WidthArg,
}

const EXAMPLES: &str = "\
Examples:
  sudo spark-trace demo
  sudo spark-trace demo --dir /var/tmp/demo --force
  sudo spark-trace demo --place sandbox     # no container engine needed
  sudo spark-trace demo --format json | jq .diff.sources

Without a container engine the second run takes place in a sandbox (own namespaces and
root directory) and is labelled as one. DIR should be on a disk: in a tmpfs, files are
shared memory, not page cache.";

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PlaceArg {
    Docker,
    Podman,
    /// Own namespaces and root directory, without an engine
    Sandbox,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatArg {
    /// Each step with its output and an explanation
    Text,
    /// Paths of the recordings and their difference, for programs; the steps go to standard error
    Json,
}

/// The demo's result for programs.
#[derive(Serialize)]
struct Result {
    schema: &'static str,
    schema_version: u32,
    native: PathBuf,
    /// The second recording, be it of a container or of a sandbox.
    container: PathBuf,
    container_kind: &'static str,
    /// The recording of inference, where one was made, and which driver it used: `system` or `simulated`.
    inference: Option<PathBuf>,
    inference_driver: Option<&'static str>,
    diff: diff::Report,
}

/// Recordings, then show, then diff; with inference its recording and what it shows.
const STEPS: u32 = 4;
const STEPS_OF_INFERENCE: u32 = 2;

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let spark_trace =
        std::env::current_exe().context("cannot find this program").context(Exit::TraceFailed)?;
    if !spark_trace_agent::is_root() {
        return Err(DemoError::NotRoot(spark_trace.display().to_string())).context(Exit::TraceFailed);
    }
    let workload = demo::find_workload(args.workload, &spark_trace).context(Exit::TraceFailed)?;
    let inference = demo::inference::find(args.cuda_workload).context(Exit::TraceFailed)?;
    let simulated = inference.as_ref().map(|inference| inference.simulated.is_some());
    let options = Options {
        inference,
        dir: directory(args.dir).context(Exit::TraceFailed)?,
        workload,
        spark_trace,
        place: args.place.map(Into::into),
        force: args.force,
        keep: args.keep,
        owner: Invoker::from_environment().map(|invoker| (invoker.uid, invoker.gid)),
    };
    let steps = STEPS + simulated.map_or(0, |_| STEPS_OF_INFERENCE);
    let mut reporter = Reporter { quiet: args.format == FormatArg::Json, step: 0, steps };
    match simulated {
        None => reporter.say("No workload for CUDA is known (--cuda-workload): no inference is part of the demo."),
        Some(true) => reporter.say(&wrapped(
            "No GPU here: inference uses a simulated CUDA driver on host memory. What it shows is simulated, not measured.",
        )),
        Some(false) => {}
    }
    let outcome = demo::run(&options, &mut |event| reporter.report(&event))
        // Goes only where nothing is in it.
        .inspect_err(|_| drop(std::fs::remove_dir(&options.dir)))
        .context(Exit::TraceFailed)?;
    let (native, second) = (recording::read(&outcome.native)?, recording::read(&outcome.container)?);
    let comparison = diff::report(&native, &second, Some(Scope::Cgroup), InstantSpec::Peak)?;
    if args.format == FormatArg::Json {
        return output::print(&json::render(&Result {
            schema: "spark-trace/demo",
            schema_version: 1,
            native: outcome.native,
            container: outcome.container,
            container_kind: outcome.place.as_str(),
            inference: outcome.inference,
            inference_driver: simulated.map(|simulated| if simulated { "simulated" } else { "system" }),
            diff: comparison,
        })?);
    }
    let own = options.spark_trace.display();
    reporter.step("memory charged to each run");
    for (path, recording) in [(&outcome.native, &native), (&outcome.container, &second)] {
        reporter.say(&format!("$ {own} show {} --top 3   # only the cgroup's part here", path.display()));
        output::print(&(table().show)(&highlights(recording), &Shown::ALL, output::style(args.width))?)?;
        reporter.say("");
    }
    reporter.step(&format!("the {} run minus the native run", outcome.place.noun()));
    reporter.say(&format!(
        "$ {own} diff {} {} --top 3",
        outcome.native.display(),
        outcome.container.display()
    ));
    let mut shown = comparison.clone();
    shown.keep(3);
    output::print(&(table().diff)(
        &shown,
        spark_trace_render::diff::Shown::default(),
        output::style(args.width),
    )?)?;
    for paragraph in explain::paragraphs(&comparison, outcome.place) {
        reporter.say("");
        reporter.say(&wrapped(&paragraph));
    }
    if let Some(path) = &outcome.inference {
        reporter.step("the memory queries of the inference, and its allocations");
        reporter.say(&format!("$ {own} show {} --top 5   # only CUDA's part here", path.display()));
        let recording = recording::read(path)?;
        output::print(&(table().show)(&cuda_part(&recording), &Shown::ALL, output::style(args.width))?)?;
        for paragraph in demo::inference::paragraphs(&recording) {
            reporter.say("");
            reporter.say(&wrapped(&paragraph));
        }
    }
    conclude(&reporter, &outcome);
    Ok(Exit::Fine)
}

/// Where the numbers come from.
fn conclude(reporter: &Reporter, outcome: &Outcome) {
    let recordings = [Some(&outcome.native), Some(&outcome.container), outcome.inference.as_ref()];
    let heads = std::iter::once("Recordings:").chain(std::iter::repeat("           "));
    reporter.say("");
    for (head, path) in heads.zip(recordings.into_iter().flatten()) {
        reporter.say(&format!("{head} {}", path.display()));
    }
}

/// Allocations through the CUDA driver, and memory queries.
fn cuda_part(recording: &recording::Recording) -> attribution::Report {
    let mut report = attribution::report(recording, InstantSpec::Peak);
    (report.planes.system, report.planes.cgroup) = (None, None);
    report.planes.devices.clear();
    if let Some(queries) = &mut report.queries {
        queries.folded.retain(|row| row.interface.starts_with("cu"));
    }
    report.keep(5);
    report.files.clear();
    report.processes.clear();
    report.stacks.clear();
    report.mappings.clear();
    report.regions.clear();
    report
}

/// The cgroup plane with its largest files and processes.
fn highlights(recording: &recording::Recording) -> attribution::Report {
    let mut report = attribution::report(recording, InstantSpec::Peak);
    report.planes.system = None;
    report.sort(Sort::Source);
    report.keep(3);
    report.files.retain(|file| file.charged_to_target);
    report.stacks.clear();
    report.mappings.clear();
    report.regions.clear();
    report
}

fn table() -> &'static Format {
    &FORMATS[0]
}

/// The directory, made if it is missing; absolute, as engines want it.
fn directory(wanted: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    const DEFAULT: &str = "spark-trace-demo";
    let dir = wanted.unwrap_or_else(|| {
        let taken = Path::new(DEFAULT).symlink_metadata().is_ok();
        if taken {
            format!("{DEFAULT}-{}", spark_trace_recording::parse::utc_now())
        } else {
            DEFAULT.to_owned()
        }
        .into()
    });
    let options = WriteOptions { force: false, owner: spark_trace_host::invoker::owner() };
    make_directories(&dir, options)
        .and_then(|()| dir.canonicalize())
        .with_context(|| format!("cannot make {}", dir.display()))
}

impl From<PlaceArg> for Place {
    fn from(arg: PlaceArg) -> Self {
        match arg {
            PlaceArg::Docker => Self::Docker,
            PlaceArg::Podman => Self::Podman,
            PlaceArg::Sandbox => Self::Sandbox,
        }
    }
}

/// Says what happens: on standard output, or on standard error where that is for programs.
struct Reporter {
    quiet: bool,
    step: u32,
    steps: u32,
}

impl Reporter {
    fn report(&mut self, event: &Event<'_>) {
        match event {
            Event::Step(what) => self.step(what),
            Event::Command { argv, redirection } => {
                let words: Vec<_> = argv.iter().map(|word| output::quoted(word)).collect();
                self.say(&format!("$ {} {redirection}", words.join(" ")));
            }
            Event::Note(text) => self.say(&wrapped(text)),
        }
    }

    fn step(&mut self, what: &str) {
        self.step += 1;
        self.say(&format!("\n{}/{} {what}", self.step, self.steps));
    }

    /// Names in it come from outside: each line is made inert.
    fn say(&self, text: &str) {
        for line in text.split('\n') {
            let line = escape::line(line);
            // A reader that has gone is no reason to leave the recordings half done.
            let _ = if self.quiet {
                writeln!(std::io::stderr(), "{line}")
            } else {
                writeln!(std::io::stdout(), "{line}")
            };
        }
    }
}

/// Broken between words for 80 columns.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let full = lines.last().is_some_and(|line| !line.is_empty() && line.len() + 1 + word.len() > 80);
        if full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_fit() {
        let text = wrapped(&"word ".repeat(100));
        assert!(text.lines().all(|line| line.len() <= 80) && text.lines().count() > 5);
    }
}
