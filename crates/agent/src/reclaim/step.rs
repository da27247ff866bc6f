//! What the steps have in common.

use std::path::PathBuf;

use serde::Serialize;
use spark_trace_recording::words;

words! {
    /// A way to give memory back.
    pub enum Kind {
        /// Clean page cache of named files: posix_fadvise(2), POSIX_FADV_DONTNEED.
        Files = "files",
        /// Page cache that is charged to a cgroup: memory.reclaim without swapping.
        Cgroup = "cgroup",
        /// Pages that NVIDIA's driver keeps after freeing them: the shrinkers of its pools.
        DriverPools = "driver-pools",
        /// All clean page cache of the machine: /proc/sys/vm/drop_caches.
        PageCache = "page-cache",
        /// Free pages moved together: /proc/sys/vm/compact_memory. Gives nothing back.
        Compaction = "compaction",
    }
}

impl Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl Kind {
    /// What it costs others.
    pub const fn risk(self) -> &'static str {
        match self {
            Self::Files => "the next reader of these files reads from the disk",
            Self::Cgroup => {
                "programs of this cgroup read their files from the disk again; kernel caches of the cgroup shrink too"
            }
            Self::DriverPools => "the driver's next allocations take longer",
            Self::PageCache => "every program of the machine reads its files from the disk again",
            Self::Compaction => "takes CPU time; programs wait for pages that are being moved",
        }
    }
}

/// A step, with what is expected of it, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    pub kind: Kind,
    /// The file, directory or cgroup.
    pub subject: Option<String>,
    /// The same of files: a name need not be text.
    #[serde(skip)]
    pub(super) path: Option<PathBuf>,
    /// Bytes that it should give back; absent where nothing says so.
    pub expected_bytes: Option<u64>,
    /// What stays, and why.
    pub kept: Vec<Kept>,
    /// What makes the expectation uncertain.
    pub notes: Vec<String>,
    /// Why the step cannot be taken.
    pub refused: Option<String>,
    /// Why the step is not taken, though it could be: it gives nothing that is of use.
    pub needless: Option<String>,
    pub risk: &'static str,
    /// Absent in a dry run, and where the step was not taken.
    pub outcome: Option<Outcome>,
}

impl Step {
    pub(super) fn new(kind: Kind, subject: Option<String>) -> Self {
        let (kept, notes) = (Vec::new(), Vec::new());
        let risk = kind.risk();
        Self {
            kind,
            subject,
            path: None,
            expected_bytes: None,
            kept,
            notes,
            refused: None,
            needless: None,
            risk,
            outcome: None,
        }
    }

    /// Whether it is to be taken.
    pub const fn is_open(&self) -> bool {
        self.refused.is_none() && self.needless.is_none()
    }

    pub(super) fn of_path(kind: Kind, path: PathBuf) -> Self {
        Self { path: Some(path.clone()), ..Self::new(kind, Some(path.display().to_string())) }
    }

    pub(super) fn refused(self, why: impl Into<String>) -> Self {
        Self { refused: Some(why.into()), ..self }
    }

    pub(super) fn keep(&mut self, bytes: u64, why: impl Into<String>) {
        if bytes > 0 {
            self.kept.push(Kept { bytes, why: why.into() });
        }
    }
}

/// Memory that a step leaves where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    pub bytes: u64,
    pub why: String,
}

/// What a step did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Bytes given back, by the counter that the expectation came from. Negative where others took more meanwhile.
    pub given_back_bytes: Option<i64>,
    /// Of a compaction: free memory in blocks of at least 2 MiB, before and after.
    pub blocks: Option<[u64; 2]>,
    /// What was left where it was, and why.
    pub kept: Vec<Kept>,
    /// What failed.
    pub error: Option<String>,
    pub took_ns: u64,
}

impl Outcome {
    const NONE: Self =
        Self { given_back_bytes: None, blocks: None, kept: Vec::new(), error: None, took_ns: 0 };

    pub(super) fn bytes(before: u64, after: u64) -> Self {
        Self { given_back_bytes: Some(before as i64 - after as i64), ..Self::NONE }
    }

    pub(super) fn blocks(before: u64, after: u64) -> Self {
        Self { blocks: Some([before, after]), ..Self::NONE }
    }

    pub(super) fn error(mut self, error: impl ToString) -> Self {
        self.error = Some(error.to_string());
        self
    }

    pub(super) fn failed(error: impl ToString) -> Self {
        Self { error: Some(error.to_string()), ..Self::NONE }
    }
}
