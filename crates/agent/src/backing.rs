//! What host memory lies in that programs hand to the driver, as its mapping says. Two ways of cudaMallocHost are distinguished
//! so: pages of the NVIDIA module, which are charged to nobody, and pinned shared memory, which is.
//!
//! Kernels before 6.11 do not answer for one address, and writing out all mappings takes a millisecond for a thousand of them.
//! There allocations wait until it is time to look again, and one look serves all that were made before it.

use std::collections::HashMap;

use spark_trace_common::cuda::Op;

use super::{
    maps::{self, Answer, Mapping},
    now_ns,
};
use crate::decode::Call;

/// Time between two looks at all mappings of a process, at least, ...
const REST_NS: u64 = 20_000_000;
/// ... how many times as long as the last one took, and at most.
const REST_FACTOR: u64 = 20;
const LONGEST_REST_NS: u64 = 100_000_000;
/// Processes whose mappings are remembered, and mappings of all of them, at most: 6 MiB.
const MOST_PROCESSES: usize = 16;
const MOST_MAPPINGS: usize = 200_000;

#[derive(Debug, Default)]
pub struct Backings {
    /// This kernel does not answer for one address.
    looks: bool,
    /// All mappings of a process, as they were last looked at.
    processes: HashMap<u32, Look>,
    #[cfg(test)]
    made: u64,
}

#[derive(Debug)]
struct Look {
    began_ns: u64,
    cost_ns: u64,
    /// Start, end and what lies there, lowest first.
    mappings: Vec<(u64, u64, &'static str)>,
}

impl Look {
    fn at(pid: u32) -> Self {
        let began_ns = now_ns();
        let kind = |mapping: Mapping| (mapping.start, mapping.end, by_name(&mapping.name));
        let mappings = maps::all(pid).unwrap_or_default().into_iter().map(kind).collect();
        Self { began_ns, cost_ns: now_ns() - began_ns, mappings }
    }

    fn find(&self, address: u64) -> Option<&'static str> {
        let after = self.mappings.partition_point(|(start, ..)| *start <= address);
        let (_, end, kind) = *self.mappings.get(after.checked_sub(1)?)?;
        (address < end).then_some(kind)
    }

    /// When it may be looked again.
    fn again_ns(&self) -> u64 {
        let rest = self.cost_ns.saturating_mul(REST_FACTOR).clamp(REST_NS, LONGEST_REST_NS);
        self.began_ns.saturating_add(rest)
    }
}

impl Backings {
    /// Whether a call may have to wait: only on kernels that do not answer for one address.
    pub const fn may_wait(&self) -> bool {
        self.looks
    }

    /// Until when a call waits, if it does.
    pub fn waits_until(&self, call: &Call) -> Option<u64> {
        address(call)?;
        let look = self.processes.get(&call.pid).filter(|look| look.began_ns < call.end_ns)?;
        Some(look.again_ns()).filter(|again| *again > now_ns())
    }

    /// What the memory lies in that a call has given; `None` where that is no host memory or cannot be seen.
    pub fn of(&mut self, call: &Call) -> Option<&'static str> {
        let address = address(call)?;
        if !self.looks {
            match maps::at(call.pid, address) {
                Answer::Mapped(mapping) => return Some(by_name(&mapping.name)),
                Answer::Nothing | Answer::Gone => return None,
                Answer::Unsupported => self.looks = true,
            }
        }
        self.look(call.pid, call.end_ns).find(address)
    }

    /// All mappings of a process as they were at some time after `since_ns`.
    fn look(&mut self, pid: u32, since_ns: u64) -> &Look {
        if self.processes.get(&pid).is_none_or(|look| look.began_ns < since_ns) {
            self.processes.remove(&pid);
            self.make_room();
            #[cfg(test)]
            (self.made += 1);
        }
        self.processes.entry(pid).or_insert_with(|| Look::at(pid))
    }

    /// Forgets the oldest looks where there are too many.
    fn make_room(&mut self) {
        while self.processes.len() >= MOST_PROCESSES
            || self.processes.values().map(|look| look.mappings.len()).sum::<usize>() > MOST_MAPPINGS
        {
            let oldest = self.processes.iter().min_by_key(|(_, look)| look.began_ns).map(|(pid, _)| *pid);
            let Some(pid) = oldest else { return };
            self.processes.remove(&pid);
        }
    }

    pub fn forget(&mut self, pid: u32) {
        self.processes.remove(&pid);
    }
}

/// Where the host memory lies that a call has given.
fn address(call: &Call) -> Option<u64> {
    let is_host = matches!(call.function.op, Op::Alloc(kind) if kind.is_host());
    if is_host && call.succeeded() { call.value(call.function.object) } else { None }
}

fn by_name(path: &str) -> &'static str {
    // Shared anonymous memory is a file of the kernel's own, named after the device that used to give it, or by the
    // program (mm/madvise.c anon_vma_name, fs/proc/task_mmu.c).
    const SHMEM: &[&str] = &["/dev/zero", "/memfd:", "/dev/shm/", "/SYSV", "[anon_shmem:"];
    if path.is_empty() || path.starts_with('[') && !path.starts_with("[anon_shmem:") {
        "anon"
    } else if path.starts_with("/dev/nvidia") {
        "driver"
    } else if SHMEM.iter().any(|beginning| path.starts_with(beginning)) {
        "shmem"
    } else {
        "file"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(length: usize, shared: bool) -> u64 {
        let kind = if shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
        // SAFETY: a new mapping wherever the kernel has room; it stays for as long as the test program.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, kind | libc::MAP_ANONYMOUS, -1, 0)
        };
        assert_ne!(start, libc::MAP_FAILED);
        start as u64
    }

    #[test]
    fn one_look_serves_all_that_were_mapped_before_it() {
        let mut backings = Backings { looks: true, ..Backings::default() };
        let pid = std::process::id();
        let all: Vec<(u64, bool)> =
            (0..64).map(|number| (map(4096, number % 2 == 0), number % 2 == 0)).collect();
        let mapped_ns = now_ns();
        for (address, shared) in &all {
            let kind = backings.look(pid, mapped_ns).find(*address + 5);
            assert_eq!(kind, Some(if *shared { "shmem" } else { "anon" }));
        }
        assert_eq!(backings.made, 1);
        // What was mapped since is looked at anew.
        let later = map(4096, true);
        assert_eq!(backings.look(pid, now_ns()).find(later), Some("shmem"));
        assert_eq!(backings.made, 2);
        assert_eq!(backings.look(pid, 0).find(0x10), None);
        backings.forget(pid);
        assert!(backings.processes.is_empty());
    }

    #[test]
    fn the_oldest_looks_make_room() {
        let look = |began_ns, count| Look { began_ns, cost_ns: 0, mappings: vec![(0, 0, "anon"); count] };
        let mut backings = Backings { looks: true, ..Backings::default() };
        backings.processes.extend((0..MOST_PROCESSES as u32).map(|pid| (pid, look(u64::from(pid), 1))));
        backings.make_room();
        assert!(!backings.processes.contains_key(&0) && backings.processes.len() == MOST_PROCESSES - 1);
        backings.processes.insert(0, look(100, MOST_MAPPINGS));
        backings.make_room();
        assert_eq!(backings.processes.into_keys().collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn a_look_that_took_long_is_not_repeated_soon() {
        let look = |cost_ns| Look { began_ns: 1000, cost_ns, mappings: Vec::new() }.again_ns() - 1000;
        assert_eq!([0, 2_000_000, u64::MAX].map(look), [REST_NS, 40_000_000, LONGEST_REST_NS]);
    }
}
