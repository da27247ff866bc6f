//! `cargo xtask bench`: what tracing costs, as ratios, and how a comparable bpftrace script compares.
//!
//! One storm of the workload runs all the time; a tracer is started and stopped beside it, again and again.
//! Each traced window is compared with the untraced time around it, in the same process on the same pages:
//! what drifts on a machine drifts through both. The figure of a pair is the ratio of medians of its rounds;
//! the result is the median of the pairs. Of `llm`, whole runs are compared.

pub mod cuda;
mod empty;
mod pairs;
mod report;
pub mod runs;
mod storm;
mod subject;
mod tracer;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::{build, process, setup};
use storm::{STORMS, Storm};
use tracer::{Tracer, Whom};

/// Measures what tracing costs, as the ratio of traced to untraced
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask bench
  cargo xtask bench --pairs 5 --storm fault
  cargo xtask bench --output results/2026-01-31-myhost
  cargo xtask bench --storm cuda-alloc --cuda-driver simulated

Run it on a machine that does nothing else; it needs root and some GiB of disk. The cuda-* storms and llm
need a CUDA driver and are left out without one.")]
pub struct Args {
    /// Pairs of a traced and an untraced window for each storm and tracer
    #[arg(long, default_value_t = 15)]
    pairs: u32,

    /// Pairs of whole runs, alone and traced
    #[arg(long, default_value_t = 7, value_name = "N")]
    run_pairs: u32,

    /// Only this storm, or the whole runs of llm (may be given again)
    #[arg(long, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(names()))]
    storm: Vec<String>,

    /// Only this tracer (may be given again)
    #[arg(long, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(Tracer::NAMES))]
    tracer: Vec<String>,

    /// Folder to write bench.md and bench.json to
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,

    /// spark-trace to measure instead of building it (on a machine without Rust)
    #[arg(long, value_name = "PATH", requires = "workload")]
    spark_trace: Option<PathBuf>,

    /// Workload to measure with instead of building it
    #[arg(long, value_name = "PATH", requires = "spark_trace")]
    workload: Option<PathBuf>,

    /// Workload that can load a CUDA driver, instead of building it
    #[arg(long, value_name = "PATH")]
    cuda_workload: Option<PathBuf>,

    /// CUDA driver: system, simulated (lies beside the workload), or a path
    #[arg(long, value_name = "DRIVER", default_value = "system")]
    cuda_driver: String,
}

fn names() -> impl Iterator<Item = &'static str> {
    STORMS.iter().map(|storm| storm.name).chain([runs::NAME])
}

/// What is measured with, and on.
pub struct Programs {
    pub spark_trace: PathBuf,
    pub workload: PathBuf,
    /// None where no CUDA driver can be loaded.
    pub cuda: Option<cuda::Cuda>,
}

/// How much is measured: an empty list means everything.
pub struct Plan {
    pub pairs: u32,
    pub run_pairs: u32,
    pub storms: Vec<String>,
    pub tracers: Vec<String>,
}

impl Plan {
    fn storms(&self) -> impl Iterator<Item = &'static Storm> {
        STORMS.iter().filter(|storm| chosen(&self.storms, storm.name))
    }

    fn needs_cuda(&self) -> bool {
        self.storms().any(|storm| storm.cuda) || chosen(&self.storms, runs::NAME)
    }
}

pub fn run(args: &Args) -> Result<()> {
    ensure!(process::is_root(), "tracing needs root: run `sudo cargo xtask bench`");
    let built = match (&args.spark_trace, &args.workload) {
        (Some(spark_trace), Some(workload)) => {
            build::Built { spark_trace: spark_trace.clone(), workload: workload.clone() }
        }
        _ => {
            setup::ensure(setup::Scope::Comparisons)?;
            build::all(true)?
        }
    };
    let plan = Plan {
        pairs: args.pairs,
        run_pairs: args.run_pairs,
        storms: args.storm.clone(),
        tracers: args.tracer.clone(),
    };
    let cuda = if plan.needs_cuda() { cuda(args) } else { None };
    let programs = Programs { spark_trace: built.spark_trace, workload: built.workload, cuda };
    write(&plan, &programs, args.output.as_deref())
}

