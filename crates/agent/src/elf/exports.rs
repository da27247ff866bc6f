//! Where a library's functions are in its file.

use std::collections::HashMap;

use super::{
    Bytes, Class, Elf, ElfError, MACHINE_ARM64, MACHINE_X86_64, PT_LOAD, SHF_COMPRESSED, SHT_DYNSYM, Section,
    Segment, Symbol, bounded, names::FUNCTION, string,
};

/// Of a library's table of exported symbols. A CUDA driver's has some 50 KiB: what is larger by far is none.
const LARGEST_TABLE: u64 = 8 << 20;

/// A variable (elf(5) STT_OBJECT).
const OBJECT: u8 = 1;

const MACHINE: u16 = if cfg!(target_arch = "aarch64") { MACHINE_ARM64 } else { MACHINE_X86_64 };

/// File offsets of those of `wanted` that `file` exports. Only the parts needed are read: such a library has
/// a hundred megabytes.
pub fn exports<'a, B: Bytes + ?Sized>(
    file: &B,
    wanted: impl Iterator<Item = &'a str>,
) -> Result<HashMap<String, u64>, ElfError> {
    let elf = of_this_machine(file)?;
    let mut offsets = HashMap::new();
    each_export(&elf, wanted, |name, symbol| {
        let segment = elf.segments.iter().find(|segment| {
            segment.kind == PT_LOAD
                && symbol.value.checked_sub(segment.address).is_some_and(|into| into < segment.file_size)
        });
        if let Some(segment) = segment.filter(|_| symbol.kind() == FUNCTION) {
            let offset = (symbol.value - segment.address).saturating_add(segment.offset);
            offsets.insert(name.to_owned(), offset);
        }
    })?;
    Ok(offsets)
}

/// Where a file's linker has put things: what they are apart is so in every process.
#[derive(Debug)]
pub struct Linked {
    /// Addresses of functions and variables.
    pub symbols: HashMap<String, u64>,
    /// Address of a place in its code.
    pub code: u64,
}

/// Addresses of those of `wanted` that `file` exports, and of its code at an offset; `None` where no code is there.
pub fn linked<'a, B: Bytes + ?Sized>(
    file: &B,
    wanted: impl Iterator<Item = &'a str>,
    offset: u64,
) -> Result<Option<Linked>, ElfError> {
    let elf = of_this_machine(file)?;
    let Some(code) = code_at(&elf.segments, offset) else { return Ok(None) };
    let mut symbols = HashMap::new();
    each_export(&elf, wanted, |name, symbol| {
        if matches!(symbol.kind(), FUNCTION | OBJECT) {
            symbols.insert(name.to_owned(), symbol.value);
        }
    })?;
    Ok(Some(Linked { symbols, code }))
}

/// The address that a file's linker has given to its code at an offset.
pub(super) fn code_at(segments: &[Segment], offset: u64) -> Option<u64> {
    // The kernel maps whole pages, so a segment's mapping may begin before it (fs/binfmt_elf.c elf_load).
    let mut code = segments.iter().filter(|segment| segment.kind == PT_LOAD && segment.executable);
    let code = code.find(|segment| {
        let before = segment.offset % crate::page_size();
        let into = offset.checked_sub(segment.offset - before);
        into.is_some_and(|into| into < segment.file_size.saturating_add(before))
    })?;
    Some(code.address.wrapping_add(offset).wrapping_sub(code.offset))
}

pub(super) fn of_this_machine<B: Bytes + ?Sized>(file: &B) -> Result<Elf<'_, B>, ElfError> {
    let elf = Elf::parse(file)?;
    if elf.class != Class::Bits64 {
        return Err(ElfError::Format);
    }
    if elf.machine != MACHINE { Err(ElfError::Machine) } else { Ok(elf) }
}

/// Hands over the symbols that a file exports of those that are wanted.
fn each_export<'a, B: Bytes + ?Sized>(
    elf: &Elf<'_, B>,
    wanted: impl Iterator<Item = &'a str>,
    mut take: impl FnMut(&'a str, &Symbol),
) -> Result<(), ElfError> {
    let wanted: HashMap<&[u8], &str> = wanted.map(|name| (name.as_bytes(), name)).collect();
    let longest = wanted.keys().map(|name| name.len()).max().unwrap_or_default() as u64 + 1;
    let sections = elf.sections()?;
    let is_table = |section: &&Section| section.kind == SHT_DYNSYM && section.flags & SHF_COMPRESSED == 0;
    let Some(table) = sections.iter().find(is_table) else { return Ok(()) };
    let strings = usize::try_from(table.link).ok().and_then(|link| sections.get(link));
    let Some(strings) = strings else { return Ok(()) };
    bounded("the table of exported symbols", table.size, LARGEST_TABLE)?;
    elf.each_symbol(table, |symbol| {
        if symbol.is_defined() && matches!(symbol.kind(), FUNCTION | OBJECT) {
            let name = string(elf.file, strings, symbol.name, longest)?;
            if let Some(name) = name.and_then(|name| wanted.get(name.as_slice()).copied()) {
                take(name, symbol);
            }
        }
        Ok(())
    })
}
