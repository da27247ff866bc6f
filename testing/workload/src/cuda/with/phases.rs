//! Phases and report of a CUDA workload.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::{Value, json};

use super::driver::{Driver, mem_get_info};
use crate::alloc::wait_for;
use crate::cli::cuda::OutputArgs;
use crate::output::{
    PhaseLine, PhaseRecord, Report, SCHEMA, SCHEMA_VERSION, SourceRecord, print_line, write_report,
};
use crate::sys::{self, Machine, SelfExact, SelfStatus};

/// What cuMemGetInfo said, between two readings of /proc/meminfo.
#[derive(Debug, Clone, Serialize)]
pub struct Query {
    pub phase: &'static str,
    pub time_ns: u64,
    pub free: usize,
    pub total: usize,
    pub mem_free_before: Option<u64>,
    pub mem_free_after: Option<u64>,
}

fn mem_free() -> Option<u64> {
    let text = sys::read_text("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemFree:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

pub struct Phases<'a> {
    args: &'a OutputArgs,
    pub machine: Machine,
    driver: &'a Driver,
    /// A context is current, so the driver answers.
    has_context: bool,
    baseline: Option<SelfStatus>,
    pub sources: Vec<SourceRecord>,
    phases: Vec<PhaseRecord>,
    queries: Vec<Query>,
    at_hold: Result<SelfStatus>,
    exact: Option<SelfExact>,
}

impl<'a> Phases<'a> {
    pub fn new(args: &'a OutputArgs, driver: &'a Driver) -> Result<Self> {
        sys::install_stop_handler()?;
        Ok(Self {
            args,
            machine: Machine::read()?,
            driver,
            has_context: false,
            baseline: SelfStatus::read().ok(),
            sources: Vec::new(),
            phases: Vec::new(),
            queries: Vec::new(),
            at_hold: Err(anyhow::anyhow!("stopped before anything was allocated")),
            exact: None,
        })
    }

    /// The driver is initialised, and nothing is allocated yet.
    pub fn start(&mut self, hold: Duration) -> Result<()> {
        let wait = self.args.wait_go.as_deref();
        // A harness that makes us wait wants to know first that we are there.
        let begin_ns = sys::monotonic_ns();
        self.print_phase("start", begin_ns, sys::monotonic_ns(), SelfStatus::read().ok(), None)?;
        if let Some(path) = wait {
            wait_for(path)?;
        }
        self.baseline = SelfStatus::read().ok();
        let (ready_ns, after) = (sys::monotonic_ns(), self.baseline);
        sys::sleep(hold);
        self.phases.push(PhaseRecord {
            phase: "start",
            cycle: 0,
            begin_ns,
            ready_ns,
            end_ns: sys::monotonic_ns(),
            after,
        });
        Ok(())
    }

    pub fn context_begins(&mut self) {
        self.has_context = true;
    }

    pub fn context_ends(&mut self) {
        self.has_context = false;
    }

    /// Works, says that it is ready, holds.
    pub fn phase<T>(
        &mut self,
        phase: &'static str,
        hold: Duration,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let begin_ns = sys::monotonic_ns();
        let done = work(self).with_context(|| format!("phase {phase}"))?;
        let ready_ns = sys::monotonic_ns();
        let after = SelfStatus::read().ok();
        let query = if self.args.query && self.has_context { Some(query_of(phase)?) } else { None };
        self.print_phase(phase, begin_ns, ready_ns, after, query.as_ref())?;
        self.queries.extend(query);
        sys::sleep(hold);
        self.phases.push(PhaseRecord {
            phase,
            cycle: 0,
            begin_ns,
            ready_ns,
            end_ns: sys::monotonic_ns(),
            after,
        });
        Ok(done)
    }

    fn print_phase(
        &self,
        phase: &str,
        begin_ns: u64,
        ready_ns: u64,
        after: Option<SelfStatus>,
        query: Option<&Query>,
    ) -> Result<()> {
        if !self.args.jsonl {
            return Ok(());
        }
        let mut cuda = json!({
            "driver": self.driver.info.driver,
            "device": self.driver.info.device,
        });
        if let Some(query) = query {
            cuda["mem_get_info"] = json!(query);
        }
        let (cycle, pid) = (0, std::process::id());
        print_line(&PhaseLine { phase, cycle, pid, begin_ns, ready_ns, after, cuda: Some(cuda) })
    }

    /// Holds what there is, and notes what this process looks like at the end.
    pub fn hold(&mut self, hold: Duration) -> Result<()> {
        self.phase("hold", hold, |_| Ok(()))?;
        self.at_hold = SelfStatus::read();
        self.exact = SelfExact::read().ok();
        Ok(())
    }

    /// Prints the report, with `more` of this workload.
    pub fn report(self, more: Value) -> Result<std::process::ExitCode> {
        let mut cuda = json!({
            "info": self.driver.info,
            "calls": self.driver.calls(),
            "mem_get_info": self.queries,
        });
        if let (Some(cuda), Value::Object(more)) = (cuda.as_object_mut(), more) {
            cuda.extend(more);
        }
        let report = Report {
            schema: SCHEMA,
            schema_version: SCHEMA_VERSION,
            pid: std::process::id(),
            page_size: self.machine.page,
            argv: std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect(),
            monotonic_to_realtime_offset_ns: sys::monotonic_to_realtime_offset_ns(),
            baseline: self.baseline,
            sources: self.sources,
            phases: self.phases,
            self_status: self.at_hold.as_ref().ok().copied(),
            self_exact: self.exact,
            self_reason: self.at_hold.as_ref().err().map(|error| format!("{error:#}")),
            stopped_by_signal: sys::stop_signal(),
            cuda: Some(cuda),
        };
        write_report(&report, self.args.output.as_deref())?;
        Ok(match sys::stop_signal() {
            Some(signal) => std::process::ExitCode::from(128 + u8::try_from(signal).unwrap_or(0)),
            None => std::process::ExitCode::SUCCESS,
        })
    }
}

fn query_of(phase: &'static str) -> Result<Query> {
    let mem_free_before = mem_free();
    let (free, total) = mem_get_info()?;
    let mem_free_after = mem_free();
    Ok(Query { phase, time_ns: sys::monotonic_ns(), free, total, mem_free_before, mem_free_after })
}
