//! Reading levels, and the aggregates at peaks.

use std::{collections::BTreeMap, io::Write, path::Path, time::Duration};

use super::{
    Tracer, TracerError,
    on_time::Watches,
    reading::{Levels, driver_column},
};
use crate::{now_ns, page_size, source::pool, stopwatch::Stopwatch, walks::Walk};
use spark_trace_recording::InstantKind;
use spark_trace_recording::ledger::{
    self, Facts, Plane,
    heights::{DriverHeights, driver_heights, margin},
};
use spark_trace_recording::{
    Column, Gaps, Gpu, Moment, Series,
    journal::{Entry, Sample, SeriesId},
};

/// When the aggregates were last read for a peak, and at which level.
#[derive(Debug, Default)]
pub(super) struct Peaks {
    system: Peak,
    cgroup: Peak,
    /// Of what the driver holds, and of what it has pinned.
    driver: [Peak; 2],
    /// The target got an answer how much memory is free, and the aggregates have not been read since.
    answered: bool,
    last_read_ns: u64,
    cost_ns: u64,
}

/// The highest level of a plane, and the one at which the aggregates were read.
#[derive(Debug, Default)]
struct Peak {
    highest: u64,
    read_at: u64,
}

impl Peak {
    /// Whether `level` is the peak, or as good as it, and stands clearly above the last one read.
    fn reached(&mut self, level: u64) -> bool {
        self.highest = self.highest.max(level);
        let margin = margin(self.highest);
        level + margin >= self.highest && level > self.read_at + margin
    }
}

/// How long a machine is given to stand still, and how still that is.
const SETTLE_TRIES: u32 = 20;
const SETTLE_PAUSE: Duration = Duration::from_millis(15);
/// Bytes between two readings that are not worth a third.
const IN_TRANSIT: u64 = 1 << 20;
/// Readings more of a disturbed one, and the time given to what disturbs it.
const REREADS: u32 = 5;
const REREAD_PAUSE: Duration = Duration::from_millis(8);

/// A file read in parts is complete after this long.
const LONGEST_READING_NS: u64 = 50_000_000;

/// What is waited for walks at the end.
const LONGEST_WALKS: Duration = Duration::from_secs(2);

/// Cgroups below the roots that are read at one sample; with more than that, each sample takes its turn of them.
const CGROUPS_PER_SAMPLE: usize = 128;

/// One of some rounds.
#[derive(Debug, Clone, Copy)]
struct Turn {
    rounds: usize,
    which: usize,
}

impl Turn {
    const fn has(self, index: usize) -> bool {
        index % self.rounds == self.which
    }
}

/// A reading of the aggregates is followed by so many times its own length without one, ...
const REST_FACTOR: u64 = 4;
/// ... but however dear it is, a peak waits no longer for it.
const LONGEST_WAIT_NS: u64 = 300_000_000;

impl<W: Write> Tracer<W> {
    /// Reads levels until the machine stands still: two readings in a row leave the same unattributed.
    pub fn settle(&mut self) -> Result<(), TracerError> {
        for _ in 0..SETTLE_TRIES {
            let before = self.residual;
            self.sample()?;
            if self.residual.zip(before).is_some_and(|(now, before)| now.abs_diff(before) <= IN_TRANSIT) {
                break;
            }
            std::thread::sleep(SETTLE_PAUSE);
        }
        Ok(())
    }

    /// Reads the system plane. Pages on their way (given back by a process, reported to a hypervisor) are in no
    /// source and not free for some milliseconds, tens of megabytes of them. So a reading that leaves clearly
    /// more unattributed than the last one is taken again, and the one that leaves least stands: what has
    /// really come is still there.
    fn read_system(&mut self) -> Result<Sample, TracerError> {
        let vmap_stack = self.journal.recording().host.vmap_stack;
        let mut best = self.system_reading()?;
        let mut residual = residual_of(&best, vmap_stack);
        for _ in 0..REREADS {
            let risen =
                residual.zip(self.residual).is_some_and(|(now, before)| now > before + IN_TRANSIT as i64);
            if !risen {
                break;
            }
            std::thread::sleep(REREAD_PAUSE);
            let again = self.system_reading()?;
            let left = residual_of(&again, vmap_stack);
            if left < residual {
                (best, residual) = (again, left);
            }
        }
        self.residual = residual;
        Ok(best)
    }

