//! Readings that have grown old, where only the latest are wanted fine: one is kept for each second of them, after an hour one for
//! each minute, and with it the lowest and the highest of the plane in that time.

use std::ops::Range;

use super::super::column::Column;
use super::super::ledger::{self, Plane};
use super::super::schema::{Aged, Recording, Series};
use super::{moments, thin};

const SECOND: u64 = Aged::SECOND_NS;
const MINUTE: u64 = 60 * SECOND;
/// So long after the fine ones there is a reading for each second.
const BY_SECOND: u64 = Aged::BY_SECOND_NS;
/// It is looked for old readings when this part of the fine time has gone by, or a second if that is more.
const LOOKS: u64 = 8;

/// How much is kept fine, and what has been left out of the rest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ages {
    pub(super) left_out: Aged,
    next_ns: u64,
    /// What was older at the last look.
    done: Borders,
}

/// Times at which readings become too old.
#[derive(Debug, Clone, Copy)]
struct Borders {
    /// From here on all readings are kept.
    fine: u64,
    /// From here on one a second, before it one a minute.
    seconds: u64,
}

impl Borders {
    const fn before(fine: u64) -> Self {
        Self { fine, seconds: fine.saturating_sub(BY_SECOND) }
    }
}

impl Ages {
    pub(super) const fn new(fine_ns: u64) -> Self {
        Self { left_out: Aged { fine_ns, readings: 0, spacing_ns: 0 }, next_ns: 0, done: Borders::before(0) }
    }

    /// Whether it is time to look, at a reading that ended at `now_ns`.
    pub(super) fn are_due(&mut self, now_ns: u64) -> bool {
        let due = now_ns >= self.next_ns;
        if due {
            self.next_ns = now_ns.saturating_add((self.left_out.fine_ns / LOOKS).max(SECOND));
        }
        due
    }

    /// Leaves old readings out of all series.
    pub(super) fn thin(&mut self, recording: &mut Recording, now_ns: u64) {
        // An engine sizes itself by some of the queries. Which they were is known at the end.
        let queries = recording.provenance.queries.iter().map(|query| query.at_ns);
        let moments: Vec<u64> = moments(recording).into_iter().chain(queries).collect();
        let now = Borders::before(now_ns.saturating_sub(self.left_out.fine_ns));
        let (done, left_out) = (self.done, &mut self.left_out);
        let samples = &mut recording.samples;
        let mut thin = |series: &mut Series, height: Height| {
            for (length, from, to) in
                [(MINUTE, done.seconds, now.seconds), (SECOND, done.fine.max(now.seconds), now.fine)]
            {
                // What was looked at before may be the beginning of a stretch.
                let from = from / length * length;
                let gone = one(series, height, length, from..to, &moments);
                if gone > 0 {
                    left_out.spacing_ns = left_out.spacing_ns.max(length);
                    left_out.readings += gone;
                }
            }
        };
        thin(&mut samples.system, Height::Of(Plane::System));
        thin(&mut samples.cuda, Height::Columns(|name| name.starts_with("live.")));
        for cgroup in &mut samples.cgroups {
            let usage = Height::Columns(|name| matches!(name, "memory.current" | "memory.usage_in_bytes"));
            let height = Plane::of_cgroup(&cgroup.series).map_or(usage, Height::Of);
            thin(&mut cgroup.series, height);
        }
        for device in &mut samples.devices {
            thin(&mut device.series, Height::Of(Plane::Device));
        }
        for process in &mut samples.processes {
            thin(
                &mut process.series,
                Height::Columns(|name| matches!(name, "rss_anon" | "rss_file" | "rss_shmem")),
            );
        }
        self.done = now;
    }
}

/// What is the lowest and the highest of a series.
#[derive(Debug, Clone, Copy)]
enum Height {
    Of(Plane),
    /// The columns with such names, together.
    Columns(fn(&str) -> bool),
}

