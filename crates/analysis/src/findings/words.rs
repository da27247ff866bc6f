//! The sentences of reasons and headlines: those of JSON, and of every renderer.

use std::fmt::{Display, Formatter, Result, Write};

use serde::{Serialize, Serializer};

use super::because::{
    Answers, Because, Cause, Change, Headline, LimitSeen, Missed, Note, Open, Outside, Reason, Twice, Unseen,
};
use crate::losses::SkippedRuns;
use crate::view::Scope;
use spark_trace_recording::units::{delta, size, unsigned};

impl Serialize for Because {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Outside {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Headline {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Display for Because {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        self.reason.fmt(f)?;
        self.notes.iter().try_for_each(|note| write!(f, "; {note}"))
    }
}

impl Display for Reason {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::NoReadings => f.write_str("the recording has no readings of this memory"),
            Self::NeedsTwoRuns => f.write_str("needs two runs"),
            Self::NotRead(what) => write!(f, "{what} was not read in both"),
            Self::Unseen(unseen) => unseen.fmt(f),
            Self::Changed(change) => change.fmt(f),
            Self::ChangedBut(change, outside) => write!(f, "{change}, but {outside}"),
            Self::BelowThreshold { change, threshold } => {
                write!(f, "{change}; below the threshold of {}", size(*threshold))
            }
            Self::Opposite { change, whole } => {
                write!(f, "{change}, in the opposite direction of the total ({})", delta(*whole))
            }
            Self::NoHugePage(change) => {
                write!(f, "{change}, and no huge page is mapped in part: a pin or a pipe keeps it")
            }
            Self::CountedTwice(signs) => joined(f, signs, "; "),
            Self::CountedOnce(answers) => {
                write!(f, "the sources add up to what is in use, and no page is in two of them{answers}")
            }
            Self::Undecided { test, why } => write!(f, "not decided by the {test}: {why}"),
            Self::Copies(bytes) => {
                write!(f, "{} of page cache would be saved if they were the same files", size(*bytes))
            }
            Self::PerhapsCopies(bytes) => write!(
                f,
                "files of the same name with similar cached bytes use {}; their contents were not compared",
                size(*bytes)
            ),
            Self::NoCopies => f.write_str("no file is cached twice"),
            Self::NoCopiesSince(older) => write!(
                f,
                "no large file added since the traces began is cached twice; {} of page cache is from before and has no file names",
                unsigned(*older)
            ),
            Self::UnnamedCopies(more) => write!(
                f,
                "B found {} more page cache from before than A did, which has no file names: copies may be among it",
                size(*more)
            ),
            Self::NoModule => f.write_str("no NVIDIA kernel module was loaded"),
            Self::ModuleNotTraced => f.write_str("pages of the NVIDIA module were not traced in both runs"),
            Self::PoolsNotShown => {
                f.write_str("the kernel does not show the driver's pools (CONFIG_SHRINKER_DEBUG, debugfs)")
            }
            Self::PoolsHidden(beyond) => write!(
                f,
                "the kernel does not show the pools (CONFIG_SHRINKER_DEBUG); the driver uses up to {} more than was requested",
                size(*beyond)
            ),
            Self::NoPools { since, versions } => {
                write!(f, "drivers before {since} have no pools; this is {versions}")
            }
            Self::FoundBefore(bytes) => write!(
                f,
                "{} was there before the run; one recording does not show whose it is",
                size(*bytes)
            ),
            Self::FoundLittleBefore(bytes) => {
                write!(f, "{} was there before the run: below the threshold", size(*bytes))
            }
            Self::SameEnvironment => {
                f.write_str("recorded libraries, environment, capabilities and limits are the same")
            }
            Self::SameLibraries => {
                f.write_str("the libraries are the same; environments were not recorded in both")
            }
            Self::EnvironmentNotRecorded => {
                f.write_str("neither libraries nor environments were recorded in both")
            }
            Self::OneDifference(difference) => f.write_str(difference),
            Self::Differences(count) => write!(f, "{count} things differ"),
            Self::LimitRead => f.write_str("a process of the target read a limit"),
            Self::NoLimitRead => f.write_str("no process of the target read a limit"),
            Self::NoLimitBelowMemory => f.write_str("limits were read, none below the machine's memory"),
            Self::CgroupNotRead => f.write_str("the target's cgroup was not read"),
            Self::NoLimit => f.write_str("the target's cgroup has no limit below the machine's memory"),
            Self::Limit { bytes, run, seen } => limit(f, *bytes, *run, seen),
            Self::ReclaimNotRead => f.write_str("the counters of reclaim were not read"),
            Self::Reclaimed(bytes) => write!(f, "up to {} were reclaimed during a run", size(*bytes)),
            Self::HardlyReclaimed(bytes) => write!(f, "almost nothing was reclaimed ({})", size(*bytes)),
            Self::PinsNotCounted => f.write_str("the kernel does not count pins (nr_foll_pin_*)"),
            Self::PinsReleased(left) => {
                write!(f, "pinned pages were released (remaining: {})", size(*left))
            }
            Self::PinsLeft(bytes) => write!(f, "{} stayed pinned after the target's end", size(*bytes)),
            Self::PinsOfRunningTarget(bytes) => {
                write!(f, "{} are pinned, and the target may still run", size(*bytes))
            }
        }
    }
}

