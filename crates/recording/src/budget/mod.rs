//! How much a recording keeps. A trace may go on for days, and what it keeps must fit into memory and be readable afterwards.
//! Beyond a limit the least important goes, and the recording says how much that was.

mod aged;
mod brief;
mod mappings;
mod processes;
mod thin;

use aged::Ages;

use super::process_env::{Moment, TmpfsUse};
use super::provenance::{BriefMappings, CgroupName, Mapping, Process};
use super::schema::{Health, Loss, Recording, Reduced, Series};
use super::{cuda::CudaEvent, cuda::CudaFailure, provenance::Region};

/// The most that is kept.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Values in all series, two times of each reading among them. Eight bytes each in memory, some twelve in a file.
    pub values: usize,
    /// Events of mappings.
    pub mappings: usize,
    /// Processes, those that have ended among them.
    pub processes: usize,
    /// Mappings with what was resident in them.
    pub regions: usize,
    /// CUDA events, and as many failures.
    pub events: usize,
    /// Names of cgroups, and as many series.
    pub cgroups: usize,
    /// File systems in memory and System V segments, at each moment that they are read.
    pub tmpfs: usize,
}

/// A recording at all limits has some 200 MiB of text: less than `show` reads (see `bounds`).
pub const LIMITS: Limits = Limits {
    values: 8_000_000,
    mappings: 100_000,
    processes: 20_000,
    regions: 100_000,
    events: 100_000,
    cgroups: 10_000,
    tmpfs: 10_000,
};

/// What is thinned together, because it is looked at together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    /// The system, cgroups, CUDA and GPUs.
    Levels,
    Processes,
}

/// What was left out so far.
#[derive(Debug, Clone, Copy, Default)]
struct LeftOut {
    reduced: Reduced,
    mappings: u64,
    processes: u64,
    regions: u64,
    cuda_events: u64,
    cgroups: u64,
    tmpfs: u64,
}

