//! Which cgroup pays for pages of a file that were cached before anybody looked: a few of its pages are looked up, by
//! page frame, in /proc/kpagecgroup (fs/proc/page.c).

use std::{collections::BTreeMap, fs::File, io, os::unix::fs::FileExt};

use super::mapped::Mapped;
use crate::page_size;

/// Places of a file that are looked at, and pages there among which a cached one is searched.
const PLACES: u64 = 8;
const PAGES: u64 = 64;

/// Low bits of an entry of /proc/PID/pagemap: the page frame number (Documentation/admin-guide/mm/pagemap.rst).
const FRAME: u64 = (1 << 55) - 1;
const PRESENT: u64 = 1 << 63;

pub(super) struct Owners {
    pagemap: File,
    kpagecgroup: File,
}

impl Owners {
    /// Absent where the kernel does not say (not root; no memory controller).
    pub(super) fn open() -> Option<Self> {
        Some(Self {
            pagemap: File::open("/proc/self/pagemap").ok()?,
            kpagecgroup: File::open("/proc/kpagecgroup").ok()?,
        })
    }

    /// Inode number of the memory cgroup that pays for most of the pages looked at; 0 where nobody does; absent where it
    /// is unknown. Of a cgroup that was removed its nearest living ancestor is reported.
    pub(super) fn of(&self, file: &File) -> Option<u64> {
        let pages = file.metadata().ok()?.len().div_ceil(page_size());
        let places = PLACES.min(pages.div_ceil(PAGES)).max(1);
        let mut counted = BTreeMap::new();
        for place in 0..places {
            let first = pages * place / places;
            let owner = self.at(file, first, PAGES.min(pages - first));
            if let Ok(Some(owner)) = owner {
                *counted.entry(owner).or_insert(0u32) += 1;
            }
        }
        counted.into_iter().max_by_key(|(_, count)| *count).map(|(owner, _)| owner)
    }

    fn at(&self, file: &File, first: u64, pages: u64) -> io::Result<Option<u64>> {
        let mapped = Mapped::new(file, first * page_size(), pages * page_size())?;
        let Some(index) = mapped.cached()?.into_iter().position(|cached| cached) else { return Ok(None) };
        let address = mapped.populate(index)?;
        let entry = word(&self.pagemap, address as u64 / page_size())?;
        let frame = entry & FRAME;
        if entry & PRESENT == 0 || frame == 0 {
            return Ok(None);
        }
        word(&self.kpagecgroup, frame).map(Some)
    }
}

/// Word `index` of a file that is an array of them.
fn word(file: &File, index: u64) -> io::Result<u64> {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, index * 8)?;
    Ok(u64::from_ne_bytes(bytes))
}
