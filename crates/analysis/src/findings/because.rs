//! Why a verdict is what it is, as data; `words` has the sentences.

use crate::instant_spec::InstantSpec;
use crate::view::Scope;
use spark_trace_recording::verdict::Verdict as Health;
use spark_trace_recording::word::Word;

use super::Verdict;
use crate::losses::SkippedRuns;

/// The reason of a verdict, and what a reader should know beside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Because {
    pub reason: Reason,
    pub notes: Vec<Note>,
}

impl From<Reason> for Because {
    fn from(reason: Reason) -> Self {
        Self { reason, notes: vec![] }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The recording has nothing of the plane.
    NoReadings,
    NeedsTwoRuns,
    /// What was not read in both runs.
    NotRead(&'static str),
    Unseen(Unseen),

    /// By how much the claim's memory differs.
    Changed(Change),
    /// It does, but others moved memory, or the runs began differently.
    ChangedBut(Change, Outside),
    BelowThreshold {
        change: Change,
        threshold: i64,
    },
    Opposite {
        change: Change,
        whole: i64,
    },
    /// No huge page is mapped in part, so something else keeps the memory.
    NoHugePage(Change),

    CountedTwice(Vec<Twice>),
    CountedOnce(Answers),
    Undecided {
        test: &'static str,
        why: Open,
    },

    /// Bytes of page cache that copies take.
    Copies(i64),
    /// Bytes of files that may be copies.
    PerhapsCopies(i64),
    NoCopies,
    /// Nor is there one among files since the traces began; bytes of page cache from before.
    NoCopiesSince(u64),
    /// Nor is there one, but B found so much more page cache from before than A did.
    UnnamedCopies(i64),

    NoModule,
    ModuleNotTraced,
    PoolsNotShown,
    /// Bytes that the driver uses beyond the requested ones.
    PoolsHidden(i64),
    /// Versions of drivers that are too old to have pools.
    NoPools {
        since: u32,
        versions: String,
    },

    /// Bytes of shared memory from before the run, at least the threshold.
    FoundBefore(i64),
    FoundLittleBefore(i64),

    SameEnvironment,
    SameLibraries,
    EnvironmentNotRecorded,
    OneDifference(String),
    Differences(usize),

    LimitRead,
    NoLimitRead,
    NoLimitBelowMemory,

    CgroupNotRead,
    NoLimit,
    Limit {
        bytes: u64,
        run: Option<&'static str>,
        seen: LimitSeen,
    },

    ReclaimNotRead,
    Reclaimed(i64),
    HardlyReclaimed(i64),

    PinsNotCounted,
    PinsReleased(i64),
    PinsLeft(i64),
    PinsOfRunningTarget(i64),
}

/// Bytes by which the runs differ, or by which one has grown since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    pub bytes: i64,
    pub of_two: bool,
}

/// Why levels of the machine say nothing of the runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outside {
    /// How the machine differed when the runs began.
    Start(String),
    /// Bytes that other programs took, and the run in which they did.
    Others { bytes: i64, run: Option<&'static str> },
}

/// Why a hook's part cannot be relied on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unseen {
    NoHook { hook: String, run: &'static str },
    Missed(Missed),
    Lost { entries: u64, map: String, run: &'static str },
    NotAttached { hook: String, verdict: Word<Health>, reason: Option<String>, run: &'static str },
}

/// Events of a hook that the kernel skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missed {
    pub hook: String,
    pub count: u64,
    pub of: u64,
    pub run: &'static str,
}

impl Missed {
    pub(super) fn of(runs: SkippedRuns<'_>, run: &'static str) -> Self {
        Self { hook: runs.hook.to_owned(), count: runs.count, of: runs.of, run }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    Missed(Missed),
    HugePagesNotCounted,
    /// Bytes of the residual that kernel stacks show in socket buffers.
    SocketBuffers(i64),
    /// Bytes of the residual that were free again soon after.
    Passing {
        bytes: i64,
        run: &'static str,
    },
}

/// A sign that memory is counted twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Twice {
    Surplus {
        bytes: i64,
        run: &'static str,
    },
    DriverPagesCharged {
        bytes: i64,
        run: &'static str,
    },
    /// The run in which cuMemGetInfo returns MemFree, and the other.
    AnswersDiffer {
        same: &'static str,
        other: &'static str,
    },
}

/// Whether answers of cuMemGetInfo were compared with MemFree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answers {
    NoGpu,
    Same,
    NotCompared(Open),
}

/// Why a test of double counting decides nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Open {
    NotRead(&'static str),
    NoDifference,
    NoReadings,
    Unseen(Unseen),
    Unattributed(i64),
    NoAnswer(&'static str),
    OtherValue,
}

/// What a memory limit did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitSeen {
    /// It is on a cgroup above the target's; bytes of files that were read again.
    Above {
        read_again: i64,
    },
    AfterLastReading,
    NotReached,
    Reached {
        times: u64,
        kills: u64,
        read_again: i64,
        material: i64,
        largest: Option<String>,
    },
}

/// The answer on one plane in a sentence or two.
#[derive(Debug, Clone, PartialEq)]
pub struct Headline {
    pub scope: Scope,
    pub at: InstantSpec,
    pub of_two: bool,
    /// Absent where the plane was not read.
    pub delta_bytes: Option<i64>,
    pub threshold: i64,
    pub outside: Option<Outside>,
    /// The largest first.
    pub causes: Vec<Cause>,
    pub includes_others: bool,
    /// The verdict on memory that is counted twice, on the plane that has it.
    pub counted_twice: Option<Verdict>,
}

/// A hypothesis that the numbers support.
#[derive(Debug, Clone, PartialEq)]
pub struct Cause {
    pub title: &'static str,
    pub bytes: i64,
    /// Of the whole difference; more than 1 where something else went the other way.
    pub share: f64,
}
