//! Entries of a journal become a recording, one by one.

use std::collections::HashMap;

use super::budget::{self, Budget, Group, LIMITS, Limits};
use super::column::Column;
use super::entry::{Aggregates, Begin, Entry, Sample, SeriesId};
use super::retention;
use super::{cuda::LibraryFile, provenance::*, schema::*};

/// Folds entries into a recording.
#[derive(Debug)]
pub struct Builder {
    recording: Recording,
    cgroups: HashMap<u64, usize>,
    processes: HashMap<u32, usize>,
    /// Where the latest life of a pid stands in the provenance.
    lives: HashMap<u32, usize>,
    devices: HashMap<u32, usize>,
    last_ns: u64,
    budget: Budget,
}

impl Builder {
    pub fn new(begin: Begin) -> Self {
        Self::with_limits(begin, LIMITS)
    }

    /// One that keeps so much at most.
    pub fn with_limits(begin: Begin, limits: Limits) -> Self {
        let budget = Budget::new(limits).keeps_fine(begin.tool.keep_fine_ns);
        let recording = Recording {
            schema: SCHEMA.to_owned(),
            schema_version: SCHEMA_VERSION,
            tool: begin.tool,
            host: begin.host,
            clock: begin.clock,
            target: begin.target,
            phases: Vec::new(),
            health: Health::default(),
            cost: Cost::default(),
            samples: Samples::default(),
            provenance: Provenance::default(),
        };
        Self {
            recording,
            cgroups: HashMap::new(),
            processes: HashMap::new(),
            lives: HashMap::new(),
            devices: HashMap::new(),
            last_ns: 0,
            budget,
        }
    }

    /// Takes the entry in: nothing of it is copied.
    pub fn apply(&mut self, entry: Entry) {
        let provenance = &mut self.recording.provenance;
        match entry {
            Entry::Begin(_) => {}
            Entry::Target(target) => self.recording.target = target,
            Entry::Phase(phase) => {
                self.last_ns = self.last_ns.max(phase.at_ns);
                self.recording.phases.push(phase);
            }
            Entry::Sample(sample) => self.sample(sample),
            Entry::Mapping(mapping) => self.budget.mapping(&mut self.recording, mapping),
            Entry::BriefMappings(row) => {
                self.budget.brief_mappings(&mut self.recording.provenance.brief_mappings, row);
            }
            Entry::Regions { pid, regions } => {
                provenance.regions.retain(|r| r.pid != pid);
                self.budget.regions(&mut provenance.regions, regions);
            }
            Entry::Process(process) => {
                if self.budget.make_room_for_process(&mut self.recording) {
                    self.find_places();
                }
                let provenance = &mut self.recording.provenance;
                // A pid may come again; its start distinguishes the lives, once it is known.
                let same = |p: &&mut Process| {
                    p.pid == process.pid
                        && (p.started_ns == process.started_ns
                            || p.started_ns.is_none() && p.ended_ns.is_none())
                };
                let lives = &mut provenance.processes;
                let latest = self.lives.get(&process.pid).copied();
                let known = match latest.filter(|&latest| lives.get_mut(latest).is_some_and(|p| same(&p))) {
                    Some(latest) => lives.get_mut(latest),
                    // Not the latest life: an earlier one, if there is any. Of most there is none.
                    None if latest.is_some() => lives.iter_mut().rev().find(same),
                    None => None,
                };
                match known {
                    Some(known) => *known = process,
                    None => {
                        self.lives.insert(process.pid, lives.len());
                        lives.push(process);
                    }
                }
            }
            Entry::Cgroup(name) => match provenance.cgroups.iter_mut().find(|c| c.id == name.id) {
                Some(known) => *known = name,
                None => self.budget.cgroup_name(&mut provenance.cgroups, name),
            },
            Entry::Aggregates(new) => replace_aggregates(provenance, *new),
            Entry::CudaFailure(failure) => {
                self.budget.cuda_failure(&mut provenance.cuda_failures, failure);
            }
            Entry::CudaEvent(event) => self.budget.cuda_event(&mut provenance.cuda_events, event),
            Entry::Query(query) => provenance.queries.push(*query),
            Entry::Context(context) => provenance.contexts.push(*context),
            Entry::Tmpfs { file_systems } => self.budget.tmpfs(&mut provenance.tmpfs, file_systems),
            Entry::Outside { processes } => provenance.outside.extend(processes),
            Entry::LogLine(line) => provenance.log_lines.push(line),
            Entry::Library(file) => {
                let libraries = &mut self.recording.health.libraries;
                let same = |known: &&mut LibraryFile| {
                    (&known.device, known.inode, &known.path) == (&file.device, file.inode, &file.path)
                };
                match libraries.iter_mut().find(same) {
                    Some(known) => *known = file,
                    None => libraries.push(file),
                }
            }
            Entry::Health(health) => {
                // Libraries come one by one.
                let libraries = std::mem::take(&mut self.recording.health.libraries);
                self.recording.health = Health { libraries, ..health };
                self.budget.report(&mut self.recording.health);
            }
            Entry::Cost(cost) => self.recording.cost = cost,
            Entry::End { at_ns } => {
                self.last_ns = self.last_ns.max(at_ns);
                self.recording.health.complete = true;
            }
        }
    }

    /// Drops what is older, see [`retention::forget`].
    pub fn forget(&mut self, before_ns: u64) {
        retention::forget(&mut self.recording, before_ns);
        self.find_places();
        self.budget.count(&self.recording);
    }

