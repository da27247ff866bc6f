//! One stream: from the command's pipe to where it would have gone.

use std::{
    fs::File,
    io::{self, PipeReader, Read, Write},
    os::fd::{AsFd, AsRawFd},
    sync::Arc,
};

use tokio::sync::mpsc as counted;

use super::{lines::Lines, screen::Screen, sieve::Sieve};
use crate::now_ns;

/// As much as a pipe holds.
const PIECE: usize = 64 << 10;

pub(super) struct Pump {
    pub(super) sieve: Sieve,
    pub(super) reader: PipeReader,
    /// Hung up once the command has ended.
    pub(super) stop: PipeReader,
    /// Absent where nobody reads along.
    pub(super) to: Option<File>,
    pub(super) screen: Arc<Screen>,
    pub(super) copy: Option<File>,
    /// Dropped at the end, which is the news.
    pub(super) alive: counted::Sender<()>,
}

impl Pump {
    pub(super) fn run(mut self) {
        if let Err(error) = self.pass_on() {
            // Nobody reads any more: the command learns of it, as it would, when the pipe closes with this thread.
            if error.kind() != io::ErrorKind::BrokenPipe {
                self.sieve
                    .shared
                    .warn(format!("the command's {} was not passed on: {error}", self.sieve.stream));
            }
        }
        drop(self.alive);
    }

    fn pass_on(&mut self) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        let mut lines = Lines::default();
        while self.has_more()? {
            let length = match self.reader.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let read_ns = now_ns();
            let piece = piece.get(..length).unwrap_or_default();
            // Looked through first: where the reader is stuck, the recording has the lines all the same.
            lines.feed(piece, |line| self.sieve.keep(line, read_ns));
            self.write_copy(piece);
            if let Some(to) = &mut self.to {
                self.screen.write(to, piece)?;
            }
        }
        let ended_ns = now_ns();
        lines.end(|line| self.sieve.keep(line, ended_ns));
        Ok(())
    }

    /// Waits for something to read. False where there is nothing and the command has ended.
    fn has_more(&self) -> io::Result<bool> {
        let watched =
            |fd: &PipeReader| libc::pollfd { fd: fd.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let mut watched = [watched(&self.reader), watched(&self.stop)];
        loop {
            // SAFETY: the pointer is to so many elements, and both descriptors are open.
            let ready = unsafe { libc::poll(watched.as_mut_ptr(), watched.len() as libc::nfds_t, -1) };
            if ready >= 0 {
                return Ok(watched[0].revents != 0);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// A copy that cannot be written is given up; the output itself goes on.
    fn write_copy(&mut self, piece: &[u8]) {
        if let Some(copy) = &mut self.copy
            && let Err(error) = copy.write_all(piece)
        {
            self.sieve.shared.warn(format!("the copy of the command's output is incomplete: {error}"));
            self.copy = None;
        }
    }
}
