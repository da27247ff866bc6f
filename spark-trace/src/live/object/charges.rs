//! What the programs on page counters have counted.

use aya::maps::{HashMap, MapData};
use spark_trace_common::{
    hook::HOOKS,
    row::{ChargeLevel, ChargeStack, ChargeStackKey, DriverKey, DriverKind, DriverRow},
};

use super::{Object, ObjectError, Wire, map_error};

/// A level is right only where all of them are seen.
const HOOK_NAMES: [&str; 3] = ["charge-try", "charge-force", "uncharge"];

impl Object {
    /// Whether all that changes a cgroup's memory counter is seen.
    pub fn follows_charges(&self) -> bool {
        HOOK_NAMES.iter().all(|name| self.is_attached(name))
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

    /// Bytes of system memory that the NVIDIA driver was asked for and that were not given back; `None` where that is
    /// not seen.
    pub fn asked_and_live(&self) -> Result<Option<u64>, ObjectError> {
        if !["nvidia-alloc", "nvidia-free"].iter().all(|name| self.is_attached(name)) {
            return Ok(None);
        }
        let rows = self.driver_rows()?.into_iter().filter(|(key, _)| key.kind == DriverKind::Sysmem as u32);
        Ok(Some(rows.map(|(_, row)| row.bytes_allocated.saturating_sub(row.bytes_freed)).sum()))
    }

    /// What the NVIDIA driver was asked for.
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
