//! Runs the plan phase by phase, and keeps the times.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::plan::plan;
use super::{Env, Holding, Taken};
use crate::cli::{AllocArgs, CourseArgs};
use crate::files;
use crate::output::{
    PhaseLine, PhaseRecord, Report, SCHEMA, SCHEMA_VERSION, SourceRecord, print_line, write_report,
};
use crate::sys::{self, Machine, SelfExact, SelfStatus};

/// Who holds what, in the order it was taken, and where its records begin in `Run::sources`.
type Holdings = Vec<(&'static str, usize, Box<dyn Holding>)>;

/// One way to take memory: its phase's name, and what takes it.
pub type Step<'a> = (&'static str, Box<dyn Fn(&Env) -> Result<Taken> + 'a>);

struct Run<'a> {
    args: &'a CourseArgs,
    env: Env,
    sources: Vec<SourceRecord>,
    phases: Vec<PhaseRecord>,
    baseline: Option<SelfStatus>,
    /// This process at the end of the last hold, or why that is not known.
    at_hold: Result<SelfStatus>,
    exact: Option<SelfExact>,
}

pub fn run(args: &AllocArgs) -> Result<ExitCode> {
    let prepare = || prepare_files(args);
    let prepare: Option<&dyn Fn() -> Result<()>> =
        if args.create_files || args.cold { Some(&prepare) } else { None };
    let steps: Vec<Step> = plan(args)
        .map(|step| -> Step { (step.phase, Box::new(|env: &Env| (step.take)(args, env))) })
        .collect();
    run_steps(&args.course, prepare, &steps)
}

/// Takes the steps in order, holds what they have taken, and gives it back in reverse.
pub fn run_steps(
    args: &CourseArgs,
    prepare: Option<&dyn Fn() -> Result<()>>,
    steps: &[Step],
) -> Result<ExitCode> {
    let env = Env { machine: Machine::read()?, cycle: 0 };
    sys::install_stop_handler()?;
    let baseline = SelfStatus::read().ok();
    let at_hold = Err(anyhow::anyhow!("stopped before anything was allocated"));
    let mut run = Run { args, env, sources: Vec::new(), phases: Vec::new(), baseline, at_hold, exact: None };
    for cycle in 0..args.repeat {
        run.env.cycle = cycle;
        run.cycle(prepare, steps)?;
        if sys::stop_signal().is_some() {
            break;
        }
    }
    write_report(&run.report(), args.output.as_deref())?;
    Ok(match sys::stop_signal() {
        // As a shell would report it, had we not caught it to tidy up.
        Some(signal) => ExitCode::from(128 + u8::try_from(signal).unwrap_or(0)),
        None => ExitCode::from(args.exit_code.unwrap_or(0)),
    })
}

