//! Running a study: one recording after the other, nothing beside them, and a line in the journal for each.

mod application;
mod between;
mod child;
mod dataset;
mod facts;
pub mod gates;
mod image;
mod machine;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use thiserror::Error;

use super::command::{self, RunPaths, Values};
use super::cores::CoreType;
use super::figures::Yield;
use super::files::{self, Files, LOG, MESSAGES, RECORDING};
use super::journal::{Entry, JOURNAL_SCHEMA, JOURNAL_VERSION, Next, State};
use super::plan::{Environment, Model, Plan};
use super::results::{APPLICATION, Run};
use super::schedule::{self, Slot};
use super::ulimit;
use super::{JOURNAL, StudyError, figures, read_journal};
use spark_trace_analysis::belongs::Mismatch;
use spark_trace_host::invoker;
use spark_trace_host::output_file::{self, PUBLIC, Place, WriteError, WriteOptions};

pub use child::Signals;
pub(crate) use machine::free_space;

/// Has the runner end after the run under way.
pub const STOP: &str = "stop";
/// Lines of a log that a failed run keeps.
const TAIL: usize = 20;

#[derive(Debug, Error)]
pub enum RunError {
    #[error(transparent)]
    Study(#[from] StudyError),
    #[error("{}: cannot be used", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("{}: there is a study in it; `spark-trace study resume` goes on with it", dir.display())]
    Exists { dir: PathBuf },
    #[error("{}: another runner is at work on it", dir.display())]
    Locked { dir: PathBuf },
    #[error("{0}")]
    Command(String),
    #[error("cannot run {program}")]
    Start { program: String, source: io::Error },
    #[error("the plan's `ulimits` cannot be set: a hard limit is raised with CAP_SYS_RESOURCE alone")]
    Limits { source: io::Error },
    #[error("{program} failed ({status}){}", if said.is_empty() { String::new() } else { format!(": {said}") })]
    Failed { program: String, status: ExitStatus, said: String },
    #[error("the gate {gate} stayed closed for {} s: {reason}", waited.as_secs())]
    Gate { gate: &'static str, reason: String, waited: Duration },
    #[error("{}: {free} MiB are free, the plan needs {wanted} MiB", dir.display())]
    DiskSpace { dir: PathBuf, free: u64, wanted: u64 },
    #[error("process {pid} is left of the run that was cut off and does not end; end it, then resume")]
    Leftover { pid: u32 },
    #[error("{}: {foreign}", recording.display())]
    Foreign { recording: PathBuf, foreign: Mismatch },
    #[error("interrupted; `spark-trace study resume` goes on")]
    Interrupted,
}

#[derive(Debug)]
pub struct Options {
    /// The study's folder, absolute.
    pub dir: PathBuf,
    /// This program.
    pub spark_trace: PathBuf,
    /// The reference workload, where one is found.
    pub workload: Option<PathBuf>,
    /// The machine's types of cores, the fastest first; or why they are unknown.
    pub cores: Result<Vec<CoreType>, String>,
}

impl Options {
    pub(crate) fn values(
        &self,
        plan: &Plan,
        environment: &Environment,
        model: &Model,
        iteration: u32,
        run: &Path,
    ) -> Values {
        // A plan that needs the workload is not run without it.
        let workload = self.workload.as_ref().map(|path| path.display().to_string());
        let spark_trace = self.spark_trace.display().to_string();
        let fast_cpus = self.cores.as_ref().ok().and_then(|types| types.first()).map(CoreType::list);
        let places = RunPaths {
            study: &self.dir,
            run,
            workload: workload.as_deref().unwrap_or_default(),
            spark_trace: &spark_trace,
            fast_cpus: fast_cpus.as_deref(),
        };
        Values::of(plan, environment, model, iteration, &places)
    }
}

/// What happens meanwhile.
#[derive(Debug)]
pub enum Event<'a> {
    /// A command of the plan that prepares.
    Command(&'a [String]),
    Note(String),
    Begin {
        slot: &'a Slot,
        attempt: u32,
        total: usize,
    },
    End {
        run: &'a Run,
        took: Duration,
        left: Option<Duration>,
    },
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Complete,
    Stopped,
}

/// Writes the journal of a new study.
pub fn create(dir: &Path, plan: &Plan, spark_trace: &Path) -> Result<(), RunError> {
    let journal = dir.join(JOURNAL);
    let options = WriteOptions { force: false, owner: invoker::owner() };
    output_file::make_directories(dir, options).map_err(StudyError::io(dir))?;
    let entry = Entry::Study {
        schema: JOURNAL_SCHEMA.to_owned(),
        schema_version: JOURNAL_VERSION,
        plan: Box::new(plan.clone()),
        slots: schedule::schedule(plan),
        machine: machine::describe(plan, spark_trace),
    };
    // It takes its name with its first line in it: whoever looks sees a journal or none.
    let place = Place::new(&journal)?;
    match place.write(options, PUBLIC, |file| append(file, &entry)) {
        Err(WriteError::Exists { .. }) => Err(RunError::Exists { dir: dir.to_owned() }),
        written => Ok(written?),
    }
}

/// Runs what is left of the study.
pub fn run(
    options: &Options,
    signals: &Signals,
    report: &mut dyn FnMut(Event<'_>),
) -> Result<Outcome, RunError> {
    let mut runner = Runner::open(options, signals)?;
    let stop = options.dir.join(STOP);
    match fs::remove_file(&stop) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(RunError::Io { path: stop, source: error });
        }
        _ => {}
    }
    let mut again = runner.resumed(report)?;
    runner.prepare(report)?;
    let mut last = runner.last_end();
    let mut times = vec![];
    loop {
        if signals.interrupted() {
            return Err(RunError::Interrupted);
        }
        if stop.exists() {
            return Ok(Outcome::Stopped);
        }
        runner.give_up(report)?;
        runner.end_at_look(report)?;
        let (slot, attempt) = match again.pop() {
            Some(warm_up) => warm_up,
            None => match runner.state.next() {
                Some(Next { slot, attempt }) => (slot.clone(), attempt),
                None => return Ok(Outcome::Complete),
            },
        };
        runner.disk_space()?;
        let total = runner.state.slots.len();
        report(Event::Begin { slot: &slot, attempt, total });
        let began = Instant::now();
        if !runner.gates(&slot, last, &stop, report)? {
            continue;
        }
        let run = runner.one(&slot, attempt)?;
        times.push(began.elapsed());
        last = Some(Instant::now());
        let left = u32::try_from(runner.state.left().count()).unwrap_or(u32::MAX);
        let mean = times.iter().sum::<Duration>() / u32::try_from(times.len()).unwrap_or(1);
        report(Event::End { run: &run, took: began.elapsed(), left: Some(mean.saturating_mul(left)) });
    }
}

struct Runner<'a> {
    options: &'a Options,
    signals: &'a Signals,
    state: State,
    /// Locked as long as this runner lives.
    journal: File,
}

