//! Cgroup levels by hooks, beside what the kernel's file says.
//!
//! Hooks see changes only. A cgroup that existed before gets a seed: the file's value less what was counted by then. The
//! same is done again where the kernel has skipped a run of a program: what it would have counted is lost for good.
//!
//! A task may be stopped between the kernel's count and the hook's, so that nothing is counted beside a reading and the
//! two differ all the same. So a seed stands once nothing was counted from one reading to the next.

use std::collections::BTreeMap;

use spark_trace_common::map_records;

use super::{
    bpf::{Object, ObjectError},
    page_size,
    source::cgroup::{BracketedUsage, Cgroup},
};
use spark_trace_recording::{ChargeLevel, journal::Sample};

/// Columns of a cgroup's readings.
const BEFORE: &str = "hooks.before";
const AFTER: &str = "hooks.after";

#[derive(Debug, Default)]
pub struct Charges {
    levels: BTreeMap<u64, Level>,
    /// Runs that the kernel had skipped when that was last read.
    skipped: u64,
}

#[derive(Debug, Default)]
struct Level {
    /// Bytes to add to what is counted; absent where they are not known.
    seed: Option<i64>,
    /// As it was first found.
    first_seed: Option<i64>,
    /// It is to be set by the file, at the next reading that nothing was counted since.
    due: bool,
    /// What was counted by the end of the last reading.
    last: Option<map_records::ChargeLevel>,
    reseeds: u64,
    skipped_runs: u64,
    corrected: i64,
}

impl Charges {
    /// Follows a cgroup from now on; one that was `created` under the programs' eyes starts from nothing.
    pub fn follow(&mut self, id: u64, created: bool) {
        let seed = created.then_some(0);
        self.levels.entry(id).or_insert(Level { seed, first_seed: seed, due: !created, ..Level::default() });
    }

    /// One that turned out to be somebody else's.
    pub fn forget(&mut self, id: u64) {
        self.levels.remove(&id);
    }

    /// Whether the kernel has skipped runs since this was last read.
    pub fn skipped_anew(&mut self, object: &Object) -> bool {
        let skipped = object.skipped_charges();
        std::mem::replace(&mut self.skipped, skipped) < skipped
    }

    /// Reads a cgroup with what the hooks make its usage to be. `anew`: runs were skipped, so after this reading the
    /// level is set by the file. `None` once the cgroup is gone.
    pub fn read(
        &mut self,
        object: &Object,
        cgroup: &mut Cgroup,
        anew: bool,
    ) -> Result<Option<Sample>, ObjectError> {
        let id = cgroup.id;
        let Some(level) = self.levels.get_mut(&id).filter(|_| object.follows_charges()) else {
            return Ok(cgroup.read());
        };
        let mut counted = || object.charged(id);
        let Some((mut sample, beside)) = cgroup.read_beside(&mut counted)? else { return Ok(None) };
        let Some(beside) = beside else { return Ok(Some(sample)) };
        level.due |= anew;
        level.settle(&beside, self.skipped);
        level.put(&beside, &mut sample);
        Ok(Some(sample))
    }

    /// What there is to record of each cgroup.
    pub fn rows(&self, object: &Object) -> Result<Vec<ChargeLevel>, ObjectError> {
        if !object.follows_charges() {
            return Ok(Vec::new());
        }
        let row = |(id, level): (&u64, &Level)| {
            let counted = object.charged(*id)?;
            Ok(ChargeLevel {
                cgroup: *id,
                seed: level.first_seed,
                bytes_charged: counted.charged * page_size(),
                bytes_uncharged: counted.uncharged * page_size(),
                reseeds: level.reseeds,
                skipped_runs: level.skipped_runs,
                corrected: level.corrected,
            })
        };
        self.levels.iter().map(row).collect()
    }
}

impl Level {
    fn put(&self, beside: &BracketedUsage, sample: &mut Sample) {
        let Some(seed) = self.seed else {
            return sample.absent.push((AFTER.to_owned(), "its first level is not known yet".to_owned()));
        };
        for (column, counted) in [(BEFORE, beside.before), (AFTER, beside.after)] {
            match u64::try_from(seed + counted.net_bytes(page_size())) {
                Ok(bytes) => _ = sample.values.insert(column.to_owned(), bytes),
                Err(_) => {
                    sample.absent.push((column.to_owned(), "more was uncharged than charged".to_owned()))
                }
            }
        }
    }

    /// Takes the seed from a reading, if it is wanted and to be had.
    fn settle(&mut self, beside: &BracketedUsage, skipped: u64) {
        let since = self.last.replace(beside.after);
        let Some(seed) = beside.seed().filter(|_| self.due) else { return };
        if since == Some(beside.before) {
            if self.first_seed.is_none() {
                self.first_seed = Some(seed);
            } else {
                self.reseeds += 1;
                self.skipped_runs = skipped;
                self.corrected += seed - self.seed.unwrap_or(seed);
            }
            (self.seed, self.due) = (Some(seed), false);
        } else if self.first_seed.is_none() {
            // Until there is a better one.
            self.seed = Some(seed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_recording::journal::SeriesId;

    fn beside(before: (u64, u64), pages: u64, after: (u64, u64)) -> BracketedUsage {
        let level = |(charged, uncharged)| map_records::ChargeLevel { charged, uncharged };
        BracketedUsage { before: level(before), usage: pages * page_size(), after: level(after) }
    }

    fn sample() -> Sample {
        Sample {
            series: SeriesId::Cgroup(1),
            begin_ns: 1,
            end_ns: 2,
            values: Default::default(),
            absent: Vec::new(),
        }
    }

    #[test]
    fn a_seed_needs_a_reading_that_nothing_was_counted_beside() {
        let page = page_size() as i64;
        assert_eq!(beside((64, 0), 100, (64, 0)).seed(), Some(36 * page));
        assert_eq!(beside((64, 0), 100, (128, 0)).seed(), None);
        assert_eq!(beside((64, 0), 100, (128, 64)).seed(), None, "the same net is not the same");
        // What was there before is uncharged while it is followed.
        assert_eq!(beside((0, 64), 36, (0, 64)).seed(), Some(100 * page));
    }

    #[test]
    fn a_level_is_known_only_once_it_is_seeded() {
        let reading = beside((64, 0), 100, (64, 0));
        let (mut level, mut first) = (Level { due: true, ..Level::default() }, sample());
        level.put(&reading, &mut first);
        assert!(first.values.is_empty() && first.absent.len() == 1);
        // One reading alone may have been in the middle of a charge.
        level.settle(&beside((64, 0), 164, (64, 0)), 0);
        assert!(level.due && level.first_seed.is_none());
        level.settle(&reading, 0);
        let mut second = sample();
        level.put(&reading, &mut second);
        assert_eq!(second.values[AFTER], 100 * page_size());
        assert_eq!((level.due, level.reseeds, level.corrected), (false, 0, 0));
    }

    #[test]
    fn setting_it_anew_says_by_how_much() {
        let page = page_size() as i64;
        let mut level = Level { seed: Some(0), first_seed: Some(0), due: true, ..Level::default() };
        let reading = beside((64, 0), 67, (64, 0));
        level.settle(&reading, 7);
        assert_eq!(
            (level.due, level.seed),
            (true, Some(0)),
            "the old one stands until there is a better one"
        );
        level.settle(&reading, 7);
        assert_eq!((level.reseeds, level.skipped_runs, level.corrected), (1, 7, 3 * page));
        level.settle(&beside((64, 0), 99, (64, 0)), 9);
        assert_eq!((level.seed, level.first_seed), (Some(3 * page), Some(0)), "nobody wanted it");
    }
}