    /// Notes anew where everything stands.
    fn find_places(&mut self) {
        let samples = &self.recording.samples;
        self.cgroups = samples.cgroups.iter().enumerate().map(|(index, cgroup)| (cgroup.id, index)).collect();
        self.processes =
            samples.processes.iter().enumerate().map(|(index, process)| (process.pid, index)).collect();
        let lives = self.recording.provenance.processes.iter().enumerate();
        self.lives = lives.map(|(index, process)| (process.pid, index)).collect();
    }

    /// The latest life of a pid.
    pub fn latest(&self, pid: u32) -> Option<&Process> {
        self.recording.provenance.processes.get(*self.lives.get(&pid)?)
    }

    /// What has been folded so far.
    pub const fn recording(&self) -> &Recording {
        &self.recording
    }

    /// The recording. One without an end gets the time of its last entry.
    pub fn finish(mut self) -> Recording {
        if self.recording.target.ended_ns == 0 {
            self.recording.target.ended_ns = self.last_ns;
        }
        self.budget.report(&mut self.recording.health);
        self.recording
    }

    fn sample(&mut self, sample: Sample) {
        self.last_ns = self.last_ns.max(sample.end_ns);
        let samples = &mut self.recording.samples;
        let is_new = |id: u64| !self.cgroups.contains_key(&id);
        if let SeriesId::Cgroup(id) = sample.series
            && is_new(id)
            && !self.budget.has_room_for_cgroup(samples.cgroups.len())
        {
            return;
        }
        let group = match sample.series {
            SeriesId::Process(_) => Group::Processes,
            _ => Group::Levels,
        };
        let series = match sample.series {
            SeriesId::System => &mut samples.system,
            SeriesId::Cuda => &mut samples.cuda,
            SeriesId::Cgroup(id) => {
                let index = *self.cgroups.entry(id).or_insert_with(|| {
                    let known = self.recording.target.cgroups.iter().find(|c| c.id == id);
                    // A new one has its name before the target is written again.
                    let named = || self.recording.provenance.cgroups.iter().rev().find(|c| c.id == id);
                    let path = known.map(|c| &c.path).or_else(|| Some(&named()?.path));
                    let path = path.cloned().unwrap_or_default();
                    samples.cgroups.push(CgroupSeries { id, path, series: Series::default() });
                    samples.cgroups.len() - 1
                });
                &mut samples.cgroups[index].series
            }
            SeriesId::Process(pid) => {
                let index = *self.processes.entry(pid).or_insert_with(|| {
                    samples.processes.push(ProcessSeries { pid, series: Series::default() });
                    samples.processes.len() - 1
                });
                &mut samples.processes[index].series
            }
            SeriesId::Device(device) => {
                let index = *self.devices.entry(device).or_insert_with(|| {
                    let known = self.recording.host.gpus.iter().find(|gpu| gpu.index == device);
                    let uuid = known.and_then(|gpu| gpu.uuid.clone());
                    samples.devices.push(DeviceSeries { index: device, uuid, series: Series::default() });
                    samples.devices.len() - 1
                });
                &mut samples.devices[index].series
            }
        };
        let (is_system, end_ns) = (matches!(sample.series, SeriesId::System), sample.end_ns);
        let before = budget::values(series);
        push(series, sample);
        self.budget.grown(group, budget::values(series) - before);
        if is_system {
            self.budget.age(&mut self.recording, end_ns);
        }
        if self.budget.is_full() {
            self.budget.thin(&mut self.recording);
        }
    }
}

/// Aggregates are cumulative: the new ones are all there is. Every field is named, so that none is forgotten.
fn replace_aggregates(provenance: &mut Provenance, new: Aggregates) {
    let Aggregates {
        instants,
        page_allocs,
        files,
        cache_seen,
        charges,
        charge_stacks,
        charge_levels,
        driver_allocs,
        cuda_allocs,
        cuda_largest,
        cuda_totals,
        cuda_by_gpu,
        cuda_unknown_frees,
        stacks,
        symbols,
    } = new;
    provenance.instants = instants;
    provenance.page_allocs = page_allocs;
    provenance.files = files;
    provenance.cache_seen = cache_seen;
    provenance.charges = charges;
    provenance.charge_stacks = charge_stacks;
    provenance.charge_levels = charge_levels;
    provenance.driver_allocs = driver_allocs;
    provenance.cuda_allocs = cuda_allocs;
    provenance.cuda_largest = cuda_largest;
    provenance.cuda_totals = cuda_totals;
    provenance.cuda_by_gpu = cuda_by_gpu;
    provenance.cuda_unknown_frees = cuda_unknown_frees;
    provenance.stacks = stacks;
    provenance.symbols = symbols;
}

/// Appends a reading, keeping all columns of equal length.
fn push(series: &mut Series, sample: Sample) {
    let Sample { series: _, begin_ns, end_ns, mut values, absent } = sample;
    let before = series.begin_ns.len();
    series.begin_ns.push(begin_ns);
    series.end_ns.push(end_ns);
    for (name, column) in &mut series.columns {
        column.push(values.remove(name));
    }
    // What is left has no column yet.
    for (name, value) in values {
        let mut column = Column::absent(before);
        column.push(Some(value));
        series.columns.insert(name, column);
    }
    for (column, reason) in absent {
        if !series.absent.iter().any(|a| a.column == column && a.reason == reason) {
            series.absent.push(Absent { column, since_ns: begin_ns, reason });
        }
    }
}