impl<'a> Runner<'a> {
    fn open(options: &'a Options, signals: &'a Signals) -> Result<Self, RunError> {
        let path = options.dir.join(JOURNAL);
        let journal = OpenOptions::new()
            .read(true)
            .append(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path)
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => StudyError::NoStudy { dir: options.dir.clone() },
                _ => StudyError::Io { path: path.clone(), source },
            })?;
        match journal.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(RunError::Locked { dir: options.dir.clone() }),
            Err(TryLockError::Error(source)) => return Err(RunError::Io { path, source }),
        }
        let mut state = read_journal(&path)?;
        let io = |source| RunError::Io { path: path.clone(), source };
        // A line that a crash has cut off says nothing; the next one must not be joined to it.
        journal.set_len(state.whole as u64).map_err(io)?;
        if let Some((number, attempt)) = state.open {
            child::wait_for_leftovers(&options.dir.join(format!("runs/{number:04}-{attempt}-")), signals)?;
            let entry = Entry::Lost { number, attempt, at_s: now() };
            append(&journal, &entry).map_err(io)?;
            state = read_journal(&path)?;
        }
        Ok(Self { options, signals, state, journal })
    }

    /// What the plan wants before the first run.
    fn prepare(&self, report: &mut dyn FnMut(Event<'_>)) -> Result<(), RunError> {
        let plan = &self.state.plan;
        let (Some(environment), Some(model)) = (plan.environments.first(), plan.models.first()) else {
            return Ok(());
        };
        let values = self.values(environment, model, 0, &self.options.dir);
        // A study that goes on has what it needs, or would not have come so far.
        let prepare = plan.workload.prepare.iter().filter(|_| self.state.runs.is_empty());
        for command in prepare {
            let command = fill(&values, command)?;
            report(Event::Command(&command));
            child::quiet(&command)?;
        }
        for environment in &plan.environments {
            let values = self.values(environment, model, 0, &self.options.dir);
            image::make(environment, &values, report)?;
        }
        self.dataset(report)
    }

    fn values(&self, environment: &Environment, model: &Model, iteration: u32, run: &Path) -> Values {
        self.options.values(&self.state.plan, environment, model, iteration, run)
    }

    fn disk_space(&self) -> Result<(), RunError> {
        let Some(wanted) = self.state.plan.disk_space else { return Ok(()) };
        let dir = self.options.dir.clone();
        let free = free_space(&dir).map_err(|source| RunError::Io { path: dir.clone(), source })?;
        if free < wanted {
            return Err(RunError::DiskSpace { dir, free: free >> 20, wanted: wanted >> 20 });
        }
        Ok(())
    }

    /// One run, from its line in the journal to the other.
    fn one(&mut self, slot: &Slot, attempt: u32) -> Result<Run, RunError> {
        let plan = &self.state.plan;
        // A slot is made of the plan it lies beside.
        let missing = || RunError::Command(format!("the plan has no {} or {}", slot.environment, slot.model));
        let environment = plan.environment(&slot.environment).ok_or_else(missing)?;
        let model = plan.model(&slot.model).ok_or_else(missing)?;
        let name = slot.folder(attempt);
        let dir = self.options.dir.join(&name);
        let made = WriteOptions { force: false, owner: invoker::owner() };
        output_file::make_directories(&dir, made)
            .map_err(|source| RunError::Io { path: dir.clone(), source })?;
        let values = self.values(environment, model, slot.iteration, &dir);
        for command in &plan.workload.before {
            child::quiet(&fill(&values, command)?)?;
        }
        let command = command::line(plan, environment, &values).map_err(RunError::Command)?;
        let record = fill(&values, &plan.workload.record)?;
        let (timeout, metrics, results) =
            (plan.timeout_of(model), plan.metrics.clone(), plan.workload.results.clone());
        let limits = ulimit::of(&environment.ulimits).map_err(RunError::Command)?;
        let mut run = self.state.run(slot, attempt);
        run.state = machine::state();
        run.started_s = Some(now());
        self.append(&Entry::Begin { number: slot.number, attempt, at_s: now() })?;

        let line = self.recording(&dir, &record, &command);
        let ended = child::record(&line, &dir.join(MESSAGES), timeout, &limits, self.signals)?;
        run.ended_s = Some(now());
        let files = files::read(&dir, &results);
        let found = figures::of(files.recording.as_ref().ok(), &files.log, &files.results, &metrics);
        run.failure = failure(ended, &files, &found);
        run.recording = files.recording.is_ok().then(|| format!("{name}/{RECORDING}"));
        let reported = [
            ("benchmark", found.benchmarks.join(", ")),
            ("notes", found.notes.join("\n")),
            (APPLICATION, found.application.unwrap_or_default()),
        ];
        let reported = reported.into_iter().filter(|(_, text)| !text.is_empty());
        run.facts.extend(reported.map(|(name, text)| (name.to_owned(), text)));
        (run.metrics, run.sources, run.kv_sources) = (found.metrics, found.sources, found.kv_sources);
        if let Some(temperature) = gates::temperature() {
            run.metrics.insert("end-temperature".to_owned(), f64::from(temperature));
        }
        if run.failure.is_some() {
            let messages = fs::read_to_string(dir.join(MESSAGES)).unwrap_or_default();
            run.facts.insert("log".to_owned(), tail(&files.log));
            run.facts.insert("messages".to_owned(), tail(&messages));
        }
        self.append(&Entry::End { run: Box::new(run.clone()) })?;
        self.state.runs.push(run.clone());
        Ok(run)
    }

    /// The command line of `spark-trace record`.
    fn recording(&self, dir: &Path, options: &[String], command: &[String]) -> Vec<String> {
        let text = |path: &Path| path.display().to_string();
        let mut line = vec![text(&self.options.spark_trace), "record".to_owned(), "--as-root".to_owned()];
        line.extend(["--force".to_owned(), "-o".to_owned(), text(&dir.join(RECORDING))]);
        line.extend(["--log-file".to_owned(), text(&dir.join(LOG))]);
        line.extend_from_slice(options);
        line.push("--".to_owned());
        line.extend_from_slice(command);
        line
    }

    fn append(&self, entry: &Entry) -> Result<(), RunError> {
        let path = || self.options.dir.join(JOURNAL);
        append(&self.journal, entry).map_err(|source| RunError::Io { path: path(), source })
    }

    /// Writes down what happened, and takes it into the state.
    fn happened(&mut self, entry: Entry) -> Result<(), RunError> {
        self.append(&entry)?;
        let wrong = |number| RunError::Command(format!("the plan has no run {number}"));
        self.state.fold(entry).map_err(wrong)
    }
}