/// Of a stretch of time the first reading, the lowest and the highest.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    number: u64,
    first: usize,
    lowest: Option<(u64, usize)>,
    highest: Option<(u64, usize)>,
}

impl Stretch {
    const fn new(number: u64, first: usize) -> Self {
        Self { number, first, lowest: None, highest: None }
    }

    /// Of equal ones the first.
    fn add(&mut self, height: u64, index: usize) {
        if self.lowest.is_none_or(|(lowest, _)| height < lowest) {
            self.lowest = Some((height, index));
        }
        if self.highest.is_none_or(|(highest, _)| height > highest) {
            self.highest = Some((height, index));
        }
    }

    fn kept(&self) -> impl Iterator<Item = usize> {
        [self.lowest, self.highest].into_iter().flatten().map(|(_, index)| index).chain([self.first])
    }
}

/// Thins the readings of one series that began in `span`, to stretches of so many nanoseconds. What is kept of a stretch
/// stays when it is looked at again, alone or as part of a longer one.
fn one(series: &mut Series, height: Height, length: u64, span: Range<u64>, moments: &[u64]) -> u64 {
    let index_of = |at: u64| series.begin_ns.partition_point(|begin| *begin < at);
    let (from, to) = (index_of(span.start), index_of(span.end));
    if from >= to {
        return 0;
    }
    let columns: Vec<&Column> = match height {
        Height::Of(_) => Vec::new(),
        Height::Columns(is_one) => {
            let named = series.columns.iter().filter(|(name, _)| is_one(name));
            named.map(|(_, column)| column).collect()
        }
    };
    let height_at = |index: usize| match height {
        Height::Of(plane) => ledger::height_at(plane, series, index),
        Height::Columns(_) => {
            columns.iter().filter_map(|column| column.get(index)).reduce(u64::saturating_add)
        }
    };
    let mut kept: Vec<usize> = thin::beside(series, moments).collect();
    let mut stretch: Option<Stretch> = None;
    for (index, begin) in series.begin_ns.iter().enumerate().take(to).skip(from) {
        let number = begin / length;
        if stretch.is_none_or(|stretch| stretch.number != number) {
            kept.extend(stretch.iter().flat_map(Stretch::kept));
            stretch = Some(Stretch::new(number, index));
        }
        if let (Some(stretch), Some(height)) = (&mut stretch, height_at(index)) {
            stretch.add(height, index);
        }
    }
    kept.extend(stretch.iter().flat_map(Stretch::kept));
    let mut keeps = vec![true; series.begin_ns.len()];
    keeps.iter_mut().take(to).skip(from).for_each(|keep| *keep = false);
    for index in kept {
        if let Some(keep) = keeps.get_mut(index) {
            *keep = true;
        }
    }
    thin::keep(series, &keeps)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::super::MemoryQuery;
    use super::super::super::builder::Builder;
    use super::super::super::journal::{Begin, Entry, JOURNAL_SCHEMA, Sample, SeriesId};
    use super::super::super::schema::{Clock, Host, Phase, SCHEMA_VERSION, Tool};
    use super::super::super::target::Target;
    use super::*;

    const INTERVAL: u64 = SECOND / 10;
    const FINE: u64 = 10 * MINUTE;
    const TOTAL: u64 = 64 << 30;

    fn builder() -> Builder {
        let tool = Tool { interval_ns: INTERVAL, keep_fine_ns: Some(FINE), ..Tool::default() };
        let (host, clock, target) = (Host::default(), Clock::default(), Target::default());
        let schema = JOURNAL_SCHEMA.to_owned();
        Builder::new(Begin { schema, schema_version: SCHEMA_VERSION, tool, host, clock, target })
    }

    /// What is used of the machine at a reading: noise, with a high and a low one in some minutes.
    fn used(reading: u64) -> u64 {
        match reading % 6000 {
            1234 => 50 << 30,
            4321 => 1 << 20,
            rest => (8 << 30) + ((rest * 7919 % 1009) << 12),
        }
    }

    fn add(builder: &mut Builder, reading: u64) {
        let begin_ns = reading * INTERVAL;
        let of = |series, values: &[(&str, u64)]| {
            let values =
                values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect::<BTreeMap<_, _>>();
            Entry::Sample(Sample { series, begin_ns, end_ns: begin_ns + 1000, values, absent: Vec::new() })
        };
        builder.apply(of(
            SeriesId::System,
            &[("meminfo.MemTotal", TOTAL), ("meminfo.MemFree", TOTAL - used(reading))],
        ));
        builder.apply(of(
            SeriesId::Process(7),
            &[("rss_anon", used(reading) / 2), ("rss_file", used(reading) / 2)],
        ));
    }

    /// Six hours of readings of a tenth of a second.
    #[test]
    fn of_hours_the_latest_are_fine_and_all_lowest_and_highest_are_there() {
        let mut builder = builder();
        let (minutes, all) = (360, 216_000);
        builder.apply(Entry::Phase(Phase { name: "start".to_owned(), at_ns: 77_777 * INTERVAL }));
        let query = MemoryQuery { at_ns: 55_555 * INTERVAL, ..MemoryQuery::default() };
        builder.apply(Entry::Query(Box::new(query)));
        let mut most = 0;
        for reading in 0..all {
            add(&mut builder, reading);
            most = most.max(builder.recording().samples.system.begin_ns.len());
        }
        let recording = builder.finish();
        let system = &recording.samples.system;
        // Fine ones, and of each second and minute three at most.
        let fine = FINE / INTERVAL;
        assert!(most as u64 <= fine + fine / LOOKS + 1 + 3 * 3600 + 3 * minutes, "{most}");
        let kept: BTreeSet<u64> = system.begin_ns.iter().map(|begin| begin / INTERVAL).collect();
        assert!((all - fine..all).all(|reading| kept.contains(&reading)), "the latest ten minutes");
        // One of each minute and, in the hour before the fine ones, of each second.
        let by_minute: BTreeSet<u64> = system.begin_ns.iter().map(|begin| begin / MINUTE).collect();
        assert_eq!(by_minute.len() as u64, minutes);
        let seconds: BTreeSet<u64> = system.begin_ns.iter().map(|begin| begin / SECOND).collect();
        assert!((all / 10 - 600 - 3599..all / 10).all(|second| seconds.contains(&second)));
        for minute in 0..minutes {
            let of_minute = minute * 600..(minute + 1) * 600;
            let (lowest, highest) =
                (of_minute.clone().min_by_key(|at| used(*at)), of_minute.max_by_key(|at| used(*at)));
            for extreme in [lowest, highest] {
                let level = used(extreme.unwrap());
                let is_kept = |at: &u64| at / 600 == minute && used(*at) == level;
                assert!(kept.iter().any(is_kept), "minute {minute} without {level}");
            }
        }
        assert!([77_776, 77_777].iter().all(|beside| kept.contains(beside)), "beside a phase");
        assert!([55_554, 55_555].iter().all(|beside| kept.contains(beside)), "beside a query");
        let processes = &recording.samples.processes[0].series;
        assert_eq!(processes.begin_ns, system.begin_ns, "heights of both rise and fall together");
        for (index, at) in kept.iter().enumerate() {
            assert_eq!(system.columns["meminfo.MemFree"].get(index), Some(TOTAL - used(*at)));
        }
        let aged = recording.health.reduced.unwrap().aged.unwrap();
        assert_eq!((aged.fine_ns, aged.spacing_ns), (FINE, MINUTE));
        assert_eq!(aged.readings, 2 * (all - kept.len() as u64));
    }

    #[test]
    fn what_is_young_stays() {
        let mut builder = builder();
        (0..FINE / INTERVAL).for_each(|reading| add(&mut builder, reading));
        let recording = builder.finish();
        assert_eq!(recording.samples.system.begin_ns.len() as u64, FINE / INTERVAL);
        assert_eq!(recording.health.reduced, None);
    }
}
