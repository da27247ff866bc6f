//! Tables of files, mapped into the process that unwinds: of some ten megabytes a stack needs some pages.
//!
//! A file that is cut short meanwhile ends that process with SIGBUS. It has no rights, and another one takes its place.

use std::{fs::File, ops::Deref, os::fd::AsRawFd, ptr::NonNull, rc::Rc};

use super::index::Index;
use super::walk::{self, Sections};
use crate::{
    elf::{self, Part, Unwinding},
    page_size,
};

/// What unwinding needs of a file.
#[derive(Debug)]
pub struct Tables {
    layout: Unwinding,
    index: Mapped,
    table: Mapped,
    table_address: u64,
}

impl Tables {
    /// `None` of a file that has none, or none that can be read.
    pub fn open(file: &File) -> Option<Self> {
        let layout = elf::unwinding(file).ok()??;
        let index = Mapped::new(file, layout.index)?;
        let table_address = Index::read(&index, layout.index.address)?.table_address;
        let table = Mapped::new(file, layout.table(file, table_address).ok()??)?;
        Some(Self { layout, index, table, table_address })
    }

    /// Bytes of address space.
    pub fn size(&self) -> u64 {
        (self.index.length + self.table.length) as u64
    }
}

/// Code of a process that is mapped from a file.
#[derive(Debug, Clone)]
pub struct Module {
    pub start: u64,
    pub end: u64,
    bias: u64,
    tables: Option<Rc<Tables>>,
}

impl Module {
    /// `offset`: where in its file the mapping begins.
    pub fn new((start, end): (u64, u64), offset: u64, tables: Option<Rc<Tables>>) -> Self {
        let linked = tables.as_ref().and_then(|tables| tables.layout.code(offset));
        Self {
            start,
            end,
            bias: start.wrapping_sub(linked.unwrap_or(0)),
            tables: tables.filter(|_| linked.is_some()),
        }
    }
}

impl walk::Module for Module {
    fn bias(&self) -> u64 {
        self.bias
    }

    fn sections(&self) -> Option<Sections<'_>> {
        let tables = self.tables.as_deref()?;
        Some(Sections {
            index: &tables.index,
            index_address: tables.layout.index.address,
            table: &tables.table,
            table_address: tables.table_address,
        })
    }
}

/// A part of a file in memory.
#[derive(Debug)]
struct Mapped {
    /// Of the page that it begins in.
    start: NonNull<libc::c_void>,
    length: usize,
    before: usize,
}

impl Mapped {
    fn new(file: &File, part: Part) -> Option<Self> {
        let before = part.offset % page_size();
        let length = usize::try_from(part.size.checked_add(before)?).ok()?;
        let offset = libc::off_t::try_from(part.offset - before).ok()?;
        let (null, read) = (std::ptr::null_mut(), libc::PROT_READ);
        // SAFETY: a new mapping wherever the kernel has room.
        let start = unsafe { libc::mmap(null, length, read, libc::MAP_PRIVATE, file.as_raw_fd(), offset) };
        let start = NonNull::new(start).filter(|start| start.as_ptr() != libc::MAP_FAILED)?;
        // Entries lie far apart: what lies beside one need not be read from the disk. No harm where this fails.
        // SAFETY: the mapping made above.
        unsafe { libc::madvise(start.as_ptr(), length, libc::MADV_RANDOM) };
        Some(Self { start, length, before: before as usize })
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: mapped and readable for as long as `self` lives. Whoever may write to the file can change what is read, between
        // two looks too: every offset and length that is read is compared with the bounds of the slice before it is used, and
        // this process has no rights that such a reader could take.
        unsafe {
            std::slice::from_raw_parts(self.start.as_ptr().cast::<u8>(), self.length)
                .get(self.before..)
                .unwrap_or_default()
        }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, of which no slice is left.
        unsafe { libc::munmap(self.start.as_ptr(), self.length) };
    }
}
