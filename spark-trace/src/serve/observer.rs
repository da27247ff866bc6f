//! What `serve` does at every reading, in the trace's own thread: a small copy for metrics, and now and then a whole one
//! for the files.

use std::{
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{SyncSender, TrySendError},
    },
    time::{Duration, Instant},
};

use super::{
    oom::{Kills, Step},
    shared::Shared,
    writer::Job,
};
use spark_trace_agent::{
    monitor::Update,
    now_ns,
    session::{Named, Wishes},
};
use spark_trace_recording::{Phase, retention};

/// Time between two writings of the recent minutes.
pub const WRITE_EVERY: Duration = Duration::from_secs(30);

/// A mark in the recording of a kill: the reading at which it was noticed.
const OOM_KILL: &str = "oom-kill";

pub struct Watcher {
    shared: Arc<Shared>,
    jobs: SyncSender<Job>,
    kills: Kills,
    /// Recordings of kills are wanted.
    keeps_kills: bool,
    noticed_ns: u64,
    wrote: Instant,
    /// A recording of a kill that the keeper had no time for yet.
    waiting: Option<Job>,
}

impl Watcher {
    pub fn new(shared: Arc<Shared>, jobs: SyncSender<Job>, keeps_kills: bool) -> Self {
        Self {
            shared,
            jobs,
            kills: Kills::default(),
            keeps_kills,
            noticed_ns: 0,
            wrote: Instant::now(),
            waiting: None,
        }
    }

    pub fn see(&mut self, seen: Update<'_>) -> Wishes {
        let recording = match seen {
            Update::Reading { recording, awaits_names } => {
                self.kills.awaits_names = awaits_names;
                recording
            }
            Update::End(recording) => {
                // The last file may take its time; who does not take it has ended, and nothing can be done.
                if let Some(job) = self.waiting.take() {
                    let _ = self.jobs.send(job);
                }
                let _ = self.jobs.send(Job::Recent(recording));
                return Wishes::default();
            }
        };
        self.shared.put(retention::latest(recording));
        let mut wishes = Wishes::default();
        match self.kills.step(recording, now_ns()) {
            Step::RequestDetails if self.keeps_kills => {
                self.noticed_ns = recording.samples.system.end_ns.last().copied().unwrap_or_default();
                wishes.details = true;
                wishes.names = Named::All;
            }
            Step::Write if self.keeps_kills => {
                let mut recording = recording.clone();
                recording.phases.push(Phase { name: OOM_KILL.to_owned(), at_ns: self.noticed_ns });
                self.waiting = Some(Job::Kill(Box::new(recording)));
            }
            Step::Nothing | Step::RequestDetails | Step::Write => {}
        }
        if let Some(job) = self.waiting.take() {
            self.hand(job);
        }
        let is_requested = self.shared.wants_file.swap(false, Ordering::Relaxed);
        if is_requested || self.wrote.elapsed() >= WRITE_EVERY {
            self.wrote = Instant::now();
            self.hand(Job::Recent(Box::new(recording.clone())));
        }
        wishes
    }

    /// Hands a recording over, without waiting: the trace goes on. That of a kill is kept for the next reading where the
    /// keeper is busy; of the recent minutes the next one will do.
    fn hand(&mut self, job: Job) {
        if let Err(TrySendError::Full(job @ Job::Kill(_))) = self.jobs.try_send(job) {
            self.waiting = Some(job);
        }
    }
}
