//! `xtask gpu run`: tests, recordings and benchmark on a machine with a GPU, from the packed folder alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use ebpf_build::find_in_path;

use super::folder::{CUDA_WORKLOAD, FILES, Folder, SPARK_TRACE, STATIC_WORKLOAD, TESTS};
use super::machine::Machine;
use super::recordings;
use crate::bench::{self, cuda::Cuda};
use crate::docker::{self, PrivateDocker, Tools};
use crate::{process, signals};

/// Runs what needs a GPU, from the folder that `pack` made
///
/// First the tests, then recordings of one inference natively and in a container, then what tracing
/// costs. One part failing does not keep the next from running.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ./xtask gpu run --output results
  ./xtask gpu run --only recordings --docker docker.tar.xz
  ./xtask gpu run --only study --docker docker.tar.xz
  ./xtask gpu run --driver simulated       # without a GPU: recordings and benchmark, not the tests

Tests find spark-trace in $SPARK_TRACE_BIN, workloads in $SPARK_TRACE_WORKLOAD and
$SPARK_TRACE_CUDA_WORKLOAD, their scripts in $SPARK_TRACE_GPU_FILES; and where there is Docker, the daemon
in $DOCKER_HOST and in $SPARK_TRACE_IMAGE an empty image, for /usr, /opt and /etc to be mounted into.")]
pub struct Args {
    /// Only this part (may be given again)
    #[arg(long, value_enum, value_name = "PART")]
    only: Vec<Part>,

    /// Folder for recordings, their reports and the benchmark's
    #[arg(long, value_name = "DIR", default_value = "gpu-results")]
    output: PathBuf,

    /// Docker for a machine without it: an archive, or a folder, with bin/ and lib/
    #[arg(long, value_name = "ARCHIVE")]
    docker: Option<PathBuf>,

    /// CUDA driver: system, simulated, or a path
    #[arg(long, value_name = "DRIVER", default_value = "system")]
    driver: String,

    /// Pairs of a traced and an untraced window
    #[arg(long, default_value_t = 15, value_name = "N")]
    pairs: u32,

    /// Pairs of whole runs, alone and traced
    #[arg(long, default_value_t = 7, value_name = "N")]
    run_pairs: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Tests,
    Recordings,
    Bench,
    /// Minutes; only where it is requested
    Study,
}

