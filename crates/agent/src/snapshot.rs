//! One instant of the whole machine from the kernel's own counters: no program is loaded and nothing is traced.

use std::{collections::BTreeMap, io, path::PathBuf, time::Duration};

use thiserror::Error;

use super::{
    cgroup::{CgroupError, Layout, id_of},
    host, is_root, now_ns, own_usage, realtime_offset_ns,
    source::{
        cache,
        cgroup::Cgroup,
        nvml::Nvml,
        pool,
        process::{self, Processes},
        system::System,
        tmpfs,
    },
    subject::{container::id_in_path, running},
    tracer::gpus::Gpus,
};
use spark_trace_recording::{
    CgroupName, Clock, Column, Cost, Health, Instant, Moment, Process, Recording, SCHEMA_VERSION, SNAPSHOT,
    Target, TargetCgroup, Tool,
    journal::{Aggregates, Arguments, Begin, Entry, JOURNAL_SCHEMA, Journal, SeriesId},
};
use spark_trace_recording::{InstantKind, TargetKind};

/// Processes of which the mappings are read, the largest: walking page tables is dear.
const WALKED: usize = 32;
/// Time for those walks.
const LONGEST_WALKS: Duration = Duration::from_millis(400);

#[derive(Debug, Clone)]
pub struct Options {
    pub files: cache::Wanted,
    /// Mappings with less resident are left out.
    pub min_region: u64,
    /// NVML's library; absent to look for it.
    pub nvml: Option<PathBuf>,
}

#[derive(Debug, Error)]
pub enum SnapshotError {
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error("cannot read the kernel's counters: {0}")]
    Counters(io::Error),
    #[error("cannot keep the readings: {0}")]
    Journal(#[from] io::Error),
}

/// Reads everything once. The system's counters come in the middle of it, where they are nearest to all else.
pub fn take(options: &Options) -> Result<Recording, SnapshotError> {
    let layout = Layout::detect()?;
    let mut nvml = Nvml::start(options.nvml.clone(), Duration::from_secs(3600));
    let mut system = System::open().map_err(SnapshotError::Counters)?;
    let mut host = host::facts(&layout);
    nvml.machine().describe(&mut host);
    let started_ns = now_ns();
    let begin = Begin {
        schema: JOURNAL_SCHEMA.to_owned(),
        schema_version: SCHEMA_VERSION,
        tool: Tool {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            profile: SNAPSHOT.to_owned(),
            min_region: options.min_region,
            pid: Some(std::process::id()),
            ..Tool::default()
        },
        host,
        clock: Clock { name: "CLOCK_MONOTONIC".to_owned(), realtime_offset_ns: realtime_offset_ns() },
        target: Target { kind: TargetKind::Snapshot.into(), started_ns, ..Target::default() },
    };
    let target = begin.target.clone();
    let mut snapshot =
        Snapshot { journal: Journal::unwritten(begin, Arguments::Hidden), target, warnings: Vec::new() };
    if !is_root() {
        snapshot.warnings.push(
            "not run as root: mappings and open files of other users' processes, and the cgroups that page cache is charged to, are missing"
                .to_owned(),
        );
    }

    let pids = process::all();
    snapshot.processes(&layout, &pids)?;
    let largest = snapshot.levels(&pids)?;
    if nvml.machine().is_ok() {
        let (samples, came) = nvml.read_now();
        if !came {
            snapshot.warnings.push("the GPUs were not read: NVML takes too long".to_owned());
        }
        for mut sample in samples {
            // Nothing is traced: all that processes hold was taken before.
            Gpus::default().add_to(&mut sample, &None);
            snapshot.journal.add(Entry::Sample(sample))?;
        }
    }
    snapshot.cgroups(&layout)?;
    snapshot.system(&mut system)?;
    snapshot.mappings(&largest, options.min_region)?;
    snapshot.journal.add(Entry::Tmpfs { file_systems: tmpfs::read(&pids, Moment::Start) })?;
    snapshot.files(&pids, &options.files)?;
    snapshot.finish(&mut nvml)
}

struct Snapshot {
    journal: Journal<io::Sink>,
    target: Target,
    warnings: Vec<String>,
}

