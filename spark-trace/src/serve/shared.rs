//! What the threads of `serve` see of each other.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use spark_trace_recording::Recording;

#[derive(Debug, Default)]
pub struct Shared {
    latest: Mutex<Option<Arc<Recording>>>,
    /// Run time of the programs is put up from windows, and may come out a little less than before.
    programs_ns: AtomicU64,
    /// Somebody wants the file now.
    pub wants_file: AtomicBool,
    pub oom_recordings: AtomicU64,
    pub failed_writes: AtomicU64,
}

impl Shared {
    /// The last reading, as [`spark_trace_recording::retention::latest`] makes it.
    pub fn latest(&self) -> Option<Arc<Recording>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn has_reading(&self) -> bool {
        self.latest().is_some()
    }

    pub fn put(&self, mut latest: Recording) {
        if let Some(ns) = &mut latest.cost.bpf_run_time_ns {
            *ns = (*ns).max(self.programs_ns.fetch_max(*ns, Ordering::Relaxed));
        }
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(latest));
    }
}
