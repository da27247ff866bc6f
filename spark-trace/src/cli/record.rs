mod since;

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use clap::{ValueEnum, builder::PossibleValuesParser};
use spark_trace_common::{
    hook::{HOOKS, Profile},
    map,
};

use super::{error::Exit, progress::Line};
use crate::{
    analysis::losses,
    live::{
        output,
        session::{Keep, Options, Session, Wishes},
        target::{Placement, Spec, command::Invoker},
    },
    parse,
    plan::{Choice, LeftOut},
    recording::{self, Recording, WriteOptions, write::refuse_existing},
    serve::DEFAULT_STATE,
};

/// Record where the memory of a run goes
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// File to write; `.json.zst` compresses it. Default: named after target and time
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Replace an existing file
    #[arg(long)]
    force: bool,

    /// Time between two readings of the levels
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = parse::duration)]
    interval: Duration,

    /// How much detail for how much cost
    #[arg(long, value_enum, default_value = "default")]
    profile: ProfileArg,

    /// Mappings at least this long are listed with their stack, shorter ones counted
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = parse::size)]
    min_region: u64,

    /// Stop after this time (for what is attached to; a command runs to its end)
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    duration: Option<Duration>,

    /// Attach to a running container, by id or name
    #[arg(long, value_name = "ID|NAME", group = "target")]
    container: Option<String>,

    /// Attach to a cgroup, by its directory or its path below the memory hierarchy
    #[arg(long, value_name = "PATH", group = "target")]
    cgroup: Option<PathBuf>,

    /// Attach to a running process and what it forks
    #[arg(long, value_name = "PID", group = "target")]
    pid: Option<u32>,

    /// The whole machine, while COMMAND runs or until Ctrl-C
    #[arg(long, group = "target")]
    system: bool,

    /// What `spark-trace serve` has kept of the last minutes, such as 5m; asks nothing of the kernel
    #[arg(long, value_name = "TIME", group = "target", value_parser = parse::duration, conflicts_with_all = [
        "interval", "profile", "min_region", "duration", "no_cgroup", "as_root", "without_hook", "without_mechanism",
        "cuda_library", "gpu_interval", "nvml", "log", "log_file", "command",
    ])]
    since: Option<Duration>,

    /// The folder of `spark-trace serve`
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE, requires = "since")]
    state: PathBuf,

    /// Leave COMMAND in the cgroup it is started in
    #[arg(long)]
    no_cgroup: bool,

    /// Run COMMAND as root also under sudo
    #[arg(long)]
    as_root: bool,

    /// Room for events between two polls (a power of two)
    #[arg(long, value_name = "SIZE", default_value_t = u64::from(map::RING_BYTES), value_parser = parse::size, hide_default_value = true)]
    ring_size: u64,

    /// Leave a hook out, by its name in `spark-trace doctor`
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(HOOKS.iter().map(|h| h.name)), hide_possible_values = true)]
    without_hook: Vec<String>,

    /// Attach no hook, or this one, by a mechanism (tp_btf, fentry, fexit, kprobe, ...): the next best one that the
    /// kernel has takes its place
    #[arg(long, value_name = "[HOOK:]NAME")]
    without_mechanism: Vec<LeftOut>,

    /// A CUDA driver or NVML library to watch besides those that are found
    #[arg(long, value_name = "PATH")]
    cuda_library: Vec<PathBuf>,

    /// Time between two readings of the GPUs
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = parse::duration)]
    gpu_interval: Duration,

    /// NVIDIA's management library (libnvidia-ml.so.1), where it is in no usual place
    #[arg(long, value_name = "PATH", value_parser = parse::file)]
    nvml: Option<PathBuf>,

    /// Read COMMAND's output and keep what frameworks say of their memory in it. COMMAND then writes to pipes, not to
    /// the terminal
    #[arg(long, conflicts_with_all = ["container", "cgroup", "pid"])]
    log: bool,

    /// Write all that COMMAND writes to FILE as well; implies --log
    #[arg(long, value_name = "FILE", conflicts_with_all = ["container", "cgroup", "pid"])]
    log_file: Option<PathBuf>,

    /// No progress line
    #[arg(short, long)]
    quiet: bool,

    /// Command to run and trace
    #[arg(
        last = true,
        value_name = "COMMAND",
        required_unless_present_any = ["target"],
        conflicts_with_all = ["container", "cgroup", "pid"]
    )]
    command: Vec<String>,
}

const EXAMPLES: &str = "\
Examples:
  sudo spark-trace record -- ./train.py --epochs 1
  sudo spark-trace record -o container.json -- docker run --rm --gpus all image cmd
  sudo spark-trace record --log -- trtllm-bench --model NAME throughput --dataset data.txt
  sudo spark-trace record --log-file run.log -- docker run --rm --gpus all image cmd
  sudo spark-trace record --container web --duration 30s
  sudo spark-trace record --system --duration 10s -o machine.json.zst
  sudo spark-trace record --since 5m -o what-happened.json.zst      # where `spark-trace serve` runs

