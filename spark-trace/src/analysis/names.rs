//! What the ids of a recording stand for.

use std::collections::{BTreeMap, BTreeSet};

use crate::recording::{Recording, Stack, Symbol};

/// A name that several ids could not be given.
const NO_CGROUP: &str = "(none)";

pub struct Names<'a> {
    paths: BTreeMap<u64, &'a str>,
    target: BTreeSet<u64>,
    stacks: BTreeMap<u32, &'a Stack>,
    comms: BTreeMap<u32, &'a str>,
    symbols: &'a [Symbol],
}

impl<'a> Names<'a> {
    pub fn new(recording: &'a Recording) -> Self {
        let (target, provenance) = (&recording.target, &recording.provenance);
        let named = provenance.cgroups.iter().map(|cgroup| (cgroup.id, cgroup.path.as_str()));
        let own = target.cgroups.iter().map(|cgroup| (cgroup.id, cgroup.path.as_str()));
        let of_target = provenance.cgroups.iter().filter(|cgroup| cgroup.target).map(|cgroup| cgroup.id);
        Self {
            paths: named.chain(own).collect(),
            target: of_target.chain(target.cgroups.iter().map(|cgroup| cgroup.id)).collect(),
            stacks: provenance.stacks.iter().map(|stack| (stack.id, stack)).collect(),
            comms: provenance.processes.iter().map(|process| (process.pid, process.comm.as_str())).collect(),
            symbols: &provenance.symbols,
        }
    }

    /// Path of a cgroup, or its id where the recording does not name it.
    pub fn cgroup(&self, id: u64) -> String {
        match self.paths.get(&id) {
            Some(path) => (*path).to_owned(),
            None if id == 0 => NO_CGROUP.to_owned(),
            None => format!("(cgroup {id})"),
        }
    }

    pub fn is_target(&self, id: u64) -> bool {
        self.target.contains(&id)
    }

    /// Command name of a process; of a pid that came again the last one.
    pub fn comm(&self, pid: u32) -> String {
        self.comms.get(&pid).map_or_else(|| "?".to_owned(), |comm| (*comm).to_owned())
    }

    /// Frames of a stack, innermost first; none where the kernel could not take it.
    pub fn frames(&self, stack: Option<u32>) -> Vec<&'a Symbol> {
        let stack = stack.and_then(|id| self.stacks.get(&id));
        stack.map_or_else(Vec::new, |stack| {
            stack.frames.iter().filter_map(|&frame| self.symbols.get(frame as usize)).collect()
        })
    }
}

/// One frame for people: its name, or where it lies.
pub fn frame(symbol: &Symbol) -> String {
    let place = match &symbol.name {
        Some(name) => name.clone(),
        None => format!("{:#x}", symbol.address),
    };
    match &symbol.module {
        Some(module) => format!("{place} [{module}]"),
        None => place,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::testing;

    #[test]
    fn ids_have_names() {
        let recording = testing::container();
        let names = Names::new(&recording);
        assert_eq!(names.cgroup(20), "/system.slice/docker-0123456789ab.scope");
        assert_eq!((names.cgroup(0).as_str(), names.cgroup(7).as_str()), ("(none)", "(cgroup 7)"));
        assert!(names.is_target(20) && !names.is_target(1));
    }

    #[test]
    fn frames_have_names_or_addresses() {
        let symbol = |name: Option<&str>, module: Option<&str>| Symbol {
            name: name.map(Into::into),
            module: module.map(Into::into),
            address: 0x40,
            build_id: None,
        };
        assert_eq!(frame(&symbol(Some("f"), None)), "f");
        assert_eq!(frame(&symbol(None, Some("nvidia"))), "0x40 [nvidia]");
        let recording = testing::container();
        assert!(Names::new(&recording).frames(None).is_empty());
        assert!(Names::new(&recording).frames(Some(u32::MAX)).is_empty());
    }
}
