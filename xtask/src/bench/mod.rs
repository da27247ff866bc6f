//! `cargo xtask bench`: what tracing costs, as ratios, and how a comparable bpftrace script compares.
//!
//! One storm of the workload runs all the time; a tracer is started and stopped beside it, again and again.
//! Each traced window is compared with the untraced time around it, in the same process on the same pages:
//! what drifts on a machine drifts through both. The figure of a pair is the ratio of medians of its rounds;
//! the result is the median of the pairs.

mod pairs;
mod report;
mod storm;
mod tracer;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::{build, setup};
use storm::STORMS;
use tracer::Tracer;

/// Measures what tracing costs, as the ratio of traced to untraced
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask bench
  cargo xtask bench --pairs 5 --storm fault
  cargo xtask bench --output results/2026-01-31-myhost

Run it on a machine that does nothing else; it needs root and some GiB of disk.")]
pub struct Args {
    /// Pairs of a traced and an untraced window for each storm and tracer
    #[arg(long, default_value_t = 15)]
    pairs: u32,

    /// Only this storm (may be given again)
    #[arg(long, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(STORMS.iter().map(|s| s.name)))]
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
}

pub fn run(args: &Args) -> Result<()> {
    // SAFETY: no arguments, cannot fail.
    ensure!(unsafe { libc::geteuid() } == 0, "tracing needs root: run `sudo cargo xtask bench`");
    let built = match (&args.spark_trace, &args.workload) {
        (Some(spark_trace), Some(workload)) => {
            build::Built { spark_trace: spark_trace.clone(), workload: workload.clone() }
        }
        _ => {
            setup::ensure(setup::Scope::Comparisons)?;
            build::all(true)?
        }
    };
    let scratch = std::env::temp_dir().join(format!("spark-trace-bench-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
    let results = measure(args, &built, &scratch);
    let _ = std::fs::remove_dir_all(&scratch);
    let results = results?;
    let report = report::Report::new(args.pairs, results);
    print!("{}", report.markdown());
    if let Some(dir) = &args.output {
        report.write(dir)?;
    }
    Ok(())
}

fn measure(args: &Args, built: &build::Built, scratch: &std::path::Path) -> Result<Vec<report::Row>> {
    let tracers = Tracer::all(&built.spark_trace, scratch)?;
    let mut rows = Vec::new();
    for storm in STORMS.iter().filter(|s| chosen(&args.storm, s.name)) {
        for tracer in tracers.iter().filter(|t| chosen(&args.tracer, t.name())) {
            eprintln!("{} under {}: {} pairs", storm.name, tracer.name(), args.pairs);
            match pairs::measure(storm, tracer, &built.workload, scratch, args.pairs) {
                Ok(pairs) => rows.push(report::Row::new(storm, tracer.name(), &pairs)),
                // What has been measured so far took minutes: it is not thrown away.
                Err(error) => eprintln!("{} under {}: no figure: {error:#}", storm.name, tracer.name()),
            }
        }
    }
    Ok(rows)
}

/// Whether `name` is among those asked for; all are where none was.
fn chosen(asked: &[String], name: &str) -> bool {
    asked.is_empty() || asked.iter().any(|a| a == name)
}
