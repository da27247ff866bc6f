//! What else changed the machine's memory: other programs, and what was there before.

use super::because::Outside;
use super::run::Run;
use crate::attribution::{bytes, difference};
use crate::comparability;
use crate::instant_spec::InstantSpec;
use crate::moment::Moments;
use crate::view::{Scope, View};
use spark_trace_recording::Recording;

/// Memory of the machine that no cgroup is charged for, and that a driver takes for whoever uses it or keeps for later.
const UNCHARGED: &[&str] = &["nvidia-sysmem", "nvidia-pool"];

/// Why the machine's levels say nothing of the runs, if so: they began from different states, or other programs moved
/// more memory than makes the difference.
pub fn reason(
    compared: Option<(&Recording, &Recording)>,
    at: Moments,
    runs: [Option<&Run<'_>>; 2],
    delta: Option<i64>,
    material: i64,
) -> Option<Outside> {
    if sizes_a_cache(at, runs) {
        return None;
    }
    if let Some((a, b)) = compared
        && let Some(first) = comparability::start_state(a, b).into_iter().next()
    {
        return Some(Outside::Start(first));
    }
    let least = delta?.abs().max(material);
    let moved = runs.into_iter().flatten().filter_map(|run| Some((run.name(), moved(run)?)));
    let (name, bytes) =
        moved.max_by_key(|(_, moved)| moved.abs()).filter(|(_, moved)| moved.abs() > least)?;
    Some(Outside::Others { bytes, run: compared.map(|_| name) })
}

/// At a KV-cache reading on a GPU that shares the system's memory all of the machine's memory counts, whoever uses it and
/// since when: it is what the answer was about.
fn sizes_a_cache(at: Moments, runs: [Option<&Run<'_>>; 2]) -> bool {
    let own_memory = |run: &&Run<'_>| run.recording.host.gpus.iter().any(|gpu| gpu.memory_total.is_some());
    let read = [at.a, at.b].iter().all(|at| matches!(at, InstantSpec::Kv(_)));
    read && !runs.into_iter().flatten().any(|run| own_memory(&run))
}

/// How far the machine's memory has come since the run began, without what the target was charged and what the driver
/// took. Absent where the target has no cgroup that separates it from others, or is the whole machine.
fn moved(run: &Run<'_>) -> Option<i64> {
    if run.recording.target.is_whole_machine() {
        return None;
    }
    let target = View::new(run.recording, Scope::Cgroup)?;
    let charged = difference(bytes(target.at(run.at_ns).expected), bytes(target.start().expected))?;
    let in_use = difference(bytes(run.balance.expected), bytes(run.start.expected))?;
    let driver = UNCHARGED
        .iter()
        .filter_map(|slug| difference(bytes(run.balance.bytes(slug)), bytes(run.start.bytes(slug))));
    let driver = driver.fold(0, i64::saturating_add);
    // Free pages at the CPUs are in nobody's use.
    let idle = difference(
        bytes(run.balance.bytes("free-percpu-lists")),
        bytes(run.start.bytes("free-percpu-lists")),
    );
    Some(in_use - charged - driver - idle.unwrap_or(0))
}
