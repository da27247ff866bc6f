//! What a reader of a report must know before trusting it, each with what to do about it.

use std::fmt;

use serde::{Serialize, Serializer};

use spark_trace_recording::units;

#[derive(Debug, Clone, PartialEq)]
pub enum Warning {
    /// Events or entries were lost.
    Lost { count: u64 },
    /// Stacks of allocations were not unwound.
    NotUnwound { count: u64 },
    /// The recording was recovered from a partial one.
    Incomplete,
    /// No reading came near the peak that the kernel remembers.
    /// `gap_ns`: how long the cgroup was not read while it rose to that peak, where that is a gap.
    PeakMissed { cgroup: String, sampled: u64, kernel: u64, interval_ns: u64, gap_ns: Option<u64> },
    /// The kernel killed processes in a cgroup of the target because memory had run out for it.
    Killed { cgroup: String, count: u64, seen: KilledSeen },
    /// The machine's counter of such kills rose, and these processes of the target ended as the killed do.
    MayBeKilled { count: u64, victims: Vec<String> },
    /// There were times without a reading.
    Gaps { what: &'static str, count: u64, longest_ns: u64, total_ns: u64 },
    /// Readings were left out so that the recording stays within its limits: beyond that one is kept in so long a time.
    Thinned { readings: u64, levels_ns: u64, processes_ns: u64 },
    /// Old readings were left out, as requested.
    Aged { readings: u64, fine_ns: u64, spacing_ns: u64 },
    /// Events of mappings that no reading can show were left out likewise.
    BriefMappings { count: u64 },
    /// One of them lies just before or after the highest reading of a plane.
    GapAtPeak { plane: String, gap_ns: u64 },
    /// At the highest reading of a plane not every CPU had handed in its part of the kernel's counters.
    Drift { plane: String, bytes: u64 },
    /// A root cgroup of the target was never read.
    NeverRead { cgroup: String },
    /// The nearest reading is far from the requested instant.
    FarReading { plane: &'static str, requested_ns: u64, found_ns: u64 },
    /// A library's functions were attached to after it was mapped.
    LateLibrary { path: String, late_ns: u64 },
    /// A program played the part of NVIDIA's library.
    SimulatedLibrary { path: String },
    /// A library's functions could not be attached to.
    UnwatchedLibrary { path: String, reason: String },
    /// What the recorder itself warned about.
    Recorded(String),
}

/// Where kills were seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KilledSeen {
    Reading,
    /// No reading: the cgroup was gone too soon.
    AtRemoval,
}

impl KilledSeen {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Reading => "events.oom_kill",
            Self::AtRemoval => "after the last reading; by the kernel's count when the cgroup was removed",
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { count } => write!(
                f,
                "{count} events or entries were lost: lists of holders and stacks are incomplete, levels are complete; \
                 record again on a quieter machine, or with a lighter profile"
            ),
            Self::NotUnwound { count } => write!(
                f,
                "{count} stacks were not unwound, because they came too fast: their callers end where frame pointers end, \
                 their bytes are counted; record with a larger SIZE in --unwind SIZE"
            ),
            Self::Incomplete => {
                f.write_str("the recording was recovered from a partial one: it ends before the run did")
            }
            Self::PeakMissed { cgroup, sampled, kernel, interval_ns, gap_ns } => {
                let percent = *sampled as f64 / *kernel as f64 * 100.0;
                write!(
                    f,
                    "{cgroup}: the highest reading is {percent:.1} % of the peak the kernel remembers; "
                )?;
                match gap_ns {
                    Some(gap_ns) => write!(
                        f,
                        "the peak lies in a gap of {:.1} s between two readings: a shorter --interval does not help, a \
                         machine that is less busy does",
                        *gap_ns as f64 / 1e9
                    ),
                    None => write!(f, "record with an --interval below {} ms", interval_ns / 1_000_000),
                }
            }
            Self::Thinned { readings, levels_ns, processes_ns } => {
                let seconds = |ns: u64| ns as f64 / 1e9;
                write!(f, "{readings} readings were left out, because the recording is long: ")?;
                let kept = [("levels", *levels_ns), ("levels of processes", *processes_ns)];
                let kept = kept.into_iter().filter(|(_, ns)| *ns > 0);
                let kept: Vec<_> =
                    kept.map(|(what, ns)| format!("one in {:.1} s of the {what}", seconds(ns))).collect();
                write!(f, "{} is kept, and the highest and lowest of each figure", kept.join(" and "))
            }
            Self::Aged { readings, fine_ns, spacing_ns } => write!(
                f,
                "{readings} readings older than {} s were left out, as requested (--keep-fine): one a second is kept{}, and the \
                 lowest and highest of the plane in each",
                *fine_ns as f64 / 1e9,
                if *spacing_ns > 1_000_000_000 { ", after an hour one a minute" } else { "" },
            ),
            Self::BriefMappings { count } => write!(
                f,
                "{count} events of mappings that were made and removed between two readings are not listed, because there \
                 are too many: stacks that map memory have made more calls than shown"
            ),
            Self::Gaps { what, count, longest_ns, total_ns } => write!(
                f,
                "{what} were not read for {:.1} s at a time ({}, {:.1} s in all): the machine was too busy, or \
                 spark-trace was stopped",
                *longest_ns as f64 / 1e9,
                units::count(usize::try_from(*count).unwrap_or(usize::MAX), "gap", "gaps"),
                *total_ns as f64 / 1e9
            ),
            Self::GapAtPeak { plane, gap_ns } => write!(
                f,
                "{plane}: not read for {:.1} s around its peak, which may have been higher",
                *gap_ns as f64 / 1e9
            ),
            Self::Drift { plane, bytes } => write!(
                f,
                "{plane}: at its peak a CPU had not handed in its counts in time, so each of the kernel's counters may be \
                 off by up to {:.1} MiB",
                *bytes as f64 / f64::from(1 << 20)
            ),
            Self::Killed { cgroup, count, seen } => write!(
                f,
                "{cgroup}: the kernel killed {count} of its processes because memory had run out ({}): the \
                 run was cut short; raise the limit, or look at the holders at the peak",
                seen.as_str()
            ),
            Self::MayBeKilled { count, victims } => write!(
                f,
                "the kernel killed {count} {} of the machine because memory had run out (vmstat.oom_kill) while this ran, \
                 and {} ended by SIGKILL: look at the holders at the peak",
                if *count == 1 { "process" } else { "processes" },
                victims.join(", ")
            ),
            Self::NeverRead { cgroup } => {
                write!(f, "{cgroup}: gone before it was read; record with a shorter --interval")
            }
            Self::FarReading { plane, requested_ns, found_ns } => write!(
                f,
                "{plane}: the nearest reading is {:.1} s away from the requested instant",
                requested_ns.abs_diff(*found_ns) as f64 / 1e9
            ),
            Self::LateLibrary { path, late_ns } => write!(
                f,
                "{path} was watched {:.1} ms after it was mapped: calls in between may be missing; record with \
                 --cuda-library PATH, the path of that file on the host",
                *late_ns as f64 / 1e6
            ),
            Self::SimulatedLibrary { path } => {
                write!(f, "{path} is SIMULATED: not NVIDIA's library, and its device memory is not a GPU's")
            }
            Self::UnwatchedLibrary { path, reason } => {
                write!(
                    f,
                    "{path} was not watched: {reason}. Allocations through it are missing; name the file with --cuda-library PATH"
                )
            }
            Self::Recorded(text) => f.write_str(text),
        }
    }
}

impl Serialize for Warning {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
