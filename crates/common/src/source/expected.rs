//! The counter a plane's rows must add up to, and how high the machine's stands.

use super::{Term, minus, plus};

/// System plane: what is not free.
pub const SYSTEM: &[Term] = &[plus("meminfo.MemTotal"), minus("meminfo.MemFree")];
/// What of it somebody uses: CPUs keep free pages at hand, tens of MiB where pages have 16 KiB, and what is taken of
/// them changes MemFree by nothing.
pub const SYSTEM_USED: &[Term] =
    &[plus("meminfo.MemTotal"), minus("meminfo.MemFree"), minus("zoneinfo.pcp_count")];
pub const CGROUP_V2: &[Term] = &[plus("memory.current")];
pub const CGROUP_V1: &[Term] = &[plus("memory.usage_in_bytes")];
/// A device's plane: what is not free. NVML's own `used` has the reserved part in it or not, by the version of
/// the call; this has it in any case.
pub const DEVICE: &[Term] = &[plus("memory.total"), minus("memory.free")];
