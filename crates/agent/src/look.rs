//! Looking at a trace under way: the session runs in a thread of its own and hands over what it has read.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{
    now_ns,
    session::{Named, Options, Progress, Session, SessionError, Wishes},
};
use spark_trace_recording as recording;
use spark_trace_recording::{Recording, WriteError, WriteOptions, window};

/// Details are read at most so often: that takes some milliseconds, and names of functions more.
const DETAILS_EVERY: Duration = Duration::from_secs(1);
/// A recording is written without names where they take longer.
const LONGEST_NAMING: Duration = Duration::from_secs(20);
const STEP: Duration = Duration::from_millis(20);

/// What both threads see.
#[derive(Debug, Default)]
struct Shared {
    latest: Mutex<Option<Arc<Recording>>>,
    /// Recordings handed over so far.
    version: AtomicU64,
    wants_details: AtomicBool,
    /// The process whose mappings are wanted; 0 for none.
    wants_pid: AtomicU64,
    /// Names for everything, once.
    wants_names: AtomicBool,
    /// What became of a recording, until it is told.
    told: Mutex<Option<String>>,
    /// Nothing after this is forgotten; 0 while nothing is kept.
    keep_since: AtomicU64,
    wants_end: AtomicBool,
}

/// What was wished for, and when.
#[derive(Debug, Default)]
struct Asked {
    details: Option<Instant>,
    names: bool,
}

/// What a trace shows to whoever watches it.
pub enum Seen<'a> {
    /// A reading has been added; names that were wanted may still be to come.
    Reading { recording: &'a Recording, awaits_names: bool },
    /// The trace has ended, and this is what it leaves.
    End(Box<Recording>),
}

/// A trace that is looked at.
pub struct Look {
    shared: Arc<Shared>,
    session: Option<JoinHandle<Result<(), SessionError>>>,
}

