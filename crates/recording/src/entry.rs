//! Entries of a journal: what was read, or what happened.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{cuda::*, process_env::*, provenance::*, schema::*, target::*};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "kebab-case")]
pub enum Entry {
    /// First line.
    Begin(Box<Begin>),
    /// Replaces the target: what is known of it grows.
    Target(Target),
    Phase(Phase),
    Sample(Sample),
    Mapping(Mapping),
    /// Adds to the row of the same place.
    BriefMappings(BriefMappings),
    /// Replaces the regions of one process.
    Regions {
        pid: u32,
        regions: Vec<Region>,
    },
    /// Replaces what is known of a process.
    Process(Process),
    Cgroup(CgroupName),
    /// Replaces all aggregates: they are cumulative.
    Aggregates(Box<Aggregates>),
    CudaFailure(CudaFailure),
    CudaEvent(CudaEvent),
    Query(Box<MemoryQuery>),
    Context(Box<ProcessContext>),
    /// Bytes of all file systems in memory at one time.
    Tmpfs {
        file_systems: Vec<TmpfsUse>,
    },
    LogLine(LogLine),
    /// The largest processes outside of the target, at one time.
    Outside {
        processes: Vec<OutsideProcess>,
    },
    /// Replaces what is known of a file.
    Library(LibraryFile),
    Health(Health),
    Cost(Cost),
    /// Last line of a journal that was brought to its end.
    End {
        at_ns: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Begin {
    pub schema: String,
    pub schema_version: u32,
    pub tool: Tool,
    pub host: Host,
    pub clock: Clock,
    pub target: Target,
}

/// Which series a reading belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SeriesId {
    System,
    Cgroup(u64),
    Process(u32),
    Cuda,
    /// NVML's index of a GPU.
    Device(u32),
}

/// One reading.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub series: SeriesId,
    pub begin_ns: u64,
    pub end_ns: u64,
    pub values: BTreeMap<String, u64>,
    /// Columns (or whole files) that could not be read, with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<(String, String)>,
}

/// Kernel-side aggregates as read at the last instant, each row with its history.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Aggregates {
    pub instants: Vec<Instant>,
    pub page_allocs: Vec<PageAllocs>,
    pub files: Vec<FilePages>,
    #[serde(default)]
    pub cache_seen: Option<CacheSeen>,
    pub charges: Vec<Charge>,
    #[serde(default)]
    pub charge_stacks: Vec<ChargeStack>,
    #[serde(default)]
    pub charge_levels: Vec<ChargeLevel>,
    #[serde(default)]
    pub driver_allocs: Vec<DriverAllocs>,
    pub cuda_allocs: Vec<CudaAllocs>,
    #[serde(default)]
    pub cuda_largest: Vec<CudaAllocation>,
    pub cuda_totals: Vec<CudaTotal>,
    #[serde(default)]
    pub cuda_by_gpu: Vec<CudaGpuTotal>,
    #[serde(default)]
    pub cuda_unknown_frees: Option<u64>,
    pub stacks: Vec<Stack>,
    pub symbols: Vec<Symbol>,
}
