//! One recording from start to end: load, attach, start or find the target, follow it, finish.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
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
    object::{self, Object, ObjectError, Sizes},
    offsets::{self, MissingType, Settings},
    realtime_offset_ns,
    source::system::System,
    symbols::Stacks,
    target::{
        Placement, Spec,
        command::{self, Invoker},
        container, engine,
    },
    tracer::{Notice, Tracer, TracerError},
};
use crate::plan::Choice;
use crate::recording::{
    Clock, Container, Cost, Health, Loss, Recording, SCHEMA_VERSION, Target, Tool,
    journal::{Begin, JOURNAL_SCHEMA, Journal},
};

#[derive(Debug, Clone)]
pub struct Options {
    pub spec: Spec,
    pub hooks: Choice,
    pub interval: Duration,
    pub min_region: u64,
    pub ring_bytes: u32,
    pub live_pages: u32,
    /// Stops an attached trace after this time.
    pub duration: Option<Duration>,
    /// Where the journal is kept while tracing.
    pub journal: PathBuf,
}

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
    #[error("cannot {what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("cannot start {program}: {source}")]
    Start { program: String, source: io::Error },
    #[error("{0}")]
    Target(String),
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> SessionError {
    let what = what.into();
    move |source| SessionError::Io { what, source }
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
}

/// The journal's writer.
type Out = BufWriter<File>;

pub struct Session {
    tracer: Tracer<Out>,
    events: AsyncFd<RingBuf<MapData>>,
    leaf: Option<Leaf>,
    child: Option<Child>,
    awaited: Option<Awaited>,
    options: Options,
    warnings: Vec<String>,
    /// Present while the kernel counts run time.
    statistics: Option<OwnedFd>,
    invoker: Option<Invoker>,
}

/// A container that the started command is going to create.
struct Awaited {
    engine: &'static str,
    client: Vec<String>,
    /// Where `run` writes the new container's id; none for compose, all of whose containers are meant.
    cidfile: Option<PathBuf>,
    remove_cidfile: bool,
    /// Cgroup paths that may be it.
    candidates: Vec<String>,
}

/// Ticks between two windows in which the kernel counts run time: one tick in so many.
const STATISTICS_EVERY: u64 = 20;