/// Has the runner of a study end after the run under way, or before the next one.
pub fn request_stop(dir: &Path) -> Result<(), RunError> {
    let stop = dir.join(STOP);
    match Place::new(&stop)?.create_new(0, WriteOptions { force: false, owner: invoker::owner() }) {
        // It has been requested before.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop).map_err(|source| RunError::Io { path: stop, source }),
    }
}

/// Reads the figures of all runs again from their recordings and logs; of how many.
pub fn reread(options: &Options, signals: &Signals) -> Result<usize, RunError> {
    let runner = Runner::open(options, signals)?;
    let plan = runner.state.plan.clone();
    let mut entries = vec![];
    for run in runner.state.runs.iter().filter(|run| run.failure.is_none()) {
        let Some(recording) = &run.recording else { continue };
        let path = options.dir.join(recording);
        let files = files::read(path.parent().unwrap_or(&options.dir), &plan.workload.results);
        let read = files.recording.map_err(RunError::Command)?;
        if let Some(foreign) = files.foreign {
            return Err(RunError::Foreign { recording: path, foreign });
        }
        let mut found = figures::of(Some(&read), &files.log, &files.results, &plan.metrics);
        // What is in no file stays as it was.
        let kept = run.metrics.iter().filter(|(name, _)| figures::is_elsewhere(name));
        found.metrics.extend(kept.map(|(name, value)| (name.clone(), *value)));
        let (metrics, sources, kv_sources) = (found.metrics, found.sources, found.kv_sources);
        entries.push(Entry::Reread {
            number: run.number,
            attempt: run.attempt,
            metrics,
            sources,
            kv_sources,
        });
    }
    entries.iter().try_for_each(|entry| runner.append(entry))?;
    Ok(entries.len())
}

