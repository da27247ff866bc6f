//! Notices that the kernel killed a process because memory had run out, and says when a recording of it is due.

use std::collections::HashMap;

use crate::recording::Recording;

/// Column of the system's series, and of a cgroup's.
const OF_MACHINE: &str = "vmstat.oom_kill";
const OF_CGROUP: &str = "events.oom_kill";

/// Time between two recordings of kills. What happens meanwhile comes into the next one.
const REST_NS: u64 = 60_000_000_000;

/// What is to be done after a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Nothing,
    /// Details are to be read now.
    Ask,
    /// They have been read: this reading is the one to write.
    Write,
}

#[derive(Debug, Default)]
pub struct Kills {
    machine: Option<u64>,
    cgroups: HashMap<u64, u64>,
    begun: bool,
    /// A kill that is in no recording yet.
    pending: bool,
    asked: bool,
    written_ns: Option<u64>,
}

impl Kills {
    /// Looks at a reading that was taken at `now_ns`.
    pub fn step(&mut self, recording: &Recording, now_ns: u64) -> Step {
        // Read even where a recording is due: what has come since it was asked for is in it.
        self.pending |= self.has_grown(recording);
        if self.asked {
            (self.asked, self.pending, self.written_ns) = (false, false, Some(now_ns));
            return Step::Write;
        }
        let rested = self.written_ns.is_none_or(|written| now_ns.saturating_sub(written) >= REST_NS);
        if self.pending && rested {
            self.asked = true;
            return Step::Ask;
        }
        Step::Nothing
    }

    fn has_grown(&mut self, recording: &Recording) -> bool {
        let machine = recording.samples.system.columns.get(OF_MACHINE).and_then(|column| column.last());
        let mut grown = self.machine.zip(machine).is_some_and(|(before, now)| now > before);
        self.machine = machine.or(self.machine);
        let counts: HashMap<u64, u64> = recording
            .samples
            .cgroups
            .iter()
            .filter_map(|cgroup| Some((cgroup.id, cgroup.series.columns.get(OF_CGROUP)?.last()?)))
            .collect();
        for (id, now) in &counts {
            // A cgroup that came after the first reading started from nothing.
            let before = self.cgroups.get(id).copied().or((self.begun).then_some(0));
            grown |= before.is_some_and(|before| *now > before);
        }
        self.cgroups = counts;
        self.begun = true;
        grown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::testing::{self, SECOND, START};
    use crate::recording::{CgroupSeries, Recording};

    fn reading(machine: u64, cgroups: &[(u64, u64)]) -> Recording {
        let mut recording = testing::empty();
        testing::push(&mut recording.samples.system, START, [(OF_MACHINE.to_owned(), machine)]);
        for &(id, count) in cgroups {
            let mut series = testing::series(&[]);
            testing::push(&mut series, START, [(OF_CGROUP.to_owned(), count)]);
            recording.samples.cgroups.push(CgroupSeries { id, path: format!("/{id}"), series });
        }
        recording
    }

    #[test]
    fn a_kill_is_asked_about_and_written_with_the_next_reading() {
        let mut kills = Kills::default();
        assert_eq!(kills.step(&reading(7, &[(1, 3)]), START), Step::Nothing, "older than the trace");
        assert_eq!(kills.step(&reading(8, &[(1, 3)]), START + SECOND), Step::Ask);
        // The same kill, counted by its cgroup a moment later.
        assert_eq!(kills.step(&reading(8, &[(1, 4)]), START + 2 * SECOND), Step::Write);
        for second in 3..200 {
            assert_eq!(kills.step(&reading(8, &[(1, 4)]), START + second * SECOND), Step::Nothing);
        }
    }

    #[test]
    fn kills_within_a_minute_come_into_the_next_recording() {
        let mut kills = Kills::default();
        kills.step(&reading(0, &[]), START);
        let mut written = Vec::new();
        for second in 1..=150 {
            // One every second for two minutes.
            if kills.step(&reading(second.min(120), &[]), START + second * SECOND) == Step::Write {
                written.push(second);
            }
        }
        assert_eq!(written, [2, 63, 124]);
    }

    #[test]
    fn a_cgroup_alone_tells_too() {
        let mut kills = Kills::default();
        kills.step(&reading(0, &[(1, 5)]), START);
        assert_eq!(kills.step(&reading(0, &[(1, 5), (2, 0)]), START), Step::Nothing);
        assert_eq!(
            kills.step(&reading(0, &[(1, 5), (2, 0), (3, 1)]), START),
            Step::Ask,
            "new, and killed in"
        );
        assert_eq!(Kills::default().step(&reading(9, &[(1, 9)]), START), Step::Nothing);
    }

    #[test]
    fn a_counter_that_is_not_read_is_no_news() {
        let mut kills = Kills::default();
        kills.step(&reading(4, &[(1, 1)]), START);
        assert_eq!(kills.step(&testing::empty(), START), Step::Nothing);
        assert_eq!(kills.step(&reading(4, &[]), START), Step::Nothing);
    }
}
