//! How much a recording may take: whoever wrote it chose how large it is, and what it becomes in memory.
//!
//! The text is read as it is parsed, and never lies in memory as a whole. After each piece of it the kernel says how much
//! this process has resident by now: so nothing has to be guessed of what a structure costs.

use std::cell::Cell;
use std::fs;
use std::io::{self, Read};
use std::rc::Rc;

use crate::parse;

/// What reading one recording may add to this process. Recordings of days are smaller.
const MEMORY: u64 = 400 << 20;
/// Text that one recording may have.
const TEXT: u64 = 512 << 20;
/// A compressed file may have this many times its size in text, which no recording comes near, or `SMALL_TEXT` if that is
/// more: a small file of nothing must not cost the time of a large one.
pub const MAX_RATIO: u64 = 200;
pub const SMALL_TEXT: u64 = 64 << 20;
/// First bytes of a zstd frame.
pub const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Whoever has a larger one sets both.
pub const VARIABLE: &str = "SPARK_TRACE_READ_LIMIT";
/// Text between two looks at the memory.
const PIECE: u64 = 256 << 10;

/// What the user has set both to.
pub fn chosen() -> Option<u64> {
    std::env::var(VARIABLE).ok().and_then(|text| parse::size(&text).ok())
}

/// Why reading was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Text(u64),
    Dense,
    Memory(u64),
}

#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    text: u64,
    memory: u64,
    dense: bool,
    /// Resident before anything was read.
    before: Option<u64>,
}

impl Bounds {
    /// For one of `recordings` that are read at the same time.
    pub fn new(recordings: u64) -> Self {
        let chosen = chosen();
        let memory = chosen.unwrap_or(MEMORY).saturating_mul(recordings);
        Self { text: chosen.unwrap_or(TEXT), memory, dense: false, before: resident() }
    }

    /// The same for text that is packed into so many bytes.
    #[must_use]
    pub fn packed(mut self, packed: u64) -> Self {
        let most = packed.saturating_mul(MAX_RATIO).max(SMALL_TEXT);
        if most < self.text {
            (self.text, self.dense) = (most, true);
        }
        self
    }

    /// Reads no further than this. `taken`: packed bytes so far, where it is not known how many there are.
    pub fn bound<R: Read>(self, inner: R, taken: Option<Taken>) -> (Bounded<R>, Rc<Cell<Option<Refusal>>>) {
        let refusal = Rc::new(Cell::new(None));
        (Bounded { inner, bounds: self, taken, read: 0, looked: 0, refusal: Rc::clone(&refusal) }, refusal)
    }
}

/// Bytes that were read of a stream.
pub type Taken = Rc<Cell<u64>>;

pub struct Bounded<R> {
    inner: R,
    bounds: Bounds,
    taken: Option<Taken>,
    read: u64,
    looked: u64,
    refusal: Rc<Cell<Option<Refusal>>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.read += read as u64;
        if let Some(refusal) = self.refuses() {
            self.refusal.set(Some(refusal));
            return Err(io::Error::other("too large"));
        }
        Ok(read)
    }
}

impl<R> Bounded<R> {
    fn refuses(&mut self) -> Option<Refusal> {
        let bounds = self.taken.as_ref().map_or(self.bounds, |taken| self.bounds.packed(taken.get()));
        let Bounds { text, memory, dense, before } = bounds;
        if self.read > text {
            return Some(if dense { Refusal::Dense } else { Refusal::Text(text) });
        }
        if self.read - self.looked < PIECE {
            return None;
        }
        self.looked = self.read;
        let grown = resident()?.saturating_sub(before?);
        (grown > memory).then_some(Refusal::Memory(memory))
    }
}

/// Bytes of this process that are in memory (Documentation/filesystems/proc.rst, statm).
pub fn resident() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    // SAFETY: a plain call without pointers.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
    pages.checked_mul(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_bound_by_its_size_and_by_no_less_than_small_recordings_have() {
        let bounds = Bounds { text: TEXT, memory: MEMORY, dense: false, before: None };
        assert_eq!(bounds.packed(10).text, SMALL_TEXT);
        assert_eq!(bounds.packed(1 << 20).text, 200 << 20);
        let large = bounds.packed(1 << 30);
        assert_eq!((large.text, large.dense), (TEXT, false));
    }

    #[test]
    fn text_is_read_up_to_the_bound() {
        let bounds = Bounds { text: 1000, memory: MEMORY, dense: false, before: None };
        for (length, refused) in [(1000, None), (1001, Some(Refusal::Text(1000)))] {
            let (mut bounded, refusal) = bounds.bound(io::repeat(1).take(length), None);
            let read = io::copy(&mut bounded, &mut io::sink());
            assert_eq!((read.is_err(), refusal.get()), (refused.is_some(), refused));
        }
    }

    #[test]
    fn a_stream_may_have_what_its_packed_bytes_so_far_allow() {
        let bounds = Bounds { text: TEXT, memory: u64::MAX, dense: false, before: None };
        for (taken, refused) in [(1, Some(Refusal::Dense)), (SMALL_TEXT / 100, None)] {
            let taken = Some(Rc::new(Cell::new(taken)));
            let (mut bounded, refusal) = bounds.bound(io::repeat(1).take(SMALL_TEXT + 1), taken);
            let read = io::copy(&mut bounded, &mut io::sink());
            assert_eq!((read.is_err(), refusal.get()), (refused.is_some(), refused));
        }
    }

    #[test]
    fn memory_that_grows_ends_it() {
        let bounds = Bounds { text: TEXT, memory: 64 << 20, dense: false, before: resident() };
        let (mut bounded, refusal) = bounds.bound(io::repeat(1), None);
        let mut kept = Vec::new();
        let mut piece = vec![0; 1 << 20];
        while bounded.read(&mut piece).is_ok() {
            kept.push(piece.clone());
        }
        assert_eq!(refusal.get(), Some(Refusal::Memory(64 << 20)));
        assert!(kept.len() < 512, "{} MiB", kept.len());
    }
}
