//! Attaching to functions of libraries, as the libraries are found.

use std::path::Path;

use aya::programs::{
    ProgramError, UProbe,
    uprobe::{UProbeAttachPoint, UProbeScope},
};
use spark_trace_common::hook::Mechanism;

use super::{Object, attach::describe};
use crate::health::Verdict;

/// The pair of programs at library functions.
const CALL_ENTER: &str = "call_enter";
const CALL_RETURN: &str = "call_return";

impl Object {
    /// Loads the pair; there is nothing to attach to as yet.
    pub(super) fn load_functions(&mut self) -> Result<(), String> {
        for name in [CALL_ENTER, CALL_RETURN] {
            self.uprobe(name)?.load().map_err(|e| describe(&e))?;
        }
        Ok(())
    }

    /// Whether library functions can be attached to.
    pub fn watches_libraries(&self) -> bool {
        self.hooks.iter().any(|h| h.mechanism == Some(Mechanism::Uprobe))
    }

    /// Attaches to the function at `offset` of the file at `path`, for all processes.
    pub fn attach_function(&mut self, path: &Path, offset: u64, cookie: u64) -> Result<(), String> {
        // The return first: an entry without its return would leave a call under way for ever.
        for name in [CALL_RETURN, CALL_ENTER] {
            let point = UProbeAttachPoint { location: offset.into(), cookie: Some(cookie) };
            let program = self.uprobe(name)?;
            let link = program.attach(point, path, UProbeScope::AllProcesses).map_err(|e| describe(&e))?;
            let link = program.take_link(link).map_err(|e| describe(&e))?;
            self.functions.push(link);
        }
        if let Some(hook) = self.hooks.iter_mut().find(|h| h.mechanism == Some(Mechanism::Uprobe)) {
            hook.verdict = Verdict::Ok;
            hook.reason = None;
        }
        Ok(())
    }

    /// Detaches from all library functions.
    pub fn detach_functions(&mut self) {
        self.functions.clear();
    }

    fn uprobe(&mut self, name: &'static str) -> Result<&mut UProbe, String> {
        let program = self.ebpf.program_mut(name).ok_or("no such program in the object")?;
        program.try_into().map_err(|e: ProgramError| e.to_string())
    }
}
