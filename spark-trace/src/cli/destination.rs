//! Where a command writes what it makes: a file, standard output, or a pipe that the user names.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use anyhow::Context;

use super::error::Exit;
use super::output;
use spark_trace_host::invoker;
use spark_trace_host::output_file::Place;
use spark_trace_recording::Recording;
use spark_trace_recording::write::{self, WriteError, WriteOptions};
use spark_trace_render::escape;

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

    /// Standard output or a pipe, if that is what has this name.
    pub fn stream(name: &'a Path) -> Result<Option<Self>, WriteError> {
        let options = WriteOptions { force: false, owner: invoker::owner() };
        match Way::stream(name, options)? {
            Some(Way::Open(file)) => {
                // The command is no holder of it: whoever reads is not to wait for what the command leaves behind.
                close_on_exec(name);
                Ok(Some(Self { name, way: Way::Open(file), options }))
            }
            way => Ok(way.map(|way| Self { name, way, options })),
        }
    }

    /// Whether `other` leads to the same pipe, file or socket. Of devices it does not matter: nobody reads what is written
    /// to two of them as one.
    pub fn is_also(&self, other: &impl AsFd) -> bool {
        let of = |fd: BorrowedFd<'_>| File::from(fd.try_clone_to_owned().ok()?).metadata().ok();
        let own = match &self.way {
            Way::Output => of(io::stdout().as_fd()),
            Way::Open(file) => file.metadata().ok(),
            Way::Fifo(place) => place.path().metadata().ok(),
            Way::File(_) => None,
        };
        let (Some(own), Some(other)) = (own, of(other.as_fd())) else { return false };
        !own.file_type().is_char_device() && (own.dev(), own.ino()) == (other.dev(), other.ino())
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
            Way::Open(_) | Way::Fifo(_) => self.fill(|mut file| file.write_all(bytes))?,
        }
        self.announce("wrote", next);
        Ok(Exit::Fine)
    }

    /// The same for what is made as it is written.
    pub fn write_with(
        &self,
        content: &dyn Fn(&mut dyn Write) -> io::Result<()>,
        next: &str,
    ) -> anyhow::Result<Exit> {
        match &self.way {
            Way::Output => return output::print_with(content),
            Way::File(place) => write::write_with(content, place, self.options)?,
            Way::Open(_) | Way::Fifo(_) => self.fill(|file| write::buffered(file, content))?,
        }
        self.announce("wrote", next);
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
                self.fill(|file| write::write_text(recording, io::BufWriter::new(file)))?;
            }
        }
        Ok(())
    }

    fn fill(&self, fill: impl FnOnce(&File) -> io::Result<()>) -> anyhow::Result<()> {
        let written = match &self.way {
            Way::Open(file) => fill(file),
            Way::Fifo(place) => place.open_fifo(self.options).and_then(|file| fill(&file)),
            Way::Output | Way::File(_) => Ok(()),
        };
        written.with_context(|| format!("{}: cannot be written", self.name.display()))
    }

    /// Says what was written and what can be done with it; nothing of a stream. `FILE` in `next` stands for the name.
    pub fn announce(&self, done: &str, next: &str) {
        let Way::File(place) = &self.way else { return };
        let name = place.path().display().to_string();
        let next = next.replace("FILE", &output::quoted(&name));
        let separator = if next.is_empty() { "" } else { "; " };
        eprintln!("spark-trace: {}", escape::line(&format!("{done} {name}{separator}{next}")));
    }
}

impl Way {
    fn of(name: &Path, options: WriteOptions) -> Result<Self, WriteError> {
        if let Some(stream) = Self::stream(name, options)? {
            return Ok(stream);
        }
        let place = Place::new(name)?;
        place.refuse_existing(options)?;
        Ok(Self::File(place))
    }

    fn stream(name: &Path, options: WriteOptions) -> Result<Option<Self>, WriteError> {
        if name == Path::new("-") || name == Path::new("/dev/stdout") {
            return Ok(Some(Self::Output));
        }
        if let Some(number) = own_descriptor(name) {
            // SAFETY: whether it is open is checked by duplicating it, which is all that is done with it.
            let open = unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned();
            let failed = |source| WriteError::Io { path: name.into(), doing: "open", source };
            return open.map(|open| Some(Self::Open(File::from(open)))).map_err(failed);
        }
        let place = Place::new(name)?;
        Ok(if place.is_fifo(options)? { Some(Self::Fifo(place)) } else { None })
    }
}

/// Keeps a descriptor from the programs that this process starts; the standard ones are theirs as well.
fn close_on_exec(name: &Path) {
    if let Some(number) = own_descriptor(name).filter(|number| *number > libc::STDERR_FILENO) {
        // SAFETY: no pointers involved; it was open a moment ago.
        unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
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
