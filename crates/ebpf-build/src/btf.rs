//! Names of types in an object's BTF, as the kernel wants them.
//!
//! bpf-linker 0.10 makes names for C of the names of Rust structures, and leaves those of unions as they are. The kernel
//! refuses the BTF of an object with a `MaybeUninit<u8>` (kernel/bpf/btf.c btf_name_valid_identifier), and aya-log has one.

use object::{Object as _, ObjectSection as _};
use thiserror::Error;

#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum BadBtf {
    #[error("it is no ELF object with BTF: {0}")]
    Object(String),
    #[error("its BTF ends too early or has a type of kind {0} that is not known")]
    Type(u32),
}

/// `struct btf_header` and `struct btf_type` (include/uapi/linux/btf.h), in 32-bit words behind the first.
const HEADER_LENGTH: usize = 4;
const TYPES: usize = 8;
const TYPES_LENGTH: usize = 12;
const STRINGS: usize = 16;
const TYPE: usize = 12;

const UNION: u32 = 5;

/// Bytes that follow a type of a kind: so many, and so many for each member.
const BEHIND: &[(u32, usize, usize)] = &[
    (1, 4, 0),
    (2, 0, 0),
    (3, 12, 0),
    (4, 0, 12),
    (UNION, 0, 12),
    (6, 0, 8),
    (7, 0, 0),
    (8, 0, 0),
    (9, 0, 0),
    (10, 0, 0),
    (11, 0, 0),
    (12, 0, 0),
    (13, 0, 8),
    (14, 4, 0),
    (15, 0, 12),
    (16, 0, 0),
    (17, 4, 0),
    (18, 0, 0),
    (19, 0, 12),
];

/// Replaces characters in the names of unions that no identifier of C has.
pub(crate) fn name_unions(object: &mut [u8]) -> Result<(), BadBtf> {
    let file = object::File::parse(&*object).map_err(|e| BadBtf::Object(e.to_string()))?;
    let range = file.section_by_name(".BTF").and_then(|section| section.file_range());
    let Some((start, length)) = range else { return Err(BadBtf::Object("no section .BTF".to_owned())) };
    let (start, length) = (start as usize, length as usize);
    let btf = object.get_mut(start..start + length).ok_or(BadBtf::Type(0))?;
    for name in names_of_unions(btf)? {
        let name = btf.get_mut(name..).unwrap_or_default();
        for byte in name.iter_mut().take_while(|byte| **byte != 0) {
            if !byte.is_ascii_alphanumeric() {
                *byte = b'_';
            }
        }
    }
    Ok(())
}

/// Where the names of unions begin.
fn names_of_unions(btf: &[u8]) -> Result<Vec<usize>, BadBtf> {
    let word = |at: usize| {
        let bytes = btf.get(at..).and_then(|rest| rest.first_chunk()).ok_or(BadBtf::Type(0))?;
        Ok(u32::from_le_bytes(*bytes))
    };
    let header = word(HEADER_LENGTH)? as usize;
    let strings = header + word(STRINGS)? as usize;
    let mut at = header + word(TYPES)? as usize;
    let end = at + word(TYPES_LENGTH)? as usize;
    let mut names = Vec::new();
    while at < end {
        let (name, info) = (word(at)? as usize, word(at + 4)?);
        let (kind, members) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
        let row = BEHIND.iter().find(|(known, ..)| *known == kind);
        let (_, own, each) = row.ok_or(BadBtf::Type(kind))?;
        if kind == UNION && name != 0 {
            names.push(strings + name);
        }
        at += TYPE + own + each * members;
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// BTF of these types: kind, name, number of members.
    fn btf(types: &[(u32, &str, u32)]) -> Vec<u8> {
        let (mut body, mut strings) = (Vec::new(), vec![0u8]);
        for (kind, name, members) in types {
            let words = [strings.len() as u32, kind << 24 | members, 1];
            body.extend(words.iter().flat_map(|word| word.to_le_bytes()));
            let (_, own, each) = BEHIND.iter().find(|(known, ..)| known == kind).unwrap();
            body.extend(std::iter::repeat_n(0xff, own + each * *members as usize));
            strings.extend(name.bytes());
            strings.push(0);
        }
        let mut btf = vec![0x9f, 0xeb, 1, 0];
        let lengths = [24, 0, body.len() as u32, body.len() as u32, strings.len() as u32];
        btf.extend(lengths.iter().flat_map(|word| word.to_le_bytes()));
        btf.extend(body);
        btf.extend(strings);
        btf
    }

    #[test]
    fn unions_are_found_between_types_of_every_kind() {
        let mut types: Vec<_> = BEHIND.iter().map(|(kind, ..)| (*kind, "other<T>", 2)).collect();
        types.extend([(UNION, "Maybe<u8>", 2), (6, "last", 0)]);
        let btf = btf(&types);
        let names = names_of_unions(&btf).unwrap();
        assert_eq!(names.len(), 2);
        assert!(btf[names[1]..].starts_with(b"Maybe<u8>\0"));
    }

    #[test]
    fn what_is_cut_or_unknown_is_refused() {
        let whole = btf(&[(4, "s", 3)]);
        assert_eq!(names_of_unions(&whole), Ok(Vec::new()));
        assert_eq!(names_of_unions(&whole[..30]), Err(BadBtf::Type(0)));
        let mut unknown = btf(&[(4, "s", 0)]);
        unknown[24 + 7] = 31;
        assert_eq!(names_of_unions(&unknown), Err(BadBtf::Type(31)));
        assert!(matches!(name_unions(&mut [0; 8]), Err(BadBtf::Object(_))));
    }
}