impl Snapshot {
    /// Who there is.
    fn processes(&mut self, layout: &Layout, pids: &[u32]) -> Result<(), SnapshotError> {
        let mut ids = BTreeMap::new();
        for &pid in pids {
            let Some(found) = process::describe(pid) else { continue };
            let cgroup = layout.of_process(pid).ok();
            let cgroup =
                cgroup.and_then(|path| *ids.entry(path).or_insert_with_key(|path| id_of(&layout.dir(path))));
            let process = Process { cgroup: cgroup.unwrap_or(0), ..found };
            self.journal.add(Entry::Process(process))?;
        }
        Ok(())
    }

    /// What they have resident; the largest first.
    fn levels(&mut self, pids: &[u32]) -> Result<Vec<u32>, SnapshotError> {
        let mut largest = Vec::new();
        for sample in pids.iter().filter_map(|pid| Processes::level(*pid)) {
            let SeriesId::Process(pid) = sample.series else { continue };
            largest.push((process::resident(&sample), pid));
            self.journal.add(Entry::Sample(sample))?;
        }
        largest.sort_unstable_by(|a, b| b.cmp(a));
        Ok(largest.into_iter().map(|(_, pid)| pid).collect())
    }

    /// Every cgroup of the machine; those at the top are the roots, whose sum is the plane.
    fn cgroups(&mut self, layout: &Layout) -> Result<(), SnapshotError> {
        let all: Vec<_> = layout.subtree("/").into_iter().filter(|(_, path)| path != "/").collect();
        self.target.cgroups = all
            .iter()
            .map(|(id, path)| TargetCgroup {
                id: *id,
                path: path.clone(),
                root: path.trim_start_matches('/').split('/').count() == 1,
                container: id_in_path(path).map(ToOwned::to_owned),
                ..TargetCgroup::default()
            })
            .collect();
        let ids = self.target.cgroups.iter().filter_map(|cgroup| cgroup.container.as_deref());
        self.target.containers = running::named(&ids.collect());
        self.journal.add(Entry::Target(self.target.clone()))?;
        for (id, path) in all {
            let read = Cgroup::open(id, &layout.dir(&path), layout.is_v2()).read();
            self.journal.add(Entry::Cgroup(CgroupName { id, path, target: true }))?;
            if let Some(sample) = read {
                self.journal.add(Entry::Sample(sample))?;
            }
        }
        Ok(())
    }

    fn system(&mut self, system: &mut System) -> Result<(), SnapshotError> {
        let mut sample = system.read();
        if let Some(pool) = pool::bytes(pool::SHRINKERS.as_ref()) {
            sample.values.insert("driver.nvidia_pool".to_owned(), pool);
        }
        self.target.started_ns = sample.begin_ns;
        Ok(self.journal.add(Entry::Sample(sample))?)
    }

    fn mappings(&mut self, largest: &[u32], min_region: u64) -> Result<(), SnapshotError> {
        let until = std::time::Instant::now() + LONGEST_WALKS;
        for &pid in largest.iter().take(WALKED) {
            if std::time::Instant::now() >= until {
                self.warnings.push(
                    "only the mappings of the largest processes were read within the time limit".to_owned(),
                );
                break;
            }
            if let Some(regions) = process::regions(pid, min_region) {
                self.journal.add(Entry::Regions { pid, regions })?;
            }
        }
        Ok(())
    }

    fn files(&mut self, pids: &[u32], wanted: &cache::Wanted) -> Result<(), SnapshotError> {
        let mut found = cache::read(pids, wanted);
        self.warnings.extend(found.note.take());
        for file in &mut found.files {
            file.live = Column::from([Some(0)]);
        }
        let aggregates = Aggregates {
            instants: vec![Instant { at_ns: self.target.started_ns, why: InstantKind::Snapshot.into() }],
            files: found.files,
            cache_seen: Some(found.seen),
            ..Aggregates::default()
        };
        Ok(self.journal.add(Entry::Aggregates(Box::new(aggregates)))?)
    }

    fn finish(mut self, nvml: &mut Nvml) -> Result<Recording, SnapshotError> {
        nvml.request_stop();
        let health = Health {
            sources: vec![nvml.machine().verdict.clone()],
            warnings: std::mem::take(&mut self.warnings),
            complete: true,
            ..Health::default()
        };
        self.journal.add(Entry::Health(health))?;
        let (agent_cpu_ns, agent_rss_peak) = own_usage();
        self.journal.add(Entry::Cost(Cost { agent_cpu_ns, agent_rss_peak, ..Cost::default() }))?;
        self.target.ended_ns = now_ns();
        self.journal.add(Entry::Target(self.target))?;
        Ok(self.journal.finish(now_ns())?)
    }
}
