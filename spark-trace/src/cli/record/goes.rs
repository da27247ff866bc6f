//! Where a recording goes: into a file, whose name its journal takes before anything runs, or into a stream.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{keep, name, rescue};
use crate::cli::destination::Destination;
use crate::cli::error::{Exit, is_broken_pipe};
use spark_trace_agent::{output::StandardOutput, session::Keep, subject::Spec};
use spark_trace_recording::{Recording, WriteOptions, claim::Claim};
use spark_trace_render::escape;

pub enum Goes<'a> {
    File(PathBuf, Box<Claim>),
    /// Has no journal: nothing of it outlives this process.
    Stream(Destination<'a>),
}

impl<'a> Goes<'a> {
    pub fn new(wanted: Option<&'a Path>, spec: &Spec, write: WriteOptions) -> anyhow::Result<Self> {
        if let Some(wanted) = wanted
            && let Some(stream) = Destination::stream(wanted)?
        {
            refuse_mixed(&stream, wanted).context(Exit::Usage)?;
            return Ok(Self::Stream(stream));
        }
        let (path, claim) = name::claim(wanted, spec, write)?;
        if let Some(moved) = &claim.moved {
            let message = format!("the journal of an earlier recording is now {}", moved.display());
            eprintln!("spark-trace: {}", escape::line(&message));
        }
        Ok(Self::File(path, Box::new(claim)))
    }

    pub fn keep(&self) -> Keep {
        Keep::All(match self {
            Self::File(_, claim) => Some((**claim).clone()),
            Self::Stream(_) => None,
        })
    }

    /// Where what the command writes to standard output goes: not between the parts of the recording.
    pub fn of_command(&self) -> StandardOutput {
        match self {
            Self::Stream(stream) if stream.is_also(&std::io::stdout()) => StandardOutput::Error,
            Self::Stream(_) | Self::File(..) => StandardOutput::Own,
        }
    }

    /// From now on a break of this process says where the journal is.
    pub fn arm(&self) {
        if let Self::File(_, claim) = self {
            rescue::arm(&claim.journal);
        }
    }

    /// The journal of a trace that never started has nothing worth recovering.
    pub fn remove_empty(&self) {
        match self {
            Self::File(_, claim) if claim.is_empty() => claim.remove(),
            Self::File(..) | Self::Stream(_) => {}
        }
    }

    /// Why the trace failed, and where what was read until then is: it is worth as much as what a killed spark-trace leaves.
    pub fn failed(&self, error: anyhow::Error) -> anyhow::Error {
        self.remove_empty();
        match self {
            Self::File(_, claim) if claim.is_there() => error.context(rescue::how_to_recover(&claim.journal)),
            Self::File(..) | Self::Stream(_) => error,
        }
    }

    /// Writes the recording; where it is, if that is a file.
    pub fn write(
        &self,
        recording: &Recording,
        journal_is_cut: bool,
        write: WriteOptions,
    ) -> anyhow::Result<Option<PathBuf>> {
        let (path, claim) = match self {
            Self::File(path, claim) => (path, claim),
            Self::Stream(stream) => {
                // Whoever reads may never come, or never go on: it must be possible to stop waiting.
                become_interruptible();
                return match stream.write_recording(recording) {
                    // It has what it wanted, as `head` has.
                    Err(error) if is_broken_pipe(&error) => Ok(None),
                    written => written.map(|()| None).context("the recording is lost"),
                };
            }
        };
        let written = keep::what_fits(recording, (path, claim), journal_is_cut, write);
        let written = written.map_err(|error| {
            let error = anyhow::Error::new(error);
            // It is empty where it has made room.
            if claim.has_content() {
                error.context(rescue::how_to_recover(&claim.journal))
            } else {
                claim.remove();
                error.context("the recording is lost")
            }
        })?;
        // Only now: until here it was the only copy.
        claim.remove();
        if written != *path {
            let (packed, wanted) = (written.display(), path.display());
            eprintln!("spark-trace: WARNING: no room for {wanted}: the recording is compressed, in {packed}");
        }
        Ok(Some(written))
    }
}

/// From now on the signals that ended the trace end this process.
fn become_interruptible() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: no pointers involved.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Messages go to standard error: nobody could read a recording with messages in it.
fn refuse_mixed(stream: &Destination<'_>, name: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(
        !stream.is_terminal(),
        "{}: a recording is not for a terminal; name a file, or pipe it",
        name.display()
    );
    anyhow::ensure!(
        !stream.is_also(&std::io::stderr()),
        "{}: messages go there, too, as it is standard error; send those elsewhere, as with 2>FILE",
        name.display()
    );
    Ok(())
}
