//! How much of a trace is kept: all of it for a recording, the latest for a view of a trace under way.

use std::{collections::BTreeSet, time::Duration};

use spark_trace_common::event::ProcessOp;

/// What is read and kept. There is one row for each purpose of a trace.
#[derive(Debug)]
pub struct Policy {
    /// Whether every cgroup and process of a machine that is traced as a whole is followed, new ones too.
    pub whole_machine: bool,
    /// Whether a new process is looked into at once: its environment, limits and mapped files. Without, its files are looked
    /// at once there is a stack of it.
    pub process_details: bool,
    /// Whether mappings of files are kept one by one. The page cache shows which files are in memory.
    pub file_mappings: bool,
    /// Whether a process is kept that ended before the next reading. A storm of forks is thousands of them.
    pub short_lived: bool,
    /// Whether page tables of large processes are walked now and then.
    pub walks: bool,
    /// Whether the aggregates are read at peaks and at memory queries; else only on request.
    pub peaks: bool,
    /// Whether the content of files is looked at when the target has ended.
    pub file_contents: bool,
    /// Whether each reading covers every cgroup, however many there are. Else they take turns.
    pub every_cgroup: bool,
    /// Rows of files that are kept, the largest; absent where the kernel's table is the bound.
    pub files: Option<usize>,
    /// Memory queries that are kept one by one.
    queries: u64,
    /// Whether that many are kept between two readings, and not in all.
    queries_by_reading: bool,
    /// Time between two turns of taking events; absent where each is taken as it comes.
    pub drain_every: Option<Duration>,
    /// How long the end waits for names of functions.
    pub longest_naming: Duration,
}

static RECORDING: Policy = Policy {
    whole_machine: false,
    process_details: true,
    file_mappings: true,
    short_lived: true,
    walks: true,
    peaks: true,
    file_contents: true,
    every_cgroup: false,
    files: None,
    queries: 20_000,
    queries_by_reading: false,
    drain_every: None,
    longest_naming: Duration::from_secs(60),
};

static VIEW: Policy = Policy {
    whole_machine: true,
    process_details: false,
    file_mappings: false,
    short_lived: false,
    walks: false,
    peaks: false,
    file_contents: false,
    every_cgroup: true,
    files: Some(4096),
    // Nobody reads more in that time.
    queries: 25,
    queries_by_reading: true,
    // Each wake-up costs more than the event. Often enough that processes still live whose stacks they bring.
    drain_every: Some(Duration::from_millis(100)),
    longest_naming: Duration::from_secs(5),
};

/// How often what is too old is dropped while a window goes by: so much of it may be kept beyond it.
const FORGETS_PER_WINDOW: u64 = 32;
/// ... and after so many processes: a storm of them fills memory long before that.
const FORGETS_AFTER: usize = 1_024;

/// The signal in a status as wait(2) reports it, and SIGKILL.
const SIGNAL_BITS: u32 = 0x7f;
const SIGKILL: u32 = libc::SIGKILL as u32;

#[derive(Debug)]
pub struct Retention {
    policy: &'static Policy,
    /// How long rows are kept; absent where they are kept for good.
    window: Option<Duration>,
    /// Memory queries that were kept, of those that [`Policy::queries`] bounds.
    queries: u64,
    queries_lost: u64,
    /// Processes that have not lived to see a reading and are not in the recording yet.
    young: BTreeSet<u32>,
    /// Rows of files that the kernel's table had no room for, as of the last look.
    files_lost: u64,
    forgot: Forgot,
}

/// The last time that old rows were dropped.
#[derive(Debug, Default)]
struct Forgot {
    at_ns: u64,
    /// Rows of processes that were left.
    processes: usize,
}

impl Retention {
    /// Keeps everything.
    pub fn everything() -> Self {
        Self::new(&RECORDING, None)
    }

    /// Keeps what is newer than `window`.
    pub fn latest(window: Duration) -> Self {
        Self::new(&VIEW, Some(window))
    }

    fn new(policy: &'static Policy, window: Option<Duration>) -> Self {
        Self {
            policy,
            window,
            queries: 0,
            queries_lost: 0,
            young: BTreeSet::new(),
            files_lost: 0,
            forgot: Forgot::default(),
        }
    }

