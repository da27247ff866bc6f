//! What fields of a recording can be: enums in the code, words on disk (see [`crate::word::Word`]).

use spark_trace_common::hook::Mechanism;

use crate::word::Words;
use crate::words;

words! {
    /// Why the maps were read at an instant.
    pub enum InstantKind {
        /// The machine's used memory was at its highest.
        SystemPeak = "system-peak",
        /// The target's cgroups were charged the most.
        CgroupPeak = "cgroup-peak",
        /// NVIDIA's modules had the most.
        DriverPeak = "driver-peak",
        /// The last answer that a framework sizes itself by.
        Query = "query",
        /// The target has ended.
        End = "end",
        /// The one reading of `snapshot`.
        Snapshot = "snapshot",
        /// The one reading of a live view.
        Now = "now",
    }
}

impl InstantKind {
    /// Whether something was at its highest then.
    pub const fn is_peak(self) -> bool {
        matches!(self, Self::SystemPeak | Self::CgroupPeak | Self::DriverPeak)
    }
}

words! {
    /// What was traced.
    pub enum TargetKind {
        Command = "command",
        Container = "container",
        Cgroup = "cgroup",
        Pid = "pid",
        System = "system",
        /// One instant of the whole machine.
        Snapshot = "snapshot",
    }
}

words! {
    /// Migrate type of a page allocation (include/linux/mmzone.h, enum migratetype).
    pub enum Mobility {
        Unmovable = "unmovable",
        Reclaimable = "reclaimable",
        Movable = "movable",
        Other = "other",
    }
}

words! {
    /// Where the frames of a stack are.
    pub enum Space {
        Kernel = "kernel",
        User = "user",
    }
}

words! {
    /// How the frames of a user stack were found.
    pub enum Way {
        /// By the list that functions keep which are built with frame pointers.
        FramePointers = "frame-pointers",
        /// From a copy of the stack, by the tables of its code.
        EhFrame = "eh-frame",
    }
}

impl Words for Mechanism {
    const ALL: &'static [Self] = &Self::ALL;

    fn word(self) -> &'static str {
        self.as_str()
    }
}