impl LeftOut {
    /// What is lost, by its name in `health.losses`.
    const fn losses(&self) -> [(&'static str, u64); 6] {
        [
            ("mappings", self.mappings),
            ("processes", self.processes),
            ("regions", self.regions),
            ("cuda_events", self.cuda_events),
            ("cgroups", self.cgroups),
            ("tmpfs", self.tmpfs),
        ]
    }
}

/// Keeps a recording that grows within limits.
#[derive(Debug)]
pub struct Budget {
    limits: Limits,
    left_out: LeftOut,
    /// Values of each group.
    levels: usize,
    processes: usize,
    /// At so many values series are thinned: the limit, or more where thinning gains little.
    thin_at: usize,
    /// Events of mappings that came since the last time that room was made among them.
    mappings_came: usize,
    /// At so many processes room is made among them.
    make_room_at: usize,
    /// Absent where old readings are as good as new ones.
    ages: Option<Ages>,
}

impl Budget {
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            left_out: LeftOut {
                reduced: Reduced {
                    readings: 0,
                    levels_spacing_ns: 0,
                    processes_spacing_ns: 0,
                    mappings: 0,
                    aged: None,
                },
                mappings: 0,
                processes: 0,
                regions: 0,
                cuda_events: 0,
                cgroups: 0,
                tmpfs: 0,
            },
            levels: 0,
            processes: 0,
            thin_at: limits.values,
            mappings_came: limits.mappings,
            make_room_at: limits.processes,
            ages: None,
        }
    }

    /// The same, where only readings of the last `fine_ns` are wanted fine.
    pub(super) const fn keeps_fine(mut self, fine_ns: Option<u64>) -> Self {
        if let Some(fine_ns) = fine_ns {
            self.ages = Some(Ages::new(fine_ns));
        }
        self
    }

    /// A series of a group has grown by so many values.
    pub(super) const fn grown(&mut self, group: Group, values: usize) {
        match group {
            Group::Levels => self.levels += values,
            Group::Processes => self.processes += values,
        }
    }

    /// Whether there are more values than are kept.
    pub(super) const fn is_full(&self) -> bool {
        self.levels + self.processes > self.thin_at
    }

    /// Counts all values anew, after some went.
    pub(super) fn count(&mut self, recording: &Recording) {
        let samples = &recording.samples;
        let devices = samples.devices.iter().map(|device| &device.series);
        let cgroups = samples.cgroups.iter().map(|cgroup| &cgroup.series);
        let levels = [&samples.system, &samples.cuda].into_iter().chain(devices).chain(cgroups);
        self.levels = levels.map(values).sum();
        self.processes = samples.processes.iter().map(|process| values(&process.series)).sum();
    }

    /// Leaves readings out: of the group that has more values.
    pub(super) fn thin(&mut self, recording: &mut Recording) {
        let group = if self.processes > self.levels { Group::Processes } else { Group::Levels };
        let reduced = &mut self.left_out.reduced;
        let spacing = match group {
            Group::Levels => &mut reduced.levels_spacing_ns,
            Group::Processes => &mut reduced.processes_spacing_ns,
        };
        let before = self.levels + self.processes;
        reduced.readings += thin::group(recording, group, spacing);
        self.count(recording);
        let after = self.levels + self.processes;
        // Where little was gained the next time is not at once.
        self.thin_at = self.limits.values.max(if after > before / 8 * 7 { after + after / 8 } else { 0 });
    }

    /// Leaves readings out that have grown old, where that is wanted and it is time.
    pub(super) fn age(&mut self, recording: &mut Recording, now_ns: u64) {
        let Some(ages) = self.ages.as_mut() else { return };
        if ages.are_due(now_ns) {
            ages.thin(recording, now_ns);
            self.left_out.reduced.aged = (ages.left_out.readings > 0).then_some(ages.left_out);
            self.count(recording);
        }
    }

    /// Takes an event of a mapping in, if there is room.
    pub(super) fn mapping(&mut self, recording: &mut Recording, event: Mapping) {
        self.mappings_came += 1;
        if recording.provenance.mappings.len() >= self.limits.mappings
            && self.mappings_came >= self.limits.mappings / 8
        {
            self.mappings_came = 0;
            let (brief, lost) = mappings::make_room(recording, self.limits.mappings / 4 * 3);
            self.left_out.reduced.mappings += brief;
            self.left_out.mappings += lost;
        }
        let count = recording.provenance.mappings.len();
        // What is given back is kept for longer: without it memory would seem to be mapped that is not.
        let gives_back = event.op == "munmap" || event.op == "brk" && event.length < 0;
        let most = if gives_back { 2 * self.limits.mappings } else { self.limits.mappings };
        if count >= most {
            self.left_out.mappings += 1;
        } else {
            recording.provenance.mappings.push(event);
        }
    }

    /// Takes a row of brief mappings in. Rows of one place become one.
    pub(super) fn brief_mappings(&mut self, rows: &mut Vec<BriefMappings>, new: BriefMappings) {
        self.left_out.mappings += brief::add(rows, new);
    }

    /// Makes room for processes, if there is none. Whether some went.
    pub(super) fn make_room_for_process(&mut self, recording: &mut Recording) -> bool {
        if recording.provenance.processes.len() < self.make_room_at {
            return false;
        }
        let gone = processes::make_room(recording, self.limits.processes / 4 * 3);
        self.left_out.processes += gone;
        // Those that live stay, however many they are.
        let left = recording.provenance.processes.len();
        self.make_room_at = self.limits.processes.max(left + left / 8 + 1);
        if gone > 0 {
            self.count(recording);
        }
        gone > 0
    }

    pub(super) fn regions(&mut self, kept: &mut Vec<Region>, new: Vec<Region>) {
        let room = self.limits.regions.saturating_sub(kept.len());
        self.left_out.regions += new.len().saturating_sub(room) as u64;
        kept.extend(new.into_iter().take(room));
    }

    pub(super) fn cuda_event(&mut self, kept: &mut Vec<CudaEvent>, new: CudaEvent) {
        self.left_out.cuda_events += push(kept, new, self.limits.events);
    }

    pub(super) fn cuda_failure(&mut self, kept: &mut Vec<CudaFailure>, new: CudaFailure) {
        self.left_out.cuda_events += push(kept, new, self.limits.events);
    }

    pub(super) fn cgroup_name(&mut self, kept: &mut Vec<CgroupName>, new: CgroupName) {
        self.left_out.cgroups += push(kept, new, self.limits.cgroups);
    }

    /// Takes file systems in. Of peaks the highest of each is kept.
    pub(super) fn tmpfs(&mut self, kept: &mut Vec<TmpfsUse>, new: Vec<TmpfsUse>) {
        for row in new {
            let is_peak = row.moment == Some(Moment::Peak);
            let same =
                |known: &&mut TmpfsUse| is_peak && (known.moment, &known.device) == (row.moment, &row.device);
            match kept.iter_mut().find(same) {
                Some(known) if row.used >= known.used => *known = row,
                Some(_) => {}
                None => self.left_out.tmpfs += push(kept, row, self.limits.tmpfs),
            }
        }
    }

    /// Whether there is room for the series of another cgroup.
    pub(super) const fn has_room_for_cgroup(&mut self, series: usize) -> bool {
        let has_room = series < self.limits.cgroups;
        self.left_out.cgroups += !has_room as u64;
        has_room
    }

    /// Says what was left out.
    pub(super) fn report(&self, health: &mut Health) {
        let losses = self.left_out.losses();
        health.reduced = (self.left_out.reduced != Reduced::default()).then_some(self.left_out.reduced);
        if losses.iter().all(|(_, count)| *count == 0) {
            return;
        }
        health.losses.retain(|loss| losses.iter().all(|(what, _)| loss.what != *what));
        let lost = losses.into_iter().filter(|(_, count)| *count > 0);
        health.losses.extend(lost.map(|(what, count)| Loss { what: what.to_owned(), count }));
        health.lost_total = health.losses.iter().map(|loss| loss.count).sum();
    }
}

/// Values of a series: its columns, and the two times of each reading.
pub(super) fn values(series: &Series) -> usize {
    series.begin_ns.len() * (2 + series.columns.len())
}

/// What a report looks at: the readings beside it stay.
fn moments(recording: &Recording) -> Vec<u64> {
    let instants = recording.provenance.instants.iter().map(|instant| instant.at_ns);
    instants.chain(recording.phases.iter().map(|phase| phase.at_ns)).collect()
}

/// Keeps a row where there is room; how many were not kept.
fn push<T>(kept: &mut Vec<T>, new: T, most: usize) -> u64 {
    if kept.len() >= most {
        return 1;
    }
    kept.push(new);
    0
}

/// The number that a process is found by, and its life.
fn life(process: &Process) -> (u32, Option<u64>) {
    (process.pid, process.ended_ns)
}

#[cfg(test)]
mod tests;
