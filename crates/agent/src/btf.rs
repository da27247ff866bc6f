//! A reader for the kernel's type information (BTF): offsets of members and values of enumerators.
//!
//! Only what offset resolution needs. The published readers are either LGPL, which a static binary under
//! MIT OR Apache-2.0 cannot take in, or keep members private (aya-obj). The format is
//! Documentation/bpf/btf.rst; the kernel checked it when it was built, yet every access is bounded here.

use std::{collections::HashMap, path::Path};

use thiserror::Error;

#[derive(Debug, Error)]
pub enum BtfError {
    #[error("cannot read {path}: {cause}; the kernel must be built with CONFIG_DEBUG_INFO_BTF")]
    Read { path: String, cause: std::io::Error },
    #[error("{path} is not BTF: {what}")]
    Format { path: String, what: &'static str },
}

#[derive(Debug)]
struct Member {
    name: String,
    type_id: u32,
    bit_offset: u32,
}

#[derive(Debug)]
enum Kind {
    /// Struct or union.
    Composite(Vec<Member>),
    Enum(Vec<(String, u64)>),
    /// Typedef, const, volatile, restrict, type tag: stands for another type.
    Alias(u32),
    Array {
        element: u32,
    },
    Pointer(u32),
    /// A function, by its prototype.
    Function(u32),
    /// Types of the arguments.
    Prototype(Vec<u32>),
    Other,
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

#[derive(Debug)]
struct Type {
    name: String,
    size: u32,
    kind: Kind,
}

/// The types of one kernel.
#[derive(Debug)]
pub struct Btf {
    types: Vec<Type>,
    /// Structs and unions by name.
    composites: HashMap<String, u32>,
    typedefs: HashMap<String, u32>,
    enumerators: HashMap<String, u64>,
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

impl Btf {
    /// Reads the running kernel's types.
    pub fn from_kernel() -> Result<Self, BtfError> {
        Self::from_file(Path::new("/sys/kernel/btf/vmlinux"))
    }

    pub fn from_file(path: &Path) -> Result<Self, BtfError> {
        let name = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|cause| BtfError::Read { path: name.clone(), cause })?;
        Self::parse(&bytes).map_err(|what| BtfError::Format { path: name, what })
    }

    /// From the bytes of such a file.
    pub fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut header = Cursor { bytes, at: 0 };
        if header.u16()? != MAGIC {
            return Err("wrong magic number or byte order");
        }
        header.u16()?; // version, flags
        let header_len = header.u32()? as usize;
        let type_off = header_len + header.u32()? as usize;
        let type_len = header.u32()? as usize;
        let string_off = header_len + header.u32()? as usize;
        let string_len = header.u32()? as usize;
        let slice = |off: usize, len: usize| {
            off.checked_add(len).and_then(|end| bytes.get(off..end)).ok_or("section outside the file")
        };
        let strings = slice(string_off, string_len)?;
        let mut at = Cursor { bytes: slice(type_off, type_len)?, at: 0 };

        // Type 0 is void.
        let mut btf = Self {
            types: vec![Type { name: String::new(), size: 0, kind: Kind::Other }],
            composites: HashMap::new(),
            typedefs: HashMap::new(),
            enumerators: HashMap::new(),
        };
        while at.at < at.bytes.len() {
            let id = btf.types.len() as u32;
            let new = read_type(&mut at, strings, &mut btf.enumerators)?;
            if !new.0.name.is_empty() {
                match new.1 {
                    // The first definition wins: later ones of the same name are local to some object.
                    STRUCT | UNION => {
                        btf.composites.entry(new.0.name.clone()).or_insert(id);
                    }
                    TYPEDEF => {
                        btf.typedefs.entry(new.0.name.clone()).or_insert(id);
                    }
                    _ => {}
                }
            }
            btf.types.push(new.0);
        }
        Ok(btf)
    }

    /// Byte offset of `path` inside struct `name`: members of members, anonymous ones looked through.
    pub fn offset(&self, name: &str, path: &[&str]) -> Option<u32> {
        let mut type_id = *self.composites.get(name)?;
        let mut bits = 0;
        for member in path {
            let (offset, next) = self.find_member(type_id, member, 0)?;
            bits += offset;
            type_id = next;
        }
        Some(bits / 8)
    }

    /// Size in bytes of struct or union `name`.
    pub fn size(&self, name: &str) -> Option<u32> {
        Some(self.types.get(*self.composites.get(name)? as usize)?.size)
    }

    /// Size in bytes of one element of the array member `path` of struct `name`.
    pub fn element_size(&self, name: &str, path: &[&str]) -> Option<u32> {
        let mut type_id = *self.composites.get(name)?;
        for member in path {
            type_id = self.find_member(type_id, member, 0)?.1;
        }
        match self.resolve(type_id)?.kind {
            Kind::Array { element } => Some(self.resolve(element)?.size),
            _ => None,
        }
    }

    /// Value of an enumerator, whatever enum it is in.
    pub fn enumerator(&self, name: &str) -> Option<u64> {
        self.enumerators.get(name).copied()
    }

    /// Names and values of the enum that has `member` among its enumerators.
    pub fn enum_with(&self, member: &str) -> &[(String, u64)] {
        self.types
            .iter()
            .find_map(|t| match &t.kind {
                Kind::Enum(values) if values.iter().any(|(name, _)| name == member) => {
                    Some(values.as_slice())
                }
                _ => None,
            })
            .unwrap_or_default()
    }

    /// Whether the kernel has a tracepoint that BTF-typed programs can attach to.
    pub fn has_tracepoint(&self, name: &str) -> bool {
        self.typedefs.contains_key(&format!("btf_trace_{name}"))
    }