/// What a study would run, with its command lines.
pub fn dry_run(plan: &Plan, options: &Options) -> Result<Vec<(Slot, Vec<String>)>, RunError> {
    let mut lines = vec![];
    for slot in schedule::schedule(plan) {
        let (Some(environment), Some(model)) = (plan.environment(&slot.environment), plan.model(&slot.model))
        else {
            continue;
        };
        let dir = options.dir.join(slot.folder(1));
        let values = options.values(plan, environment, model, slot.iteration, &dir);
        let line = command::line(plan, environment, &values).map_err(RunError::Command)?;
        lines.push((slot, line));
    }
    Ok(lines)
}

/// Whether a runner holds the study.
pub fn is_running(dir: &Path) -> bool {
    File::open(dir.join(JOURNAL))
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Why a run counts for nothing, where it does.
fn failure(ended: Result<(), String>, files: &Files, found: &Yield) -> Option<String> {
    let ended = ended.err();
    let unread = || files.recording.as_ref().err().map(|error| format!("no recording: {error}"));
    let foreign = || files.foreign.as_ref().map(ToString::to_string);
    let lacking = || files.lacking.first().cloned();
    let missing = || {
        let names = found.missing.join(", ");
        (!names.is_empty()).then(|| match files.results.len() {
            0 => format!("its log has no {names}"),
            _ => format!("neither its log nor its results have {names}"),
        })
    };
    ended.or_else(unread).or_else(foreign).or_else(lacking).or_else(missing)
}

fn fill(values: &Values, command: &[String]) -> Result<Vec<String>, RunError> {
    command.iter().map(|text| values.fill(text)).collect::<Result<_, _>>().map_err(RunError::Command)
}

fn append(mut file: &File, entry: &Entry) -> io::Result<()> {
    let mut line = serde_json::to_vec(entry)?;
    line.push(b'\n');
    file.write_all(&line)?;
    // What is not on the disk has not happened.
    file.sync_data()
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}
