//! Room among the events of mappings. First go those that no reading shows: mappings that were made and removed
//! again between two readings. If that is not enough the oldest go of what is mapped no more, and count as lost. What is
//! still mapped stays.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::super::provenance::Mapping;
use super::super::schema::{Recording, Series};
use super::life;

/// Brings the events down to `wanted`, if it can be done. Says how many went that no reading shows, and how many
/// others.
pub fn make_room(recording: &mut Recording, wanted: usize) -> (u64, u64) {
    let provenance = &mut recording.provenance;
    let pairs = pairs(&provenance.mappings);
    let mut moments: Vec<u64> = provenance.instants.iter().map(|instant| instant.at_ns).collect();
    moments.extend(provenance.queries.iter().map(|query| query.at_ns));
    moments.sort_unstable();
    let system = &recording.samples.system;
    let mut gone: HashSet<usize> = HashSet::new();
    let mut others = Vec::new();
    for (made, removed) in pairs {
        let at = |index: usize| provenance.mappings.get(index).map_or(0, |event: &Mapping| event.at_ns);
        if is_brief(system, &moments, at(made), at(removed)) {
            gone.extend([made, removed]);
        } else {
            others.push((at(removed), [made, removed]));
        }
    }
    let brief = gone.len();
    let mut surplus = (provenance.mappings.len() - brief).saturating_sub(wanted);
    if surplus > 0 {
        let mut alive: HashMap<u32, bool> = HashMap::new();
        for (pid, ended_ns) in provenance.processes.iter().map(life) {
            *alive.entry(pid).or_default() |= ended_ns.is_none();
        }
        let ended = provenance
            .mappings
            .iter()
            .enumerate()
            .filter(|(index, event)| !gone.contains(index) && alive.get(&event.pid) == Some(&false));
        others.extend(ended.map(|(index, event)| (event.at_ns, [index, index])));
        others.sort_unstable();
        for (_, events) in others {
            if surplus == 0 {
                break;
            }
            let before = gone.len();
            gone.extend(events);
            surplus = surplus.saturating_sub(gone.len() - before);
        }
    }
    let lost = gone.len() - brief;
    let mut index = 0;
    provenance.mappings.retain(|_| {
        index += 1;
        !gone.contains(&(index - 1))
    });
    (brief as u64, lost as u64)
}

/// Whether neither a reading nor a moment that reports look at lies between two times. Of what came after the last reading
/// nobody knows that yet.
fn is_brief(system: &Series, moments: &[u64], from_ns: u64, to_ns: u64) -> bool {
    let reading = system.end_ns.partition_point(|end| *end < from_ns);
    let moment = moments.partition_point(|at| *at < from_ns);
    system.begin_ns.get(reading).is_some_and(|begin| *begin > to_ns)
        && moments.get(moment).is_none_or(|at| *at > to_ns)
}

/// Mappings of one process: start to end (exclusive) and index of the event. They do not overlap.
#[derive(Default)]
struct Open(BTreeMap<u64, (u64, usize)>);

impl Open {
    /// Something else has happened to a range: mappings that it touches are not what they were.
    fn touch(&mut self, start: u64, end: u64) {
        let touched = self.0.range(..end).rev().take_while(|(_, (until, _))| *until > start);
        let touched: Vec<u64> = touched.map(|(start, _)| *start).collect();
        for start in touched {
            self.0.remove(&start);
        }
    }
}

/// Events that made a mapping, each with the one that removed all of it and nothing else. Nothing happened to it between.
fn pairs(events: &[Mapping]) -> Vec<(usize, usize)> {
    let mut order: Vec<usize> = (0..events.len()).collect();
    // Buffers of several CPUs are drained one after the other.
    order.sort_by_key(|index| events[*index].at_ns);
    let mut open: HashMap<u32, Open> = HashMap::new();
    let mut pairs = Vec::new();
    for index in order {
        let event = &events[index];
        let open = open.entry(event.pid).or_default();
        let (start, length) = (event.address, event.length.unsigned_abs());
        let end = start.saturating_add(length);
        match event.op.as_str() {
            "mmap" => {
                open.touch(start, end);
                open.0.insert(start, (end, index));
            }
            "munmap" => {
                match open.0.get(&start) {
                    Some(&(until, made)) if until == end => pairs.push((made, index)),
                    _ => {}
                }
                open.touch(start, end);
            }
            "mremap" => {
                let former = event.detail.unwrap_or(0).unsigned_abs();
                let from = event.from.unwrap_or(start);
                open.touch(from, from.saturating_add(former));
                open.touch(start, end);
            }
            // The heap has a place of its own, and advice changes nothing that is mapped.
            _ => {}
        }
    }
    pairs
}