    /// The function called `name`, if the kernel's types have it.
    pub fn function(&self, name: &str) -> Option<Function<'_>> {
        let is_it = |t: &Type| matches!(t.kind, Kind::Function(_)) && t.name == name;
        let id = self.types.iter().position(is_it)?;
        let Kind::Function(prototype) = self.types[id].kind else { return None };
        let Kind::Prototype(args) = &self.types.get(prototype as usize)?.kind else { return None };
        let pointee = args.first().and_then(|first| match self.resolve(*first)?.kind {
            Kind::Pointer(to) => self.resolve(to),
            _ => None,
        });
        let first_points_to = pointee.map_or("", |pointee| pointee.name.as_str());
        Some(Function { id: u32::try_from(id).ok()?, args: u32::try_from(args.len()).ok()?, first_points_to })
    }

    fn resolve(&self, mut id: u32) -> Option<&Type> {
        // A chain of aliases is short; the bound is against malformed loops.
        for _ in 0..32 {
            let found = self.types.get(id as usize)?;
            match found.kind {
                Kind::Alias(next) => id = next,
                _ => return Some(found),
            }
        }
        None
    }

    fn find_member(&self, type_id: u32, name: &str, depth: u32) -> Option<(u32, u32)> {
        if depth > 16 {
            return None;
        }
        let Kind::Composite(members) = &self.resolve(type_id)?.kind else { return None };
        members.iter().find_map(|m| {
            if m.name == name {
                Some((m.bit_offset, m.type_id))
            } else if m.name.is_empty() {
                self.find_member(m.type_id, name, depth + 1).map(|(bits, id)| (m.bit_offset + bits, id))
            } else {
                None
            }
        })
    }
}

fn read_type(
    at: &mut Cursor<'_>,
    strings: &[u8],
    enumerators: &mut HashMap<String, u64>,
) -> Result<(Type, u32), &'static str> {
    let name = string(strings, at.u32()?)?;
    let info = at.u32()?;
    let size_or_type = at.u32()?;
    let (count, kind, flag) = (info & 0xffff, (info >> 24) & 0x1f, info >> 31 == 1);
    let mut size = size_or_type;
    let kind_data = match kind {
        STRUCT | UNION => {
            let mut members = Vec::with_capacity(count as usize);
            for _ in 0..count {
                let name = string(strings, at.u32()?)?;
                let type_id = at.u32()?;
                let offset = at.u32()?;
                // With the flag set the top byte is a bit field's size.
                let bit_offset = if flag { offset & 0x00ff_ffff } else { offset };
                members.push(Member { name, type_id, bit_offset });
            }
            Kind::Composite(members)
        }
        ENUM | ENUM64 => {
            let mut values = Vec::with_capacity(count as usize);
            for _ in 0..count {
                let name = string(strings, at.u32()?)?;
                let low = u64::from(at.u32()?);
                let value = if kind == ENUM64 { low | u64::from(at.u32()?) << 32 } else { low };
                enumerators.entry(name.clone()).or_insert(value);
                values.push((name, value));
            }
            Kind::Enum(values)
        }
        ARRAY => {
            let element = at.u32()?;
            at.skip(8)?;
            Kind::Array { element }
        }
        TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG => Kind::Alias(size_or_type),
        PTR => {
            size = 8;
            Kind::Pointer(size_or_type)
        }
        FUNC => Kind::Function(size_or_type),
        INT | VAR | DECL_TAG => {
            at.skip(4)?;
            Kind::Other
        }
        FUNC_PROTO => {
            let mut args = Vec::with_capacity(count as usize);
            for _ in 0..count {
                at.skip(4)?;
                args.push(at.u32()?);
            }
            Kind::Prototype(args)
        }
        DATASEC => {
            at.skip(12 * count as usize)?;
            Kind::Other
        }
        _ => Kind::Other,
    };
    Ok((Type { name, size, kind: kind_data }, kind))
}

fn string(strings: &[u8], offset: u32) -> Result<String, &'static str> {
    let rest = strings.get(offset as usize..).ok_or("name outside the string section")?;
    let end = rest.iter().position(|b| *b == 0).ok_or("unterminated name")?;
    Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let bytes =
            self.bytes.get(self.at..self.at + N).and_then(|b| b.try_into().ok()).ok_or("ends too early")?;
        self.at += N;
        Ok(bytes)
    }

    fn u16(&mut self) -> Result<u16, &'static str> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, &'static str> {
        self.take().map(u32::from_le_bytes)
    }

    fn skip(&mut self, n: usize) -> Result<(), &'static str> {
        self.at = self.at.checked_add(n).filter(|at| *at <= self.bytes.len()).ok_or("ends too early")?;
        Ok(())
    }
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
        assert!(btf.has_tracepoint("mm_page_alloc"));
        assert!(!btf.has_tracepoint("no_such_tracepoint"));
        assert!(btf.offset("task_struct", &["no_such_member"]).is_none());
        let function = btf.function("bpf_fentry_test2").unwrap();
        assert_eq!((function.args, function.first_points_to), (2, ""));
        assert_eq!(btf.function("wake_up_process").unwrap().first_points_to, "task_struct");
        assert!(btf.function("no_such_function").is_none());
    }

    #[test]
    fn garbage_is_an_error_at_every_length() {
        let good = std::fs::read("/sys/kernel/btf/vmlinux").unwrap();
        assert!(Btf::parse(&good[1..]).is_err());
        for cut in [0, 1, 8, 23, 24, 1000, good.len() / 2, good.len() - 1] {
            assert!(Btf::parse(&good[..cut]).is_err(), "{cut} bytes were taken for BTF");
        }
    }
}
