//! Other spark-traces of the machine. Each has a map of this name, in which it says whose it is. One that begins enters itself
//! in the maps of all others, and them in its own: from then on no program of theirs records what it does.
//!
//! The kernel keeps the list: a map is gone with its process, whatever namespace or container that is in.

use std::collections::BTreeSet;
use std::{fs, io::ErrorKind};

use aya::maps::{HashMap, Map, MapData, MapError, loaded_maps};
use aya::programs::loaded_programs;
use aya_obj::generated::bpf_prog_type::BPF_PROG_TYPE_TRACING;
use spark_trace_common::{
    capacities::BESIDE as MOST,
    config::{BESIDE_OTHER, BESIDE_OWN},
};

use super::{Object, ObjectError, map_error};
use crate::source::process;

const BESIDE: &str = "BESIDE";

/// Descriptors of a process that are looked at.
const MOST_DESCRIPTORS: usize = 4096;

impl Object {
    /// Makes this process known to all other spark-traces that trace now, and them to this one. Where the kernel does not show
    /// its maps, that is the text. Others find this one once a program of its own is loaded: a map without any is nobody's.
    pub fn announce(&mut self) -> Result<Option<String>, ObjectError> {
        let own = std::process::id();
        let mut map: HashMap<_, u32, u32> = self.map_mut(BESIDE)?;
        // Before looking: of two that begin at once, one at least finds the other.
        map.insert(own, BESIDE_OWN, 0).map_err(|e| map_error(BESIDE, e))?;
        let others = match find(own) {
            Ok(others) => others,
            Err(reason) => return Ok(Some(format!("other spark-traces are not looked for: {reason}"))),
        };
        for (pid, mut theirs) in others {
            // One for which there is no room is recorded as any other process is.
            let _ = map.insert(pid, BESIDE_OTHER, 0);
            let _ = theirs.insert(own, BESIDE_OTHER, 0);
        }
        Ok(None)
    }

    /// The others that have come to be known since the last call, or still run.
    pub fn beside(&mut self) -> Result<Vec<u32>, ObjectError> {
        let mut map: HashMap<_, u32, u32> = self.map_mut(BESIDE)?;
        let mut others: Vec<_> = map.iter().flatten().filter(|(_, whose)| *whose != BESIDE_OWN).collect();
        others.sort_unstable();
        for (pid, whose) in &others {
            // The kernel side has seen the end of it, unless that came before it was entered.
            if *whose != BESIDE_OTHER || process::has_ended(*pid) {
                let _ = map.remove(pid);
            }
        }
        Ok(others.into_iter().map(|(pid, _)| pid).collect())
    }
}

impl Object {
    /// The others as they are known now, those included that have just ended.
    pub fn beside_now(&self) -> Result<BTreeSet<u32>, ObjectError> {
        let map: HashMap<&MapData, u32, u32> = self.map(BESIDE)?;
        Ok(map.iter().flatten().filter(|(_, whose)| *whose != BESIDE_OWN).map(|(pid, _)| pid).collect())
    }
}

/// Processes of other spark-traces that trace now; else why the kernel does not show them.
pub fn running() -> Result<Vec<u32>, String> {
    let mut pids: Vec<u32> = find(std::process::id())?.into_iter().map(|(pid, _)| pid).collect();
    pids.sort_unstable();
    Ok(pids)
}

type Theirs = HashMap<MapData, u32, u32>;

/// Other spark-traces, each with its map.
fn find(own: u32) -> Result<Vec<(u32, Theirs)>, String> {
    let used = used_by_tracing();
    let mut others = Vec::new();
    for info in loaded_maps() {
        match info {
            Ok(info) if info.name_as_str() == Some(BESIDE) && used.contains(&info.id()) => {
                others.extend(owner_of(own, info.id()));
                if others.len() == MOST as usize {
                    break;
                }
            }
            Ok(_) => {}
            // It went while it was looked at.
            Err(MapError::SyscallError(error)) if error.io_error.kind() == ErrorKind::NotFound => {}
            Err(MapError::SyscallError(error)) => {
                return Err(format!("the kernel does not show its maps ({})", error.io_error));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(others)
}

/// Maps that a program uses which only the privileged can load: any user may make a map, and call it as they like.
fn used_by_tracing() -> BTreeSet<u32> {
    let tracing = loaded_programs().flatten().filter(|info| info.program_type() == BPF_PROG_TYPE_TRACING);
    tracing.filter_map(|info| info.map_ids().ok().flatten()).flatten().collect()
}

/// Whose a map is, and the map, if it is another spark-trace's.
fn owner_of(own: u32, id: u32) -> Option<(u32, Theirs)> {
    // Its sizes are checked.
    let map = HashMap::<_, u32, u32>::try_from(Map::HashMap(MapData::from_id(id).ok()?)).ok()?;
    let mut entries = map.iter().take(MOST as usize).flatten();
    let (owner, _) = entries.find(|(pid, whose)| *whose == BESIDE_OWN && *pid != own)?;
    holds(owner, id).then_some((owner, map))
}

/// Whether a process has a descriptor of the map. In another PID namespace the number is another process's.
fn holds(pid: u32, map: u32) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return false };
    let line = format!("map_id:\t{map}");
    let is_it = |text: String| text.lines().any(|found| found == line);
    let infos = entries.take(MOST_DESCRIPTORS).flatten();
    infos.filter_map(|entry| fs::read_to_string(entry.path()).ok()).any(is_it)
}
