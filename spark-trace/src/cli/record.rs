mod goes;
mod keep;
mod name;
mod rescue;
mod since;

use std::{
    ffi::OsString,
    io::IsTerminal,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use clap::{ValueEnum, builder::PossibleValuesParser};
use spark_trace_common::{
    capacities,
    hook::{HOOKS, Profile},
};

use super::headings;
use super::{destination::Destination, error::Exit, log::LogArgs, progress::Line};
use crate::serve::DEFAULT_STATE;
use goes::Goes;
use spark_trace_agent::attach_plan::{Exclusion, HookSelection, SystemCalls};
use spark_trace_agent::{
    output::{self, screen::Screen},
    session::{Options, Session, SessionError, Wishes},
    subject::{Placement, Spec},
};
use spark_trace_analysis::{attribution::gaps, losses};
use spark_trace_host::invoker;
use spark_trace_recording::parse::{self, SizeOrOff};
use spark_trace_recording::{Recording, WriteOptions, journal::Arguments, write::refuse_existing};

/// Record where the memory of a run goes
#[derive(Debug, clap::Args)]
#[command(
    after_help = EXAMPLES,
    override_usage = "spark-trace record [OPTIONS] [--] COMMAND [ARGUMENT]...\n       \
                      spark-trace record [OPTIONS] --container|--cgroup|--pid|--system|--since ..."
)]
pub struct Args {
    /// File to write; `.json.zst` compresses it. - is standard output: then what COMMAND writes there goes to standard
    /// error, and nothing can be recovered after a kill [default: named after target and time]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Replace an existing file
    #[arg(long)]
    force: bool,

    /// Time between two readings of the levels, at least 1ms; without a unit it is in seconds
    #[arg(help_heading = headings::DETAIL, long, value_name = "TIME", default_value = "100ms", value_parser = parse::interval)]
    interval: Duration,

    /// Amount of detail; more detail costs more
    #[arg(help_heading = headings::DETAIL, long, value_enum, default_value = "default")]
    profile: ProfileArg,

    /// Keep all readings of the last TIME, such as 10m; of older ones one a second for an hour, then one a minute, each with
    /// the lowest and highest of its plane [default: keep all, up to the limits of a recording]
    #[arg(help_heading = headings::DETAIL, long, value_name = "TIME", value_parser = parse::duration)]
    keep_fine: Option<Duration>,

    /// List mappings of at least this size with their stack; count smaller ones
    #[arg(help_heading = headings::DETAIL, long, value_name = "SIZE", default_value = "1M", value_parser = parse::size)]
    min_region: u64,

    /// Read the frames of Python (CPython 3.10 to 3.13) of CUDA allocations of at least this size, and of memory queries; `off`
    /// reads none
    #[arg(help_heading = headings::DETAIL, long, value_name = "SIZE|off", default_value = "1M", value_parser = parse::size_or_off)]
    python_frames: SizeOrOff,

    /// Find the callers in C and C++ built without frame pointers, of CUDA allocations and anonymous mappings of at least this size,
    /// and of CUDA memory queries: copies up to 32 KiB of the stack each time and unwinds it; `off` copies nothing
    #[arg(help_heading = headings::DETAIL, long, value_name = "SIZE|off", default_value = "off", value_parser = parse::size_or_off)]
    unwind: SizeOrOff,

    /// Stop after this time (with --container, --cgroup, --pid or --system; a command runs to its end)
    #[arg(help_heading = headings::ATTACH, long, value_name = "TIME", value_parser = parse::duration)]
    duration: Option<Duration>,

    /// Attach to a running container, by id or name
    #[arg(help_heading = headings::ATTACH, long, value_name = "ID|NAME", group = "target")]
    container: Option<String>,

    /// Attach to a cgroup, by its directory or its path below the memory hierarchy
    #[arg(help_heading = headings::ATTACH, long, value_name = "PATH", group = "target")]
    cgroup: Option<PathBuf>,

    /// Attach to a running process with all its descendants, present and future
    #[arg(help_heading = headings::ATTACH, long, value_name = "PID", group = "target")]
    pid: Option<u32>,

    /// Record the whole machine, while COMMAND runs or until Ctrl-C
    #[arg(help_heading = headings::ATTACH, long, group = "target")]
    system: bool,