fn limit(f: &mut Formatter<'_>, bytes: u64, run: Option<&str>, seen: &LimitSeen) -> Result {
    let run = run.map_or_else(String::new, |run| format!(" of {run}"));
    let bytes = unsigned(bytes);
    match seen {
        LimitSeen::Above { read_again } => write!(
            f,
            "the limit of {bytes} is on a cgroup above the target's{run}, which has its own count of limit events; {} of \
             files were read again after they had been reclaimed",
            size(*read_again)
        ),
        LimitSeen::AfterLastReading => {
            write!(f, "the limit of {bytes}{run} was reached after the last reading: the effect is unknown")
        }
        LimitSeen::NotReached => write!(f, "the limit of {bytes}{run} was not reached"),
        LimitSeen::Reached { times, kills, read_again, material, largest } => {
            let times = if *times == 1 { "once".to_owned() } else { format!("{times} times") };
            write!(f, "the limit of {bytes}{run} was reached {times}")?;
            if *kills > 0 {
                write!(f, ", and the kernel killed {kills} of its processes")?;
            }
            if read_again >= material {
                let again = size(*read_again);
                write!(f, ": the kernel reclaimed pages of files, and {again} of them were read again")?;
                largest.iter().try_for_each(|path| write!(f, ", the most of {path}"))
            } else if *kills == 0 {
                write!(f, "; {} of files were read again after that", size(*read_again))
            } else {
                Ok(())
            }
        }
    }
}

impl Display for Change {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let (amount, word) = (size(self.bytes.abs()), if self.bytes < 0 { "less" } else { "more" });
        match (self.bytes, self.of_two) {
            (0, true) => f.write_str("the same in A and B"),
            (0, false) => f.write_str("the same as at the start"),
            (_, true) => write!(f, "{amount} {word} in B"),
            (_, false) => write!(f, "{amount} {word} than at the start"),
        }
    }
}

impl Display for Outside {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Start(difference) => f.write_str(difference),
            Self::Others { bytes, run } => {
                write!(f, "other programs changed the machine's memory by {}", delta(*bytes))?;
                run.iter().try_for_each(|run| write!(f, " during {run}"))
            }
        }
    }
}

impl Display for Unseen {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::NoHook { hook, run } => write!(f, "{run} has no hook {hook}"),
            Self::Missed(missed) => missed.fmt(f),
            Self::Lost { entries, map, run } => write!(f, "{entries} entries were lost in {map} in {run}"),
            Self::NotAttached { hook, verdict, reason, run } => {
                let reason = reason.as_deref().unwrap_or("no reason recorded");
                write!(f, "hook {hook} is {verdict} in {run}: {reason}")
            }
        }
    }
}

impl Display for Missed {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let runs = SkippedRuns { hook: &self.hook, count: self.count, of: self.of };
        write!(f, "{runs} in {}", self.run)
    }
}

impl Display for Note {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Missed(missed) => missed.fmt(f),
            Self::HugePagesNotCounted => {
                f.write_str("the kernel does not count huge pages that are mapped in part")
            }
            Self::SocketBuffers(bytes) => {
                write!(f, "{} of unattributed memory are socket buffers, by kernel stacks", size(*bytes))
            }
            Self::Passing { bytes, run } => write!(
                f,
                "{} of unattributed memory in {run} were free again soon after, like pages reported to a hypervisor",
                size(*bytes)
            ),
        }
    }
}

impl Display for Twice {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Surplus { bytes, run } => {
                write!(f, "the sources of {run} exceed the memory in use by {}", size(*bytes))
            }
            Self::DriverPagesCharged { bytes, run } => {
                write!(f, "{} of the driver's pages are charged in {run}", size(*bytes))
            }
            Self::AnswersDiffer { same, other } => {
                write!(f, "cuMemGetInfo returns MemFree in {same} and not in {other}")
            }
        }
    }
}

