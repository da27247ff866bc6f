//! ELF files that anybody may have written: what is read of them is bounded before it is read.
//!
//! Everything is read with pread(2), never mapped: a file that is cut short meanwhile is a short read and no SIGBUS.
//! Nothing is decompressed, and no other file is followed, whatever a file says. Both classes are read, of the byte
//! order that x86-64 and arm64 have.

mod build_id;
mod exports;
mod names;
mod unwind;

use std::{
    fs::File,
    io::{self, ErrorKind},
    os::unix::fs::FileExt,
};

use thiserror::Error;

pub use build_id::build_id;
pub use exports::{Linked, exports, linked};
pub use names::names;
pub use unwind::{Part, Unwinding, unwinding};

/// Where bytes of a file come from.
pub trait Bytes {
    /// As pread(2): it may read less than there is room for, and reads nothing at the end.
    fn bytes_at(&self, offset: u64, room: &mut [u8]) -> io::Result<usize>;
}

impl Bytes for File {
    fn bytes_at(&self, offset: u64, room: &mut [u8]) -> io::Result<usize> {
        // pread(2) takes a signed offset.
        if i64::try_from(offset).is_err() {
            return Ok(0);
        }
        self.read_at(room, offset)
    }
}

impl Bytes for [u8] {
    fn bytes_at(&self, offset: u64, room: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let read = rest.len().min(room.len());
        room[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }
}

#[derive(Debug, Error)]
pub enum ElfError {
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("it is not an ELF file of this byte order")]
    Format,
    #[error("it is built for another processor")]
    Machine,
    #[error("{what} in it has {bytes} bytes, more than the {most} that are read")]
    TooLarge { what: &'static str, bytes: u64, most: u64 },
}

const HEADER: usize = 64;
const MAGIC: &[u8] = b"\x7fELF";
const LITTLE_ENDIAN: u8 = 1;

/// Program and section headers that are read. Linkers write some 15 of the first and some 40 of the second; a section for
/// each function of a large program would be some thousands.
const MOST_SEGMENTS: u16 = 512;
const MOST_SECTIONS: u16 = 16 << 10;

/// Processors (elf.h EM_*).
const MACHINE_X86_64: u16 = 62;
const MACHINE_ARM64: u16 = 183;

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
const SHT_SYMTAB: u32 = 2;
const SHT_DYNSYM: u32 = 11;
const SHF_COMPRESSED: u64 = 1 << 11;

/// Section indexes of symbols that lie in no section (elf(5)).
const SHN_UNDEF: u16 = 0;
const SHN_LORESERVE: u16 = 0xff00;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Bits32,
    Bits64,
}

/// Where a header has its fields: elf(5), and /usr/include/elf.h.
struct Layout {
    segment_size: u16,
    section_size: u16,
    symbol_size: u64,
}

impl Class {
    const fn layout(self) -> Layout {
        match self {
            Self::Bits32 => Layout { segment_size: 32, section_size: 40, symbol_size: 16 },
            Self::Bits64 => Layout { segment_size: 56, section_size: 64, symbol_size: 24 },
        }
    }

    /// An address, offset or size at one place or the other.
    fn word(self, bytes: &[u8], at_32: usize, at_64: usize) -> u64 {
        match self {
            Self::Bits32 => u64::from(u32_at(bytes, at_32)),
            Self::Bits64 => u64_at(bytes, at_64),
        }
    }

    /// A field that has the same size in both.
    const fn pick(self, at_32: usize, at_64: usize) -> usize {
        match self {
            Self::Bits32 => at_32,
            Self::Bits64 => at_64,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    kind: u32,
    /// It holds code (PF_X).
    executable: bool,
    offset: u64,
    address: u64,
    file_size: u64,
    align: u64,
}

#[derive(Debug, Clone, Copy)]
struct Section {
    kind: u32,
    flags: u64,
    address: u64,
    offset: u64,
    size: u64,
    link: u32,
}

#[derive(Debug, Clone, Copy)]
struct Symbol {
    name: u32,
    info: u8,
    section: u16,
    value: u64,
    size: u64,
}

impl Symbol {
    const fn kind(&self) -> u8 {
        self.info & 0xf
    }

    const fn is_local(&self) -> bool {
        self.info >> 4 == 0
    }

    /// Whether it stands for a place in the file.
    const fn is_defined(&self) -> bool {
        self.section != SHN_UNDEF && self.section < SHN_LORESERVE
    }
}

/// A file's header and program headers.
struct Elf<'a, B: Bytes + ?Sized> {
    file: &'a B,
    class: Class,
    machine: u16,
    header: [u8; HEADER],
    segments: Vec<Segment>,
}

impl<'a, B: Bytes + ?Sized> Elf<'a, B> {
    fn parse(file: &'a B) -> Result<Self, ElfError> {
        let mut header = [0; HEADER];
        let read = fill(file, 0, &mut header)?;
        let class = match header[4] {
            1 if read >= 52 => Class::Bits32,
            2 if read >= HEADER => Class::Bits64,
            _ => return Err(ElfError::Format),
        };
        if !header.starts_with(MAGIC) || header[5] != LITTLE_ENDIAN {
            return Err(ElfError::Format);
        }
        let machine = u16_at(&header, 18);
        let count = u16_at(&header, class.pick(44, 56)).min(MOST_SEGMENTS);
        let size = class.layout().segment_size;
        let at = class.word(&header, 28, 32);
        let mut segments = Vec::new();
        // The kernel takes no other size (fs/binfmt_elf.c load_elf_phdrs).
        if u16_at(&header, class.pick(42, 54)) == size {
            let bytes = beginning(file, at, u64::from(count) * u64::from(size))?;
            segments.extend(bytes.chunks_exact(usize::from(size)).map(|bytes| Segment {
                kind: u32_at(bytes, 0),
                executable: u32_at(bytes, class.pick(24, 4)) & 1 != 0,
                offset: class.word(bytes, 4, 8),
                address: class.word(bytes, 8, 16),
                file_size: class.word(bytes, 16, 32),
                align: class.word(bytes, 28, 48),
            }));
        }
        Ok(Self { file, class, machine, header, segments })
    }