    /// Write the last minutes, such as 5m, that a running `spark-trace serve` has in memory
    #[arg(help_heading = headings::ATTACH, long, value_name = "TIME", group = "target", value_parser = parse::duration, conflicts_with_all = [
        "interval", "keep_fine", "profile", "min_region", "python_frames", "unwind", "duration", "no_cgroup", "as_root", "exclude_hook", "exclude_mechanism",
        "system_calls", "cuda_library", "no_pause", "keep_arguments", "gpu_interval", "nvml", "log", "log_file", "command",
    ])]
    since: Option<Duration>,

    /// State directory of `spark-trace serve`
    #[arg(help_heading = headings::ATTACH, long, value_name = "DIR", default_value = DEFAULT_STATE, requires = "since")]
    state: PathBuf,

    /// Do not move COMMAND to a cgroup of its own
    #[arg(help_heading = headings::COMMAND, long)]
    no_cgroup: bool,

    /// Run COMMAND as root also under sudo
    #[arg(help_heading = headings::COMMAND, long)]
    as_root: bool,

    /// Size of the event buffer, a power of two
    #[arg(help_heading = headings::DETAIL, long, value_name = "SIZE", default_value_t = u64::from(capacities::RING_BYTES), value_parser = parse::size, hide_default_value = true)]
    ring_size: u64,

    /// Do not attach this hook; `spark-trace doctor` lists the names
    #[arg(help_heading = headings::HOOKS, long, value_name = "NAME", value_parser = PossibleValuesParser::new(HOOKS.iter().map(|h| h.name)), hide_possible_values = true, alias = "without-hook")]
    exclude_hook: Vec<String>,

    /// Do not use this attach mechanism (tp_btf, fentry, fexit, kprobe, ...), for all hooks or for one; the next
    /// available one is used
    #[arg(help_heading = headings::HOOKS, long, value_name = "[HOOK:]NAME", alias = "without-mechanism")]
    exclude_mechanism: Vec<Exclusion>,

    /// Whether a hook may run at every system call of the machine, which slows down the calls of all processes. Hook
    /// `mapping` needs it on kernels without a cheaper way. `auto`: yes for a target, no with --system
    #[arg(help_heading = headings::HOOKS, long, value_name = "WHEN", value_enum, default_value_t = SystemCallsArg::Auto)]
    system_calls: SystemCallsArg,

    /// Also watch this CUDA driver or NVML library
    #[arg(help_heading = headings::HOOKS, long, value_name = "PATH", value_parser = parse::file)]
    cuda_library: Vec<PathBuf>,

    /// Never pause a process. By default a process that maps a CUDA library for the first time is paused until the
    /// library is watched and its interpreter of Python is found, for two seconds at most, so that no call is missed
    #[arg(help_heading = headings::HOOKS, long)]
    no_pause: bool,

    /// Time between two readings of the GPUs, at least 1ms
    #[arg(help_heading = headings::DETAIL, long, value_name = "TIME", default_value = "200ms", value_parser = parse::interval)]
    gpu_interval: Duration,

    /// NVIDIA's management library (libnvidia-ml.so.1), if it is not in a standard location
    #[arg(help_heading = headings::HOOKS, long, value_name = "PATH", value_parser = parse::file)]
    nvml: Option<PathBuf>,

    /// Keep the lines of COMMAND's output, or of the container's log, in which frameworks report their memory. COMMAND then
    /// writes to pipes, not to the terminal
    #[arg(help_heading = headings::COMMAND, long, conflicts_with_all = ["cgroup", "pid"])]
    log: bool,

    /// Also write COMMAND's output to FILE; implies --log
    #[arg(help_heading = headings::COMMAND, long, value_name = "FILE", conflicts_with_all = ["container", "cgroup", "pid"])]
    log_file: Option<PathBuf>,

    /// Keep command lines as they are. By default the values of -e and --env, and of variables and options named like
    /// secrets (token, password, key, ...), are replaced by <hidden>
    #[arg(help_heading = headings::COMMAND, long)]
    keep_arguments: bool,

    /// Show a progress line even if COMMAND writes to the same terminal. Its output then goes through pipes, as with
    /// --log
    #[arg(help_heading = headings::COMMAND, long, conflicts_with = "quiet")]
    progress: bool,

    /// Print no progress line, and only warnings at the end
    #[arg(short, long)]
    quiet: bool,

    #[command(flatten)]
    logging: LogArgs,

    /// Command to run and trace, with its arguments. Options of spark-trace come before it
    #[arg(
        trailing_var_arg = true,
        value_hint = clap::ValueHint::CommandWithArguments,
        value_name = "COMMAND",
        required_unless_present_any = ["target"],
        conflicts_with_all = ["container", "cgroup", "pid"]
    )]
    command: Vec<OsString>,
}

