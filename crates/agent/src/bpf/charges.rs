//! What the programs on page counters have counted.

use aya::maps::{HashMap, MapData};
use spark_trace_common::{
    hook::HOOKS,
    map_records::{ChargeLevel, ChargeStack, ChargeStackKey, DriverKey, DriverKind, DriverRow},
};

use super::{Object, ObjectError, Wire, map_error};

/// A level is right only where all of them are seen.
const HOOK_NAMES: [&str; 3] = ["charge-try", "charge-force", "uncharge"];

/// Bytes that were requested of the NVIDIA driver and that live; absent where that is not seen.
#[derive(Debug, Clone, Copy)]
pub struct LiveDriverBytes {
    /// System memory of its own.
    pub sysmem: Option<u64>,
    /// Pages of processes that it is to pin.
    pub pinned: Option<u64>,
}

impl Object {
    /// Whether all that changes a cgroup's memory counter is seen.
    pub fn follows_charges(&self) -> bool {
        self.are_attached(&HOOK_NAMES)
    }

    fn are_attached(&self, hooks: &[&str]) -> bool {
        hooks.iter().all(|name| self.is_attached(name))
    }

    /// What a cgroup was charged and uncharged since it is selected, in pages.
    pub fn charged(&self, cgroup: u64) -> Result<ChargeLevel, ObjectError> {
        let map: HashMap<&MapData, u64, Wire<ChargeLevel>> = self.map("CHARGE_LEVELS")?;
        match map.get(&cgroup, 0) {
            Ok(Wire(level)) => Ok(level),
            Err(aya::maps::MapError::KeyNotFound) => Ok(ChargeLevel::default()),
            Err(e) => Err(map_error("CHARGE_LEVELS", e)),
        }
    }

    /// Charges by stack.
    pub fn charge_stacks(&self) -> Result<Vec<(ChargeStackKey, ChargeStack)>, ObjectError> {
        let map: HashMap<&MapData, Wire<ChargeStackKey>, Wire<ChargeStack>> = self.map("CHARGE_STACKS")?;
        Ok(map.iter().flatten().map(|(Wire(key), Wire(row))| (key, row)).collect())
    }

    /// What was requested of the NVIDIA driver and that was not given back.
    pub fn live_driver_bytes(&self) -> Result<LiveDriverBytes, ObjectError> {
        let sysmem = self.are_attached(&["nvidia-alloc", "nvidia-free"]);
        let pinned = self.are_attached(&["nvidia-pin", "nvidia-unpin"]);
        let rows = if sysmem || pinned { self.driver_rows()? } else { vec![] };
        let live = |kind: DriverKind| {
            let rows = rows.iter().filter(|(key, _)| key.kind == kind as u32);
            rows.map(|(_, row)| row.bytes_allocated.saturating_sub(row.bytes_freed)).sum()
        };
        Ok(LiveDriverBytes {
            sysmem: sysmem.then(|| live(DriverKind::Sysmem)),
            pinned: pinned.then(|| live(DriverKind::Pinned)),
        })
    }

    /// What was requested of the NVIDIA driver.
    pub fn driver_rows(&self) -> Result<Vec<(DriverKey, DriverRow)>, ObjectError> {
        let map: HashMap<&MapData, Wire<DriverKey>, Wire<DriverRow>> = self.map("DRIVER_ROWS")?;
        Ok(map.iter().flatten().map(|(Wire(key), Wire(row))| (key, row)).collect())
    }

    /// Runs of the programs on page counters that the kernel has skipped.
    pub fn skipped_charges(&self) -> u64 {
        let hooks = self.hooks.iter().filter(|hook| HOOK_NAMES.contains(&hook.name));
        hooks
            .flat_map(|hook| hook.programs())
            .filter_map(|name| Some(self.program_stats(name)?.recursion_misses))
            .sum()
    }

    /// Whether the programs on the counters of memory.stat hand over the unit of each counter, as the functions do that
    /// they may be attached to, and not pages, as the tracepoints do.
    pub fn charges_in_own_units(&self, per_node: bool) -> bool {
        let name = if per_node { "charge-node" } else { "charge" };
        let by_tracepoint = HOOKS.iter().find(|h| h.name == name).and_then(|h| h.candidates.first());
        self.hooks.iter().any(|h| h.name == name && h.program != by_tracepoint.map(|c| c.program))
    }
}
