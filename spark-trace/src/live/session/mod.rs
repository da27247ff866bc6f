//! One recording from start to end: load, attach, start or find the target, follow it, finish.

mod containers;
mod gpus;
mod health;
mod options;
mod output;
mod pauses;
mod start;

use std::{
    fs::File,
    io::{self, BufWriter},
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use spark_trace_common::hook::Profile;
use thiserror::Error;
use tokio::{
    io::unix::AsyncFd,
    process::Child,
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval_at},
};

use super::{
    aggregates::Collector,
    btf::{Btf, BtfError},
    cgroup::{self, CgroupError, Layout, Leaf},
    host,
    kallsyms::Kallsyms,
    now_ns,
    object::{Object, ObjectError},
    offsets::{self, MissingType, Settings},
    output::{Output, OutputError},
    pause::Guard,
    realtime_offset_ns,
    source::{nvml::Nvml, process, system::System},
    statistics::Statistics,
    symbols::{Names, Stacks},
    target::{
        self, Spec,
        command::{self, Invoker},
    },
    tracer::{Notice, Tracer, TracerError},
};
use containers::Containers;
pub use options::{Keep, Named, Options, Wishes};

use crate::analysis::details::END;
use crate::recording::{
    Clock, Moment, Recording, SCHEMA_VERSION, Target, Tool,
    claim::Claim,
    journal::{Begin, JOURNAL_SCHEMA, Journal},
};
use crate::units;