/// The driver, unless it cannot be loaded: that and why is said.
fn cuda(args: &Args) -> Option<cuda::Cuda> {
    let workload = match &args.cuda_workload {
        Some(workload) => Ok(workload.clone()),
        // On a machine without Rust nothing can be built.
        None if args.workload.is_some() => Err(anyhow::anyhow!("--cuda-workload is not given")),
        None => build::cuda(true).map(|cuda| cuda.workload),
    };
    let found = workload.and_then(|workload| cuda::Cuda::probe(&workload, &args.cuda_driver));
    found.inspect_err(|error| eprintln!("no CUDA driver: measured without it: {error:#}")).ok()
}

/// Measures, prints the report and writes it to `output`. Fails where there is nothing to report.
pub fn write(plan: &Plan, programs: &Programs, output: Option<&Path>) -> Result<()> {
    let scratch = std::env::temp_dir().join(format!("spark-trace-bench-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
    let results = measure(plan, programs, &scratch);
    let _ = std::fs::remove_dir_all(&scratch);
    let results = results?;
    ensure!(!results.is_empty(), "nothing could be measured");
    let report = report::Report::new(plan.pairs, results);
    print!("{}", report.markdown());
    if let Some(dir) = output {
        report.write(dir)?;
    }
    Ok(())
}

fn measure(plan: &Plan, programs: &Programs, scratch: &Path) -> Result<Vec<report::Row>> {
    let Programs { spark_trace, workload, cuda } = programs;
    let tracers: Vec<_> =
        Tracer::all(spark_trace, scratch)?.into_iter().filter(|t| chosen(&plan.tracers, t.name())).collect();
    let mut rows = Vec::new();
    for storm in plan.storms() {
        let cuda = cuda.as_ref().filter(|_| storm.cuda);
        if storm.cuda && cuda.is_none() {
            eprintln!("{}: left out: no CUDA driver", storm.name);
            continue;
        }
        let wanted =
            |tracer: &&Tracer| storm.of_bystanders || !plan.tracers.is_empty() || tracer.is_for_all();
        for tracer in tracers.iter().filter(wanted) {
            eprintln!("{} under {}: {} pairs", storm.name, tracer.name(), plan.pairs);
            match pairs::measure(storm, tracer, workload, cuda, scratch, plan.pairs) {
                Ok(pairs) => rows.push(report::Row::new(storm, tracer.name(), cuda, &pairs)),
                // What has been measured so far took minutes: it is not thrown away.
                Err(error) => eprintln!("{} under {}: no figure: {error:#}", storm.name, tracer.name()),
            }
        }
    }
    if chosen(&plan.storms, runs::NAME) {
        rows.extend(whole_runs(plan, programs, &tracers, scratch));
    }
    Ok(rows)
}

fn whole_runs(plan: &Plan, programs: &Programs, tracers: &[Tracer], scratch: &Path) -> Vec<report::Row> {
    let Some(cuda) = &programs.cuda else {
        eprintln!("{}: left out: no CUDA driver", runs::NAME);
        return Vec::new();
    };
    let mut rows = Vec::new();
    // Runs take seconds each: the profile that has a bound, unless another is requested.
    let profile = |tracer: &&Tracer| {
        matches!(tracer, Tracer::SparkTrace { whom: Whom::Storm, .. })
            && (!plan.tracers.is_empty() || tracer.name() == "default")
    };
    for tracer in tracers.iter().filter(profile) {
        eprintln!("{} under {}: {} pairs of runs", runs::NAME, tracer.name(), plan.run_pairs);
        match runs::measure(cuda, &programs.spark_trace, tracer.name(), scratch, plan.run_pairs) {
            Ok(runs) => rows.extend(report::Row::of_runs(tracer.name(), cuda, &runs)),
            Err(error) => eprintln!("{} under {}: no figure: {error:#}", runs::NAME, tracer.name()),
        }
    }
    rows
}

/// Whether `name` is among `names`; an empty list means all.
fn chosen(names: &[String], name: &str) -> bool {
    names.is_empty() || names.iter().any(|a| a == name)
}