    /// The kernel's counters, and beside them what only events show.
    fn system_reading(&mut self) -> Result<Sample, TracerError> {
        let mut system = self.system.read();
        if !self.is_behind {
            self.add_pinned(&mut system);
        }
        system
            .values
            .extend(self.driver_baseline.bytes().map(|bytes| (driver_column("nvidia-before"), bytes)));
        let live = self.object.live_driver_bytes()?;
        system.values.extend(live.pinned.map(|bytes| (driver_column("nvidia-pinned"), bytes)));
        let pool = pool::bytes(Path::new(pool::SHRINKERS));
        system.values.extend(pool.map(|bytes| (driver_column("nvidia-pool"), bytes)));
        let Some(driver) = self.driver_bytes()? else {
            // No page of its is followed, but what was requested of it is known, and that costs nothing by the page. What
            // it keeps for later is not in it.
            system.values.extend(live.sysmem.map(|bytes| (driver_column("nvidia-sysmem"), bytes)));
            return Ok(system);
        };
        system.values.extend(live.sysmem.map(|bytes| (driver_column("nvidia-asked"), bytes)));
        for (source, bytes) in driver.by_source() {
            system.values.insert(driver_column(source), bytes.total());
        }
        // The driver keeps pages that it no longer needs: they were seen allocated and not freed.
        if let Some(pool) = pool {
            let before = *self.pool_at_start.get_or_insert(pool);
            if let Some(bytes) = system.values.get_mut(&driver_column("nvidia-sysmem")) {
                *bytes = bytes.saturating_sub(pool.saturating_sub(before));
            }
        }
        Ok(system)
    }

    /// Pinned pages are in their owners' counters too: the ledger moves them.
    pub(super) fn add_pinned(&mut self, system: &mut Sample) {
        let living = self.collector.cuda.now().pinned;
        self.pins.read(pinned_on_machine(system), &living, system.end_ns);
        system.values.extend(self.pinned_columns());
    }

    /// What the target has pinned, with what processes had pinned that have ended and the driver has not let go yet.
    pub(super) fn pinned_columns(&self) -> BTreeMap<String, u64> {
        let mut pinned = self.collector.cuda.now().pinned;
        for (backing, bytes) in self.pins.leaving() {
            *pinned.entry(backing.to_owned()).or_default() += bytes;
        }
        pinned.into_iter().map(|(backing, bytes)| (format!("cuda.pinned_{backing}"), bytes)).collect()
    }

    /// Reads all levels once.
    pub fn sample(&mut self) -> Result<(), TracerError> {
        self.finish_readings(now_ns().saturating_sub(LONGEST_READING_NS))?;
        let young = self.retention.begin_reading();
        self.brief_until_reading()?;
        self.add_processes(young)?;
        self.publish_changes()?;
        let mut stopwatch = Stopwatch::start();
        let system = self.read_system()?;
        stopwatch.lap(|| "the kernel's counters (/proc/meminfo, vmstat and others)".to_owned());
        self.watches.levels.read(system.begin_ns, system.end_ns);
        let is_early = self.is_behind;
        // As the analysis has it, whose peak this is for.
        let series = series_of(&system);
        let (used, driver_heights) =
            (ledger::height_at(Plane::System, &series, 0), driver_heights(&series, 0));

        let mut charged = None;
        let mut cgroups = Vec::new();
        let anew = self.charges.skipped_anew(&self.object);
        let turn = self.turn_of_cgroups();
        for (index, (&id, selected)) in self.cgroups.iter_mut().filter(|(_, c)| !c.gone).enumerate() {
            if !selected.info.root && !turn.has(index) {
                continue;
            }
            let Some(sample) = self.charges.read(&self.object, &mut selected.reader, anew)? else {
                continue;
            };
            if selected.info.root {
                let usage =
                    ["memory.current", "memory.usage_in_bytes"].iter().find_map(|c| sample.values.get(*c));
                charged = usage.map(|u| charged.unwrap_or(0) + u).or(charged);
            }
            stopwatch.lap(|| format!("cgroup {}", selected.info.path));
            cgroups.push((id, sample));
        }
        // After the kernel's counters, as on the system plane: a peak that these show while the driver still
        // allocates would else be shown without the driver's part of it.
        let driver = self.driver_bytes()?;
        stopwatch.lap(|| "maps of the NVIDIA driver's memory".to_owned());
        self.take_levels(Levels { system, cgroups, driver, is_early })?;
        self.sample_tentative(anew)?;
        stopwatch.lap(|| "cgroups that may be the target's, and the journal".to_owned());
        let walks = self.walks.take();
        self.take_walks(walks)?;
        self.take_neighbours()?;
        let alive: Vec<u32> = self.alive.iter().copied().collect();
        for sample in self.processes.read(&alive) {
            let walk = self.processes.wants_walk(&sample);
            let SeriesId::Process(pid) = sample.series else { continue };
            self.journal.add(Entry::Sample(sample))?;
            if walk && self.retention.policy().walks {
                self.walks.want(pid, self.min_region);
            }
        }
        stopwatch.lap(|| format!("/proc/PID/status of {} processes", alive.len()));
        self.read_aggregates_at_peaks(used, charged, driver_heights)?;
        stopwatch.lap(|| "maps of the eBPF programs".to_owned());
        if let Some(interval) = self.watches.levels.interval() {
            stopwatch.end(interval);
        }
        Ok(())
    }

