//! The GPUs in a session: who they are, their first reading and their last.

use super::{Session, SessionError, follow::Take};
use crate::source::nvml::Machine;
use spark_trace_recording::verdict::Verdict;
use spark_trace_recording::{Host, Nvidia, Readings};

/// Said of every trace under modules that are not NVIDIA's.
const STAND_IN: &str = "the NVIDIA kernel modules of this machine are a STAND-IN for tests: sources called nvidia-* are pages of the stand-in; there was no driver and no GPU";

/// Puts what NVML found into the facts about the machine. That there is no NVML is no fault; that it does not answer
/// is.
pub(super) fn describe(found: &Machine, host: &mut Host, warnings: &mut Vec<String>) {
    found.describe(host);
    if host.nvidia.as_ref().is_some_and(Nvidia::is_stand_in) {
        warnings.push(STAND_IN.to_owned());
    }
    if found.verdict.verdict == Verdict::Broken {
        let reason = found.verdict.reason.as_deref().unwrap_or("no reason given");
        warnings.push(format!("the GPUs are not read: {reason}"));
    }
}

impl Session {
    /// What the GPUs hold before the target starts. It may take long; the system is then read again, so that both
    /// planes start at about the same time.
    pub(super) fn first_gpu_reading(&mut self) -> Result<(), SessionError> {
        if !self.nvml.machine().is_ok() {
            return Ok(());
        }
        let (samples, came) = self.nvml.read_now();
        if !came {
            self.warnings
                .push("the GPUs were not read before the target started: NVML takes too long".to_owned());
        }
        self.tracer.expect_samples(samples);
        self.drain(Take::All)?;
        Ok(self.tracer.sample()?)
    }

    /// Ends the reading of the GPUs.
    pub(super) fn last_gpu_reading(&mut self) -> Result<Option<Readings>, SessionError> {
        if !self.nvml.machine().is_ok() {
            return Ok(None);
        }
        let (samples, cost) = self.nvml.finish();
        if cost.is_none() {
            self.warnings.push("the GPUs were not read at the end: NVML takes too long".to_owned());
        }
        self.tracer.expect_samples(samples);
        self.drain(Take::All)?;
        Ok(cost)
    }
}