const EXAMPLES: &str = r#"Examples:
  sudo spark-trace record ./train.py --epochs 1
  sudo env "PATH=$PATH" spark-trace record python3 train.py    # the python3 of your PATH
  sudo spark-trace record -o container.json docker run --rm --gpus all image cmd
  sudo spark-trace record --log trtllm-bench --model NAME throughput --dataset data.txt
  sudo spark-trace record --log-file run.log docker run --rm --gpus all image cmd
  sudo spark-trace record --container web --duration 30s
  sudo spark-trace record --system --duration 10s -o machine.json.zst
  sudo spark-trace record --system --keep-fine 10m -o day.json.zst  # until Ctrl-C
  sudo spark-trace record --since 5m -o what-happened.json.zst      # where `spark-trace serve` runs

Under sudo the command runs as you, with your HOME, USER, LOGNAME and SHELL. sudo itself
replaces PATH: see above.

A recording has limits, so that a trace can go on for days. Beyond them old readings
are thinned (the highest and lowest stay), and a warning says so: see Limits in
docs/recording.md. --keep-fine thins them by age.

Exit codes:
  the command's own, 128+N if signal N ended it; 0 without a command
  1    the trace failed; the last line is then `spark-trace: the trace failed: ...`
  2    bad input: for example, the file to write exists
  64   wrong usage
  126  the command was found and could not be executed
  127  the command was not found"#;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ProfileArg {
    /// Levels, processes, cgroups, requests to the NVIDIA driver
    Light,
    /// Also page cache by file, kernel pages by stack, large mappings
    Default,
    /// Also every page and every cgroup charge: high overhead
    Deep,
}

