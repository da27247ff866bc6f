//! A reader for the kernel's type information (BTF): offsets of members and values of enumerators.
//!
//! Only what offset resolution and attaching need, read where it lies: a kernel has some 130,000 types, of which a trace needs
//! a hundred. The published readers are either LGPL, which a static binary under
//! MIT OR Apache-2.0 cannot take in, or keep members private (aya-obj). The format is
//! Documentation/bpf/btf.rst; the kernel checked it when it was built, yet every access is bounded here.

use std::{ops::Range, path::Path};

use thiserror::Error;

#[derive(Debug, Error)]
pub enum BtfError {
    #[error("cannot read {path}: {cause}; the kernel must be built with CONFIG_DEBUG_INFO_BTF")]
    Read { path: String, cause: std::io::Error },
    #[error("{path} is not BTF: {what}")]
    Format { path: String, what: &'static str },
}

/// A member of a structure or union.
struct Member<'a> {
    name: &'a str,
    type_id: u32,
    bit_offset: u32,
}

/// A kernel function that programs can be attached to by its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function<'a> {
    /// Number of its type, which the kernel requires.
    pub id: u32,
    pub args: u32,
    /// Structure that the first argument points to; empty where it is something else.
    pub first_points_to: &'a str,
}

/// The types of one kernel.
#[derive(Debug)]
pub struct Btf {
    bytes: Vec<u8>,
    types: Range<usize>,
    strings: Range<usize>,
    /// Where each type begins in the section of types. Type 0 is void, and has a place that is not looked at.
    places: Vec<u32>,
    /// Structures, unions, typedefs and functions: the hash of the name, and the type. Sorted.
    named: Vec<(u32, u32)>,
    /// Enumerators: the hash of the name, the type, and the number in it. Sorted.
    enumerators: Vec<(u32, u32, u32)>,
}

const MAGIC: u16 = 0xeb9f;
// Kinds, include/uapi/linux/btf.h.
const INT: u32 = 1;
const PTR: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const TYPEDEF: u32 = 8;
const VOLATILE: u32 = 9;
const CONST: u32 = 10;
const RESTRICT: u32 = 11;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const DECL_TAG: u32 = 17;
const TYPE_TAG: u32 = 18;
const ENUM64: u32 = 19;

/// The three words that every type begins with (struct btf_type).
const HEAD: usize = 12;

/// A type, as far as its three words say.
#[derive(Clone, Copy)]
struct Type {
    name: u32,
    kind: u32,
    /// Members, enumerators or arguments.
    count: u32,
    flag: bool,
    size_or_type: u32,
    /// Where what follows the three words begins.
    more: usize,
}

impl Type {
    /// Bytes that follow the three words.
    const fn length(&self) -> usize {
        let count = self.count as usize;
        match self.kind {
            STRUCT | UNION | ENUM64 | DATASEC => 12 * count,
            ENUM | FUNC_PROTO => 8 * count,
            ARRAY => 12,
            INT | VAR | DECL_TAG => 4,
            _ => 0,
        }
    }

    const fn is_composite(&self) -> bool {
        matches!(self.kind, STRUCT | UNION)
    }
}

impl Btf {
    /// Reads the running kernel's types.
    pub fn from_kernel() -> Result<Self, BtfError> {
        Self::from_file(Path::new("/sys/kernel/btf/vmlinux"))
    }

