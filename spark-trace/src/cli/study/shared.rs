//! What several steps of `study` need.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use crate::demo;
use spark_trace_study::run::Options;
use spark_trace_study::{StudyError, cores};

pub fn needs_workload(plan: &str) -> bool {
    plan.contains("{workload}") || plan.contains("{workload.name}")
}

pub fn options(dir: &Path, workload: Option<&Path>, needed: bool) -> anyhow::Result<Options> {
    let spark_trace = std::env::current_exe().context("cannot find the path of this program")?;
    let workload = match demo::find_workload(workload.map(Path::to_owned), &spark_trace) {
        Ok(found) => Some(found),
        Err(error) if needed || workload.is_some() => return Err(error.into()),
        Err(_) => None,
    };
    let dir = std::path::absolute(dir).map_err(StudyError::io(dir))?;
    Ok(Options { dir, spark_trace, workload, cores: cores::read(Path::new("/")) })
}

pub fn time(time: Duration) -> String {
    match time.as_secs() {
        0..120 => format!("{:.1} s", time.as_secs_f64()),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{:.1} h", seconds as f64 / 3600.0),
    }
}