impl From<ProfileArg> for Profile {
    fn from(arg: ProfileArg) -> Self {
        match arg {
            ProfileArg::Light => Self::Light,
            ProfileArg::Default => Self::Default,
            ProfileArg::Deep => Self::Deep,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SystemCallsArg {
    Auto,
    On,
    Off,
}

impl From<SystemCallsArg> for Option<bool> {
    fn from(arg: SystemCallsArg) -> Self {
        match arg {
            SystemCallsArg::Auto => None,
            SystemCallsArg::On => Some(true),
            SystemCallsArg::Off => Some(false),
        }
    }
}

/// Options that hardly any other program has: behind the command they are most likely meant for spark-trace.
const OWN_OPTIONS: &[&str] = &[
    "--keep-fine",
    "--min-region",
    "--python-frames",
    "--unwind",
    "--no-cgroup",
    "--as-root",
    "--ring-size",
    "--exclude-hook",
    "--exclude-mechanism",
    "--system-calls",
    "--cuda-library",
    "--no-pause",
    "--gpu-interval",
    "--log-level",
];

/// An option among the command's arguments that looks like one of spark-trace's.
fn misplaced(command: &[OsString]) -> Option<&str> {
    let words: Vec<&str> = command.iter().skip(1).filter_map(|word| word.to_str()).collect();
    let is_recording = |name: &&str| name.ends_with(".json") || name.ends_with(".json.zst");
    let output = words.windows(2).find(
        |pair| matches!(pair, [option, name] if matches!(*option, "-o" | "--output") && is_recording(name)),
    );
    let output = output.and_then(|pair| pair.first().copied());
    let is_own = |word: &&str| OWN_OPTIONS.contains(&word.split('=').next().unwrap_or(word));
    output.or_else(|| words.iter().copied().find(is_own))
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    anyhow::ensure!(
        args.log_file.as_deref() != Some(Path::new("-")),
        anyhow::anyhow!("`--log-file -`: the command's output goes to standard output as it is")
            .context(Exit::Usage)
    );
    if let Some(option) = misplaced(&args.command).filter(|_| !args.quiet) {
        eprintln!(
            "spark-trace: `{}` comes after the command and is passed to it; options of spark-trace come before the command",
            spark_trace_render::escape::line(option)
        );
    }
    let _log = args.logging.start().context(Exit::TraceFailed)?;
    let spec = args.spec();
    let write = WriteOptions { force: args.force, owner: invoker::owner() };
    if let Some(since) = args.since {
        let output = args.output.map_or_else(|| name::free(&spec, write), Ok)?;
        let output = Destination::new(Some(&output), args.force)?;
        return since::Since { since, state: &args.state, output: &output, quiet: args.quiet }.run();
    }
    let ring_bytes = u32::try_from(args.ring_size)
        .ok()
        .filter(|n| n.is_power_of_two() && u64::from(*n) >= spark_trace_agent::page_size())
        .context("--ring-size must be a power of two from the page size up")
        .context(Exit::Usage)?;
    let screen = Arc::new(Screen::default());
    let output_options = args.output_options(write, &screen)?;
    let line = Line::new(args.has_line(), screen);
    // Last of what may refuse: until it is removed, the name is this recording's.
    let goes = Goes::new(args.output.as_deref(), &spec, write)?;
    let options = Options {
        spec,
        hooks: args.hooks(),
        interval: args.interval,
        min_region: args.min_region,
        keep_fine: args.keep_fine,
        python_min: args.python_frames.0,
        unwind_min: args.unwind.0,
        ring_bytes,
        libraries: args.cuda_library,
        pause: !args.no_pause,
        duration: args.duration,
        nvml: args.nvml.clone(),
        gpu_interval: args.gpu_interval,
        output: output_options,
        command_output: goes.of_command(),
        keep: goes.keep(),
        arguments: if args.keep_arguments { Arguments::Kept } else { Arguments::Hidden },
    };
    record(options, &goes, write, (line, args.quiet))
}

/// Records and writes; the exit code is the command's.
fn record(
    options: Options,
    goes: &Goes<'_>,
    write: WriteOptions,
    (mut line, quiet): (Line, bool),
) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot set up the event loop")
        .context(Exit::TraceFailed)
        .inspect_err(|_| goes.remove_empty())?;
    goes.arm();
    let mut printed = Vec::new();
    let outcome = runtime.block_on(async {
        let session = Session::prepare(options)?;
        session
            .run(&mut |progress| {
                if let Some(notice) = progress.notice {
                    line.clear();
                    eprintln!("spark-trace: WARNING: {}", spark_trace_render::escape::line(notice));
                    printed.push(notice.to_owned());
                }
                line.show(progress);
                Wishes::default()
            })
            .await
    });
    line.clear();
    rescue::disarm();
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            let exit = exit_of(&error);
            return Err(goes.failed(anyhow::Error::new(error))).context(exit);
        }
    };
    let code = outcome.exit_code.map(|code| u8::try_from(code & 0xff).unwrap_or(1));
    let exit = code.map_or(Exit::Fine, Exit::Child);
    let written = goes.write(&outcome.recording, outcome.journal_is_cut, write).map_err(|error| {
        // The command ran all the same: a failure of its own is the one to be reported.
        error.context(code.filter(|&code| code != 0).map_or(Exit::TraceFailed, Exit::ChildOfFailedTrace))
    })?;
    if let Some(rest) = outcome.output {
        // The recording is safe; a slow reader still gets everything.
        runtime.block_on(rest.delivered()).context("cannot watch for signals").context(Exit::TraceFailed)?;
    }
    warnings(&outcome.recording, &printed);
    if !quiet {
        summary(&outcome.recording, written.as_deref());
    }
    // The process ends now: giving a million rows back one by one would be for nobody.
    std::mem::forget(outcome.recording);
    Ok(exit)
}

/// A command that does not start has another code than a trace that fails, as shells do (POSIX, "Exit Status for Commands").
fn exit_of(error: &SessionError) -> Exit {
    match error {
        SessionError::Start { cause, .. } if cause.kind() == std::io::ErrorKind::NotFound => Exit::NotFound,
        SessionError::Start { .. } => Exit::NotExecutable,
        _ => Exit::TraceFailed,
    }
}

