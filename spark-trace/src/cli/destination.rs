//! Where a command writes what it makes: a file, standard output, or a pipe that the user names.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::BorrowedFd;
use std::path::Path;

use anyhow::Context;

use super::error::Exit;
use super::output;
use crate::invoker;
use crate::place::Place;
use crate::recording::Recording;
use crate::recording::write::{self, WriteError, WriteOptions};
use crate::render::escape;

/// Refuses what cannot be written before anything is read or made.
#[derive(Debug)]
pub struct Destination<'a> {
    name: &'a Path,
    way: Way,
    options: WriteOptions,
}

#[derive(Debug)]
enum Way {
    Output,
    /// One of this process's own descriptors.
    Open(File),
    /// Opened when there is something to write: opening waits for a reader.
    Fifo(Place),
    File(Place),
}

impl<'a> Destination<'a> {
    /// `-`, and no name, is standard output.
    pub fn new(name: Option<&'a Path>, force: bool) -> Result<Self, WriteError> {
        let name = name.unwrap_or(Path::new("-"));
        // Under sudo what is written belongs to the user.
        let options = WriteOptions { force, owner: invoker::owner() };
        Ok(Self { name, way: Way::of(name, options)?, options })
    }

    pub fn is_terminal(&self) -> bool {
        match &self.way {
            Way::Output => io::stdout().is_terminal(),
            Way::Open(file) => file.is_terminal(),
            Way::Fifo(_) | Way::File(_) => false,
        }
    }

    /// Writes, and says where.
    pub fn write(&self, bytes: &[u8], next: &str) -> anyhow::Result<Exit> {
        match &self.way {
            Way::Output => return output::print(bytes),
            Way::File(place) => write::write_bytes_at(bytes, place, self.options)?,
            Way::Open(_) | Way::Fifo(_) => self.stream(|mut file| file.write_all(bytes))?,
        }
        self.tell("wrote", next);
        Ok(Exit::Fine)
    }

    pub fn write_recording(&self, recording: &Recording) -> anyhow::Result<()> {
        match &self.way {
            Way::File(place) => write::write_at(recording, place, self.options)?,
            Way::Output => {
                let stdout = io::BufWriter::new(io::stdout().lock());
                write::write_text(recording, stdout).context("cannot write to standard output")?;
            }
            Way::Open(_) | Way::Fifo(_) => {
                self.stream(|file| write::write_text(recording, io::BufWriter::new(file)))?;
            }
        }
        Ok(())
    }

    fn stream(&self, fill: impl FnOnce(&File) -> io::Result<()>) -> anyhow::Result<()> {
        let written = match &self.way {
            Way::Open(file) => fill(file),
            Way::Fifo(place) => place.open(libc::O_WRONLY).and_then(|file| fill(&file)),
            Way::Output | Way::File(_) => Ok(()),
        };
        written.with_context(|| format!("{}: cannot be written", self.name.display()))
    }

    /// Says what was written and what can be done with it; nothing of a stream. `FILE` in `next` stands for the name.
    pub fn tell(&self, done: &str, next: &str) {
        let Way::File(place) = &self.way else { return };
        let name = place.path().display().to_string();
        let next = next.replace("FILE", &output::quoted(&name));
        let separator = if next.is_empty() { "" } else { "; " };
        eprintln!("spark-trace: {}", escape::line(&format!("{done} {name}{separator}{next}")));
    }
}

impl Way {
    fn of(name: &Path, options: WriteOptions) -> Result<Self, WriteError> {
        if name == Path::new("-") || name == Path::new("/dev/stdout") {
            return Ok(Self::Output);
        }
        if let Some(number) = own_descriptor(name) {
            // SAFETY: whether it is open is checked by duplicating it, which is all that is done with it.
            let open = unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned();
            let failed = |source| WriteError::Io { path: name.into(), doing: "open", source };
            return open.map(File::from).map(Self::Open).map_err(failed);
        }
        let place = Place::new(name)?;
        if place.is_fifo() {
            return Ok(Self::Fifo(place));
        }
        place.refuse_existing(options)?;
        Ok(Self::File(place))
    }
}

/// The number of one of this process's descriptors, as shells name them: `>(...)` is `/dev/fd/63`.
fn own_descriptor(name: &Path) -> Option<i32> {
    if name == Path::new("/dev/stderr") {
        return Some(libc::STDERR_FILENO);
    }
    let number = ["/dev/fd", "/proc/self/fd"].iter().find_map(|folder| name.strip_prefix(folder).ok())?;
    let digits = OsStr::to_str(number.as_os_str())?;
    digits.parse().ok().filter(|number| *number >= 0)
}
