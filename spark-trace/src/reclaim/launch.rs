//! What an engine gains by each step, before it is started.

use serde::Serialize;

use spark_trace_agent::reclaim::{Kind, Step};
use spark_trace_analysis::kv::is_shared;
use spark_trace_engines::{Engine, Signal, row};
use spark_trace_recording::Recording;

/// An engine that is to be started on this machine.
#[derive(Debug, Serialize)]
pub struct Launch {
    engine: Engine,
    title: &'static str,
    /// The reading that its newest version sizes the KV cache by; absent where it sizes none.
    signal: Option<Signal>,
    /// The GPU has no memory of its own, or there is none that NVML describes.
    shared: bool,
}

impl Launch {
    pub fn of(engine: Engine, machine: &Recording) -> Self {
        let shared = is_shared(machine);
        let row = row(engine);
        let variant = row.and_then(|row| row.variants.last());
        let signal = variant.map(|variant| if shared { variant.unified } else { variant.discrete });
        Self { engine, title: row.map_or("", |row| row.title), signal, shared }
    }

    /// Pages in the driver's pools are neither free nor available.
    pub fn gains_by_pools(&self) -> bool {
        self.shared
    }

    /// Leaves out the steps that do not raise the reading.
    pub fn leave_out(&self, steps: &mut [Step]) {
        for step in steps {
            if let Some(why) = self.needless(step.kind) {
                // Whether it could be taken does not matter then.
                (step.needless, step.refused) = (Some(why), None);
            }
        }
    }

    fn needless(&self, kind: Kind) -> Option<String> {
        if !self.shared {
            return Some(format!(
                "the GPU has memory of its own, and {} sizes its KV cache by that: memory of the machine does not count",
                self.title
            ));
        }
        let is_cache = matches!(kind, Kind::Files | Kind::Cgroup | Kind::PageCache);
        (is_cache && self.signal == Some(Signal::MemAvailable)).then(|| {
            format!(
                "{} goes by MemAvailable, where clean page cache counts as free: it gains nothing",
                self.title
            )
        })
    }

    pub fn sentence(&self) -> String {
        let reading = self.signal.map_or_else(
            || "sizes no KV cache by a reading of free memory".to_owned(),
            |signal| format!("sizes its KV cache by {}", reading(signal, self.shared)),
        );
        format!("{} (its newest version) {reading}.", self.title)
    }
}

fn reading(signal: Signal, shared: bool) -> &'static str {
    match (signal, shared) {
        (Signal::CudaMemGetInfo, true) => {
            "cudaMemGetInfo, which is reported to return MemFree on a GPU without memory of its own: page cache counts as used"
        }
        (Signal::CudaMemGetInfo, false) => "cudaMemGetInfo: the GPU's own memory",
        (Signal::MemAvailable, _) => "MemAvailable: clean page cache counts as free",
        (Signal::CgroupCurrent, _) => {
            "memory.current of its container: page cache of the container counts as used"
        }
        (Signal::Nvml, _) => "NVML: the GPU's own memory",
    }
}