/// Warnings that are printed even with --quiet, without those that were printed before.
fn warnings(recording: &Recording, printed: &[String]) {
    let gaps = gaps::counted(&recording.health).chain(gaps::reduced(&recording.health));
    let gaps = gaps.map(|warning| format!("WARNING: {warning}"));
    let warnings = recording.health.warnings.iter().filter(|warning| !printed.contains(warning)).cloned();
    for warning in &gaps.chain(warnings).collect::<Vec<_>>() {
        eprintln!("spark-trace: {}", spark_trace_render::escape::line(warning));
    }
    if losses::matter(&recording.health) {
        eprintln!(
            "spark-trace: WARNING: lost: {}: what the hooks report is incomplete; the levels are not affected",
            lost(recording)
        );
    }
}

fn lost(recording: &Recording) -> String {
    let losses = recording.health.losses.iter();
    losses.map(|l| format!("{} {}", l.count, l.what.replace('_', " "))).collect::<Vec<_>>().join(", ")
}

fn summary(recording: &Recording, output: Option<&Path>) {
    if recording.health.lost_total > 0 && !losses::matter(&recording.health) {
        eprintln!("spark-trace: lost: {}; negligible for every hook", lost(recording));
    }
    if let Some(output) = output.map(Path::display) {
        eprintln!("spark-trace: wrote {output}; see it with `spark-trace show {output}`");
    }
}

impl Args {
    /// How the command's output is read, if it is.
    fn output_options(
        &self,
        write: WriteOptions,
        screen: &Arc<Screen>,
    ) -> anyhow::Result<Option<output::Options>> {
        let of_container = self.container.is_some() && self.log;
        if self.command.is_empty() && !of_container && (self.log || self.log_file.is_some()) {
            return Err(anyhow::anyhow!(
                "--log reads the output of a COMMAND or a container, and there is none"
            ))
            .context(Exit::Usage);
        }
        if !of_container && (self.command.is_empty() || !self.reads()) {
            return Ok(None);
        }
        if let Some(file) = &self.log_file {
            if Some(file) == self.output.as_ref() {
                return Err(anyhow::anyhow!("--log-file and --output are the same file"))
                    .context(Exit::Usage);
            }
            refuse_existing(file, write)?;
        }
        let file = self.log_file.clone();
        Ok(Some(output::Options { file, write, screen: Arc::clone(screen) }))
    }

    /// Whether what COMMAND writes is read.
    fn reads(&self) -> bool {
        self.log || self.log_file.is_some() || self.progress
    }

    /// Whether there is a progress line: not on a terminal that the command, which inherits it, writes to by itself.
    fn has_line(&self) -> bool {
        let draws = std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        let shares = !self.command.is_empty() && !self.reads();
        !self.quiet && draws && !shares && !self.logging.is_on_terminal() && std::io::stderr().is_terminal()
    }

    fn hooks(&self) -> HookSelection {
        HookSelection {
            profile: self.profile.into(),
            without: self.exclude_hook.clone(),
            exclude_mechanisms: self.exclude_mechanism.clone(),
            system_calls: SystemCalls::of(self.system_calls.into(), self.system),
        }
    }

    fn spec(&self) -> Spec {
        let argv = self.command.clone();
        if self.system {
            return Spec::System { argv };
        }
        if let Some(name) = &self.container {
            return Spec::Container { engine: None, name: name.clone() };
        }
        if let Some(path) = &self.cgroup {
            return Spec::Cgroup(path.clone());
        }
        if let Some(pid) = self.pid {
            return Spec::Pid(pid);
        }
        let placement = if self.no_cgroup { Placement::Unchanged } else { Placement::Leaf };
        Spec::Command { argv, placement, as_root: self.as_root }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_behind_the_command_are_pointed_out_where_they_look_like_ours() {
        let found = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            misplaced(&words).map(str::to_owned)
        };
        assert_eq!(found("sleep 1 -o x.json").as_deref(), Some("-o"));
        assert_eq!(found("./train.py --output run.json.zst").as_deref(), Some("--output"));
        assert_eq!(found("./train.py --min-region=64K").as_deref(), Some("--min-region=64K"));
        for ordinary in ["gcc -o x x.c", "curl --output page.html u", "-o x.json", "sleep 1"] {
            assert_eq!(found(ordinary), None, "{ordinary}");
        }
    }
}