    pub fn from_file(path: &Path) -> Result<Self, BtfError> {
        let name = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|cause| BtfError::Read { path: name.clone(), cause })?;
        Self::parse(bytes).map_err(|what| BtfError::Format { path: name, what })
    }

    /// From the bytes of such a file.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, &'static str> {
        let too_early = "ends too early";
        let magic = bytes.get(..2).and_then(|magic| magic.try_into().ok()).ok_or(too_early)?;
        if u16::from_le_bytes(magic) != MAGIC {
            return Err("wrong magic number or byte order");
        }
        // struct btf_header: after magic number, version and flags
        let header = |n: usize| word(&bytes, 4 + 4 * n).map(|value| value as usize).ok_or(too_early);
        let [header_len, type_off, type_len, string_off, string_len] =
            [header(0)?, header(1)?, header(2)?, header(3)?, header(4)?];
        let section = |off: usize, len: usize| {
            let start = header_len.checked_add(off)?;
            let end = start.checked_add(len).filter(|end| *end <= bytes.len())?;
            Some(start..end)
        };
        let outside = "section outside the file";
        let (types, strings) =
            (section(type_off, type_len).ok_or(outside)?, section(string_off, string_len).ok_or(outside)?);
        // So each name ends within.
        if bytes[strings.clone()].last() != Some(&0) {
            return Err("unterminated name");
        }
        let mut btf =
            Self { bytes, types, strings, places: vec![0], named: Vec::new(), enumerators: Vec::new() };
        btf.index()?;
        Ok(btf)
    }

    /// Finds where each type begins, and sorts those that are looked for by name.
    fn index(&mut self) -> Result<(), &'static str> {
        let mut at = 0;
        while at < self.types.len() {
            let id = self.places.len() as u32;
            let found = self.at(at).ok_or("ends too early")?;
            let end = found.more.checked_add(found.length()).filter(|end| *end <= self.types.len());
            let end = end.ok_or("ends too early")?;
            let outside = "name outside the string section";
            let name = self.name(found.name).ok_or(outside)?;
            match found.kind {
                STRUCT | UNION | TYPEDEF | FUNC if !name.is_empty() => {
                    let entry = (hash(name), id);
                    self.named.push(entry);
                }
                ENUM | ENUM64 => {
                    for number in 0..found.count {
                        let (name, _) = self.value(&found, number).ok_or(outside)?;
                        let entry = (hash(name), id, number);
                        self.enumerators.push(entry);
                    }
                }
                _ => {}
            }
            self.places.push(at as u32);
            at = end;
        }
        self.named.sort_unstable();
        self.enumerators.sort_unstable();
        Ok(())
    }

    /// The type that begins at `at` in the section of types.
    fn at(&self, at: usize) -> Option<Type> {
        let types = &self.bytes[self.types.clone()];
        let info = word(types, at + 4)?;
        Some(Type {
            name: word(types, at)?,
            kind: info >> 24 & 0x1f,
            count: info & 0xffff,
            flag: info >> 31 == 1,
            size_or_type: word(types, at + 8)?,
            more: at + HEAD,
        })
    }

    fn type_of(&self, id: u32) -> Option<Type> {
        if id == 0 {
            return None;
        }
        self.at(*self.places.get(id as usize)? as usize)
    }

    /// A word of what follows a type's first three.
    fn more(&self, of: &Type, number: u32) -> Option<u32> {
        word(&self.bytes[self.types.clone()], of.more + 4 * number as usize)
    }

    /// The name at an offset of the string section; one that is not UTF-8 counts as none.
    fn name(&self, offset: u32) -> Option<&str> {
        let rest = self.bytes[self.strings.clone()].get(offset as usize..)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        Some(std::str::from_utf8(&rest[..end]).unwrap_or_default())
    }

    /// The first type called `name` that `is_it`: later ones of the same name are local to some object.
    fn find(&self, name: &str, is_it: impl Fn(&Type) -> bool) -> Option<(u32, Type)> {
        let wanted = hash(name);
        let first = self.named.partition_point(|(hash, _)| *hash < wanted);
        let alike = self.named[first..].iter().take_while(|(hash, _)| *hash == wanted);
        alike
            .filter_map(|(_, id)| Some((*id, self.type_of(*id)?)))
            .find(|(_, found)| is_it(found) && self.name(found.name) == Some(name))
    }

    fn composite(&self, name: &str) -> Option<u32> {
        Some(self.find(name, Type::is_composite)?.0)
    }

    /// Byte offset of `path` inside struct `name`: members of members, anonymous ones looked through.
    pub fn offset(&self, name: &str, path: &[&str]) -> Option<u32> {
        let mut type_id = self.composite(name)?;
        let mut bits = 0u32;
        for member in path {
            let (offset, next) = self.find_member(type_id, member, 0)?;
            bits = bits.checked_add(offset)?;
            type_id = next;
        }
        Some(bits / 8)
    }

    /// Size in bytes of struct or union `name`.
    pub fn size(&self, name: &str) -> Option<u32> {
        Some(self.find(name, Type::is_composite)?.1.size_or_type)
    }

    /// Size in bytes of one element of the array member `path` of struct `name`.
    pub fn element_size(&self, name: &str, path: &[&str]) -> Option<u32> {
        let mut type_id = self.composite(name)?;
        for member in path {
            type_id = self.find_member(type_id, member, 0)?.1;
        }
        let array = self.resolve(type_id).filter(|found| found.kind == ARRAY)?;
        // struct btf_array: type of the elements, type of the index, number of elements
        let element = self.resolve(self.more(&array, 0)?)?;
        Some(if element.kind == PTR { 8 } else { element.size_or_type })
    }

    /// Value of an enumerator, whatever enum it is in.
    pub fn enumerator(&self, name: &str) -> Option<u64> {
        Some(self.enumerator_in(name)?.1)
    }

    /// The first enum that has such an enumerator, and its value.
    fn enumerator_in(&self, name: &str) -> Option<(Type, u64)> {
        let wanted = hash(name);
        let first = self.enumerators.partition_point(|(hash, ..)| *hash < wanted);
        let alike = self.enumerators[first..].iter().take_while(|(hash, ..)| *hash == wanted);
        alike
            .filter_map(|(_, id, number)| {
                let found = self.type_of(*id)?;
                Some((found, self.value(&found, *number)?))
            })
            .find_map(|(found, (known, value))| (known == name).then_some((found, value)))
    }

    /// Name and value of one enumerator.
    fn value(&self, of: &Type, number: u32) -> Option<(&str, u64)> {
        let words = if of.kind == ENUM64 { 3 } else { 2 };
        let word = |n: u32| self.more(of, words * number + n);
        let low = u64::from(word(1)?);
        let value = if of.kind == ENUM64 { low | u64::from(word(2)?) << 32 } else { low };
        Some((self.name(word(0)?)?, value))
    }

    /// Names and values of the enum that has `member` among its enumerators.
    pub fn enum_with(&self, member: &str) -> Vec<(String, u64)> {
        let Some((found, _)) = self.enumerator_in(member) else { return Vec::new() };
        let values = (0..found.count).filter_map(|number| self.value(&found, number));
        values.map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Number of the type that programs at a tracepoint are loaded with; absent where the kernel has no such tracepoint
    /// that BTF-typed programs can attach to.
    pub fn tracepoint(&self, name: &str) -> Option<u32> {
        Some(self.find(&format!("btf_trace_{name}"), |found| found.kind == TYPEDEF)?.0)
    }

    /// The function called `name`, if the kernel's types have it.
    pub fn function(&self, name: &str) -> Option<Function<'_>> {
        let (id, found) = self.find(name, |found| found.kind == FUNC)?;
        let prototype = self.type_of(found.size_or_type).filter(|found| found.kind == FUNC_PROTO)?;
        let first = if prototype.count == 0 { None } else { self.more(&prototype, 1) };
        let pointee = first
            .and_then(|first| self.resolve(first))
            .filter(|found| found.kind == PTR)
            .and_then(|pointer| self.resolve(pointer.size_or_type));
        let first_points_to = pointee.and_then(|pointee| self.name(pointee.name)).unwrap_or_default();
        Some(Function { id, args: prototype.count, first_points_to })
    }

    fn resolve(&self, mut id: u32) -> Option<Type> {
        // A chain of aliases is short; the bound is against malformed loops.
        for _ in 0..32 {
            let found = self.type_of(id)?;
            match found.kind {
                TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG => id = found.size_or_type,
                _ => return Some(found),
            }
        }
        None
    }

    fn member(&self, of: &Type, number: u32) -> Option<Member<'_>> {
        let offset = self.more(of, 3 * number + 2)?;
        Some(Member {
            name: self.name(self.more(of, 3 * number)?)?,
            type_id: self.more(of, 3 * number + 1)?,
            // With the flag set the top byte is a bit field's size.
            bit_offset: if of.flag { offset & 0x00ff_ffff } else { offset },
        })
    }

    fn find_member(&self, type_id: u32, name: &str, depth: u32) -> Option<(u32, u32)> {
        if depth > 16 {
            return None;
        }
        let found = self.resolve(type_id).filter(Type::is_composite)?;
        (0..found.count).filter_map(|number| self.member(&found, number)).find_map(|member| {
            if member.name == name {
                Some((member.bit_offset, member.type_id))
            } else if member.name.is_empty() {
                let (bits, id) = self.find_member(member.type_id, name, depth + 1)?;
                Some((member.bit_offset.checked_add(bits)?, id))
            } else {
                None
            }
        })
    }
}