impl Session {
    /// Loads and attaches everything; nothing of the target runs yet.
    pub fn prepare(options: Options) -> Result<Self, SessionError> {
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
        let sizes = Sizes { ring_bytes: options.ring_bytes, live_pages: options.live_pages };
        let mut object = Object::load(&config, sizes)?;
        let events = object.take_events()?;
        // On before attaching, so that even a short trace has a mean run time.
        let statistics = object::run_time_statistics();
        if statistics.is_none() {
            warnings
                .push("the kernel refuses BPF statistics: run times of the programs are unknown".to_owned());
        }
        object.attach(&options.hooks, &btf)?;

        let target = Target {
            kind: options.spec.kind().to_owned(),
            argv: options.spec.argv().to_vec(),
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
                min_region: options.min_region,
            },
            host: host::facts(&layout),
            clock: Clock { name: "CLOCK_MONOTONIC".to_owned(), realtime_offset_ns: realtime_offset_ns() },
            target: target.clone(),
        };
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&options.journal)
            .map_err(io_error(format!("create {}", options.journal.display())))?;
        let journal = Journal::begin(BufWriter::new(file), begin)
            .map_err(io_error(format!("write {}", options.journal.display())))?;
        let kallsyms = Kallsyms::from_kernel().unwrap_or_default();
        let system = System::open().map_err(io_error("open the kernel's counters"))?;
        let parts = (Stacks::new(kallsyms), Collector::new(&btf), layout, system);
        let tracer = Tracer::new(object, journal, target, parts, options.min_region);
        // SAFETY: the ring buffer owns its descriptor and keeps the same one for as long as it lives.
        let events = unsafe { AsyncFd::register(events) }
            .map_err(|e| io_error("watch the event buffer")(e.into_parts().1))?;
        let invoker = if options.spec.as_root() { None } else { Invoker::from_environment() };
        Ok(Self {
            tracer,
            events,
            leaf: None,
            child: None,
            awaited: None,
            options,
            warnings,
            statistics,
            invoker,
        })
    }

    /// Traces until the target ends, the time is over or the user stops it.
    pub async fn run(mut self, progress: &mut dyn FnMut(&Progress<'_>)) -> Result<Outcome, SessionError> {
        self.tracer.phase("start", now_ns()).map_err(SessionError::from)?;
        self.tracer.name_cgroups()?;
        self.tracer.sample()?;
        self.start()?;
        let ended = self.follow(progress).await;
        let exit_code = ended?;
        self.finish(exit_code)
    }

    fn start(&mut self) -> Result<(), SessionError> {
        match self.options.spec.clone() {
            Spec::System { argv } => {
                if !argv.is_empty() {
                    self.spawn(&argv, None)?;
                }
            }
            Spec::Pid(pid) => {
                if !Path::new(&format!("/proc/{pid}")).exists() {
                    return Err(SessionError::Target(format!("no process {pid}")));
                }
                self.tracer.add_pid(pid)?;
            }
            Spec::Cgroup(path) => {
                let path = self.cgroup_path(&path)?;
                self.tracer.add_root(&path, false)?;
            }
            Spec::Container { engine, name } => self.attach_container(engine.as_deref(), &name)?,
            Spec::Command { argv, placement, .. } => match engine::recognise(&argv) {
                Some(invocation) => self.start_container(&argv, &invocation)?,
                None => self.start_native(&argv, placement)?,
            },
        }
        Ok(())
    }

    fn start_native(&mut self, argv: &[String], placement: Placement) -> Result<(), SessionError> {
        let mut procs = None;
        if placement == Placement::Leaf {
            let leaf = Leaf::create(&Layout::detect()?)?;
            self.tracer.add_root(&leaf.path, true)?;
            procs = Some(leaf.procs_file()?);
            self.leaf = Some(leaf);
        }
        self.tracer.sample()?;
        self.spawn(argv, procs)
    }

    fn spawn(&mut self, argv: &[String], procs: Option<File>) -> Result<(), SessionError> {
        let program = argv.first().cloned().unwrap_or_default();
        // Followed from its fork on: our own pid is selected until it has forked.
        let own = std::process::id();
        self.tracer.object.select_pid(own)?;
        let child = command::start(argv, procs, self.invoker.as_ref());
        self.tracer.object.deselect_pid(own)?;
        let child = child.map_err(|source| SessionError::Start { program, source })?;
        if let Some(pid) = child.id() {
            self.tracer.add_pid(pid)?;
        }
        self.child = Some(child);
        Ok(())
    }

    fn start_container(
        &mut self,
        argv: &[String],
        invocation: &engine::Invocation,
    ) -> Result<(), SessionError> {
        let client = invocation.client(argv);
        self.tracer.target.kind = "container".to_owned();
        let mut argv = argv.to_vec();
        match &invocation.action {
            engine::Action::Exec { container } => {
                let found = container::inspect(invocation.engine, &client, container)
                    .map_err(io_error("find the container"))?;
                self.adopt(found)?;
            }
            engine::Action::Run { cidfile } => {
                let remove_cidfile = cidfile.is_none();
                let cidfile = cidfile.clone().map_or_else(
                    || {
                        std::env::temp_dir().join(format!(
                            "spark-trace-{}-{}.cid",
                            std::process::id(),
                            now_ns()
                        ))
                    },
                    PathBuf::from,
                );
                if remove_cidfile {
                    argv = invocation.with_cidfile(&argv, &cidfile.to_string_lossy());
                }
                self.await_container(invocation.engine, client, Some(cidfile), remove_cidfile)?;
            }
            engine::Action::Start { container } => {
                let found = container::inspect(invocation.engine, &client, container)
                    .map_err(io_error("find the container"))?;
                self.tracer.target.container = Some(found.container);
                self.await_container(invocation.engine, client, None, false)?;
            }
            engine::Action::Compose => self.await_container(invocation.engine, client, None, false)?,
        }
        self.tracer.sample()?;
        let program = argv.first().cloned().unwrap_or_default();
        // The client is not the target: it runs where it is and is not followed.
        let child = command::start(&argv, None, self.invoker.as_ref())
            .map_err(|source| SessionError::Start { program, source })?;
        self.child = Some(child);
        Ok(())
    }

    fn await_container(
        &mut self,
        engine: &'static str,
        client: Vec<String>,
        cidfile: Option<PathBuf>,
        remove_cidfile: bool,
    ) -> Result<(), SessionError> {
        self.tracer.wait_for_container()?;
        self.awaited = Some(Awaited { engine, client, cidfile, remove_cidfile, candidates: Vec::new() });
        Ok(())
    }

    fn attach_container(&mut self, engine: Option<&str>, name: &str) -> Result<(), SessionError> {
        let engines: &[&str] = &["docker", "podman", "nerdctl"];
        let mut reasons = Vec::new();
        for candidate in engines.iter().filter(|e| engine.is_none_or(|wanted| wanted == **e)) {
            match container::inspect(candidate, &[(*candidate).to_owned()], name) {
                Ok(found) => return self.adopt(found),
                Err(e) => reasons.push(e.to_string()),
            }
        }
        Err(SessionError::Target(format!("no running container {name}: {}", reasons.join("; "))))
    }

    /// Takes a running container as the target.
    fn adopt(&mut self, found: container::Description) -> Result<(), SessionError> {
        let name = &found.container.id;
        let Some(pid) = found.pid else {
            return Err(SessionError::Target(format!(
                "container {name} does not run; start it under `record --`"
            )));
        };
        let path = Layout::detect()?.of_process(pid)?;
        self.tracer.target.container = Some(found.container);
        self.tracer.add_root(&path, false)?;
        Ok(())
    }

    /// A cgroup given as a directory or as its path below the memory hierarchy.
    fn cgroup_path(&self, path: &Path) -> Result<String, SessionError> {
        let layout = Layout::detect()?;
        let below = layout.path_of(path).unwrap_or_else(|| path.display().to_string());
        if !layout.dir(&below).is_dir() {
            let root = layout.memory_root.display();
            return Err(SessionError::Target(format!("no memory cgroup {below} below {root}")));
        }
        Ok(if below.starts_with('/') { below } else { format!("/{below}") })
    }

    async fn follow(&mut self, progress: &mut dyn FnMut(&Progress<'_>)) -> Result<Option<i32>, SessionError> {
        let started = Instant::now();
        let mut ticks = interval_at(started + self.options.interval, self.options.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut interrupts = signals(SignalKind::interrupt())?;
        let mut terminations = signals(SignalKind::terminate())?;
        let mut tick = 0u64;
        let mut interrupted = 0;
        let mut exit_code = None;
        // Aggregates go to the journal at growing distances: it is only read if we are killed.
        let mut next_dump = Duration::from_secs(1);
        loop {
            if self.is_over(exit_code.is_some(), started, interrupted) {
                return Ok(exit_code);
            }
            tokio::select! {
                ready = self.events.readable_mut() => {
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
                    self.look_for_container()?;
                    self.tracer.phase("exit", now_ns())?;
                    self.tracer.sample()?;
                }
                _ = ticks.tick() => {
                    tick += 1;
                    self.statistics = (tick % STATISTICS_EVERY == 0).then(object::run_time_statistics).flatten();
                    self.drain()?;
                    self.look_for_container()?;
                    self.tracer.sample()?;
                    if started.elapsed() >= next_dump {
                        next_dump = started.elapsed() * 2;
                        self.tracer.journal_aggregates()?;
                    }
                    self.journal_flush()?;
                    let lost = self.tracer.object.losses()?.iter().map(|l| l.count).sum();
                    progress(&Progress { elapsed: started.elapsed(), recording: self.tracer.journal.recording(), lost });
                }
                _ = interrupts.recv() => {
                    interrupted += 1;
                    self.pass_on(if interrupted > 1 { libc::SIGKILL } else { libc::SIGINT });
                }
                _ = terminations.recv() => {
                    interrupted += 1;
                    self.pass_on(libc::SIGTERM);
                }
            }
        }
    }

    fn journal_flush(&mut self) -> Result<(), SessionError> {
        self.tracer.journal.flush().map_err(io_error("write the journal"))
    }

    /// Whether there is nothing more to follow.
    fn is_over(&self, exited: bool, started: Instant, interrupted: u32) -> bool {
        if self.options.duration.is_some_and(|d| started.elapsed() >= d) && self.child.is_none() {
            return true;
        }
        if self.child.is_some() {
            return false;
        }
        match &self.options.spec {
            // The client has ended; a detached container may go on.
            Spec::Command { argv, .. } if engine::recognise(argv).is_some() => {
                exited && (interrupted > 0 || self.tracer.is_waiting() || self.tracer.is_empty())
            }
            Spec::Command { .. } => exited,
            Spec::System { argv } => interrupted > 0 || !argv.is_empty() && exited,
            Spec::Pid(pid) => interrupted > 0 || !Path::new(&format!("/proc/{pid}")).exists(),
            Spec::Cgroup(_) | Spec::Container { .. } => interrupted > 0 || self.tracer.is_empty(),
        }
    }

    fn drain(&mut self) -> Result<(), SessionError> {
        loop {
            // Copied out: handling an event may take long, and the buffer's room is wanted back.
            let Some(record) = self.events.get_mut().next().map(|item| item.to_vec()) else { return Ok(()) };
            match self.tracer.event(&record)? {
                Some(Notice::Candidate { path, .. }) => {
                    if let Some(awaited) = &mut self.awaited {
                        awaited.candidates.push(path);
                    }
                    self.look_for_container()?;
                }
                // The cgroup is removed any moment: a last reading.
                Some(Notice::Emptied(_)) => self.tracer.sample()?,
                None => {}
            }
        }
    }

    /// Whether the awaited container can be told among the candidates by now.
    fn look_for_container(&mut self) -> Result<(), SessionError> {
        let Some(awaited) = &self.awaited else { return Ok(()) };
        let known = self.tracer.target.container.as_ref().map(|c| c.id.clone());
        let wanted = known.or_else(|| {
            let id = fs::read_to_string(awaited.cidfile.as_ref()?).ok()?;
            (id.trim().len() == 64).then(|| id.trim().to_owned())
        });
        let path = awaited.candidates.iter().find(|path| match (container::id_in_path(path), &wanted) {
            (Some(id), Some(wanted)) => id == wanted,
            // Compose names no id beforehand: its first container is the one.
            (Some(_), None) => awaited.cidfile.is_none(),
            (None, _) => false,
        });
        let Some(id) = path.and_then(|p| container::id_in_path(p)).map(ToOwned::to_owned) else {
            return Ok(());
        };
        let Some(awaited) = self.awaited.take() else { return Ok(()) };
        if awaited.remove_cidfile
            && let Some(file) = &awaited.cidfile
        {
            let _ = fs::remove_file(file);
        }
        let described = container::inspect(awaited.engine, &awaited.client, &id);
        self.tracer.target.container = Some(match described {
            Ok(found) => found.container,
            Err(e) => {
                self.warnings.push(format!("the engine did not describe the container: {e}"));
                Container { engine: awaited.engine.to_owned(), id: id.clone(), ..Container::default() }
            }
        });
        self.tracer.resolve(|path| container::id_in_path(path) == Some(id.as_str()))?;
        Ok(())
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
        self.drain()?;
        if let Some(awaited) = &self.awaited {
            if awaited.remove_cidfile
                && let Some(file) = &awaited.cidfile
            {
                let _ = fs::remove_file(file);
            }
            self.warnings
                .push("no container was seen to start: this recording has no cgroup plane".to_owned());
            self.tracer.resolve(|_| false)?;
        }
        self.tracer.sample()?;
        self.tracer.sample_pss()?;
        self.tracer.phase("end", now_ns())?;
        self.tracer.read_aggregates("end")?;
        self.tracer.journal_aggregates()?;
        if let Some(leaf) = self.leaf.take() {
            let left = leaf.processes();
            if !left.is_empty() {
                self.warnings.push(format!(
                    "{} processes of the command still ran when it ended; they were moved out of its cgroup",
                    left.len()
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
        self.add_health_and_cost()?;
        let recording = self.tracer.journal.finish(now_ns()).map_err(io_error("write the journal"))?;
        Ok(Outcome { recording, exit_code })
    }

    fn add_health_and_cost(&mut self) -> Result<(), SessionError> {
        use crate::recording::journal::Entry;
        let hooks = self.tracer.object.hook_rows();
        let mut losses = self.tracer.object.losses()?;
        if self.tracer.decode_errors > 0 {
            losses.push(Loss { what: "undecoded_events".to_owned(), count: self.tracer.decode_errors });
        }
        let skipped: u64 = hooks.iter().filter_map(|h| h.lost).sum();
        if skipped > 0 {
            losses.push(Loss { what: "skipped_runs".to_owned(), count: skipped });
        }
        let bpf_run_time_ns = hooks.iter().filter_map(|h| h.run_time_ns).reduce(|a, b| a + b);
        let health = Health {
            lost_total: losses.iter().map(|l| l.count).sum(),
            losses,
            hooks,
            warnings: self.warnings.clone(),
            complete: true,
        };
        let (agent_cpu_ns, agent_rss_peak) = own_usage();
        let cost =
            Cost { agent_cpu_ns, agent_rss_peak, bpf_run_time_ns, bpf_memory: self.tracer.object.memory() };
        self.tracer.journal.add(Entry::Health(health)).map_err(io_error("write the journal"))?;
        self.tracer.journal.add(Entry::Cost(cost)).map_err(io_error("write the journal"))
    }
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

/// CPU time and peak resident memory of this process.
fn own_usage() -> (u64, u64) {
    // SAFETY: all zero is a valid rusage, and the pointer is to it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let ns = |t: libc::timeval| t.tv_sec as u64 * 1_000_000_000 + t.tv_usec as u64 * 1000;
    (ns(usage.ru_utime) + ns(usage.ru_stime), usage.ru_maxrss as u64 * 1024)
}
