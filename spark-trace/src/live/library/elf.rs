//! Where a library's functions are in its file.

use std::{collections::HashMap, fs::File};

use object::{
    Endianness,
    elf::{FileHeader64, PT_LOAD, STT_FUNC},
    read::{
        ReadCache,
        elf::{FileHeader, ProgramHeader, Sym},
    },
};
use thiserror::Error;

#[derive(Debug, Error)]
pub(super) enum ElfError {
    #[error("not a 64-bit ELF file: {0}")]
    Format(#[from] object::read::Error),
    #[error("it is built for another processor")]
    Machine,
}

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = object::elf::EM_X86_64;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = object::elf::EM_AARCH64;

/// File offsets of those of `wanted` that `file` exports. Only the parts needed are read: such a library has
/// a hundred megabytes.
pub(super) fn exported<'a>(
    file: &File,
    wanted: impl Iterator<Item = &'a str>,
) -> Result<HashMap<String, u64>, ElfError> {
    let wanted: Vec<&str> = wanted.collect();
    let cache = ReadCache::new(file);
    let header = FileHeader64::<Endianness>::parse(&cache)?;
    let endian = header.endian()?;
    if header.e_machine(endian) != MACHINE {
        return Err(ElfError::Machine);
    }
    let sections = header.sections(endian, &cache)?;
    let symbols = sections.symbols(endian, &cache, object::elf::SHT_DYNSYM)?;
    let segments = header.program_headers(endian, &cache)?;
    let mut offsets = HashMap::new();
    for symbol in symbols.iter() {
        let kind = symbol.st_type();
        if symbol.is_undefined(endian) || kind != STT_FUNC {
            continue;
        }
        let Ok(name) = symbols.symbol_name(endian, symbol) else { continue };
        let Some(name) = std::str::from_utf8(name).ok().filter(|name| wanted.contains(name)) else {
            continue;
        };
        let address = symbol.st_value(endian);
        let segment = segments.iter().find(|segment| {
            let start = segment.p_vaddr(endian);
            segment.p_type(endian) == PT_LOAD
                && (start..start.saturating_add(segment.p_filesz(endian))).contains(&address)
        });
        if let Some(segment) = segment {
            let offset = (address - segment.p_vaddr(endian)).saturating_add(segment.p_offset(endian));
            offsets.insert(name.to_owned(), offset);
        }
    }
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_the_c_library_are_found() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let Some(libc) = maps.lines().find_map(|line| {
            let path = line.split_whitespace().nth(5)?;
            path.rsplit('/').next()?.starts_with("libc.so").then(|| path.to_owned())
        }) else {
            panic!("the tests are linked dynamically");
        };
        let file = File::open(libc).unwrap();
        let found = exported(&file, ["malloc", "getpid", "no_such_function"].into_iter()).unwrap();
        assert!(found.contains_key("malloc") && found.contains_key("getpid"));
        assert!(!found.contains_key("no_such_function"));
    }

    #[test]
    fn other_files_are_refused() {
        let file = File::open("/proc/self/maps").unwrap();
        assert!(exported(&file, ["x"].into_iter()).is_err());
    }
}
