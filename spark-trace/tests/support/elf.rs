//! ELF files that mean harm: a real program with sections that say more than is there.

/// Of elf.h.
pub const PROGBITS: u32 = 1;
pub const SYMTAB: u32 = 2;
pub const NOTE: u32 = 7;
pub const COMPRESSED: u64 = 0x800;

/// Where the header has offset, number and names of the sections; and how long a section header is.
const SECTIONS_AT: usize = 0x28;
const SECTION_COUNT: usize = 0x3c;
const SECTION_NAMES: usize = 0x3e;
const SECTION: usize = 64;
/// Fields of a section header.
const KIND: usize = 4;
const OFFSET: usize = 0x18;
const SIZE: usize = 0x20;

fn number<const N: usize>(file: &[u8], at: usize) -> usize {
    let mut bytes = [0; 8];
    bytes[..N].copy_from_slice(&file[at..at + N]);
    usize::try_from(u64::from_le_bytes(bytes)).unwrap()
}

/// Adds a section, behind everything else.
pub fn add_section(file: &mut Vec<u8>, name: &str, kind: u32, flags: u64, content: &[u8]) {
    let at = number::<8>(file, SECTIONS_AT);
    let count = number::<2>(file, SECTION_COUNT);
    let mut headers = file[at..at + count * SECTION].to_vec();
    let names = number::<2>(file, SECTION_NAMES) * SECTION;
    let old = number::<8>(&headers, names + OFFSET);
    let mut strings = file[old..old + number::<8>(&headers, names + SIZE)].to_vec();
    let name_at = strings.len() as u32;
    strings.extend(name.bytes().chain([0]));
    let content_at = append(file, content);
    let strings_at = append(file, &strings);
    headers[names + OFFSET..names + OFFSET + 8].copy_from_slice(&strings_at.to_le_bytes());
    headers[names + SIZE..names + SIZE + 8].copy_from_slice(&(strings.len() as u64).to_le_bytes());
    headers.extend([name_at, kind].iter().flat_map(|word| word.to_le_bytes()));
    headers.extend(
        [flags, 0, content_at, content.len() as u64, 0, 1, 0].iter().flat_map(|word| word.to_le_bytes()),
    );
    let headers_at = append(file, &headers);
    file[SECTIONS_AT..SECTIONS_AT + 8].copy_from_slice(&headers_at.to_le_bytes());
    file[SECTION_COUNT..SECTION_COUNT + 2].copy_from_slice(&(count as u16 + 1).to_le_bytes());
}

fn append(file: &mut Vec<u8>, content: &[u8]) -> u64 {
    file.resize(file.len().next_multiple_of(16), 0);
    let at = file.len() as u64;
    file.extend(content);
    at
}

/// A compressed section's content: it says how long it is, and holds what is given (elf(5), Elf64_Chdr).
pub fn compressed(says: u64, zlib: &[u8]) -> Vec<u8> {
    let mut content: Vec<u8> = [1u32, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
    content.extend([says, 1].iter().flat_map(|word| word.to_le_bytes()));
    content.extend(zlib);
    content
}

/// A debug link: a path and a checksum.
pub fn debug_link(path: &str) -> Vec<u8> {
    let mut content = path.as_bytes().to_vec();
    content.push(0);
    content.resize(content.len().next_multiple_of(4), 0);
    content.extend(0x1234_5678u32.to_le_bytes());
    content
}

/// Says of the sections of a kind that they are as large as that.
pub fn resize_sections(file: &mut [u8], kind: u32, size: u64) {
    let at = number::<8>(file, SECTIONS_AT);
    for header in (0..number::<2>(file, SECTION_COUNT)).map(|index| at + index * SECTION) {
        if number::<4>(file, header + KIND) == kind as usize {
            file[header + SIZE..header + SIZE + 8].copy_from_slice(&size.to_le_bytes());
        }
    }
}

/// A library whose table of exported symbols is so large; it is a hole, of which nothing has to be on the disk.
pub fn library(table: u64, note: &[u8]) -> Vec<u8> {
    let machine: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([3u16, machine].iter().flat_map(|word| word.to_le_bytes()));
    file.extend(1u32.to_le_bytes());
    file.extend([0u64, 64, 0x1000].iter().flat_map(|word| word.to_le_bytes()));
    file.extend(0u32.to_le_bytes());
    file.extend([64u16, 56, 1, 64, 4, 3].iter().flat_map(|word| word.to_le_bytes()));
    file.extend([1u32, 5].iter().flat_map(|word| word.to_le_bytes()));
    file.extend([0u64, 0, 0, 0x1000, 0x1000, 0x1000].iter().flat_map(|word| word.to_le_bytes()));
    file.resize(0x1000, 0);
    let sections: [(u32, u64, u64, u64, u32, u64); 4] = [
        (0, 0, 0, 0, 0, 0),
        (11, 0, 0x2000, table, 3, 24),
        (NOTE, COMPRESSED, 0x1800, note.len() as u64, 0, 0),
        (3, 0, 0x1700, 16, 0, 0),
    ];
    for (kind, flags, offset, size, link, entry) in sections {
        file.extend([0, kind].iter().flat_map(|word| word.to_le_bytes()));
        file.extend([flags, 0, offset, size].iter().flat_map(|word| word.to_le_bytes()));
        file.extend([link, 0].iter().flat_map(|word| word.to_le_bytes()));
        file.extend([8, entry].iter().flat_map(|word| word.to_le_bytes()));
    }
    file.resize(0x1800, 0);
    file.extend(note);
    file.resize(0x2000, 0);
    file
}