impl Display for Answers {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::NoGpu => Ok(()),
            Self::Same => f.write_str("; cuMemGetInfo returns the same counter in all runs"),
            Self::NotCompared(why) => write!(f, " (not compared with a GPU's answers: {why})"),
        }
    }
}

impl Display for Open {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::NotRead(run) => write!(f, "memory in use was not read in {run}"),
            Self::NoDifference => f.write_str("the difference of memory in use is unknown"),
            Self::NoReadings => f.write_str("there are no readings"),
            Self::Unseen(unseen) => unseen.fmt(f),
            Self::Unattributed(bytes) => write!(f, "{} of the difference are unattributed", size(*bytes)),
            Self::NoAnswer(run) => {
                write!(f, "{run} has no cuMemGetInfo answer of a GPU that shares the system's memory")
            }
            Self::OtherValue => f.write_str("cuMemGetInfo returns another value than MemFree in all runs"),
        }
    }
}

impl Display for Headline {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Some(delta) = self.delta_bytes else {
            return f.write_str(match self.scope {
                Scope::System => "The machine's memory was not read.",
                Scope::Cgroup => "The target's cgroup was not read.",
                Scope::Device => "The GPUs' memory was not read.",
            });
        };
        let same = delta.abs() < self.threshold;
        self.difference(f, delta, same)?;
        match &self.outside {
            Some(outside) => write!(f, "; {outside}.")?,
            None if same => f.write_char('.')?,
            None if self.causes.is_empty() => f.write_str("; no hypothesis explains it.")?,
            None => {
                f.write_str(": ")?;
                joined(f, &self.causes, ", ")?;
                f.write_char('.')?;
            }
        }
        if self.includes_others {
            f.write_str(" This includes everything else that ran on the machine.")?;
        }
        match self.counted_twice {
            Some(verdict) => write!(f, " Memory counted twice: {}.", verdict.as_str()),
            None => Ok(()),
        }
    }
}

impl Headline {
    /// How far the runs are apart, or how far one has come.
    fn difference(&self, f: &mut Formatter<'_>, delta: i64, same: bool) -> Result {
        let at = self.at.of_a_run();
        let amount = size(if same { self.threshold } else { delta.abs() });
        let (more, grown) = if delta > 0 { ("more", "grew") } else { ("less", "shrank") };
        match (self.scope, self.of_two, same) {
            (Scope::Cgroup, true, true) => {
                write!(f, "The targets of A and B are charged the same, within {amount}, each at its {at}")
            }
            (Scope::Cgroup, true, false) => {
                write!(f, "The target of B is charged {amount} {more} than that of A, each at its {at}")
            }
            (Scope::Cgroup, false, true) => {
                write!(f, "The memory charged to the target changed by less than {amount} up to its {at}")
            }
            (Scope::Cgroup, false, false) => {
                write!(f, "The memory charged to the target {grown} by {amount} up to its {at}")
            }
            (Scope::Device, true, true) => {
                write!(f, "The GPUs have the same memory in use in A and B, within {amount}")
            }
            (Scope::Device, true, false) => {
                write!(f, "The GPUs have {amount} {more} in use with B than with A, each at its {at}")
            }
            (Scope::Device, false, true) => {
                write!(f, "The memory in use on the GPUs changed by less than {amount}")
            }
            (Scope::Device, false, false) => {
                write!(f, "The memory in use on the GPUs {grown} by {amount} up to its {at}")
            }
            (Scope::System, true, true) => {
                write!(f, "The machine has the same memory in use in A and B, within {amount}")
            }
            (Scope::System, true, false) => {
                write!(f, "The machine has {amount} {more} in use with B than with A, each at its {at}")
            }
            (Scope::System, false, true) => {
                write!(f, "The machine's memory in use changed by less than {amount} up to its {at}")
            }
            (Scope::System, false, false) => {
                write!(f, "The machine's memory in use {grown} by {amount} up to its {at}")
            }
        }
    }
}

impl Display for Cause {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} {}", self.title, delta(self.bytes))?;
        // More than the whole is no share of it: something else went the other way.
        if self.share <= 1.0 { write!(f, " ({:.0} %)", self.share * 100.0) } else { Ok(()) }
    }
}

fn joined(f: &mut Formatter<'_>, parts: &[impl Display], between: &str) -> Result {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            f.write_str(between)?;
        }
        part.fmt(f)?;
    }
    Ok(())
}
