//! The journal's file. A disk that is busy keeps writers waiting, for seconds where much is to be written back
//! (mm/page-writeback.c balance_dirty_pages): so a thread of its own packs and writes, and readings do not wait for it.

use std::{
    fs::File,
    io::{self, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use spark_trace_recording::journal::Packer;

/// Bytes that wait for the disk. With more the journal ends, and the recording goes on in memory.
const MOST_WAITING: usize = 64 << 20;

/// Room that is kept for what waits next.
const KEPT: usize = 1 << 20;

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// The thread has taken bytes that are not written yet.
    is_writing: bool,
    /// Nothing more comes.
    is_closed: bool,
    error: Option<io::Error>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panicked has left whole bytes behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, mut out: impl Write) {
        let mut bytes = Vec::new();
        loop {
            let mut state = self.lock();
            state.is_writing = false;
            self.changed.notify_all();
            while state.waiting.is_empty() {
                if state.is_closed {
                    return;
                }
                state = self.wait(state);
            }
            bytes.clear();
            bytes.shrink_to(KEPT);
            mem::swap(&mut bytes, &mut state.waiting);
            state.is_writing = true;
            drop(state);
            if let Err(error) = out.write_all(&bytes).and_then(|()| out.flush()) {
                let mut state = self.lock();
                (state.error, state.is_writing) = (Some(error), false);
                state.waiting = Vec::new();
                self.changed.notify_all();
                return;
            }
        }
    }
}

/// Takes bytes at once; errors of the disk come with a later call. Dropping it waits for what was taken.
pub struct JournalFile {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    most: usize,
}

impl JournalFile {
    pub fn new(file: File) -> io::Result<Self> {
        Self::within(Packer::new(file)?, MOST_WAITING)
    }

    fn within(out: impl Write + Send + 'static, most: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new().name("journal".to_owned()).spawn(move || theirs.write(out))?;
        Ok(Self { shared, thread: Some(thread), most })
    }

    /// Waits at the end of a trace.
    pub fn end(&self) -> End {
        End(Arc::clone(&self.shared))
    }
}

impl Write for JournalFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.shared.lock();
        if let Some(error) = &state.error {
            return Err(copy(error));
        }
        if state.waiting.len() + bytes.len() > self.most {
            let behind = state.waiting.len() >> 20;
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the disk is too slow: {behind} MiB wait for it"),
            ));
        }
        state.waiting.extend_from_slice(bytes);
        drop(state);
        self.shared.changed.notify_all();
        Ok(bytes.len())
    }

    /// What was taken is on its way: this waits for nothing.
    fn flush(&mut self) -> io::Result<()> {
        self.shared.lock().error.as_ref().map_or(Ok(()), |error| Err(copy(error)))
    }
}

impl Drop for JournalFile {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // Its errors are in the state.
            let _ = thread.join();
        }
    }
}

/// The end of what was written so far.
pub struct End(Arc<Shared>);

impl End {
    /// Waits until all that was taken is with the kernel, or cannot be.
    pub fn wait(&self) {
        let mut state = self.0.lock();
        while state.error.is_none() && (state.is_writing || !state.waiting.is_empty()) {
            state = self.0.wait(state);
        }
    }
}

/// An error to report once more.
fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A disk that takes a write when it is allowed to.
    struct Slow {
        allowed: Receiver<io::Result<()>>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.allowed.recv().unwrap()?;
            self.written.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow(most: usize) -> (JournalFile, Sender<io::Result<()>>, Receiver<Vec<u8>>) {
        let (allow, allowed) = channel();
        let (written, seen) = channel();
        (JournalFile::within(Slow { allowed, written }, most).unwrap(), allow, seen)
    }

    #[test]
    fn writing_waits_for_no_disk_and_loses_nothing() {
        let (mut file, allow, seen) = slow(1 << 20);
        let end = file.end();
        for number in 0..100 {
            // The disk takes nothing yet: this would never return if it waited.
            writeln!(file, "{number}").unwrap();
            file.flush().unwrap();
        }
        (0..100).for_each(|_| allow.send(Ok(())).unwrap());
        end.wait();
        drop(file);
        let written: Vec<u8> = seen.iter().flatten().collect();
        let expected: String = (0..100).map(|number| format!("{number}\n")).collect();
        assert_eq!(String::from_utf8(written).unwrap(), expected);
    }

    #[test]
    fn what_waits_for_a_disk_that_stands_still_has_a_bound() {
        let (mut file, allow, seen) = slow(1000);
        let refused = (0..1000).find_map(|_| file.write_all(&[b'x'; 100]).err()).unwrap();
        assert!(refused.to_string().contains("the disk is too slow"), "{refused}");
        assert!(file.shared.lock().waiting.len() <= 1000);
        (0..2).for_each(|_| allow.send(Ok(())).unwrap());
        drop(file);
        let written = seen.iter().map(|bytes| bytes.len()).sum::<usize>();
        // What the thread had taken already, and what waited.
        assert!((1000..=2000).contains(&written), "{written}");
    }

    #[test]
    fn an_error_of_the_disk_comes_with_a_later_call() {
        let (mut file, allow, _seen) = slow(1000);
        file.write_all(b"one").unwrap();
        allow.send(Err(io::Error::from_raw_os_error(libc::ENOSPC))).unwrap();
        file.end().wait();
        for _ in 0..2 {
            assert_eq!(file.write_all(b"two").unwrap_err().raw_os_error(), Some(libc::ENOSPC));
            assert_eq!(file.flush().unwrap_err().kind(), io::ErrorKind::StorageFull);
        }
    }
}