    fn sections(&self) -> Result<Vec<Section>, ElfError> {
        let class = self.class;
        let size = class.layout().section_size;
        if u16_at(&self.header, class.pick(46, 58)) != size {
            return Ok(Vec::new());
        }
        let count = u16_at(&self.header, class.pick(48, 60)).min(MOST_SECTIONS);
        let at = class.word(&self.header, 32, 40);
        let bytes = beginning(self.file, at, u64::from(count) * u64::from(size))?;
        let section = |bytes: &[u8]| Section {
            kind: u32_at(bytes, 4),
            flags: class.word(bytes, 8, 8),
            address: class.word(bytes, 12, 16),
            offset: class.word(bytes, 16, 24),
            size: class.word(bytes, 20, 32),
            link: u32_at(bytes, class.pick(24, 40)),
        };
        Ok(bytes.chunks_exact(usize::from(size)).map(section).collect())
    }

    /// Hands over each symbol of a table, piece by piece; a table that is cut short has those before the cut.
    fn each_symbol(
        &self,
        table: &Section,
        mut take: impl FnMut(&Symbol) -> Result<(), ElfError>,
    ) -> Result<(), ElfError> {
        let class = self.class;
        let size = class.layout().symbol_size;
        let piece = size * SYMBOLS_AT_ONCE;
        let whole = table.size - table.size % size;
        let mut done = 0;
        while done < whole {
            let wanted = piece.min(whole - done);
            let Some(at) = table.offset.checked_add(done) else { break };
            let bytes = beginning(self.file, at, wanted)?;
            for bytes in bytes.chunks_exact(size as usize) {
                take(&Symbol {
                    name: u32_at(bytes, 0),
                    info: bytes[class.pick(12, 4)],
                    section: u16_at(bytes, class.pick(14, 6)),
                    value: class.word(bytes, 4, 8),
                    size: class.word(bytes, 8, 16),
                })?;
            }
            if (bytes.len() as u64) < wanted {
                break;
            }
            done += wanted;
        }
        Ok(())
    }
}

const SYMBOLS_AT_ONCE: u64 = 4096;

/// What is not larger than `most`, or an error that says what it is.
fn bounded(what: &'static str, bytes: u64, most: u64) -> Result<(), ElfError> {
    if bytes > most { Err(ElfError::TooLarge { what, bytes, most }) } else { Ok(()) }
}

/// Up to `length` bytes from `offset`: fewer where the file ends before. Callers have bounded the length.
fn beginning<B: Bytes + ?Sized>(file: &B, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    let read = fill(file, offset, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}

fn fill<B: Bytes + ?Sized>(file: &B, offset: u64, room: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < room.len() {
        let Some(at) = offset.checked_add(read as u64) else { break };
        match file.bytes_at(at, &mut room[read..]) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(read)
}

/// A string of a table up to its end, at most `longest` bytes of it; nothing where it is outside the table.
fn string<B: Bytes + ?Sized>(
    file: &B,
    strings: &Section,
    at: u32,
    longest: u64,
) -> io::Result<Option<Vec<u8>>> {
    let Some(rest) = strings.size.checked_sub(u64::from(at)) else { return Ok(None) };
    let Some(from) = strings.offset.checked_add(u64::from(at)) else { return Ok(None) };
    let mut bytes = beginning(file, from, rest.min(longest))?;
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    Ok((!bytes.is_empty()).then_some(bytes))
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let found = at.checked_add(N).and_then(|end| bytes.get(at..end)).and_then(|bytes| bytes.try_into().ok());
    found.unwrap_or([0; N])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(field(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(bytes, at))
}

#[cfg(test)]
mod tests;