impl Look {
    /// Starts a trace; what it reads comes with [`Self::latest`].
    pub fn start(options: Options) -> Self {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let mut asked = Asked::default();
        let observe = move |seen: Seen<'_>| match seen {
            Seen::Reading { recording, awaits_names } => {
                hand_over(&theirs, recording, awaits_names, &mut asked)
            }
            Seen::End(_) => Wishes::default(),
        };
        Self::begin(options, shared, observe)
    }

    /// Starts a trace that `observe` sees in the trace's own thread, which waits for it; nothing comes with
    /// [`Self::latest`].
    pub fn watch(options: Options, observe: impl FnMut(Seen<'_>) -> Wishes + Send + 'static) -> Self {
        Self::begin(options, Arc::default(), observe)
    }

    fn begin(
        options: Options,
        shared: Arc<Shared>,
        observe: impl FnMut(Seen<'_>) -> Wishes + Send + 'static,
    ) -> Self {
        bound_allocator();
        let theirs = Arc::clone(&shared);
        let session = std::thread::spawn(move || trace(options, &theirs, observe));
        Self { shared, session: Some(session) }
    }

    /// What was handed over last.
    pub fn latest(&self) -> Option<Arc<Recording>> {
        self.shared.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn version(&self) -> u64 {
        self.shared.version.load(Ordering::Acquire)
    }

    /// Wants who took what, and the mappings of one process, from now on; or no longer.
    pub fn want_details(&self, wanted: bool, pid: Option<u32>) {
        self.shared.wants_details.store(wanted, Ordering::Relaxed);
        self.shared.wants_pid.store(pid.map_or(0, u64::from), Ordering::Relaxed);
    }

    /// Keeps everything from now on.
    pub fn begin_recording(&self) -> u64 {
        let now = now_ns();
        self.shared.keep_since.store(now, Ordering::Relaxed);
        now
    }

    /// Writes what was kept since then as a recording of its own, with names; [`Self::told`] has what became of it.
    /// Naming takes as long as it takes, so a thread waits for it.
    pub fn end_recording(&self, since_ns: u64, file: PathBuf, write: WriteOptions) -> JoinHandle<()> {
        let shared = Arc::clone(&self.shared);
        shared.wants_names.store(true, Ordering::Relaxed);
        std::thread::spawn(move || {
            let until = Instant::now() + LONGEST_NAMING;
            let named = || !shared.wants_names.load(Ordering::Acquire);
            while !named() && Instant::now() < until && !shared.wants_end.load(Ordering::Relaxed) {
                std::thread::sleep(STEP);
            }
            shared.keep_since.store(0, Ordering::Relaxed);
            let told = match shared.write(since_ns, &file, write) {
                Ok(()) => format!("wrote {}", file.display()),
                Err(error) => format!("not written: {error}"),
            };
            *shared.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
        })
    }

    /// What became of a recording, once.
    pub fn told(&self) -> Option<String> {
        self.shared.told.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub fn has_ended(&self) -> bool {
        self.session.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends the trace and waits until everything is detached.
    pub fn end(&mut self) -> Result<(), SessionError> {
        self.shared.wants_end.store(true, Ordering::Relaxed);
        match self.session.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            // A defect: passed on, not hidden.
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        }
    }
}

impl Shared {
    fn write(&self, since_ns: u64, file: &Path, write: WriteOptions) -> Result<(), WriteError> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(latest) = latest else { return Ok(()) };
        let mut recording = Recording::clone(&latest);
        window::begin_at(&mut recording, since_ns);
        recording::write(&recording, file, write)
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        // Whoever drops it has seen the error already, or does not want it.
        let _ = self.end();
    }
}

/// Whole recordings are made in one thread and freed in another, twice a second. glibc would give each thread a heap of
/// its own and learn from large pieces that were freed to put the next into it: half as much memory again.
fn bound_allocator() {
    for (parameter, value) in
        [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, 64 << 10), (libc::M_TRIM_THRESHOLD, 256 << 10)]
    {
        // SAFETY: no pointers involved.
        unsafe { libc::mallopt(parameter, value) };
    }
}

fn trace(
    options: Options,
    shared: &Shared,
    mut observe: impl FnMut(Seen<'_>) -> Wishes,
) -> Result<(), SessionError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|cause| SessionError::Io { what: "set up the event loop".to_owned(), cause })?;
    runtime.block_on(async {
        let session = Session::prepare(options)?;
        let outcome = session
            .run(&mut |progress| {
                let Progress { recording, awaits_names, .. } = *progress;
                let wishes = observe(Seen::Reading { recording, awaits_names });
                Wishes { end: wishes.end || shared.wants_end.load(Ordering::Relaxed), ..wishes }
            })
            .await?;
        observe(Seen::End(Box::new(outcome.recording)));
        Ok(())
    })
}

fn hand_over(shared: &Shared, recording: &Recording, awaits_names: bool, asked: &mut Asked) -> Wishes {
    // What was wished for last time is in this one.
    if !awaits_names && std::mem::take(&mut asked.names) {
        shared.wants_names.store(false, Ordering::Release);
    }
    let latest = Arc::new(recording.clone());
    *shared.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(latest);
    shared.version.fetch_add(1, Ordering::Release);
    let all = shared.wants_names.load(Ordering::Relaxed);
    let due = asked.details.is_none_or(|last| last.elapsed() >= DETAILS_EVERY);
    let details = all || due && shared.wants_details.load(Ordering::Relaxed);
    if details {
        asked.details = Some(Instant::now());
        asked.names = all;
    }
    let pid = u32::try_from(shared.wants_pid.load(Ordering::Relaxed)).unwrap_or(0);
    let names = match (details, all, pid) {
        (true, true, _) => Named::All,
        (true, false, pid) if pid != 0 => Named::Process(pid),
        _ => Named::None,
    };
    let kept = shared.keep_since.load(Ordering::Relaxed);
    Wishes { details, names, keep_since: (kept != 0).then_some(kept), end: false }
}
