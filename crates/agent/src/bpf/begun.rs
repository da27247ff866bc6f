//! What aya needs of the kernel before programs can be loaded, without the tenth of a second and the 50 MiB that it would take
//! for it by itself: it makes a structure of its own of each of the kernel's 130,000 types, for its loader and for attaching,
//! and needs some twenty of them.

use std::{
    io,
    thread::{self, JoinHandle},
};

use aya::{EbpfLoader, Endianness};
use spark_trace_common::hook::{Candidate, HOOKS, Mechanism};
use tracing::debug;

use crate::btf::Btf;

/// The loader, which a thread makes while the rest begins.
pub struct Begun(JoinHandle<EbpfLoader<'static>>);

impl Begun {
    /// `None` where there can be no thread.
    pub fn begin() -> Option<Self> {
        let make = || {
            // Found out by loading things, once.
            let _ = aya::features();
            if let Err(error) = hide_types() {
                debug!("aya reads the kernel's types, too, which takes longer: {error}");
            }
            EbpfLoader::new()
        };
        thread::Builder::new().name("loader".to_owned()).spawn(make).ok().map(Self)
    }

    pub(super) fn loader(begun: Option<Self>) -> EbpfLoader<'static> {
        begun.and_then(|Self(thread)| thread.join().ok()).unwrap_or_default()
    }
}

/// Takes the file with the kernel's types out of this thread's sight. A new loader reads it whatever it is for, and does
/// without where there is none: the types serve relocations, and our object has none.
fn hide_types() -> io::Result<()> {
    // SAFETY: no memory is involved.
    let mut done = unsafe { libc::unshare(libc::CLONE_FS) } == 0;
    // Of this thread alone, which has a root of its own now.
    // SAFETY: the path is a constant.
    done = done && unsafe { libc::chroot(c"/sys/kernel/btf".as_ptr()) } == 0;
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

// include/uapi/linux/btf.h
const MAGIC: u16 = 0xeb9f;
const VERSION: u8 = 1;
const HEADER_LEN: u32 = 24;
const FWD: u32 = 7;
const TYPEDEF: u32 = 8;
const FUNC: u32 = 12;

/// The types that programs are loaded with, each with the kernel's number for it, as aya takes them.
pub(super) fn types_of_hooks(btf: &Btf) -> Result<aya::Btf, aya::BtfError> {
    let mut wanted: Vec<(u32, u32, String)> = places()
        .filter_map(|(mechanism, target)| match mechanism {
            Mechanism::TpBtf => Some((btf.tracepoint(target)?, TYPEDEF, format!("btf_trace_{target}"))),
            Mechanism::Fentry | Mechanism::Fexit => Some((btf.function(target)?.id, FUNC, target.to_owned())),
            Mechanism::Kprobe | Mechanism::Uprobe | Mechanism::UprobeMulti | Mechanism::OnDemand => None,
        })
        .collect();
    wanted.sort();
    wanted.dedup();
    aya::Btf::parse(&encode(&wanted), Endianness::default())
}

/// Where hooks may be attached.
fn places() -> impl Iterator<Item = (Mechanism, &'static str)> {
    let of =
        |candidate: &'static Candidate| candidate.places().map(|place| (candidate.mechanism, place.target));
    HOOKS.iter().flat_map(|hook| hook.candidates).flat_map(of)
}

/// Such a file, with types that say nothing in all other places. `wanted`: number, kind and name, by number.
fn encode(wanted: &[(u32, u32, String)]) -> Vec<u8> {
    let mut types = Vec::new();
    // The first name is the empty one.
    let mut strings = vec![0];
    let mut next = 1;
    for (number, kind, name) in wanted {
        for _ in next..*number {
            types.extend(head(0, FWD));
        }
        types.extend(head(strings.len() as u32, *kind));
        next = number + 1;
        strings.extend(name.bytes());
        strings.push(0);
    }
    let mut bytes = Vec::with_capacity(HEADER_LEN as usize + types.len() + strings.len());
    bytes.extend(MAGIC.to_ne_bytes());
    bytes.extend([VERSION, 0]);
    let (types_len, strings_len) = (types.len() as u32, strings.len() as u32);
    for word in [HEADER_LEN, 0, types_len, types_len, strings_len] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(types);
    bytes.extend(strings);
    bytes
}

/// struct btf_type, of nothing.
fn head(name: u32, kind: u32) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&name.to_ne_bytes());
    bytes[4..8].copy_from_slice(&(kind << 24).to_ne_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use aya_obj::btf::BtfKind;

    /// aya's own reading of the file is the other one.
    #[test]
    fn each_hook_has_the_number_that_aya_finds_in_all_of_the_kernels_types() {
        let all = aya::Btf::from_sys_fs().unwrap();
        let few = types_of_hooks(&Btf::from_kernel().unwrap()).unwrap();
        let mut found = 0;
        for (mechanism, target) in places() {
            let (name, kind) = match mechanism {
                Mechanism::TpBtf => (format!("btf_trace_{target}"), BtfKind::Typedef),
                Mechanism::Fentry | Mechanism::Fexit => (target.to_owned(), BtfKind::Func),
                _ => continue,
            };
            let number = few.id_by_type_name_kind(&name, kind).ok();
            assert_eq!(number, all.id_by_type_name_kind(&name, kind).ok(), "{name}");
            found += usize::from(number.is_some());
        }
        assert!(found > 10, "{found}");
    }

    #[test]
    fn the_object_needs_no_types_of_the_kernel() {
        for object in [super::super::OBJECT, super::super::OBJECT_WITH_MESSAGES] {
            assert!(!aya_obj::Object::parse(object).unwrap().has_btf_relocations());
        }
    }
}
