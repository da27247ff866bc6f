//! What reading and analysing files of strangers may cost. The author of a file chooses how long each list in it is, and no
//! bound on a file says how long an analysis of it takes: so what it takes is measured while it runs.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::Context;

use spark_trace_recording::bounds;

/// Processor time for one file. An answer is there within 5 s then, where nobody else takes the processor.
const TIME: Duration = Duration::from_secs(4);
/// Memory of this process, for one file: at most 512 MiB, and between two looks it may grow.
const MEMORY: u64 = 464 << 20;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// The stack that a program's first thread usually has.
const STACK: usize = 8 << 20;

/// The same for each piece of a journal: it has been read to its end when all that takes long is done. Packed it has ten times the
/// text.
const TIME_OF_JOURNAL: Duration = Duration::from_millis(20);
const TIME_OF_PACKED: Duration = Duration::from_millis(200);
const PIECE_OF_JOURNAL: u64 = 1 << 20;

/// Does `work`, which recovers a recording from the journal `file` at `path`, as [`bounded`] does, in a time that grows with its
/// size.
pub fn bounded_journal<T: Send + 'static>(
    path: &Path,
    file: &File,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let mut magic = [0; bounds::ZSTD_MAGIC.len()];
    let is_packed = file.read_exact_at(&mut magic, 0).is_ok() && magic == bounds::ZSTD_MAGIC;
    let time = if is_packed { TIME_OF_PACKED } else { TIME_OF_JOURNAL };
    let bytes = file.metadata().map_or(0, |found| found.len());
    let pieces = u32::try_from(bytes / PIECE_OF_JOURNAL).unwrap_or(u32::MAX);
    within(&[path], TIME.saturating_add(time.saturating_mul(pieces)), work)
}

/// Does `work`, which reads `files`, or says what it takes too much of. Then it is left where it is, and ends with this
/// process. It must not write anything.
pub fn bounded<T: Send + 'static>(
    files: &[&Path],
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let count = u32::try_from(files.len()).unwrap_or(u32::MAX).max(1);
    within(files, TIME.saturating_mul(count), work)
}

fn within<T: Send + 'static>(
    files: &[&Path],
    time: Duration,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let count = u32::try_from(files.len()).unwrap_or(u32::MAX).max(1);
    let chosen = bounds::chosen();
    let most = Most {
        // Whoever trusts a file so far waits as long as it takes.
        time: chosen.is_none().then_some(time),
        memory: chosen.unwrap_or(MEMORY).saturating_mul(count.into()),
    };
    let (done, result) = mpsc::channel();
    let worker = thread::Builder::new().stack_size(STACK);
    let worker = worker.spawn(move || done.send(work())).context("cannot start a thread")?;
    loop {
        match result.recv_timeout(LOOK) {
            Ok(result) => return result,
            Err(RecvTimeoutError::Timeout) => most.check().map_err(|what| {
                let names: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
                let (names, these) = (names.join(", "), if count == 1 { "the file" } else { "the files" });
                anyhow::anyhow!(
                    "{names}: reading and analysing takes more than {what}; if you trust {these}, set {}=4G",
                    bounds::VARIABLE
                )
            })?,
            Err(RecvTimeoutError::Disconnected) => match worker.join() {
                // A panic is a defect: passed on, not hidden.
                Err(panic) => std::panic::resume_unwind(panic),
                Ok(_) => anyhow::bail!("the result was lost"),
            },
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Most {
    time: Option<Duration>,
    memory: u64,
}

impl Most {
    fn check(self) -> Result<(), String> {
        if let Some(most) = self.time.filter(|most| processor_time().is_some_and(|used| used > *most)) {
            return Err(format!("{} s of processor time", most.as_secs()));
        }
        match bounds::resident() {
            Some(resident) if resident > self.memory => Err(format!("{} MiB of memory", self.memory >> 20)),
            _ => Ok(()),
        }
    }
}

/// What all threads of this process have used since it began (clock_gettime(2)).
fn processor_time() -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a variable that lives.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) } != 0;
    let (seconds, rest) = (u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?);
    (!failed).then(|| Duration::new(seconds, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_to_an_end_is_handed_on() {
        assert_eq!(bounded(&[Path::new("x")], || Ok(3)).unwrap(), 3);
        let failed = bounded(&[Path::new("x")], || anyhow::Result::<()>::Err(anyhow::anyhow!("no")));
        assert_eq!(failed.unwrap_err().to_string(), "no");
    }

    #[test]
    fn too_much_is_reported() {
        let none = Most { time: Some(Duration::ZERO), memory: u64::MAX };
        assert_eq!(none.check(), Err("0 s of processor time".to_owned()));
        let little = Most { time: None, memory: 1 << 20 };
        assert_eq!(little.check(), Err("1 MiB of memory".to_owned()));
        let enough = Most { time: None, memory: u64::MAX };
        assert_eq!(enough.check(), Ok(()));
    }
}
