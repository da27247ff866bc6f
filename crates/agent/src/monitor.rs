//! Watching a trace under way: the session runs in a thread of its own, and what it has read is looked at there. Nothing
//! of the recording is copied for that.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};

use tokio::sync::mpsc::UnboundedSender;

use super::session::{Options, Progress, Session, SessionError, View, Wishes};
use spark_trace_recording::Recording;

/// What a trace shows to whoever watches it.
pub enum Update<'a> {
    /// A reading has been added; names that were wanted may still be to come.
    Reading { recording: &'a Recording, awaits_names: bool },
    /// The trace has ended, and this is what it leaves.
    End(Box<Recording>),
}

/// A trace that is looked at.
pub struct Monitor {
    views: UnboundedSender<View>,
    wants_end: Arc<AtomicBool>,
    session: Option<JoinHandle<Result<(), SessionError>>>,
}

impl Monitor {
    /// Starts a trace that `observe` sees at every reading, in the trace's own thread, which waits for it.
    pub fn watch(options: Options, mut observe: impl FnMut(Update<'_>) -> Wishes + Send + 'static) -> Self {
        keep_no_more_than_usual();
        let (views, wanted) = tokio::sync::mpsc::unbounded_channel();
        let wants_end = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&wants_end);
        let session = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime
                .map_err(|cause| SessionError::Io { what: "set up the event loop".to_owned(), cause })?;
            runtime.block_on(async {
                let mut session = Session::prepare(options)?;
                session.show(wanted);
                let outcome = session
                    .run(&mut |progress| {
                        let Progress { recording, awaits_names, .. } = *progress;
                        let wishes = observe(Update::Reading { recording, awaits_names });
                        Wishes { end: wishes.end || ends.load(Ordering::Relaxed), ..wishes }
                    })
                    .await?;
                observe(Update::End(Box::new(outcome.recording)));
                Ok(())
            })
        });
        Self { views, wants_end, session: Some(session) }
    }

    /// Looks at the recording as it is now, between two readings: `view` runs in the trace's own thread, and this waits
    /// for what it makes. Nothing once the trace has ended.
    pub fn view<T: Send + 'static>(&self, view: impl FnOnce(&Recording) -> T + Send + 'static) -> Option<T> {
        let (made, comes) = mpsc::sync_channel(1);
        let view = move |recording: &Recording| {
            // It has room for the one; who wanted it may have ended.
            let _ = made.try_send(view(recording));
        };
        self.views.send(Box::new(view)).ok()?;
        comes.recv().ok()
    }

    pub fn has_ended(&self) -> bool {
        self.session.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends the trace and waits until everything is detached.
    pub fn end(&mut self) -> Result<(), SessionError> {
        self.wants_end.store(true, Ordering::Relaxed);
        match self.session.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            // A defect: passed on, not hidden.
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        }
    }
}

/// Loading frees pieces of many megabytes. By default glibc takes the largest of them for usual from then on, and keeps
/// as much of what is freed later (mallopt(3), `M_MMAP_THRESHOLD`): a sixth more memory for as long as somebody looks.
fn keep_no_more_than_usual() {
    /// glibc's own default.
    const THRESHOLD: libc::c_int = 128 << 10;
    // SAFETY: no pointers involved.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, THRESHOLD) };
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // Whoever drops it has seen the error already, or does not want it.
        let _ = self.end();
    }
}
