//! Which processes have an interpreter of Python.

use aya::maps::HashMap;
use spark_trace_common::python::PythonProcess;
use tracing::debug;

use super::{Object, ObjectError, Wire};

const PYTHON_PROCESSES: &str = "PYTHON_PROCESSES";

impl Object {
    /// Hands over where a process's interpreter has its threads, or that it has none. Where there is no room, its stacks have
    /// no frames of Python.
    pub fn has_python(&mut self, pid: u32, process: PythonProcess) {
        let inserted = self.python_processes().map(|mut map| map.insert(pid, Wire(process), 0).is_ok());
        debug!("process {pid}: interpreter at {:#x}: {inserted:?}", process.interpreters);
    }

    /// A process has ended or become another program.
    pub fn forget_python(&mut self, pid: u32) {
        if let Ok(mut map) = self.python_processes() {
            // It may not have had room.
            let _ = map.remove(&pid);
        }
    }

    fn python_processes(
        &mut self,
    ) -> Result<HashMap<&mut aya::maps::MapData, u32, Wire<PythonProcess>>, ObjectError> {
        self.map_mut(PYTHON_PROCESSES)
    }
}
