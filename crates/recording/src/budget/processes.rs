//! Room among processes: of those that have ended the smallest go, with all that is listed of them.

use std::collections::HashSet;

use super::super::schema::Recording;

/// The signal in a status as wait(2) reports it, and SIGKILL: who was killed is what somebody will look for.
const SIGNAL_BITS: u32 = 0x7f;
const SIGKILL: u32 = 9;

/// Brings the processes down to `wanted`, if so many have ended. Says how many went.
pub fn make_room(recording: &mut Recording, wanted: usize) -> u64 {
    let provenance = &mut recording.provenance;
    let surplus = provenance.processes.len().saturating_sub(wanted);
    let ended = provenance.processes.iter().enumerate().filter(|(_, process)| {
        process.ended_ns.is_some() && process.exit_status.is_none_or(|status| status & SIGNAL_BITS != SIGKILL)
    });
    let mut order: Vec<_> = ended.map(|(index, process)| (process.rss_peak.unwrap_or(0), index)).collect();
    // Of equal ones the oldest.
    order.sort_unstable();
    let gone: HashSet<usize> = order.into_iter().take(surplus).map(|(_, index)| index).collect();
    let mut pids: HashSet<u32> = HashSet::new();
    let mut index = 0;
    provenance.processes.retain(|process| {
        let goes = gone.contains(&index);
        index += 1;
        if goes {
            pids.insert(process.pid);
        }
        !goes
    });
    // A number may have come again as another process.
    for process in &provenance.processes {
        pids.remove(&process.pid);
    }
    provenance.mappings.retain(|event| !pids.contains(&event.pid));
    provenance.brief_mappings.retain(|row| !pids.contains(&row.pid));
    provenance.regions.retain(|region| !pids.contains(&region.pid));
    recording.samples.processes.retain(|process| !pids.contains(&process.pid));
    gone.len() as u64
}