    fn take_walks(&mut self, walks: Vec<Walk>) -> Result<(), TracerError> {
        for Walk { pid, regions, pss } in walks {
            self.journal.add(Entry::Regions { pid, regions })?;
            if let Some(pss) = pss {
                self.journal.add(Entry::Sample(pss))?;
            }
        }
        Ok(())
    }

    /// Waits for the walks under way. Says how many were not made in all.
    pub fn finish_walks(&mut self) -> Result<u64, TracerError> {
        let walks = self.walks.finish(LONGEST_WALKS);
        self.take_walks(walks)?;
        Ok(self.walks.refused)
    }

    /// The root that stands for all: the only one, or the only container beside the command that has started it.
    pub(super) fn sole_root(&self) -> Option<u64> {
        let only = |mut roots: Vec<u64>| if roots.len() == 1 { roots.pop() } else { None };
        let roots = || self.cgroups.iter().filter(|(_, c)| c.info.root);
        let containers = roots().filter(|(_, c)| c.info.container.is_some());
        only(roots().map(|(id, _)| *id).collect()).or_else(|| only(containers.map(|(id, _)| *id).collect()))
    }

    /// The GPUs that are read.
    pub fn has_gpus(&mut self, gpus: &[Gpu]) {
        self.gpus.count = gpus.len();
        self.collector.cuda.know_gpus(gpus);
    }

    /// Which cgroups have their turn at this sample.
    fn turn_of_cgroups(&mut self) -> Turn {
        let all = self.cgroups.values().filter(|c| !c.gone).count();
        let every = self.retention.policy().every_cgroup;
        let rounds = if every { 1 } else { all.div_ceil(CGROUPS_PER_SAMPLE).max(1) };
        self.turn = self.turn.wrapping_add(1);
        Turn { rounds, which: self.turn % rounds }
    }

    /// Takes readings that were made elsewhere: those of the GPUs. They are added as the calls come that were made before
    /// them: what else is known of a device at that time has its place in the same reading, as columns of its own.
    pub fn expect_samples(&mut self, samples: Vec<Sample>) {
        for sample in &samples {
            if let SeriesId::Device(device) = sample.series {
                self.watches.device_read(device, sample.begin_ns, sample.end_ns);
            }
        }
        self.gpus.expect(samples);
    }

    /// Counts times without a reading from now on.
    pub fn watch_readings(&mut self, interval: Duration, gpu_interval: Option<Duration>) {
        self.watches = Watches::begin(interval, gpu_interval, now_ns());
    }

    /// Times without a reading of the kernel's levels, and of those of the GPU that was without for longest.
    pub fn gaps(&self) -> (Option<Gaps>, Option<Gaps>) {
        (self.watches.levels.gaps(), self.watches.device_gaps())
    }