pub fn run(args: &Args) -> Result<()> {
    let folder = Folder::own()?;
    ensure!(process::is_root(), "tracing needs root: run this as root");
    let scratch = Path::new("/var/tmp").join(format!("spark-trace-gpu-{}", std::process::id()));
    fs::create_dir(&scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
    let result = in_scratch(args, &folder, &scratch);
    let _ = fs::remove_dir_all(&scratch);
    result
}

fn in_scratch(args: &Args, folder: &Folder, scratch: &Path) -> Result<()> {
    let cuda = Cuda::probe(&folder.path(CUDA_WORKLOAD), &args.driver).context(
        "no GPU can be used here. This needs a GPU with NVIDIA's driver (libcuda.so.1, /dev/nvidia0, \
         /dev/nvidiactl, /dev/nvidia-uvm); without one, `--driver simulated` shows the mechanism",
    )?;
    let mut about = about();
    about.push(format!("CUDA driver: {}, device: {}", cuda.name, cuda.device));
    about.iter().for_each(|line| println!("{line}"));
    fs::create_dir_all(&args.output).with_context(|| format!("cannot create {}", args.output.display()))?;

    let wanted = |part| args.only.contains(&part) || (args.only.is_empty() && part != Part::Study);
    let docker = if wanted(Part::Tests) || wanted(Part::Recordings) || wanted(Part::Study) {
        let started = docker(args, scratch);
        started.inspect_err(|error| println!("without containers: {error:#}")).ok()
    } else {
        None
    };
    signals::check()?;
    let machine =
        Machine { folder, cuda: &cuda, docker: docker.as_ref(), scratch, output: &args.output, about };
    let parts: [(Part, &dyn Fn() -> Result<()>); 4] = [
        (Part::Tests, &|| tests(&machine)),
        (Part::Recordings, &|| recordings::make(&machine)),
        (Part::Bench, &|| bench(&machine, args)),
        (Part::Study, &|| study(&machine)),
    ];
    let mut failed = Vec::new();
    for (part, run) in parts.into_iter().filter(|(part, _)| wanted(*part)) {
        println!("== {part:?}");
        if let Err(error) = run() {
            signals::check()?;
            eprintln!("{error:#}");
            failed.push(format!("{part:?}").to_lowercase());
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// What machine this is, as far as it says.
fn about() -> Vec<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let mut lines = vec![format!("Linux {} {}", kernel.trim(), std::env::consts::ARCH)];
    lines.extend(read("/proc/driver/nvidia/version").lines().map(str::to_owned));
    if find_in_path("nvidia-smi").is_some() {
        let mut command = Command::new("nvidia-smi");
        command.args(["--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]);
        match process::output(&mut command, "listing the GPUs") {
            Ok(gpus) => lines.extend(gpus.lines().map(|gpu| format!("GPU: {gpu}"))),
            Err(error) => lines.push(format!("GPU: unknown: {error:#}")),
        }
    }
    lines
}

/// A private daemon with the image.
fn docker(args: &Args, scratch: &Path) -> Result<PrivateDocker> {
    let tools = args.docker.as_deref().map(|archive| Tools::unpack(archive, scratch)).transpose()?;
    let docker = PrivateDocker::start_with_tools(tools)?;
    docker.import_empty(docker::GPU_IMAGE)?;
    Ok(docker)
}

fn tests(machine: &Machine) -> Result<()> {
    let Machine { folder, docker, scratch, .. } = machine;
    if machine.is_simulated() {
        println!("left out: the tests need a GPU");
        return Ok(());
    }
    let mut command = Command::new(folder.path(TESTS));
    command.args(["--include-ignored", "--test-threads=1"]).current_dir(&folder.0);
    for (name, file) in [
        ("SPARK_TRACE_BIN", SPARK_TRACE),
        ("SPARK_TRACE_WORKLOAD", STATIC_WORKLOAD),
        ("SPARK_TRACE_CUDA_WORKLOAD", CUDA_WORKLOAD),
        ("SPARK_TRACE_GPU_FILES", FILES),
    ] {
        command.env(name, folder.path(file));
    }
    command.env("SPARK_TRACE_TEST_DIR", scratch.join("tests"));
    if let Some(docker) = docker {
        command.envs(docker.environment()).env("SPARK_TRACE_IMAGE", docker::GPU_IMAGE);
    }
    process::run(&mut command, "the tests")
}

/// The study of one inference natively and in Docker, or what is left of it, and its site.
fn study(machine: &Machine) -> Result<()> {
    let docker = machine.docker.context("the study needs Docker")?;
    ensure!(!machine.is_simulated(), "the study needs a GPU");
    let dir = machine.output.join("study");
    let spark_trace = || {
        let mut command = Command::new(machine.folder.path(SPARK_TRACE));
        let workload = machine.folder.path(CUDA_WORKLOAD);
        command.arg("study").envs(docker.environment()).env("SPARK_TRACE_WORKLOAD", workload);
        command
    };
    let mut command = spark_trace();
    if dir.exists() {
        command.arg("resume").arg(&dir);
    } else {
        command.arg("run").arg(machine.folder.path(FILES).join("llm-study.toml")).arg("--dir").arg(&dir);
    }
    process::run(&mut command, "the study")?;
    let mut command = spark_trace();
    command.arg("report").arg(&dir).arg("--force").arg("-o").arg(machine.output.join("site"));
    process::run(&mut command, "the study's site")
}

/// What shows in minutes: the CUDA storms and whole runs, in the profile that has bounds, beside the noise.
fn bench(machine: &Machine, args: &Args) -> Result<()> {
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    let plan = bench::Plan {
        pairs: args.pairs,
        run_pairs: args.run_pairs,
        storms: words(&["cuda-alloc", "cuda-managed", "llm"]),
        tracers: words(&["nothing", "default"]),
    };
    let folder = machine.folder;
    let programs = bench::Programs {
        spark_trace: folder.path(SPARK_TRACE),
        workload: folder.path(STATIC_WORKLOAD),
        cuda: Some(machine.cuda.clone()),
    };
    bench::write(&plan, &programs, Some(machine.output))
}
