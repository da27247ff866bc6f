//! What the user reads where spark-trace itself breaks: that the journal is still there, and what to do with it.

use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cli::output::quoted;
use spark_trace_render::escape;

/// Made before anything can break: a handler of signals may not allocate.
static LINE: OnceLock<String> = OnceLock::new();
static IS_NEEDED: AtomicBool = AtomicBool::new(false);

/// How to go on with a journal.
pub fn how_to_recover(journal: &Path) -> String {
    let name = journal.display().to_string();
    format!(
        "the journal is kept in {}; run `spark-trace recover {}`",
        escape::line(&name),
        escape::line(&quoted(&name))
    )
}

/// From now on a panic or an abort of this process ends with that line.
pub fn arm(journal: &Path) {
    if LINE.set(format!("spark-trace: {}\n", how_to_recover(journal))).is_err() {
        return;
    }
    IS_NEEDED.store(true, Ordering::Relaxed);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        print();
    }));
    let handler: extern "C" fn(libc::c_int) = aborted;
    // SAFETY: the handler makes async-signal-safe calls only (signal-safety(7)). What is executed later does not inherit
    // it (execve(2)).
    unsafe { libc::signal(libc::SIGABRT, handler as libc::sighandler_t) };
}

/// The journal is gone, or its name has been printed.
pub fn disarm() {
    IS_NEEDED.store(false, Ordering::Relaxed);
}

/// A failed allocation ends so (`handle_alloc_error`), and a panic in a place that may not unwind.
extern "C" fn aborted(_signal: libc::c_int) {
    print();
    // SAFETY: both are async-signal-safe and take no pointers. The signal is blocked until this returns, and then ends
    // the process, as it would have.
    unsafe {
        libc::signal(libc::SIGABRT, libc::SIG_DFL);
        libc::raise(libc::SIGABRT);
    }
}

fn print() {
    if IS_NEEDED.swap(false, Ordering::Relaxed)
        && let Some(line) = LINE.get()
    {
        // SAFETY: the pointer is to so many bytes. A failure cannot be reported.
        unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
    }
}
