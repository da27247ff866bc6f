//! One recording from start to end: load, attach, start or find the target, follow it, finish.

mod containers;
mod follow;
mod gpus;
mod health;
mod options;
mod output;
mod pauses;
mod put_off;
mod start;

use std::{
    collections::BTreeMap,
    io::{self, BufWriter},
    time::{Duration, Instant},
};

use aya::maps::{MapData, RingBuf};
use spark_trace_common::hook::Profile;
use thiserror::Error;
use tokio::{
    io::unix::AsyncFd,
    process::Child,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc::UnboundedReceiver,
};
use tracing::debug;

use super::{
    aggregates::Collector,
    bpf::{Begun, Object, ObjectError},
    btf::{Btf, BtfError},
    cgroup::{self, CgroupError, Layout, Leaf},
    host,
    journal_file::{self, JournalFile},
    kallsyms::Awaited,
    messages, now_ns,
    offsets::{self, MissingType, Settings},
    output::{Output, OutputError, container::ContainerLog},
    pause::Guard,
    priority::Raised,
    realtime_offset_ns,
    source::{nvml::Nvml, process, system::System},
    statistics::Statistics,
    subject::{self, Spec, command::Invoker},
    symbols::{Names, Stacks},
    tracer::{Tracer, TracerError},
    unwind::Unwinder,
};
use containers::Containers;
use follow::Take;
pub use options::{Keep, Named, Options, Wishes};
use put_off::PutOff;

use spark_trace_recording::InstantKind;
use spark_trace_recording::units;
use spark_trace_recording::{
    Clock, Loss, Moment, Recording, SCHEMA_VERSION, Target, Tool,
    claim::Claim,
    journal::{Arguments, Begin, JOURNAL_SCHEMA, Journal},
};

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
        true => "; do not put quotes around the whole command",
        false => "",
    }
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> SessionError {
    let what = what.into();
    move |cause| SessionError::Io { what, cause }
}

/// What a progress display gets, a few times a second.
pub struct Progress<'a> {
    pub elapsed: Duration,
    pub recording: &'a Recording,
    pub lost: u64,
    /// Something that the user must know now; printed once.
    pub notice: Option<&'a str>,
    /// Names that were wanted are still to come.
    pub awaits_names: bool,
}

pub struct Outcome {
    pub recording: Recording,
    /// Exit code of the traced command.
    pub exit_code: Option<i32>,
    /// The journal could not be written to its end: it is no copy of the recording.
    pub journal_is_cut: bool,
    /// The command's output, where it was read: some of it may not have been passed on yet.
    pub output: Option<Output>,
}

/// What is written of a journal at once.
const JOURNAL_BUFFER: usize = 64 << 10;

/// The journal's writer.
type Out = BufWriter<JournalFile>;

