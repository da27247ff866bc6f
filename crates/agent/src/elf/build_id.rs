//! The build id that a linker left in a file.

use super::{Bytes, Elf, ElfError, PT_NOTE, beginning, u32_at};

/// Read of all notes of one segment. Those of real programs have some hundred bytes.
const LONGEST_NOTES: u64 = 64 << 10;
/// Note segments that are read: linkers write two at most.
const MOST_NOTES: usize = 16;
/// NT_GNU_BUILD_ID of elf.h, and the note's owner.
const BUILD_ID: u32 = 3;
const OWNER: &[u8] = b"GNU\0";
const NOTE_HEADER: usize = 12;
/// Linkers make 16 or 20 bytes. The kernel takes no more than 20 (include/linux/buildid.h BUILD_ID_SIZE_MAX); an id that
/// somebody has chosen (`--build-id=0x...`) may be longer.
const LONGEST_ID: usize = 64;

/// The build id, in hexadecimal: from the segments that are loaded, as the kernel finds it (lib/buildid.c
/// parse_build_id). Section headers are not needed, and may be stripped.
pub fn build_id<B: Bytes + ?Sized>(file: &B) -> Result<Option<String>, ElfError> {
    let elf = Elf::parse(file)?;
    for segment in elf.segments.iter().filter(|segment| segment.kind == PT_NOTE).take(MOST_NOTES) {
        let notes = beginning(file, segment.offset, segment.file_size.min(LONGEST_NOTES))?;
        // Properties of a program are aligned to 8 bytes, all other notes to 4.
        let align = if segment.align == 8 { 8 } else { 4 };
        if let Some(id) = in_notes(&notes, align) {
            return Ok(Some(id.iter().map(|byte| format!("{byte:02x}")).collect()));
        }
    }
    Ok(None)
}

fn in_notes(mut notes: &[u8], align: usize) -> Option<&[u8]> {
    while notes.len() >= NOTE_HEADER {
        let size = |at| usize::try_from(u32_at(notes, at)).ok();
        let (owner, content) = (size(0)?, size(4)?);
        let content_at = NOTE_HEADER.checked_add(owner)?.checked_next_multiple_of(align)?;
        let end = content_at.checked_add(content)?;
        let is_it = u32_at(notes, 8) == BUILD_ID && notes.get(NOTE_HEADER..NOTE_HEADER + owner)? == OWNER;
        if is_it {
            let id = notes.get(content_at..end)?;
            return (1..=LONGEST_ID).contains(&id.len()).then_some(id);
        }
        notes = notes.get(end.checked_next_multiple_of(align)?..)?;
    }
    None
}
