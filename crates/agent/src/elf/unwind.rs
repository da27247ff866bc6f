//! Where a file has the tables by which its code is unwound (Linux Standard Base, Core, "Exception Frames").

use std::io;

use super::{
    Bytes, ElfError, PT_GNU_EH_FRAME, PT_LOAD, SHF_COMPRESSED, Section, Segment, bounded,
    exports::{code_at, of_this_machine},
};

/// Of a table. The largest libraries of today have some 60 MiB.
const LARGEST_TABLE: u64 = 256 << 20;

/// A part of a file, and the address that its linker has given to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub offset: u64,
    pub address: u64,
    pub size: u64,
}

/// What unwinding needs of a file.
#[derive(Debug)]
pub struct Unwinding {
    /// The sorted index of the table (`.eh_frame_hdr`).
    pub index: Part,
    segments: Vec<Segment>,
    sections: Vec<Section>,
}

/// `None` where the file has no index, which linkers write for all code that may be unwound.
pub fn unwinding<B: Bytes + ?Sized>(file: &B) -> Result<Option<Unwinding>, ElfError> {
    let elf = of_this_machine(file)?;
    let Some(index) = elf.segments.iter().find(|segment| segment.kind == PT_GNU_EH_FRAME) else {
        return Ok(None);
    };
    let index = Part { offset: index.offset, address: index.address, size: index.file_size };
    checked(file, index)?;
    let sections = elf.sections()?;
    Ok(Some(Unwinding { index, segments: elf.segments, sections }))
}

impl Unwinding {
    /// The table itself, which the index says the address of; `None` where nothing of the file is loaded there.
    pub fn table<B: Bytes + ?Sized>(&self, file: &B, address: u64) -> Result<Option<Part>, ElfError> {
        let Some((offset, rest)) = self.loaded(address) else { return Ok(None) };
        // A file whose sections were stripped has more behind the table, which entries do not refer to.
        let section = self.sections.iter().find(|section| {
            section.address == address && section.offset == offset && section.flags & SHF_COMPRESSED == 0
        });
        let part = Part { offset, address, size: section.map_or(rest, |section| section.size.min(rest)) };
        checked(file, part)?;
        Ok(Some(part))
    }

    /// The address that the linker has given to code at an offset.
    pub fn code(&self, offset: u64) -> Option<u64> {
        code_at(&self.segments, offset)
    }

    /// Where an address lies in the file, and how much of its segment follows.
    fn loaded(&self, address: u64) -> Option<(u64, u64)> {
        self.segments.iter().filter(|segment| segment.kind == PT_LOAD).find_map(|segment| {
            let into = address.checked_sub(segment.address).filter(|into| *into < segment.file_size)?;
            Some((segment.offset.checked_add(into)?, segment.file_size - into))
        })
    }
}

/// Refuses what is too large, and what the file is too short for.
fn checked<B: Bytes + ?Sized>(file: &B, part: Part) -> Result<(), ElfError> {
    bounded("a table for unwinding", part.size, LARGEST_TABLE)?;
    let last = part.size.checked_sub(1).and_then(|size| part.offset.checked_add(size));
    let last = last.ok_or(ElfError::Format)?;
    if file.bytes_at(last, &mut [0])? == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(())
}
