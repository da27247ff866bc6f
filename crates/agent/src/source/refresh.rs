//! The counters' parts that each CPU keeps to itself, handed in before a reading.

use std::{
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::Duration,
};

use super::KernelFile;

/// A reading waits no longer for it. The kernel runs work on each CPU (mm/vmstat.c vmstat_refresh, schedule_on_each_cpu):
/// a fraction of a millisecond where all CPUs run, and as long as one of them stands still where a hypervisor has taken it.
const PATIENCE: Duration = Duration::from_millis(20);

/// Reads /proc/sys/vm/stat_refresh in a thread of its own. Without it the counters are up to some hundred pages per CPU
/// behind.
#[derive(Debug)]
pub struct Refresh {
    requests: SyncSender<()>,
    done: Receiver<()>,
    /// One that was requested is not done yet.
    is_due: bool,
}

impl Refresh {
    /// Absent where the kernel has no such file.
    pub fn start(path: &Path) -> Option<Self> {
        let file = KernelFile::open(path).ok()?;
        Self::with(move || drop(file.read()))
    }

    fn with(refresh: impl Fn() + Send + 'static) -> Option<Self> {
        let (requests, inbox) = sync_channel(1);
        let (outbox, done) = sync_channel(1);
        let work = move || {
            for () in inbox {
                refresh();
                if outbox.send(()).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("refresh".to_owned()).spawn(work).ok()?;
        Some(Self { requests, done, is_due: false })
    }

    /// Has the counters brought up to date. False if a CPU was not in time.
    pub fn refresh(&mut self) -> bool {
        // One that was late brings nothing for this reading: what has changed since is not in it.
        if self.is_due && self.done.try_recv().is_ok() {
            self.is_due = false;
        }
        if self.is_due || self.requests.try_send(()).is_err() {
            return false;
        }
        let done = self.done.recv_timeout(PATIENCE);
        self.is_due = done == Err(RecvTimeoutError::Timeout);
        done.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_cpu_that_stands_still_delays_no_reading() {
        let (go, gate) = std::sync::mpsc::channel();
        let mut refresh = Refresh::with(move || gate.recv().unwrap_or_default()).unwrap();
        let began = Instant::now();
        assert!(!refresh.refresh());
        assert!(began.elapsed() >= PATIENCE);
        // It is still on its way: nobody waits for it again.
        assert!((0..1000).all(|_| !refresh.refresh()));
        // One for each that may be requested by then.
        drop(go);
        while !refresh.refresh() {
            thread::yield_now();
        }
    }

    #[test]
    fn the_kernels_counters_are_brought_up_to_date() {
        let path = Path::new("/proc/sys/vm/stat_refresh");
        // Only root may read it.
        if std::fs::read(path).is_ok() {
            let mut refresh = Refresh::start(path).unwrap();
            let in_time = (0..1000).any(|_| refresh.refresh());
            assert!(in_time);
        }
        assert!(Refresh::start(Path::new("/proc/sys/vm/there-is-no-such-file")).is_none());
    }
}
