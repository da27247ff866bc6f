//! Whom the kernel side pauses, and lets go on.

use std::os::fd::BorrowedFd;

use aya::maps::{Array, HashMap, MapData};
use spark_trace_common::{config::CONTROL_PAUSE, map_records::LibraryKey};

use super::{Object, ObjectError, Wire, map_error, map_fd};
use crate::pause;

/// Processes that are paused.
const PAUSED: &str = "PAUSED";

impl Object {
    /// Whether processes of the target are paused when they map a library that is not watched.
    pub fn pause(&mut self, on: bool) -> Result<(), ObjectError> {
        let mut map: Array<_, u32> = self.map_mut("CONTROL")?;
        map.set(CONTROL_PAUSE, u32::from(on), 0).map_err(|e| map_error("CONTROL", e))
    }

    /// Where the kernel side keeps whom it has paused.
    pub fn paused(&self) -> Result<BorrowedFd<'_>, ObjectError> {
        self.ebpf.map(PAUSED).and_then(map_fd).ok_or(ObjectError::NoMap(PAUSED))
    }

    /// Lets a process go on that was paused at `at_ns`.
    pub fn let_go(&mut self, pid: u32, at_ns: u64) -> Result<(), ObjectError> {
        let mut map: HashMap<_, u32, u64> = self.map_mut(PAUSED)?;
        // The guard may have taken it out just now; that it is let go on twice does no harm.
        let _ = map.remove(&pid);
        pause::let_go(pid, at_ns);
        Ok(())
    }

    /// Lets all go on that are paused.
    pub fn let_all_go(&mut self) -> Result<(), ObjectError> {
        pause::release(&mut self.map_mut(PAUSED)?, |_| true);
        Ok(())
    }

    /// Since when a process is paused, if it is.
    pub fn paused_since(&self, pid: u32) -> Result<Option<u64>, ObjectError> {
        let map: HashMap<&MapData, u32, u64> = self.map(PAUSED)?;
        Ok(map.get(&pid, 0).ok())
    }

    /// Nobody need be paused for a file any more.
    pub fn is_watched(&mut self, file: LibraryKey) -> Result<(), ObjectError> {
        let mut map: HashMap<_, Wire<LibraryKey>, u32> = self.map_mut("WATCHED_FILES")?;
        // Where there is no room, processes are paused for it again, which costs them a moment.
        let _ = map.insert(Wire(file), 1, 0);
        Ok(())
    }
}
