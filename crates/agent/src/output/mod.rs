//! What the traced command writes: read through pipes, passed on as it comes, and looked through for lines that are known.
//!
//! A thread for each stream reads and writes, so that a slow reader of ours holds up the command, as it would with a pipe
//! of its own, and nobody else.

pub mod container;
mod dated;
mod lines;
mod pump;
pub mod screen;
mod sieve;

use std::{
    fs::File,
    io::{self, PipeReader, PipeWriter},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use thiserror::Error;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc as counted,
};

use pump::Pump;
use screen::Screen;
use sieve::Sieve;
use spark_trace_host::output_file::Place;
use spark_trace_recording::{LogLine, WriteOptions};

/// Lines that are kept, and bytes of them.
const MOST_LINES: u64 = 10_000;
const MOST_BYTES: u64 = 4 << 20;
/// How long what is left at the end is waited for before the recording goes on without it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where what the command writes to standard output goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StandardOutput {
    #[default]
    Own,
    /// To standard error: this process's standard output is for the recording.
    Error,
    /// Nowhere, and neither does what it writes to standard error: the terminal is drawn on.
    Nowhere,
}

/// What the user requested.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where all of it is written, too.
    pub file: Option<PathBuf>,
    /// How that file is written.
    pub write: WriteOptions,
    /// The terminal, where progress is shown on it.
    pub screen: Arc<Screen>,
}