#[derive(Debug, Error)]
pub enum SessionError {
    #[error(transparent)]
    Btf(#[from] BtfError),
    #[error(transparent)]
    Type(#[from] MissingType),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Object(#[from] ObjectError),
    #[error(transparent)]
    Tracer(#[from] TracerError),
    #[error("cannot {what}: {cause}")]
    Io { what: String, cause: io::Error },
    #[error("cannot start {program}: {cause}{}", quoted(program))]
    Start { program: String, cause: io::Error },
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error("{0}")]
    Target(String),
}

/// A hint for who has put a whole command line into one word.
fn quoted(program: &str) -> &'static str {
    match program.trim().contains(' ') {
        true => "; write the command as words of their own, without quotes around all of it",
        false => "",
    }
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> SessionError {
    let what = what.into();
    move |cause| SessionError::Io { what, cause }
}

/// What a progress display is told, a few times a second.
pub struct Progress<'a> {
    pub elapsed: Duration,
    pub recording: &'a Recording,
    pub lost: u64,
}

pub struct Outcome {
    pub recording: Recording,
    /// Exit code of the traced command.
    pub exit_code: Option<i32>,
    /// The command's output, where it was read: some of it may not have been passed on yet.
    pub output: Option<Output>,
}

/// Why details are read when whoever looks asks for them.
const NOW: &str = "now";

/// How often events are taken where nobody waits for each: often enough that processes still live whose stacks they bring.
const DRAIN_EVERY: Duration = Duration::from_millis(100);

/// Ticks between two sweeps of the kernel pages in use: with fewer pages to retire each is quicker.
const SWEEP_EVERY: u64 = 10;

/// How often what is too old is dropped while a window goes by: so much of it may be kept beyond it.
const FORGETS_PER_WINDOW: u64 = 32;

/// The journal's writer.
type Out = BufWriter<File>;

/// What a trace reports to, a few times a second.
pub type Report<'a> = &'a mut dyn FnMut(&Progress<'_>) -> Wishes;

/// A trace with everything attached.
pub struct Session {
    tracer: Tracer<Out>,
    events: AsyncFd<RingBuf<MapData>>,
    leaf: Option<Leaf>,
    child: Option<Child>,
    output: Option<Output>,
    containers: Containers,
    options: Options,
    warnings: Vec<String>,
    statistics: Statistics,
    nvml: Nvml,
    /// Lets paused processes go on if this one cannot.
    guard: Option<Guard>,
    interrupts: Signal,
    terminations: Signal,
    invoker: Option<Invoker>,
    /// Times that the user has asked for the end.
    interrupted: u32,
    /// When what is too old was dropped last.
    forgot_ns: u64,
}

impl Session {
    /// Loads and attaches everything; nothing of the target runs yet.
    pub fn prepare(options: Options) -> Result<Self, SessionError> {
        // Before anything that would have to be cleaned up.
        let interrupts = signals(SignalKind::interrupt())?;
        let terminations = signals(SignalKind::terminate())?;
        // Starting it may take as long as everything below.
        let mut nvml = Nvml::start(options.nvml.clone(), options.gpu_interval);
        let btf = Btf::from_kernel()?;
        let layout = Layout::detect()?;
        let mut warnings: Vec<String> = cgroup::remove_stale_leaves(&layout)
            .into_iter()
            .map(|name| format!("removed cgroup {name}, left by a spark-trace that was killed"))
            .collect();
        let whole_system = matches!(options.spec, Spec::System { .. });
        let all_pages = options.hooks.profile >= Profile::Deep;
        let settings = Settings { whole_system, all_pages, min_region: options.min_region };
        let config = offsets::resolve(&btf, &layout, settings)?;
        let mut object = Object::load(&config, options.ring_bytes)?;
        let events = object.take_events()?;
        let statistics = Statistics::begin();
        if !statistics.available() {
            warnings
                .push("the kernel refuses BPF statistics: run times of the programs are unknown".to_owned());
        }
        object.attach(&options.hooks, &btf)?;
        object.require()?;

        let mut host = host::facts(&layout);
        gpus::describe(nvml.machine(), &mut host, &mut warnings);
        let target = Target {
            kind: options.spec.kind().to_owned(),
            argv: target::text(options.spec.argv()),
            started_ns: now_ns(),
            ..Target::default()
        };
        let begin = Begin {
            schema: JOURNAL_SCHEMA.to_owned(),
            schema_version: SCHEMA_VERSION,
            tool: Tool {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                profile: options.hooks.profile.as_str().to_owned(),
                interval_ns: options.interval.as_nanos() as u64,
                gpu_interval_ns: nvml.machine().is_ok().then_some(options.gpu_interval.as_nanos() as u64),
                min_region: options.min_region,
                pid: Some(std::process::id()),
            },
            host,
            clock: Clock { name: "CLOCK_MONOTONIC".to_owned(), realtime_offset_ns: realtime_offset_ns() },
            target: target.clone(),
        };
        let journal = match &options.keep {
            Keep::Journal(claim) => begin_journal(claim, begin)?,
            Keep::Latest(_) => Journal::unwritten(begin),
        };
        let kallsyms = Kallsyms::from_kernel().unwrap_or_default();
        let system = System::open().map_err(io_error("open the kernel's counters"))?;
        let own_path = layout.of_process(std::process::id()).ok();
        let parts = (Stacks::new(kallsyms), Collector::new(&btf), layout, system);
        let mut tracer = Tracer::new(object, journal, target, parts, options.min_region);
        tracer.has_gpus(nvml.machine().gpus.len());
        tracer.looks = matches!(options.keep, Keep::Latest(_));
        // SAFETY: the ring buffer owns its descriptor and keeps the same one for as long as it lives.
        let events = unsafe { AsyncFd::register(events) }
            .map_err(|e| io_error("watch the event buffer")(e.into_parts().1))?;
        let invoker = if options.spec.as_root() { None } else { Invoker::from_environment() };
        Ok(Self {
            tracer,
            events,
            leaf: None,
            child: None,
            output: None,
            containers: Containers::new(own_path.as_deref()),
            options,
            warnings,
            statistics,
            nvml,
            guard: None,
            interrupts,
            terminations,
            invoker,
            interrupted: 0,
            forgot_ns: 0,
        })
    }

    /// Traces until the target ends, the time is over or the user stops it.
    pub async fn run(mut self, progress: Report<'_>) -> Result<Outcome, SessionError> {
        self.tracer.name_cgroups()?;
        self.tracer.find_libraries(&self.options.libraries)?;
        self.begin_pausing()?;
        self.tracer.read_tmpfs(Moment::Start)?;
        self.tracer.settle()?;
        self.first_gpu_reading()?;
        self.tracer.target.started_ns = now_ns();
        self.tracer.phase("start", self.tracer.target.started_ns)?;
        // Who runs on the machine is known before anything is started there, who belongs to a target after it is found.
        let whole_machine = matches!(self.options.spec, Spec::System { .. });
        if whole_machine {
            self.warnings.extend(self.tracer.read_cached_before(&process::all()));
        }
        if let Err(error) = self.start().await {
            self.abandon();
            return Err(error);
        }
        if !whole_machine && !matches!(self.options.spec, Spec::Command { .. }) {
            self.tracer.read_own_tmpfs(Moment::Start)?;
            let pids = self.tracer.alive();
            self.warnings.extend(self.tracer.read_cached_before(&pids));
        }
        let exit_code = self.follow(progress).await?;
        self.end_output().await?;
        self.finish(exit_code)
    }

    /// Removes what a trace that never began would leave behind.
    fn abandon(mut self) {
        self.containers.clean_up();
        // The error that led here is what the user must see; these two could only repeat it.
        if let Some(leaf) = self.leaf {
            let _ = leaf.remove();
        }
        if let Keep::Journal(claim) = &self.options.keep {
            let _ = std::fs::remove_file(&claim.journal);
        }
    }

    async fn follow(&mut self, progress: Report<'_>) -> Result<Option<i32>, SessionError> {
        let started = Instant::now();
        let mut ticks = interval_at(started + self.options.interval, self.options.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let looks = matches!(self.options.keep, Keep::Latest(_));
        let mut drains = interval_at(started + DRAIN_EVERY, DRAIN_EVERY);
        drains.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut tick = 0u64;
        let mut exit_code = None;
        // Aggregates go to the journal at growing distances: it is only read if we are killed.
        let mut next_dump = Duration::from_secs(1);
        loop {
            if self.is_over(exit_code.is_some(), started) {
                return Ok(exit_code);
            }
            tokio::select! {
                // Each wake-up costs more than the event. Who only looks can wait for many.
                _ = drains.tick(), if looks => self.drain()?,
                ready = self.events.readable_mut(), if !looks => {
                    let mut guard = ready.map_err(io_error("watch the event buffer"))?;
                    guard.clear_ready();
                    drop(guard);
                    self.drain()?;
                }
                status = wait(&mut self.child) => {
                    self.child = None;
                    let status = status.map_err(io_error("wait for the command"))?;
                    exit_code = Some(command::exit_code(status));
                    self.drain()?;
                    self.close_containers()?;
                    self.tracer.phase("exit", now_ns())?;
                    self.nvml.request_now();
                    self.tracer.sample()?;
                }
                _ = ticks.tick() => {
                    tick += 1;
                    self.statistics.tick(tick);
                    if tick.is_multiple_of(SWEEP_EVERY) {
                        self.tracer.object.sweep_now_and_then()?;
                    }
                    self.drain()?;
                    self.tracer.sample()?;
                    match self.options.keep {
                        Keep::Journal(_) if started.elapsed() >= next_dump => {
                            next_dump = started.elapsed() * 2;
                            self.tracer.journal_aggregates(&Names::None)?;
                        }
                        Keep::Journal(_) => {}
                        Keep::Latest(_) => self.add_health_and_cost(None)?,
                    }
                    self.journal_flush()?;
                    let lost = self.tracer.object.losses()?.iter().map(|l| l.count).sum();
                    let wishes = progress(&Progress { elapsed: started.elapsed(), recording: self.tracer.journal.recording(), lost });
                    self.grant(wishes)?;
                }
                ready = self.containers.ready() => {
                    self.drain()?;
                    self.containers_ready(ready)?;
                }
                _ = self.interrupts.recv() => {
                    self.interrupted += 1;
                    self.pass_on(if self.interrupted > 1 { libc::SIGKILL } else { libc::SIGINT });
                }
                _ = self.terminations.recv() => {
                    self.interrupted += 1;
                    self.pass_on(libc::SIGTERM);
                }
            }
        }
    }

    /// Does what whoever looks wants, and forgets what nobody will look at any more.
    fn grant(&mut self, wishes: Wishes) -> Result<(), SessionError> {
        if wishes.end {
            self.interrupted += 1;
        }
        let Keep::Latest(window) = self.options.keep else { return Ok(()) };
        let (now, window) = (now_ns(), window.as_nanos() as u64);
        // All that is kept is gone through for that: not at every tick.
        if now.saturating_sub(self.forgot_ns) >= window / FORGETS_PER_WINDOW {
            self.forgot_ns = now;
            let since = now.saturating_sub(window);
            self.tracer.forget(wishes.keep_since.map_or(since, |kept| kept.min(since)));
            self.tracer.tidy()?;
        }
        if let Named::Process(pid) = wishes.names {
            self.tracer.read_mappings(pid)?;
        }
        if wishes.details {
            self.tracer.read_aggregates(NOW)?;
            let names = match wishes.names {
                Named::None => Names::None,
                Named::All => Names::All,
                Named::Process(pid) => Names::Of(self.tracer.stacks_of(pid)),
            };
            self.tracer.journal_aggregates(&names)?;
        }
        Ok(())
    }

    fn journal_flush(&mut self) -> Result<(), SessionError> {
        self.tracer.journal.flush().map_err(io_error("write the journal"))
    }

    /// Whether there is nothing more to follow.
    fn is_over(&self, exited: bool, started: Instant) -> bool {
        let interrupted = self.interrupted;
        if self.options.duration.is_some_and(|d| started.elapsed() >= d) && self.child.is_none() {
            return true;
        }
        if self.child.is_some() {
            return false;
        }
        match &self.options.spec {
            // Where clients have ended, detached containers may go on.
            Spec::Command { .. } => {
                exited
                    && !self.containers.is_busy()
                    && (interrupted > 0 || self.tracer.containers_are_empty())
            }
            Spec::System { argv } => interrupted > 0 || !argv.is_empty() && exited,
            Spec::Pid(pid) => interrupted > 0 || process::has_ended(*pid),
            Spec::Cgroup(_) | Spec::Container { .. } => interrupted > 0 || self.tracer.is_empty(),
        }
    }

    fn drain(&mut self) -> Result<(), SessionError> {
        // Before the events: all calls that were made before a reading are among these.
        let samples = self.nvml.take();
        self.tracer.expect_samples(samples);
        if let Some(output) = &self.output {
            self.tracer.add_log_lines(output.take())?;
        }
        loop {
            // Copied out: handling an event may take long, and the buffer's room is wanted back.
            let Some(record) = self.events.get_mut().next().map(|item| item.to_vec()) else {
                return Ok(self.tracer.take_samples(u64::MAX)?);
            };
            match self.tracer.event(&record)? {
                Some(Notice::Candidate(container)) => self.container_appeared(container)?,
                Some(Notice::Entered(container)) => self.container_entered(container)?,
                Some(Notice::Client { pid, client, at_ns }) => self.client_began(pid, client, at_ns)?,
                Some(Notice::ClientEnded { pid, at_ns }) => self.client_ended(pid, at_ns)?,
                // The cgroup is removed any moment: a last reading.
                Some(Notice::Emptied(_)) => self.tracer.sample()?,
                None => {}
            }
        }
    }

    /// Passes a signal on to the command, unless the terminal has sent it there already.
    fn pass_on(&self, signal: i32) {
        let Some(pid) = self.child.as_ref().and_then(Child::id).and_then(|p| i32::try_from(p).ok()) else {
            return;
        };
        // SAFETY: no pointers involved.
        let from_terminal = signal == libc::SIGINT
            && unsafe {
                libc::isatty(libc::STDIN_FILENO) == 1
                    && libc::tcgetpgrp(libc::STDIN_FILENO) == libc::getpgrp()
            };
        if !from_terminal {
            // SAFETY: no pointers involved; the child has not been waited for, so the pid is still its own.
            unsafe { libc::kill(pid, signal) };
        }
    }

    fn finish(mut self, exit_code: Option<i32>) -> Result<Outcome, SessionError> {
        // The last reading is taken while the rest is.
        self.nvml.request_stop();
        self.drain()?;
        self.end_pausing()?;
        self.containers.clean_up();
        self.tracer.await_no_more()?;
        let left_out = self.decide_kind()?;
        self.tracer.finish_readings(u64::MAX)?;
        // What was freed since the last sweep must not count as the driver's at the end.
        self.tracer.object.sweep_pages()?;
        self.tracer.sample()?;
        self.tracer.sample_pss()?;
        self.tracer.read_tmpfs(Moment::End)?;
        let nvml = self.last_gpu_reading()?;
        self.tracer.phase("end", now_ns())?;
        self.tracer.read_aggregates(END)?;
        self.tracer.ended = true;
        self.tracer.journal_aggregates(&Names::All)?;
        if let Some(leaf) = self.leaf.take() {
            let left = leaf.processes();
            if !left.is_empty() {
                self.warnings.push(format!(
                    "{} of the command still ran when it ended; they were moved out of its cgroup",
                    units::count(left.len(), "process", "processes")
                ));
            }
            if let Err(e) = leaf.remove() {
                self.warnings.push(e.to_string());
            }
            // The removal is part of the story: what stays charged to a dead cgroup.
            self.drain()?;
        }
        self.tracer.target.exit_code = exit_code;
        self.tracer.target.ended_ns = now_ns();
        self.tracer.publish_target()?;
        self.add_health_and_cost(nvml)?;
        self.tracer.object.detach_functions();
        let mut recording = self.tracer.journal.finish(now_ns()).map_err(io_error("write the journal"))?;
        if let Some(cgroup) = left_out {
            recording.leave_out(cgroup);
        }
        // Who has asked for the end need not ask again.
        let output = self.output.filter(|_| self.interrupted == 0);
        Ok(Outcome { recording, exit_code, output })
    }
}

fn begin_journal(claim: &Claim, begin: Begin) -> Result<Journal<Out>, SessionError> {
    let failed = || io_error(format!("write {}", claim.journal.display()));
    let file = claim.file.try_clone().map_err(failed())?;
    Journal::begin(BufWriter::new(file), begin).map_err(failed())
}

fn signals(kind: SignalKind) -> Result<Signal, SessionError> {
    signal(kind).map_err(io_error("watch for signals"))
}

/// Waits for the command; for ever where there is none.
async fn wait(child: &mut Option<Child>) -> io::Result<std::process::ExitStatus> {
    match child {
        Some(child) => child.wait().await,
        None => std::future::pending().await,
    }
}
