//! A recording with what several analyses need of it, each made once.

use std::sync::{Arc, OnceLock};

use crate::engine_evidence::log_of;
use crate::kv::{self, Reading};
use crate::memory_queries::{self, Queries};
use spark_trace_engines::EngineLog;
use spark_trace_recording::Recording;

/// Clones share what was made.
#[derive(Debug, Clone)]
pub struct Derived<'a> {
    pub recording: &'a Recording,
    made: Arc<Made>,
}

#[derive(Debug, Default)]
struct Made {
    queries: OnceLock<Option<Queries>>,
    reading: OnceLock<Option<Reading>>,
    log: OnceLock<EngineLog>,
}

impl<'a> Derived<'a> {
    /// All memory queries; absent where there are none.
    pub fn queries(&self) -> Option<&Queries> {
        self.made.queries.get_or_init(|| memory_queries::report(self.recording)).as_ref()
    }

    /// The KV-cache reading, where there is one.
    pub fn reading(&self) -> Option<&Reading> {
        self.made.reading.get_or_init(|| kv::reading_of(self.recording, self.queries()?, self.log())).as_ref()
    }

    /// Its time.
    pub fn kv_instant(&self) -> Option<u64> {
        self.reading().map(|reading| reading.at_ns)
    }

    /// What lines of the engine's log in the recording state.
    pub fn log(&self) -> &EngineLog {
        self.made.log.get_or_init(|| log_of(self.recording))
    }

    /// The same for the report on the KV cache.
    pub fn for_kv(&self) -> kv::Run<'_> {
        kv::Run { recording: self.recording, log: self.log(), queries: self.queries() }
    }

    /// The memory queries for good: nothing is copied if this is the last clone.
    pub fn into_queries(self) -> Option<Queries> {
        self.queries();
        match Arc::try_unwrap(self.made) {
            Ok(made) => made.queries.into_inner().flatten(),
            Err(shared) => shared.queries.get().cloned().flatten(),
        }
    }
}

impl<'a> From<&'a Recording> for Derived<'a> {
    fn from(recording: &'a Recording) -> Self {
        Self { recording, made: Arc::default() }
    }
}

impl<'a> From<&Derived<'a>> for Derived<'a> {
    fn from(derived: &Self) -> Self {
        derived.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_testing as testing;

    #[test]
    fn clones_have_the_same_rows_and_the_last_one_gives_them_away() {
        let recording = testing::cuda();
        let derived = Derived::from(&recording);
        let clone = derived.clone();
        let rows = derived.queries().unwrap().rows.as_ptr();
        assert_eq!(clone.queries().unwrap().rows.as_ptr(), rows, "made once");
        assert!(std::ptr::eq(clone.log(), derived.log()));
        let copied = clone.into_queries().unwrap();
        assert!(copied.rows.as_ptr() != rows && copied == *derived.queries().unwrap());
        assert_eq!(derived.into_queries().unwrap().rows.as_ptr(), rows, "moved out");
    }

    #[test]
    fn a_recording_without_queries_has_none() {
        let recording = testing::native();
        let derived = Derived::from(&recording);
        assert!(derived.queries().is_none() && derived.reading().is_none());
        assert_eq!(derived.into_queries(), None);
    }
}
