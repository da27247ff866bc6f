//! Sources of memory that have one meaning for the claim.

use spark_trace_common::source::UNATTRIBUTED;

use crate::spark_report::facts::{Pair, StepFacts};

/// Sources that have one meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    Cache,
    Driver,
    Processes,
    Kernel,
    Unattributed,
}

impl Group {
    pub const ALL: [Self; 5] = [Self::Cache, Self::Driver, Self::Processes, Self::Kernel, Self::Unattributed];

    pub const fn slugs(self) -> &'static [&'static str] {
        match self {
            Self::Cache => &["file-clean", "file-dirty"],
            Self::Driver => &["nvidia-sysmem", "nvidia-managed", "nvidia-pool"],
            Self::Processes => &[
                "anon",
                "anon-pinned",
                "anon-unmapped",
                "shmem",
                "shmem-pinned",
                "swap-cache",
                "hugetlb",
                "huge-zero-page",
                "zswap",
            ],
            Self::Kernel => &[
                "slab-reclaimable",
                "slab-unreclaimable",
                "kernel-stack",
                "page-tables",
                "percpu",
                "vmalloc",
                "sock",
                "kernel-other",
                "free-percpu-lists",
            ],
            Self::Unattributed => &[UNATTRIBUTED],
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Cache => "page cache",
            Self::Driver => "the driver",
            Self::Processes => "processes",
            Self::Kernel => "the kernel",
            Self::Unattributed => "unattributed",
        }
    }

    /// The mean difference of its sources.
    pub fn of(self, step: &StepFacts) -> Option<i64> {
        step.mean(|pair| Some(self.in_pair(pair)))
    }

    fn in_pair(self, pair: &Pair) -> i64 {
        self.slugs()
            .iter()
            .filter_map(|slug| pair.sources.get(slug))
            .fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// Absent where the cgroup plane does not have a source that makes a difference on the machine.
    pub fn in_cgroup(self, pair: &Pair) -> Option<i64> {
        let cgroup = pair.cgroup.as_ref()?;
        let differs =
            |slug: &str| pair.sources.get(slug).is_some_and(|bytes| bytes.saturating_abs() > pair.threshold);
        self.slugs().iter().try_fold(0_i64, |sum, slug| match cgroup.get(slug) {
            Some(bytes) => Some(sum.saturating_add(*bytes)),
            None => (!differs(slug)).then_some(sum),
        })
    }
}