impl Run<'_> {
    fn cycle(&mut self, prepare: Option<&dyn Fn() -> Result<()>>, steps: &[Step]) -> Result<()> {
        let args = self.args;
        if let Some(prepare) = prepare {
            self.phase("prepare", Duration::ZERO, |_| prepare())?;
        }
        self.phase("start", args.holds.hold_start, |run| {
            if let (0, Some(path)) = (run.env.cycle, &args.wait_go) { wait_for(path) } else { Ok(()) }
        })?;
        let mut holdings = Holdings::new();
        for step in steps {
            if sys::stop_signal().is_some() {
                break;
            }
            let holding = self.phase(step.0, args.holds.hold_each, |run| run.take(step))?;
            holdings.push(holding);
        }
        self.phase("hold", args.holds.hold, |_| Ok(()))?;
        self.measure(&holdings);
        if args.abort {
            write_report(&self.report(), args.output.as_deref())?;
            std::process::abort();
        }
        if args.no_release {
            // The kernel takes all of it back at exit; only our own tidying is left out.
            std::mem::forget(holdings);
            return Ok(());
        }
        self.phase("release", args.holds.hold_release, |_| release(holdings))
    }

    /// Works, says that it is ready, holds.
    fn phase<T>(
        &mut self,
        phase: &'static str,
        hold: Duration,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let (cycle, begin_ns) = (self.env.cycle, sys::monotonic_ns());
        let record =
            |ready_ns, after| PhaseRecord { phase, cycle, begin_ns, ready_ns, end_ns: ready_ns, after };
        // A harness that makes us wait wants to know first that we are there.
        let early = phase == "start" && self.args.wait_go.is_some();
        if early {
            self.print_phase(&record(sys::monotonic_ns(), SelfStatus::read().ok()))?;
        }
        let done = work(self).with_context(|| format!("phase {phase}"))?;
        let ready_ns = sys::monotonic_ns();
        let mut record = record(ready_ns, SelfStatus::read().ok());
        if !early {
            self.print_phase(&record)?;
        }
        sys::sleep(hold);
        record.end_ns = sys::monotonic_ns();
        self.phases.push(record);
        Ok(done)
    }

    fn print_phase(&self, record: &PhaseRecord) -> Result<()> {
        if !self.args.jsonl {
            return Ok(());
        }
        let PhaseRecord { phase, cycle, begin_ns, ready_ns, after, .. } = *record;
        print_line(&PhaseLine {
            phase,
            cycle,
            pid: std::process::id(),
            begin_ns,
            ready_ns,
            after,
            cuda: None,
        })
    }

    fn take(&mut self, (phase, take): &Step) -> Result<(&'static str, usize, Box<dyn Holding>)> {
        let taken = take(&self.env)?;
        let first = self.sources.len();
        self.sources.extend(taken.sources.into_iter().map(|mut source| {
            source.cycle = self.env.cycle;
            source
        }));
        Ok((*phase, first, taken.holding))
    }

    /// What is true at the end of the hold, of ourselves and of what may change by itself.
    fn measure(&mut self, holdings: &Holdings) {
        self.at_hold = SelfStatus::read();
        self.exact = SelfExact::read().ok();
        for (_, source, holding) in holdings {
            if let (Some(measured), Some(source)) = (holding.measure(), self.sources.get_mut(*source)) {
                source.detail["at_hold_end"] = json!(measured);
            }
        }
    }

    fn report(&mut self) -> Report {
        Report {
            schema: SCHEMA,
            schema_version: SCHEMA_VERSION,
            pid: std::process::id(),
            page_size: self.env.machine.page,
            argv: std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect(),
            monotonic_to_realtime_offset_ns: sys::monotonic_to_realtime_offset_ns(),
            baseline: self.baseline,
            sources: std::mem::take(&mut self.sources),
            phases: std::mem::take(&mut self.phases),
            self_status: self.at_hold.as_ref().ok().copied(),
            self_exact: self.exact,
            self_reason: self.at_hold.as_ref().err().map(|error| format!("{error:#}")),
            stopped_by_signal: sys::stop_signal(),
            cuda: None,
        }
    }
}

/// In reverse, and all of it even if one fails: the first error is the one reported.
fn release(holdings: Holdings) -> Result<()> {
    let mut result = Ok(());
    for (phase, _, holding) in holdings.into_iter().rev() {
        let released = holding.release().with_context(|| format!("releasing {phase}"));
        if result.is_ok() {
            result = released;
        }
    }
    result
}

/// Makes the input files that are missing, or only sees to it that none of them is cached.
fn prepare_files(args: &AllocArgs) -> Result<()> {
    for (path, size) in args.input_files() {
        if args.create_files {
            files::ensure(path, size)?;
        }
        files::drop_path(path)?;
    }
    Ok(())
}

pub fn wait_for(path: &Path) -> Result<()> {
    while sys::stop_signal().is_none() {
        if path.try_exists().with_context(|| format!("cannot look for {}", path.display()))? {
            break;
        }
        sys::sleep(Duration::from_millis(5));
    }
    Ok(())
}
