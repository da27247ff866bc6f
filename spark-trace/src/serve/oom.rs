//! Notices that the kernel killed a process because memory had run out, and says when a recording of it is due.

use std::collections::HashMap;

use spark_trace_recording::Recording;

/// Column of the system's series, and of a cgroup's.
const OF_MACHINE: &str = "vmstat.oom_kill";
const OF_CGROUP: &str = "events.oom_kill";

/// The signal in a status as wait(2) reports it, and SIGKILL.
const SIGNAL_BITS: u32 = 0x7f;
const SIGKILL: u32 = 9;

/// Time between two recordings of kills. What happens meanwhile comes into the next one.
const REST_NS: u64 = 60_000_000_000;

/// How long a kill's victim is waited for. The counter grows when the kernel sends the signal (mm/oom_kill.c
/// __oom_kill_process); the process ends when it next runs, which takes its time on a busy machine.
const VICTIM_LIMIT_NS: u64 = 3_000_000_000;
/// How long names are waited for: they are looked up file by file, and one of these may mean harm.
const NAMES_LIMIT_NS: u64 = 10_000_000_000;

/// What is to be done after a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Nothing,
    /// Details are to be read now.
    RequestDetails,
    /// They have been read: this reading is the one to write.
    Write,
}

#[derive(Debug, Default)]
pub struct Kills {
    machine: Option<u64>,
    cgroups: HashMap<u64, u64>,
    begun: bool,
    /// Requested names are still to come.
    pub awaits_names: bool,
    /// A kill that is in no recording yet.
    pending: bool,
    /// When details were requested that have not been written yet.
    requested_ns: Option<u64>,
    /// The last reading without a kill that is in no recording yet: victims end after it.
    before_ns: u64,
    written_ns: Option<u64>,
}

impl Kills {
    /// Looks at a reading that was taken at `now_ns`.
    pub fn step(&mut self, recording: &Recording, now_ns: u64) -> Step {
        // Read even where a recording is due: what has come since the request is in it.
        self.pending |= self.has_grown(recording);
        if let Some(requested_ns) = self.requested_ns {
            let waited_ns = now_ns.saturating_sub(requested_ns);
            let awaits_victim = waited_ns < VICTIM_LIMIT_NS && !self.has_victim(recording);
            if awaits_victim || self.awaits_names && waited_ns < NAMES_LIMIT_NS {
                return Step::Nothing;
            }
            (self.requested_ns, self.pending, self.written_ns) = (None, false, Some(now_ns));
            self.before_ns = now_ns;
            return Step::Write;
        }
        if !self.pending {
            self.before_ns = now_ns;
        }
        let rested = self.written_ns.is_none_or(|written| now_ns.saturating_sub(written) >= REST_NS);
        if self.pending && rested {
            self.requested_ns = Some(now_ns);
            return Step::RequestDetails;
        }
        Step::Nothing
    }

    /// Whether a process has ended by SIGKILL since there was no kill.
    fn has_victim(&self, recording: &Recording) -> bool {
        let mut processes = recording.provenance.processes.iter().rev();
        processes.any(|process| {
            let killed = process.exit_status.is_some_and(|status| status & SIGNAL_BITS == SIGKILL);
            killed && process.ended_ns.is_some_and(|ended| ended >= self.before_ns)
        })
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
    use spark_trace_recording::{CgroupSeries, Process, Recording};
    use spark_trace_testing as testing;
    use spark_trace_testing::{SECOND, START};

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

    /// The same once a process has been killed.
    fn with_victim(mut recording: Recording, ended_ns: u64) -> Recording {
        let killed = Process { exit_status: Some(SIGKILL), ended_ns: Some(ended_ns), ..Process::default() };
        recording.provenance.processes.push(killed);
        recording
    }

    #[test]
    fn a_victim_that_takes_its_time_is_waited_for_but_not_for_ever() {
        let mut kills = Kills::default();
        let older = |recording| with_victim(recording, START - 1);
        assert_eq!(kills.step(&reading(7, &[]), START), Step::Nothing);
        assert_eq!(kills.step(&older(reading(8, &[])), START + SECOND), Step::RequestDetails);
        assert_eq!(kills.step(&older(reading(8, &[])), START + 2 * SECOND), Step::Nothing, "not yet");
        let ended = with_victim(older(reading(8, &[])), START + 2 * SECOND);
        assert_eq!(kills.step(&ended, START + 3 * SECOND), Step::Write);

        let mut kills = Kills::default();
        kills.step(&reading(7, &[]), START);
        let steps: Vec<_> =
            (1..=5).map(|second| kills.step(&reading(8, &[]), START + second * SECOND)).collect();
        assert_eq!(steps, [Step::RequestDetails, Step::Nothing, Step::Nothing, Step::Write, Step::Nothing]);
    }

    #[test]
    fn names_are_waited_for_but_not_for_ever() {
        for (until, written) in [(4, 4), (100, 11)] {
            let mut kills = Kills::default();
            kills.step(&reading(7, &[]), START);
            let killed = with_victim(reading(8, &[]), START + SECOND);
            assert_eq!(kills.step(&killed, START + SECOND), Step::RequestDetails);
            let at = (2..200).find(|second| {
                kills.awaits_names = *second < until;
                kills.step(&killed, START + second * SECOND) == Step::Write
            });
            assert_eq!(at, Some(written));
        }
    }

    #[test]
    fn details_of_a_kill_are_requested_and_written_with_the_next_reading() {
        let mut kills = Kills::default();
        assert_eq!(kills.step(&reading(7, &[(1, 3)]), START), Step::Nothing, "older than the trace");
        assert_eq!(kills.step(&reading(8, &[(1, 3)]), START + SECOND), Step::RequestDetails);
        // The same kill, counted by its cgroup a moment later.
        let ended = with_victim(reading(8, &[(1, 4)]), START + SECOND);
        assert_eq!(kills.step(&ended, START + 2 * SECOND), Step::Write);
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
            let now = START + second * SECOND;
            if kills.step(&with_victim(reading(second.min(120), &[]), now), now) == Step::Write {
                written.push(second);
            }
        }
        assert_eq!(written, [2, 63, 124]);
    }

    #[test]
    fn the_counter_of_a_cgroup_alone_suffices() {
        let mut kills = Kills::default();
        kills.step(&reading(0, &[(1, 5)]), START);
        assert_eq!(kills.step(&reading(0, &[(1, 5), (2, 0)]), START), Step::Nothing);
        assert_eq!(
            kills.step(&reading(0, &[(1, 5), (2, 0), (3, 1)]), START),
            Step::RequestDetails,
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