#[derive(Debug, Error)]
pub enum OutputError {
    #[error("cannot create {}: {cause}", path.display())]
    Copy { path: PathBuf, cause: io::Error },
    #[error("cannot make pipes for the command's output: {0}")]
    Pipe(#[from] io::Error),
}

/// Where the command is to write.
#[derive(Debug)]
pub struct Ends {
    pub stdout: PipeWriter,
    pub stderr: PipeWriter,
    /// Whether it reads what this process would: keys that a view takes are not for it.
    pub has_input: bool,
}

/// The output of a command, from before it starts.
#[derive(Debug)]
pub struct Output {
    readers: Option<[PipeReader; 2]>,
    copy: Option<Copy>,
    standard_output: StandardOutput,
    screen: Arc<Screen>,
    shared: Arc<Shared>,
    lines: mpsc::Receiver<LogLine>,
    sender: mpsc::SyncSender<LogLine>,
    /// Hung up to say that nothing more is to be waited for.
    running: Option<PipeWriter>,
    /// Closed when all threads have ended.
    ended: Option<counted::Receiver<()>>,
}

/// What both threads and the session know.
#[derive(Debug, Default)]
pub(super) struct Shared {
    kept: AtomicU64,
    kept_bytes: AtomicU64,
    lost: AtomicU64,
    /// What went wrong, once each.
    warnings: Mutex<Vec<String>>,
}

impl Shared {
    /// Whether there is room for one line more, of so many bytes.
    fn has_room(&self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        let before = self.kept_bytes.fetch_add(bytes, Ordering::Relaxed);
        let room = before.saturating_add(bytes) <= MOST_BYTES
            && self.kept.fetch_add(1, Ordering::Relaxed) < MOST_LINES;
        if !room {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        room
    }

    fn warn(&self, warning: String) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A file that has all of it.
#[derive(Debug)]
struct Copy {
    place: Place,
    file: File,
}

impl Output {
    /// Makes the pipes and the file; the command gets the other ends.
    pub fn new(options: &Options, standard_output: StandardOutput) -> Result<(Self, Ends), OutputError> {
        // Before the first line: times are those at which lines come.
        spark_trace_engines::prepare();
        let copy = options.file.as_ref().map(|path| Copy::create(path, options)).transpose()?;
        let (stdout_reader, stdout) = io::pipe()?;
        let (stderr_reader, stderr) = io::pipe()?;
        // Bounded, though never full: lines that there is no room for are not sent.
        let (sender, lines) = mpsc::sync_channel(MOST_LINES as usize);
        let output = Self {
            readers: Some([stdout_reader, stderr_reader]),
            copy,
            standard_output,
            screen: Arc::clone(&options.screen),
            shared: Arc::default(),
            lines,
            sender,
            running: None,
            ended: None,
        };
        Ok((output, Ends { stdout, stderr, has_input: standard_output != StandardOutput::Nowhere }))
    }

    /// Begins to pass on; the command has been started.
    pub fn begin(&mut self) -> io::Result<()> {
        let Some([stdout, stderr]) = self.readers.take() else { return Ok(()) };
        let (stop, running) = io::pipe()?;
        let (alive, ended) = counted::channel(1);
        let (own, error) = (io::stdout(), io::stderr());
        let (first, second) = match self.standard_output {
            StandardOutput::Own => (Some(own.as_fd()), Some(error.as_fd())),
            StandardOutput::Error => (Some(error.as_fd()), Some(error.as_fd())),
            StandardOutput::Nowhere => (None, None),
        };
        for (stream, reader, to) in [("stdout", stdout, first), ("stderr", stderr, second)] {
            let pump = Pump {
                sieve: Sieve { stream, lines: self.sender.clone(), shared: Arc::clone(&self.shared) },
                reader,
                stop: stop.try_clone()?,
                to: to.map(|to| to.try_clone_to_owned()).transpose()?.map(File::from),
                screen: Arc::clone(&self.screen),
                copy: self.copy.as_ref().map(|copy| copy.file.try_clone()).transpose()?,
                alive: alive.clone(),
            };
            std::thread::Builder::new().name(format!("spark-trace-{stream}")).spawn(move || pump.run())?;
        }
        (self.running, self.ended) = (Some(running), Some(ended));
        Ok(())
    }

    /// Takes back what was made for a command that did not start.
    pub fn abandon(self) {
        if let Some(copy) = self.copy {
            // It is as empty as it was made.
            let _ = copy.place.remove();
        }
    }

    /// Known lines that have come since it was last read.
    pub fn take(&self) -> Vec<LogLine> {
        self.lines.try_iter().collect()
    }

    /// Known lines that there was no room for.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Whether any known line has come.
    pub fn has_kept(&self) -> bool {
        self.shared.kept.load(Ordering::Relaxed) > 0
    }

    pub fn warnings(&self) -> Vec<String> {
        self.shared.warnings()
    }

    /// The command has ended: what it has written by now is still read, what others of its pipe's holders write is not.
    /// Says whether all of it was passed on within a short time.
    pub async fn stop(&mut self) -> bool {
        self.running = None;
        tokio::time::timeout(PATIENCE, self.ended()).await.is_ok()
    }

    /// Waits until everything is passed on, or the user has enough of waiting.
    pub async fn delivered(mut self) -> io::Result<()> {
        self.running = None;
        let mut interrupts = signal(SignalKind::interrupt())?;
        let mut terminations = signal(SignalKind::terminate())?;
        tokio::select! {
            () = self.ended() => {}
            _ = interrupts.recv() => {}
            _ = terminations.recv() => {}
        }
        Ok(())
    }

    async fn ended(&mut self) {
        if let Some(ended) = &mut self.ended {
            // Nothing is ever sent: it returns when the last sender is gone.
            let _ = ended.recv().await;
        }
    }
}

impl Copy {
    fn create(path: &Path, options: &Options) -> Result<Self, OutputError> {
        let failed = |cause| OutputError::Copy { path: path.into(), cause };
        let place = Place::new(path).map_err(|error| failed(io::Error::other(error)))?;
        place.refuse_existing(options.write).map_err(|error| failed(io::Error::other(error)))?;
        if options.write.force {
            match place.remove() {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        // Appending, for two threads write; private, like the recording.
        let file = place.create_new(libc::O_APPEND, options.write).map_err(failed)?;
        Ok(Self { place, file })
    }
}
