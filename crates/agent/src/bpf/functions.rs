//! Attaching to functions of libraries, as the libraries are found.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    thread::JoinHandle,
};

use aya::programs::{
    ProgramError, UProbe,
    uprobe::{UProbeAttachPoint, UProbeScope},
};
use spark_trace_common::hook::Mechanism;
use tracing::debug;

use super::{EVENTS, Object, STACK_COPIES, attach::describe, is_of_files, map_fd, reason};
use crate::{messages, program_stats::ProgramStats, uprobe_multi::Multi};
use spark_trace_recording::verdict::Verdict;

/// The pair of programs at library functions.
const CALL_ENTER: &str = "call_enter";
const CALL_RETURN: &str = "call_return";

/// Programs that a thread loads.
pub(super) type Begun = JoinHandle<Result<Multi, String>>;

impl Object {
    /// Begins to load the pair for links that attach to all functions of a library at once: the verifier takes as long for it
    /// as for all other programs, which are loaded meanwhile.
    pub(super) fn begin_multi(&mut self) {
        // Where something fails here, loading it without a thread says why.
        let Ok(load) = self.multi_loader() else { return };
        self.multi_begun = std::thread::Builder::new().name("library-programs".to_owned()).spawn(load).ok();
    }

    /// Loads the pair, unless that was begun.
    pub(super) fn load_multi(&mut self) -> Result<(), String> {
        let loaded = match self.multi_begun.take().and_then(|thread| thread.join().ok()) {
            Some(loaded) => loaded,
            None => self.multi_loader().map_err(|e| e.to_string())?(),
        };
        self.multi = Some(loaded?);
        Ok(())
    }

    /// What loads it. The maps' descriptors are its own.
    fn multi_loader(&self) -> io::Result<impl FnOnce() -> Result<Multi, String> + Send + use<>> {
        let rings = [(EVENTS, self.events.as_fd()), (STACK_COPIES, self.copies.as_fd())];
        let messages = self.messages.iter().map(|messages| (messages::MAP, messages.as_fd()));
        let others = self.ebpf.maps().filter_map(|(name, map)| Some((name, map_fd(map)?)));
        let maps = others.chain(rings).chain(messages);
        let maps: HashMap<String, OwnedFd> = maps
            .map(|(name, fd)| Ok((name.to_owned(), fd.try_clone_to_owned()?)))
            .collect::<io::Result<_>>()?;
        let bytes = self.bytes;
        Ok(move || {
            let map = |name: &str| maps.get(name).map(AsFd::as_fd);
            Multi::load(bytes, CALL_ENTER, CALL_RETURN, map).map_err(|e| e.to_string())
        })
    }

    fn uprobe(&mut self, name: &'static str) -> Result<&mut UProbe, String> {
        let program = self.ebpf.program_mut(name).ok_or("no such program in the object")?;
        program.try_into().map_err(|e: ProgramError| e.to_string())
    }

    /// Loads the programs for links of their own, unless they are.
    pub(super) fn load_uprobes(&mut self) -> Result<(), String> {
        for name in [CALL_ENTER, CALL_RETURN] {
            let program = self.uprobe(name)?;
            if program.fd().is_err() {
                program.load().map_err(|e| describe(&e))?;
            }
        }
        Ok(())
    }

    /// Whether library functions can be attached to.
    pub fn watches_libraries(&self) -> bool {
        self.hooks.iter().any(is_of_files)
    }

    /// Attaches to functions of the file at `path`, each with its offset in the file and its cookie, for all
    /// processes. Gives those that it could not attach to, with the reason.
    pub fn attach_functions(&mut self, path: &Path, functions: &[(u64, u64)]) -> Vec<(u64, String)> {
        let mut failed = Vec::new();
        match self.multi.as_mut().map(|multi| multi.attach(path, functions)) {
            Some(Ok(())) => (),
            // What one library does not allow, another may.
            Some(Err(e)) => {
                let reason = format!("{}: {e}", Mechanism::UprobeMulti.as_str());
                failed = self.attach_one_by_one(path, functions);
                for (_, why) in &mut failed {
                    *why = format!("{reason}; {}: {why}", Mechanism::Uprobe.as_str());
                }
                if !self.not_multi.contains(&reason) {
                    self.not_multi.push(reason);
                }
            }
            None => failed = self.attach_one_by_one(path, functions),
        }
        let attached = functions.len() - failed.len();
        debug!("library {}: attached to {attached} of {} functions", path.display(), functions.len());
        for (offset, why) in &failed {
            debug!("library {}: function at {offset:#x}: {why}", path.display());
        }
        let multi = self.multi.as_ref().is_some_and(Multi::is_attached);
        if (multi || !self.functions.is_empty())
            && let Some(hook) = self.hooks.iter_mut().find(|hook| is_of_files(hook))
        {
            hook.mechanism = Some(if multi { Mechanism::UprobeMulti } else { Mechanism::Uprobe });
            hook.verdict = Verdict::Ok;
            hook.reason = reason(&self.not_multi);
        }
        failed
    }

    fn attach_one_by_one(&mut self, path: &Path, functions: &[(u64, u64)]) -> Vec<(u64, String)> {
        let attach = |&(offset, cookie): &(u64, u64)| {
            self.attach_function(path, offset, cookie).err().map(|reason| (offset, reason))
        };
        functions.iter().filter_map(attach).collect()
    }

    fn attach_function(&mut self, path: &Path, offset: u64, cookie: u64) -> Result<(), String> {
        self.load_uprobes()?;
        let mut links = Vec::new();
        // The return first: an entry without its return would leave a call under way for ever.
        for name in [CALL_RETURN, CALL_ENTER] {
            let point = UProbeAttachPoint { location: offset.into(), cookie: Some(cookie) };
            let program = self.uprobe(name)?;
            let link = program.attach(point, path, UProbeScope::AllProcesses).map_err(|e| describe(&e))?;
            links.push(program.take_link(link).map_err(|e| describe(&e))?);
        }
        self.functions.extend(links);
        Ok(())
    }

    /// Detaches from all library functions. Where each has a link of its own, the kernel waits for a grace period at
    /// each, a tenth of a second, one after the other.
    pub fn detach_functions(&mut self) {
        if let Some(multi) = &mut self.multi {
            multi.detach();
        }
        self.functions.clear();
    }

    /// Of all programs at library functions, however attached.
    pub(super) fn call_stats(&self) -> Option<ProgramStats> {
        let single = [CALL_ENTER, CALL_RETURN].map(|name| self.program_stats(name));
        let multi = self.multi.iter().flat_map(Multi::programs).map(ProgramStats::read);
        single.into_iter().chain(multi).flatten().reduce(ProgramStats::plus)
    }
}