The exit code is the command's own; 1 where the trace failed, 64 for wrong usage.";

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ProfileArg {
    /// Levels, processes, cgroups and what the NVIDIA driver was asked for
    Light,
    /// With page cache by file, kernel pages by stack, large mappings
    Default,
    /// With every page and every cgroup charge: costs much
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

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let spec = args.spec();
    let output = args.output.clone().unwrap_or_else(|| default_name(&spec));
    let owner = Invoker::from_environment().map(|i| (i.uid, i.gid));
    let write = WriteOptions { force: args.force, owner };
    if let Some(since) = args.since {
        return since::Since { since, state: &args.state, output: &output, write, quiet: args.quiet }.run();
    }
    refuse_existing(&output, write)?;
    let ring_bytes = u32::try_from(args.ring_size)
        .ok()
        .filter(|n| n.is_power_of_two() && u64::from(*n) >= crate::live::page_size())
        .context("--ring-size must be a power of two from the page size up")
        .context(Exit::Usage)?;
    let output_options = args.output_options(&output, write)?;
    let options = Options {
        spec,
        hooks: args.hooks(),
        interval: args.interval.max(Duration::from_millis(1)),
        min_region: args.min_region,
        ring_bytes,
        libraries: args.cuda_library,
        duration: args.duration,
        nvml: args.nvml.clone(),
        gpu_interval: args.gpu_interval.max(Duration::from_millis(1)),
        output: output_options,
        keep: Keep::Journal(partial_name(&output)),
    };
    record(options, &output, write, args.quiet)
}

/// Records and writes; the exit code is the command's.
pub fn record(options: Options, output: &Path, write: WriteOptions, quiet: bool) -> anyhow::Result<Exit> {
    let Keep::Journal(journal) = options.keep.clone() else {
        anyhow::bail!("a recording without a journal");
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot set up the event loop")
        .context(Exit::TraceFailed)?;
    let mut line = Line::new(!quiet && std::io::stderr().is_terminal());
    let outcome = runtime.block_on(async {
        let session = Session::prepare(options)?;
        session
            .run(&mut |progress| {
                line.show(progress);
                Wishes::default()
            })
            .await
    });
    line.clear();
    let outcome = outcome.context(Exit::TraceFailed).inspect_err(|_| remove_empty(&journal))?;
    recording::write(&outcome.recording, output, write)
        .with_context(|| format!("the journal is kept in {}", journal.display()))
        .context(Exit::TraceFailed)?;
    // Only now: until here it was the only copy.
    let _ = std::fs::remove_file(&journal);
    if let Some(rest) = outcome.output {
        // The recording is safe; a slow reader still gets everything.
        runtime.block_on(rest.delivered()).context("cannot watch for signals").context(Exit::TraceFailed)?;
    }
    if !quiet {
        summary(&outcome.recording, output);
    }
    Ok(outcome.exit_code.map_or(Exit::Fine, |code| Exit::Child(u8::try_from(code & 0xff).unwrap_or(1))))
}

/// A journal of a trace that never started holds nothing worth recovering.
fn remove_empty(journal: &Path) {
    if let Ok(file) = std::fs::File::open(journal)
        && recording::journal::recover(std::io::BufReader::new(file))
            .is_ok_and(|r| r.samples.system.begin_ns.is_empty())
    {
        let _ = std::fs::remove_file(journal);
    }
}

fn summary(recording: &Recording, output: &Path) {
    for warning in &recording.health.warnings {
        eprintln!("spark-trace: {}", crate::render::escape::line(warning));
    }
    let health = &recording.health;
    let what = || -> String {
        let counts = health.losses.iter().map(|l| format!("{} {}", l.count, l.what));
        counts.collect::<Vec<_>>().join(", ")
    };
    if losses::matter(health) {
        eprintln!(
            "spark-trace: WARNING: {} losses ({}): what hooks tell is incomplete; levels are not touched by it",
            health.lost_total,
            what()
        );
    } else if health.lost_total > 0 {
        eprintln!("spark-trace: the kernel left out {}, too few of any hook's events to matter", what());
    }
    eprintln!("spark-trace: wrote {}; see it with `spark-trace show {}`", output.display(), output.display());
}

impl Args {
    /// How the command's output is read, if it is.
    fn output_options(&self, output: &Path, write: WriteOptions) -> anyhow::Result<Option<output::Options>> {
        if !self.log && self.log_file.is_none() {
            return Ok(None);
        }
        if self.command.is_empty() {
            return Err(anyhow::anyhow!("--log reads the output of a COMMAND, and there is none"))
                .context(Exit::Usage);
        }
        if let Some(file) = &self.log_file {
            if file == output {
                return Err(anyhow::anyhow!("--log-file and --output are the same file"))
                    .context(Exit::Usage);
            }
            refuse_existing(file, write)?;
        }
        let file = self.log_file.clone();
        Ok(Some(output::Options { file, force: write.force, owner: write.owner }))
    }

    fn hooks(&self) -> Choice {
        Choice {
            profile: self.profile.into(),
            without: self.without_hook.clone(),
            without_mechanisms: self.without_mechanism.clone(),
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

/// `spark-trace-TARGET-TIME.json` in the working directory.
fn default_name(spec: &Spec) -> PathBuf {
    let target = match spec {
        Spec::Command { argv, .. } => {
            argv.first().and_then(|a| a.rsplit('/').next()).unwrap_or("command").to_owned()
        }
        Spec::Container { name, .. } => name.clone(),
        Spec::Pid(pid) => format!("pid{pid}"),
        Spec::Cgroup(_) | Spec::System { .. } => spec.kind().to_owned(),
    };
    let target: String = target
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' })
        .collect();
    PathBuf::from(format!("spark-trace-{target}-{}.json", parse::utc_now()))
}

/// Where the journal of a recording lies while it is made.
fn partial_name(output: &Path) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_os_string();
    name.push(".partial");
    output.with_file_name(name)
}
