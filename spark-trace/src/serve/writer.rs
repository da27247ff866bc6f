//! Writes the recent minutes and the recordings of kills.

use std::sync::{Arc, atomic::Ordering, mpsc::Receiver};

use super::{shared::Shared, state_dir::State};
use spark_trace_agent as live;
use spark_trace_agent::realtime_offset_ns;
use spark_trace_host::output_file::{Place, WriteError};
use spark_trace_recording as recording;
use spark_trace_recording::parse;
use spark_trace_recording::{Recording, WriteOptions};
use spark_trace_render::escape;

/// What is to be written.
pub enum Job {
    /// The minutes up to now.
    Recent(Box<Recording>),
    /// The minutes up to a kill.
    Kill(Box<Recording>),
}

pub struct Keeper {
    state: State,
    keep_oom: usize,
    shared: Arc<Shared>,
}

impl Keeper {
    pub fn new(state: State, keep_oom: usize, shared: Arc<Shared>) -> Self {
        Self { state, keep_oom, shared }
    }

    /// Writes until nobody hands over any more.
    pub fn run(&self, jobs: &Receiver<Job>) {
        for job in jobs {
            match job {
                Job::Recent(recording) => self.write(*recording, self.state.recent()),
                Job::Kill(recording) => {
                    if self.write(*recording, self.state.of_kill(&parse::utc_now())) {
                        self.shared.oom_recordings.fetch_add(1, Ordering::Relaxed);
                    }
                    self.state.prune(self.keep_oom);
                    true
                }
            };
            // A recording is a few million small pieces: what the allocator keeps of them is given back.
            live::trim();
        }
    }

    /// Whether it was written. A full disk is reported each time, and does not end the service.
    fn write(&self, mut recording: Recording, place: Result<Place, WriteError>) -> bool {
        complete(&mut recording);
        let options = WriteOptions { force: true, owner: None };
        match place.and_then(|place| recording::write::write_at(&recording, &place, options)) {
            Ok(()) => true,
            Err(error) => {
                self.shared.failed_writes.fetch_add(1, Ordering::Relaxed);
                let error = in_one_line(&error);
                eprintln!("spark-trace: {}", escape::line(&error));
                false
            }
        }
    }
}

/// An error with its cause in one line.
fn in_one_line(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// A part of a trace under way as a recording of its own: from its first reading to its last, with the calendar as it
/// is now, for clocks are set while a service runs.
fn complete(recording: &mut Recording) {
    recording.clock.realtime_offset_ns = realtime_offset_ns();
    let times = &recording.samples.system;
    let (first, last) = (times.end_ns.first().copied(), times.end_ns.last().copied());
    recording.target.started_ns = first.unwrap_or_default().max(recording.target.started_ns);
    if recording.target.ended_ns == 0 {
        recording.target.ended_ns = last.unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use spark_trace_testing as testing;

    #[test]
    fn files_are_replaced_and_kills_have_one_each() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let shared = Arc::new(Shared::default());
        let keeper = Keeper::new(State::open(&path).unwrap(), 2, Arc::clone(&shared));
        let (sender, jobs) = std::sync::mpsc::channel();
        for job in [Job::Recent, Job::Recent, Job::Kill] {
            sender.send(job(Box::new(testing::container()))).unwrap();
        }
        drop(sender);
        keeper.run(&jobs);
        let mut names: Vec<_> = fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(names[0].starts_with("oom-") && names[1..] == ["recent.json.zst", "serve.lock"], "{names:?}");
        assert_eq!(shared.oom_recordings.load(Ordering::Relaxed), 1);
        recording::read(&path.join(&names[0])).unwrap();
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let shared = Arc::new(Shared::default());
        let keeper = Keeper::new(State::open(&path).unwrap(), 2, Arc::clone(&shared));
        fs::remove_dir_all(&path).unwrap();
        let (sender, jobs) = std::sync::mpsc::channel();
        sender.send(Job::Recent(Box::new(testing::container()))).unwrap();
        drop(sender);
        keeper.run(&jobs);
        assert_eq!(shared.failed_writes.load(Ordering::Relaxed), 1);
    }
}
