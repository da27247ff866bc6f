//! From an error to one line on standard error and an exit code.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use spark_trace_render::escape;

/// How a command ended, as the shell sees it.
///
/// An error is [`Exit::BadInput`] unless it carries another exit as context:
/// `attach().context(Exit::TraceFailed)?`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Fine,
    TraceFailed,
    BadInput,
    /// `EX_USAGE` of sysexits.h.
    Usage,
    /// The command was found and could not be executed: 126, as in a shell.
    NotExecutable,
    /// The command was not found: 127, as in a shell.
    NotFound,
    /// The traced command's own exit code, passed on.
    Child(u8),
    /// The same, where the trace failed after that.
    ChildOfFailedTrace(u8),
}

impl Exit {
    const fn code(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::TraceFailed => 1,
            Self::BadInput => 2,
            Self::Usage => 64,
            Self::NotExecutable => 126,
            Self::NotFound => 127,
            Self::Child(code) | Self::ChildOfFailedTrace(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// What an error line starts with where the exit is the error's context.
impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fine => "fine",
            Self::TraceFailed | Self::ChildOfFailedTrace(_) => "the trace failed",
            Self::BadInput => "bad input",
            Self::Usage => "wrong usage",
            Self::NotExecutable | Self::NotFound => "nothing was traced",
            Self::Child(_) => "the command failed",
        })
    }
}

/// Prints `error` with its causes in one line and says how to exit.
///
/// A reader that closed the pipe early (`| head`) has what it wanted: that is no error. Any other pipe that broke is one.
pub fn report(error: &anyhow::Error) -> Exit {
    if is_broken_pipe(error) && reader_is_gone(io::stdout().as_fd()) {
        return Exit::Fine;
    }
    eprintln!("spark-trace: {}", escape::line(&format!("{error:#}")));
    error.downcast_ref::<Exit>().copied().unwrap_or(Exit::BadInput)
}

/// Prints what clap has to say: help and version are fine, the rest is wrong usage.
pub fn usage(error: &clap::Error) -> ExitCode {
    // Nothing is left to do where even this cannot be printed.
    let _ = error.print();
    if let Some(tip) = tip(error) {
        eprintln!("\n  tip: {tip}");
    }
    if error.use_stderr() { Exit::Usage.into() } else { Exit::Fine.into() }
}

/// What was probably meant, where clap cannot know.
fn tip(error: &clap::Error) -> Option<&'static str> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let (argument, value) = (text(ContextKind::InvalidArg)?, text(ContextKind::InvalidValue)?);
    let is_file = value.ends_with(".json") || value.ends_with(".json.zst") || Path::new(value).is_file();
    (error.kind() == ErrorKind::InvalidValue && argument.contains("SECTION") && is_file)
        .then_some("`show` shows one recording; to compare two: `spark-trace diff A B`")
}

pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// Whether `out` is a pipe or a socket that nobody can read from any more: `POLLERR`, poll(2).
fn reader_is_gone(out: BorrowedFd<'_>) -> bool {
    let mut poll = libc::pollfd { fd: out.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: one element, which lives on this stack; no time is waited.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    ready == 1 && poll.revents & libc::POLLERR != 0
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn an_error_is_bad_input_unless_it_says_otherwise() {
        assert_eq!(report(&anyhow::anyhow!("no such file")), Exit::BadInput);
        let failed: anyhow::Result<()> = Err(anyhow::anyhow!("no hooks")).context(Exit::TraceFailed);
        assert_eq!(report(&failed.unwrap_err()), Exit::TraceFailed);
    }

    #[test]
    fn a_pipe_that_broke_elsewhere_is_an_error() {
        let error = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).context("cannot write");
        assert_eq!(report(&error), Exit::BadInput);
    }

    #[test]
    fn a_reader_is_gone_once_it_has_closed_the_pipe() {
        let (reader, writer) = io::pipe().unwrap();
        assert!(!reader_is_gone(writer.as_fd()));
        drop(reader);
        assert!(reader_is_gone(writer.as_fd()));
        assert!(!reader_is_gone(std::fs::File::open("/dev/null").unwrap().as_fd()));
    }
}