/// A word of four bytes.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// FNV-1a, 32 bits. Names that have one hash are compared.
fn hash(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_kernel_resolves_what_every_kernel_has() {
        let btf = Btf::from_kernel().unwrap();
        assert_eq!(btf.offset("list_head", &["prev"]), Some(8));
        // Through the anonymous unions of struct page.
        assert!(btf.offset("page", &["lru"]).is_some());
        assert!(btf.offset("task_struct", &["comm"]).unwrap() > 0);
        assert_eq!(btf.enumerator("MIGRATE_UNMOVABLE"), Some(0));
        assert!(btf.tracepoint("mm_page_alloc").is_some());
        assert!(btf.tracepoint("no_such_tracepoint").is_none());
        assert!(btf.offset("task_struct", &["no_such_member"]).is_none());
        let function = btf.function("bpf_fentry_test2").unwrap();
        assert_eq!((function.args, function.first_points_to), (2, ""));
        assert_eq!(btf.function("wake_up_process").unwrap().first_points_to, "task_struct");
        assert!(btf.function("no_such_function").is_none());
    }

    /// aya's reader is another one.
    #[test]
    fn numbers_and_offsets_are_those_of_another_reader() {
        use aya_obj::btf::BtfKind;
        let other = aya::Btf::from_sys_fs().unwrap();
        let btf = Btf::from_kernel().unwrap();
        for name in ["mm_page_alloc", "sys_exit", "sched_process_exec"] {
            let typedef = other.id_by_type_name_kind(&format!("btf_trace_{name}"), BtfKind::Typedef).unwrap();
            assert_eq!(btf.tracepoint(name), Some(typedef), "{name}");
        }
        for name in ["wake_up_process", "bpf_fentry_test1"] {
            let function = other.id_by_type_name_kind(name, BtfKind::Func).unwrap();
            assert_eq!(btf.function(name).unwrap().id, function, "{name}");
        }
        assert_eq!(btf.size("list_head"), Some(16));
    }

    #[test]
    fn garbage_is_an_error_at_every_length() {
        let good = std::fs::read("/sys/kernel/btf/vmlinux").unwrap();
        assert!(Btf::parse(good[1..].to_vec()).is_err());
        for cut in [0, 1, 8, 23, 24, 1000, good.len() / 2, good.len() - 1] {
            assert!(Btf::parse(good[..cut].to_vec()).is_err(), "{cut} bytes were taken for BTF");
        }
    }
}
