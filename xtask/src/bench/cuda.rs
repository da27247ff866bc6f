//! What CUDA workloads are run with: the program that can load a driver, and the driver.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process;

#[derive(Debug, Clone)]
pub struct Cuda {
    /// Linked dynamically: a static program cannot load a driver.
    pub workload: PathBuf,
    /// Value of the workload's `--driver`.
    pub driver: String,
    /// "simulated" where there is no GPU behind it.
    pub name: String,
    /// What the driver calls the device.
    pub device: String,
}

impl Cuda {
    /// Whether there is no GPU behind it.
    pub fn is_simulated(&self) -> bool {
        self.name == "simulated"
    }

    /// Loads the driver and takes a little memory; fails with what the workload said.
    pub fn probe(workload: &Path, driver: &str) -> Result<Self> {
        let mut command = Command::new(workload);
        command.args(["cuda-alloc", "--device", "1M", "--hold", "0ms", "--driver", driver]);
        let report = last_line(&process::output(&mut command, "trying the CUDA driver")?)?;
        let info = |name: &str| report["cuda"]["info"][name].as_str().unwrap_or("unknown").to_owned();
        Ok(Self {
            workload: workload.to_owned(),
            driver: driver.to_owned(),
            name: info("driver"),
            device: info("device"),
        })
    }
}

/// A workload's report: the last line it prints.
pub fn last_line(output: &str) -> Result<Value> {
    let line = output.lines().last().context("the workload printed nothing")?;
    serde_json::from_str(line).context("the workload's last line is no JSON")
}
