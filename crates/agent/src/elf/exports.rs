//! Where a library's functions are in its file.

use std::collections::HashMap;

use super::{
    Bytes, Class, Elf, ElfError, MACHINE_ARM64, MACHINE_X86_64, PT_LOAD, SHF_COMPRESSED, SHT_DYNSYM, Section,
    bounded, names::FUNCTION, string,
};

/// Of a library's table of exported symbols. A CUDA driver's has some 50 KiB: what is larger by far is none.
const LARGEST_TABLE: u64 = 8 << 20;

const MACHINE: u16 = if cfg!(target_arch = "aarch64") { MACHINE_ARM64 } else { MACHINE_X86_64 };

/// File offsets of those of `wanted` that `file` exports. Only the parts needed are read: such a library has
/// a hundred megabytes.
pub fn exports<'a, B: Bytes + ?Sized>(
    file: &B,
    wanted: impl Iterator<Item = &'a str>,
) -> Result<HashMap<String, u64>, ElfError> {
    let wanted: HashMap<&[u8], &str> = wanted.map(|name| (name.as_bytes(), name)).collect();
    let longest = wanted.keys().map(|name| name.len()).max().unwrap_or_default() as u64 + 1;
    let elf = Elf::parse(file)?;
    if elf.class != Class::Bits64 {
        return Err(ElfError::Format);
    }
    if elf.machine != MACHINE {
        return Err(ElfError::Machine);
    }
    let sections = elf.sections()?;
    let is_table = |section: &&Section| section.kind == SHT_DYNSYM && section.flags & SHF_COMPRESSED == 0;
    let Some(table) = sections.iter().find(is_table) else { return Ok(HashMap::new()) };
    let strings = usize::try_from(table.link).ok().and_then(|link| sections.get(link));
    let Some(strings) = strings else { return Ok(HashMap::new()) };
    bounded("the table of exported symbols", table.size, LARGEST_TABLE)?;
    let mut offsets = HashMap::new();
    elf.each_symbol(table, |symbol| {
        if !symbol.is_defined() || symbol.kind() != FUNCTION {
            return Ok(());
        }
        let name = string(file, strings, symbol.name, longest)?;
        let Some(name) = name.and_then(|name| wanted.get(name.as_slice()).copied()) else { return Ok(()) };
        let segment = elf.segments.iter().find(|segment| {
            segment.kind == PT_LOAD
                && symbol.value.checked_sub(segment.address).is_some_and(|into| into < segment.file_size)
        });
        if let Some(segment) = segment {
            let offset = (symbol.value - segment.address).saturating_add(segment.offset);
            offsets.insert(name.to_owned(), offset);
        }
        Ok(())
    })?;
    Ok(offsets)
}