    pub const fn policy(&self) -> &'static Policy {
        self.policy
    }

    /// Whether rows are dropped once they are old.
    pub const fn is_window(&self) -> bool {
        self.window.is_some()
    }

    pub(super) const fn has_room_for_query(&self) -> bool {
        self.queries < self.policy.queries
    }

    /// Counts a memory query as kept, or as lost where there is no room. Says whether it is kept.
    pub(super) const fn take_query(&mut self) -> bool {
        let has_room = self.has_room_for_query();
        if has_room {
            self.queries += 1;
        } else {
            self.queries_lost += 1;
        }
        has_room
    }

    /// Whether a query is refused before it costs anything, which counts it as lost. Programs that poll the kernel's files do
    /// it hundreds of times a second; for a recording each of them is looked at, because it may be somebody else's.
    pub(super) const fn refuses_query(&mut self) -> bool {
        let refused = self.policy.queries_by_reading && !self.has_room_for_query();
        self.queries_lost += refused as u64;
        refused
    }

    /// Queries that were not kept.
    pub(super) const fn queries_lost(&self) -> u64 {
        self.queries_lost
    }

    /// A reading begins. These processes have lived to see it: they are in the recording from now on.
    pub(super) fn begin_reading(&mut self) -> BTreeSet<u32> {
        if self.policy.queries_by_reading {
            self.queries = 0;
        }
        std::mem::take(&mut self.young)
    }

    /// Whether a process is in the recording, or is to be.
    pub(super) fn is_young(&self, pid: u32) -> bool {
        self.young.contains(&pid)
    }

    /// Whether the recording gets to know of an event of a process. `status`: as wait(2) reports it.
    pub(super) fn keeps_process(&mut self, op: ProcessOp, pid: u32, status: u32) -> bool {
        let unseen = match op {
            ProcessOp::Fork => !self.policy.short_lived && self.young.insert(pid),
            ProcessOp::Exec => self.young.contains(&pid),
            // A victim of the OOM killer is of interest, however short it lived.
            ProcessOp::Exit => self.young.remove(&pid) && status & SIGNAL_BITS != SIGKILL,
        };
        !unseen
    }

    /// Whether the kernel's table of files has run full since the last look.
    pub(super) const fn is_table_full(&mut self, lost: u64) -> bool {
        let full = lost > self.files_lost;
        if full {
            self.files_lost = lost;
        }
        full
    }

    /// The time from which on rows stay, where it is due to drop older ones: all that is kept is gone through for that, not
    /// at every tick. `processes`: rows of processes now.
    pub(super) fn due(&self, now_ns: u64, processes: usize) -> Option<u64> {
        let window_ns = self.window?.as_nanos() as u64;
        let started = processes.saturating_sub(self.forgot.processes);
        let due = now_ns.saturating_sub(self.forgot.at_ns) >= window_ns / FORGETS_PER_WINDOW;
        (due || started >= FORGETS_AFTER).then(|| now_ns.saturating_sub(window_ns))
    }

    /// Old rows were dropped; so many of processes are left.
    pub(super) const fn dropped(&mut self, now_ns: u64, processes: usize) {
        self.forgot = Forgot { at_ns: now_ns, processes };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(32);
    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_recording_keeps_queries_up_to_its_bound_and_a_view_so_many_by_reading() {
        let kept = |retention: &mut Retention, count| (0..count).filter(|_| retention.take_query()).count();
        let mut recording = Retention::everything();
        assert!(recording.begin_reading().is_empty());
        assert_eq!(kept(&mut recording, 30_000), 20_000);
        recording.begin_reading();
        assert!(!recording.refuses_query() && !recording.take_query(), "the bound is of the whole recording");
        assert_eq!(recording.queries_lost(), 10_001);

        let mut view = Retention::latest(WINDOW);
        assert_eq!(kept(&mut view, 30), 25);
        assert!(view.refuses_query());
        view.begin_reading();
        assert!(!view.refuses_query());
        assert_eq!((kept(&mut view, 30), view.queries_lost()), (25, 11));
    }

    #[test]
    fn a_view_learns_of_processes_that_live_to_see_a_reading() {
        let mut view = Retention::latest(WINDOW);
        assert!(!view.keeps_process(ProcessOp::Fork, 1, 0) && !view.keeps_process(ProcessOp::Exec, 1, 0));
        assert!(view.is_young(1));
        assert!(!view.keeps_process(ProcessOp::Exit, 1, 0), "it was never seen");
        view.keeps_process(ProcessOp::Fork, 2, 0);
        assert!(view.keeps_process(ProcessOp::Exit, 2, SIGKILL), "it may be the OOM killer's victim");
        view.keeps_process(ProcessOp::Fork, 3, 0);
        assert_eq!(view.begin_reading(), BTreeSet::from([3]));
        assert!(view.keeps_process(ProcessOp::Exec, 3, 0) && view.keeps_process(ProcessOp::Exit, 3, 0));

        let mut recording = Retention::everything();
        assert!(recording.keeps_process(ProcessOp::Fork, 1, 0) && !recording.is_young(1));
        assert!(recording.keeps_process(ProcessOp::Exit, 1, 0));
    }

    #[test]
    fn old_rows_are_dropped_after_a_time_or_a_storm_of_processes() {
        let mut view = Retention::latest(WINDOW);
        assert_eq!(view.due(100 * SECOND, 5), Some(68 * SECOND));
        view.dropped(100 * SECOND, 5);
        assert_eq!(view.due(100 * SECOND + SECOND / 2, 5), None);
        assert_eq!(view.due(101 * SECOND, 5), Some(69 * SECOND));
        assert_eq!(view.due(100 * SECOND + 1, 5 + FORGETS_AFTER), Some(68 * SECOND + 1));
        assert_eq!(Retention::everything().due(u64::MAX, usize::MAX), None);
    }

    #[test]
    fn a_full_table_is_noticed_once_for_each_loss() {
        let mut view = Retention::latest(WINDOW);
        assert_eq!([0, 3, 3, 4].map(|lost| view.is_table_full(lost)), [false, true, false, true]);
    }
}