    /// Adds the readings that ended before `at_ns`, of which all calls are known.
    pub fn take_samples(&mut self, at_ns: u64) -> Result<(), TracerError> {
        self.complete_levels(at_ns)?;
        while let Some(mut sample) = self.gpus.next_before(at_ns) {
            self.driver_baseline.read(&sample);
            let live = self.sees_calls().then(|| self.collector.cuda.device_by_process());
            self.gpus.add_to(&mut sample, &live);
            self.journal.add(Entry::Sample(sample))?;
        }
        Ok(())
    }

    /// Reads the aggregates when a plane, what the driver holds or what it has pinned stands at a new peak, as often as
    /// a fifth of the time allows. A peak that came too soon after the last is read at the next sample that still
    /// stands there.
    fn read_aggregates_at_peaks(
        &mut self,
        used: Option<u64>,
        charged: Option<u64>,
        driver_heights: DriverHeights,
    ) -> Result<(), TracerError> {
        let now = now_ns();
        let wait = (REST_FACTOR * self.peaks.cost_ns).min(LONGEST_WAIT_NS);
        let due = now.saturating_sub(self.peaks.last_read_ns) >= wait;
        let ([own, pinned], [own_peak, pinned_peak]) = (driver_heights, &mut self.peaks.driver);
        let planes = [
            (InstantKind::SystemPeak, used, &mut self.peaks.system),
            (InstantKind::CgroupPeak, charged, &mut self.peaks.cgroup),
            (InstantKind::DriverPeak, own, own_peak),
            (InstantKind::DriverPeak, pinned, pinned_peak),
        ];
        let mut reasons = Vec::new();
        for (why, level, peak) in planes {
            let Some(level) = level else { continue };
            if peak.reached(level) && due {
                peak.read_at = level;
                reasons.push(why);
            }
        }
        reasons.dedup();
        if self.peaks.answered && due {
            self.peaks.answered = false;
            reasons.push(InstantKind::Query);
        }
        if !reasons.is_empty() && self.retention.policy().peaks {
            self.collector.read(&self.object, &mut self.stacks, &reasons, now)?;
            if reasons.contains(&InstantKind::CgroupPeak) {
                self.read_own_tmpfs(Moment::Peak)?;
            }
            self.peaks.cost_ns = now_ns() - now;
            self.peaks.last_read_ns = now;
        }
        Ok(())
    }

    /// Reads the aggregates after an answer that a framework sizes itself by, now or as soon as it may be.
    pub(super) fn read_aggregates_at_answer(&mut self) -> Result<(), TracerError> {
        self.peaks.answered = true;
        self.read_aggregates_at_peaks(None, None, DriverHeights::default())
    }

    /// Reads the aggregates as the state at `why`.
    pub fn read_aggregates(&mut self, why: InstantKind) -> Result<(), TracerError> {
        Ok(self.collector.read(&self.object, &mut self.stacks, &[why], now_ns())?)
    }
}

/// Bytes on the machine that pins keep, as the kernel counts them.
fn pinned_on_machine(sample: &Sample) -> Option<u64> {
    let pages = |what: &str| sample.values.get(&format!("vmstat.nr_foll_pin_{what}")).copied();
    Some(pages("acquired")?.saturating_sub(pages("released")?) * page_size())
}

/// What a reading of the system plane leaves unattributed.
fn residual_of(sample: &Sample, vmap_stack: Option<bool>) -> Option<i64> {
    let facts = Facts { vmap_stack, ..Facts::default() };
    ledger::balance(Plane::System, facts, &series_of(sample), 0)?.residual
}

/// One reading as a series.
fn series_of(sample: &Sample) -> Series {
    let column = |(name, value): (&String, &u64)| (name.clone(), Column::from(vec![Some(*value)]));
    let absent = sample.absent.iter().map(|(name, _)| (name.clone(), Column::absent(1)));
    let columns = absent.chain(sample.values.iter().map(column)).collect();
    Series { begin_ns: vec![0], end_ns: vec![0], columns, absent: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_is_read_once_and_again_when_it_has_grown() {
        let mut peak = Peak::default();
        assert!(peak.reached(100 << 20));
        assert!(peak.reached(100 << 20), "not read yet");
        peak.read_at = 100 << 20;
        assert!(!peak.reached(100 << 20));
        assert!(!peak.reached((100 << 20) + 4096), "hardly more");
        assert!(peak.reached(110 << 20));
        assert!(!peak.reached(105 << 20), "past it");
    }
}
