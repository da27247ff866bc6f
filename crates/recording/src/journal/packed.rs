//! A journal's lines are packed as one stream: what was handed on can be unpacked up to there, wherever the stream ends.
//! `zstd -dc FILE.partial` prints them.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::rc::Rc;

use super::super::bounds::{self, MAX_RATIO, SMALL_TEXT, ZSTD_MAGIC};

/// The fastest: what is packed are a few lines at a time.
const LEVEL: i32 = 1;
/// How far back repetitions are found, as a power of two: as many readings as there are whole ones.
const WINDOW_LOG: u32 = 19;
/// Nobody unpacks with a larger one: its memory is the reader's.
const MOST_WINDOW_LOG: u32 = 23;
/// Bytes of lines after which a frame ends, with a checksum of them.
const FRAME: u64 = 64 << 20;

/// Packs what is written to it. `flush` hands on all of it; without that it may wait.
pub struct Packer<W: Write> {
    /// Absent after an error, and between two frames while one is begun.
    frame: Option<zstd::Encoder<'static, W>>,
    /// In this frame.
    written: u64,
}

impl<W: Write> Packer<W> {
    pub fn new(out: W) -> io::Result<Self> {
        Ok(Self { frame: Some(begin(out)?), written: 0 })
    }

    /// Ends the stream, with a checksum.
    #[cfg(test)]
    fn finish(mut self) -> io::Result<W> {
        self.frame.take().map_or_else(|| Err(broken()), zstd::Encoder::finish)
    }
}

fn begin<W: Write>(out: W) -> io::Result<zstd::Encoder<'static, W>> {
    let mut frame = zstd::Encoder::new(out, LEVEL)?;
    frame.include_checksum(true)?;
    frame.window_log(WINDOW_LOG)?;
    Ok(frame)
}

fn broken() -> io::Error {
    io::Error::other("an earlier write failed")
}

impl<W: Write> Write for Packer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written >= FRAME {
            let out = self.frame.take().ok_or_else(broken)?.finish()?;
            (self.frame, self.written) = (Some(begin(out)?), 0);
        }
        let written = self.frame.as_mut().ok_or_else(broken)?.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.frame.as_mut().ok_or_else(broken)?.flush()
    }
}

/// What is packed more densely than any journal.
#[derive(Debug)]
struct TooDense;

impl std::fmt::Display for TooDense {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "its text is more than {MAX_RATIO} times as large as the file; no journal compresses so well"
        )
    }
}

impl std::error::Error for TooDense {}

/// The lines of a journal, which is packed or, as once, is not.
pub(super) fn unpacked<'a>(mut input: impl BufRead + 'a) -> io::Result<Box<dyn BufRead + 'a>> {
    let mut magic = Vec::new();
    (&mut input).take(ZSTD_MAGIC.len() as u64).read_to_end(&mut magic)?;
    let is_packed = magic == ZSTD_MAGIC;
    let input = io::Cursor::new(magic).chain(input);
    if !is_packed {
        return Ok(Box::new(input));
    }
    let taken = Rc::new(Cell::new(0));
    let counted = Counted { input, taken: Rc::clone(&taken) };
    let mut frames = zstd::Decoder::with_buffer(BufReader::new(counted))?;
    frames.window_log_max(MOST_WINDOW_LOG)?;
    Ok(Box::new(BufReader::new(Unpacked { frames, taken, read: 0, chosen: bounds::chosen() })))
}

struct Counted<R> {
    input: R,
    taken: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.taken.set(self.taken.get() + read as u64);
        Ok(read)
    }
}

struct Unpacked<R> {
    frames: R,
    taken: Rc<Cell<u64>>,
    read: u64,
    /// The limit that the user has set.
    chosen: Option<u64>,
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match self.frames.read(buffer) {
            // Cut in the middle of a frame: a journal ends wherever its writer was killed.
            Err(cut) if cut.kind() == io::ErrorKind::UnexpectedEof => 0,
            read => read?,
        };
        self.read += read as u64;
        // Who sets a limit has chosen how much is read.
        let is_dense = || self.read > self.taken.get().saturating_mul(MAX_RATIO).max(SMALL_TEXT);
        if self.chosen.is_none() && is_dense() {
            return Err(io::Error::other(TooDense));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(packed: &[u8]) -> io::Result<String> {
        let mut text = String::new();
        unpacked(packed)?.read_to_string(&mut text).map(|_| text)
    }

    fn packed(lines: &[&str]) -> (Vec<u8>, Vec<usize>) {
        let mut packer = Packer::new(Vec::new()).unwrap();
        let mut flushed = Vec::new();
        for line in lines {
            packer.write_all(line.as_bytes()).unwrap();
            packer.flush().unwrap();
            flushed.push(packer.frame.as_ref().unwrap().get_ref().len());
        }
        (packer.finish().unwrap(), flushed)
    }

    #[test]
    fn whatever_was_flushed_is_there_wherever_the_stream_is_cut() {
        let lines = ["one\n", "two\n", "three\n", "four\n"];
        let (whole, flushed) = packed(&lines);
        for cut in ZSTD_MAGIC.len()..=whole.len() {
            let there = flushed.iter().filter(|end| **end <= cut).count();
            let text = text(&whole[..cut]).unwrap();
            assert!(text.starts_with(&lines[..there].concat()), "{cut} bytes: {text:?}");
            assert!(lines.concat().starts_with(&text), "{cut} bytes: {text:?}");
        }
    }

    #[test]
    fn several_frames_are_one_text_and_another_byte_is_noticed() {
        let (mut two, _) = packed(&["one\n"]);
        two.extend(packed(&["two\n"]).0);
        assert_eq!(text(&two).unwrap(), "one\ntwo\n");
        let (whole, _) = packed(&["one\n"]);
        // What comes after the frame's header, of which another window, for example, changes nothing.
        for index in ZSTD_MAGIC.len() + 2..whole.len() {
            let mut damaged = whole.clone();
            damaged[index] ^= 0x40;
            assert!(text(&damaged).map_or(true, |text| text != "one\n"), "byte {index}");
        }
    }

    #[test]
    fn a_small_stream_of_much_is_refused() {
        let mut packer = Packer::new(Vec::new()).unwrap();
        let line = [b'x'; 1 << 16];
        (0..(SMALL_TEXT >> 16) + 2).for_each(|_| packer.write_all(&line).unwrap());
        let dense = packer.finish().unwrap();
        let failed = io::copy(&mut unpacked(dense.as_slice()).unwrap(), &mut io::sink()).unwrap_err();
        assert!(failed.to_string().contains("200 times"), "{failed}");
    }

    #[test]
    fn a_frame_ends_after_so_much_and_the_next_goes_on() {
        let mut packer = Packer::new(Vec::new()).unwrap();
        let line = vec![b'x'; 1 << 20];
        (0..(FRAME >> 20) + 2).for_each(|_| packer.write_all(&line).unwrap());
        assert_eq!(packer.written, 2 << 20);
        let whole = packer.finish().unwrap();
        let unpacked = zstd::decode_all(whole.as_slice()).unwrap();
        assert_eq!(unpacked.len() as u64, FRAME + (2 << 20));
    }
}
