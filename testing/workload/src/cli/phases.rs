//! Options of a run that takes memory step by step: how long its parts last, how it ends, where its report goes.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::count;
use spark_trace_common::quantity::duration;

const COURSE: &str = "Phases";
const OUTPUT: &str = "Output";

/// How long each part of a run lasts.
#[derive(Debug, Args)]
pub struct HoldArgs {
    /// Wait this long before anything is taken (with CUDA: before a context is made)
    #[arg(long, value_name = "DUR", value_parser = duration, default_value = "0ms")]
    #[arg(help_heading = COURSE)]
    pub hold_start: Duration,
    /// Wait this long after each kind
    #[arg(long, value_name = "DUR", value_parser = duration, default_value = "0ms")]
    #[arg(help_heading = COURSE)]
    pub hold_each: Duration,
    /// Hold everything at once this long
    #[arg(long, value_name = "DUR", value_parser = duration, default_value = "1s")]
    #[arg(help_heading = COURSE)]
    pub hold: Duration,
    /// Wait this long after everything was given back
    #[arg(long, value_name = "DUR", value_parser = duration, default_value = "0ms")]
    #[arg(help_heading = COURSE)]
    pub hold_release: Duration,
}

/// The course of a run that takes memory step by step, and where its report goes.
#[derive(Debug, Args)]
pub struct CourseArgs {
    #[command(flatten)]
    pub holds: HoldArgs,
    /// Exit while still holding
    #[arg(long, help_heading = COURSE)]
    pub no_release: bool,
    /// Do the whole cycle this often
    #[arg(long, value_name = "N", value_parser = count(), default_value_t = 1, help_heading = COURSE)]
    pub repeat: u32,
    /// Take nothing before this file exists
    #[arg(long, value_name = "FILE", help_heading = COURSE)]
    pub wait_go: Option<PathBuf>,
    /// Exit with this status at the end
    #[arg(long, value_name = "N", conflicts_with = "abort", help_heading = COURSE)]
    pub exit_code: Option<u8>,
    /// Abort with SIGABRT at the end of the hold, after the report
    #[arg(long, help_heading = COURSE)]
    pub abort: bool,

    /// Print a line on stdout as each phase is ready
    #[arg(long, help_heading = OUTPUT)]
    pub jsonl: bool,
    /// Write the report there instead of to stdout
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    pub output: Option<PathBuf>,
}

impl CourseArgs {
    /// What clap cannot say about combinations.
    pub fn check(&self) -> Result<(), String> {
        if self.repeat > 1 && (self.no_release || self.abort) {
            return Err("--repeat needs each cycle released: not with --no-release or --abort".to_owned());
        }
        Ok(())
    }
}