/// What a trace reports to, a few times a second.
pub type Report<'a> = &'a mut dyn FnMut(&Progress<'_>) -> Wishes;

/// Looks at the recording between two readings.
pub type View = Box<dyn FnOnce(&Recording) + Send>;

/// A trace with everything attached.
pub struct Session {
    tracer: Tracer<Out>,
    events: AsyncFd<RingBuf<MapData>>,
    leaf: Option<Leaf>,
    child: Option<Child>,
    output: Option<Output>,
    /// By container.
    container_logs: BTreeMap<String, ContainerLog>,
    containers: Containers,
    options: Options,
    /// Absent where nobody looks between two readings.
    views: Option<UnboundedReceiver<View>>,
    warnings: Vec<String>,
    statistics: Statistics,
    nvml: Nvml,
    /// Lets paused processes go on if this one cannot.
    guard: Option<Guard>,
    interrupts: Signal,
    terminations: Signal,
    /// The terminal is gone; absent where that is ignored, as nohup(1) has it.
    hangups: Option<Signal>,
    invoker: Option<Invoker>,
    /// Times that the user has requested the end.
    interrupted: u32,
    /// When whoever looks wanted the end.
    end_wanted: Option<Instant>,
    /// The event buffer was not empty when it was last left.
    has_backlog: bool,
    put_off: PutOff,
    /// Walks of processes' mappings that were wanted.
    walks_not_made: u64,
    /// The journal is not written any more, and that was reported.
    journal_failed: bool,
    /// Absent where no journal is written.
    journal_end: Option<journal_file::End>,
    /// What the log has of losses.
    losses: Vec<Loss>,
    /// Other spark-traces that have run beside this one.
    beside: Vec<u32>,
}

impl Session {
    /// Loads and attaches everything; nothing of the target runs yet.
    pub fn prepare(options: Options) -> Result<Self, SessionError> {
        super::raise_open_files();
        // A file that grows beyond RLIMIT_FSIZE is an error of that file (EFBIG), and not the end.
        drop(signals(SignalKind::from_raw(libc::SIGXFSZ))?);
        // Before anything that would have to be cleaned up.
        let interrupts = signals(SignalKind::interrupt())?;
        let terminations = signals(SignalKind::terminate())?;
        let hangups = if ignores(libc::SIGHUP) { None } else { Some(signals(SignalKind::hangup())?) };
        // Starting it may take as long as everything below.
        let mut nvml = Nvml::start(options.nvml.clone(), options.gpu_interval);
        let begun = Begun::begin();
        let btf = Btf::from_kernel()?;
        let layout = Layout::detect()?;
        let mut warnings: Vec<String> = cgroup::remove_stale_leaves(&layout)
            .into_iter()
            .map(|name| format!("removed cgroup {name}, left by a spark-trace that was killed"))
            .collect();
        let whole_system = matches!(options.spec, Spec::System { .. });
        let all_pages = options.hooks.profile >= Profile::Deep;
        let settings = Settings {
            whole_system,
            all_pages,
            min_region: options.min_region,
            python_min: options.python_min,
            unwind_min: options.unwind_min,
        };
        let config = offsets::resolve(&btf, &layout, settings)?;
        let mut object = Object::load(begun, &config, options.ring_bytes)?;
        let events = object.take_events()?;
        // It starts before the target does.
        let unwinder = match options.unwind_min {
            Some(_) => Some(Unwinder::start(object.take_copies()?)),
            None => None,
        };
        let statistics = Statistics::begin();
        if !statistics.available() {
            warnings
                .push("the kernel refuses BPF statistics: run times of the programs are unknown".to_owned());
        }
        debug!("the eBPF object is loaded, with an event buffer of {} bytes", options.ring_bytes);
        // Before anything is seen of them.
        warnings.extend(object.announce()?);
        object.attach(&options.hooks, &btf)?;
        object.require()?;
        // Of those that have begun at the same time, the last one finds the others now.
        object.announce()?;
        let symbols =
            if options.hooks.profile == Profile::Light { Awaited::when_needed() } else { Awaited::begin() };

        let mut host = host::facts(&layout);
        gpus::describe(nvml.machine(), &mut host, &mut warnings);
        let target = Target {
            kind: options.spec.kind().into(),
            argv: subject::text(options.spec.argv()),
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
                keep_fine_ns: options.keep_fine.map(|fine| fine.as_nanos() as u64),
                pid: Some(std::process::id()),
            },
            host,
            clock: Clock { name: "CLOCK_MONOTONIC".to_owned(), realtime_offset_ns: realtime_offset_ns() },
            target: target.clone(),
        };
        let (journal, journal_end) = match &options.keep {
            Keep::All(Some(claim)) => {
                let (journal, end) = begin_journal(claim, begin, options.arguments)?;
                (journal, Some(end))
            }
            Keep::All(None) | Keep::Latest(_) => (Journal::unwritten(begin, options.arguments), None),
        };
        let system = System::open().map_err(io_error("open the kernel's counters"))?;
        let own_path = layout.of_process(std::process::id()).ok();
        let parts = (Stacks::new(symbols), Collector::new(&btf), layout, system);
        let retention = options.keep.retention();
        let mut tracer = Tracer::new(object, journal, target, parts, retention, options.min_region);
        tracer.has_gpus(&nvml.machine().gpus);
        tracer.reads_python = options.python_min.is_some();
        if tracer.reads_python {
            tracer.pythons.prepare();
        }
        tracer.unwinder = unwinder;
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
            container_logs: BTreeMap::new(),
            containers: Containers::new(own_path.as_deref()),
            options,
            views: None,
            warnings,
            statistics,
            nvml,
            guard: None,
            interrupts,
            terminations,
            hangups,
            invoker,
            interrupted: 0,
            end_wanted: None,
            has_backlog: false,
            put_off: PutOff::default(),
            walks_not_made: 0,
            journal_failed: false,
            journal_end,
            losses: Vec::new(),
            beside: Vec::new(),
        })
    }

    /// Shows the recording to the views that come, while the target is followed.
    pub fn show(&mut self, views: UnboundedReceiver<View>) {
        self.views = Some(views);
    }

    /// Traces until the target ends, the time is over or the user stops it.
    pub async fn run(mut self, progress: Report<'_>) -> Result<Outcome, SessionError> {
        self.note_beside()?;
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
        // A command has not been started; who is outside of another target is known once it is found.
        if matches!(self.options.spec, Spec::Command { .. }) {
            self.tracer.read_outside(Moment::Start)?;
        }
        if let Err(error) = self.start().await {
            self.abandon();
            return Err(error);
        }
        if !whole_machine && !matches!(self.options.spec, Spec::Command { .. }) {
            self.tracer.read_outside(Moment::Start)?;
            self.tracer.read_own_tmpfs(Moment::Start)?;
            let pids = self.tracer.alive();
            self.warnings.extend(self.tracer.read_cached_before(&pids));
        }
        let gpu_interval = self.nvml.machine().is_ok().then_some(self.options.gpu_interval);
        self.tracer.watch_readings(self.options.interval, gpu_interval);
        debug!("target {}: followed from now on", self.tracer.target.kind);
        // Without the right to it readings may be late, and are counted where they are.
        let raised =
            Raised::begin().inspect_err(|error| debug!("the recorder has no priority over others: {error}"));
        let exit_code = self.follow(progress).await?;
        drop(raised);
        debug!("target {}: it has ended, or the time is over", self.tracer.target.kind);
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
        if let Keep::All(Some(claim)) = &self.options.keep {
            claim.remove();
        }
    }

    fn finish(mut self, exit_code: Option<i32>) -> Result<Outcome, SessionError> {
        self.tracer.ends_ns = Some(now_ns());
        // What it would bring from now on is no part of the trace, and of that there may be more than can be taken.
        self.tracer.object.end_mapping();
        // The last reading is taken while the rest is.
        self.nvml.request_stop();
        self.drain(Take::All)?;
        self.end_pausing()?;
        self.containers.clean_up();
        self.tracer.await_no_more()?;
        let left_out = self.decide_kind()?;
        self.tracer.finish_readings(u64::MAX)?;
        // What was freed since the last sweep must not count as the driver's at the end.
        self.tracer.object.sweep_pages()?;
        self.tracer.sample()?;
        self.walks_not_made = self.tracer.finish_walks()?;
        self.walks_not_made += self.tracer.sample_pss()?;
        self.tracer.finish_neighbours()?;
        self.tracer.read_tmpfs(Moment::End)?;
        self.tracer.read_outside(Moment::End)?;
        let nvml = self.last_gpu_reading()?;
        self.tracer.phase("end", now_ns())?;
        self.tracer.read_aggregates(InstantKind::End)?;
        self.tracer.ended = true;
        let patience = self.tracer.retention.policy().longest_naming;
        self.tracer.journal_aggregates(&Names::All(patience))?;
        self.tracer.stacks.end_naming();
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
            self.drain(Take::All)?;
        }
        // All events before the last readings.
        self.drain(Take::All)?;
        self.tracer.empty_brief()?;
        self.note_beside()?;
        self.tracer.target.exit_code = exit_code;
        self.tracer.target.ended_ns = now_ns();
        self.tracer.publish_target()?;
        self.add_health_and_cost(nvml)?;
        messages::log_losses(&mut self.losses, &self.tracer.object.losses()?);
        self.tracer.object.detach_functions();
        self.await_journal()?;
        self.note_journal();
        let journal_is_cut = self.journal_failed;
        let mut recording = self.tracer.journal.finish(now_ns()).map_err(io_error("write the journal"))?;
        if let Some(cgroup) = left_out {
            recording.leave_out(cgroup);
        }
        // Who has requested the end need not do so again.
        let output = self.output.filter(|_| self.interrupted == 0);
        Ok(Outcome { recording, exit_code, journal_is_cut, output })
    }
}

fn begin_journal(
    claim: &Claim,
    begin: Begin,
    arguments: Arguments,
) -> Result<(Journal<Out>, journal_file::End), SessionError> {
    let failed = || io_error(format!("write {}", claim.journal.display()));
    let file = claim.file.try_clone().map_err(failed())?;
    let file = JournalFile::new(file).map_err(failed())?;
    let end = file.end();
    let out = BufWriter::with_capacity(JOURNAL_BUFFER, file);
    Ok((Journal::begin_with(out, begin, arguments).map_err(failed())?, end))
}

/// Whether a signal was ignored when this process began.
fn ignores(signal: i32) -> bool {
    // SAFETY: all zeros is a valid sigaction, which the kernel fills.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: nothing is set; the pointer is to `action`.
    let known = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) } == 0;
    known && action.sa_sigaction == libc::SIG_IGN
}

fn signals(kind: SignalKind) -> Result<Signal, SessionError> {
    signal(kind).map_err(io_error("watch for signals"))
}
