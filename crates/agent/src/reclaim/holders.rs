//! Which processes have a file mapped.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
};

use crate::{
    mounts::regular,
    source::{cache::map_files_entry, process},
};

/// Mappings of all processes by the number of the file's inode.
#[derive(Debug)]
pub(super) struct Holders(HashMap<u64, Vec<Mapping>>);

#[derive(Debug)]
struct Mapping {
    pid: u32,
    /// Its name in /proc/PID/map_files.
    range: String,
}

impl Holders {
    pub(super) fn read() -> Self {
        let mut all: HashMap<u64, Vec<Mapping>> = HashMap::new();
        for pid in process::all() {
            let Ok(maps) = fs::read(format!("/proc/{pid}/maps")) else { continue };
            for line in String::from_utf8_lossy(&maps).lines() {
                let mut fields = line.split(' ');
                let (Some(range), Some(inode)) = (fields.next(), fields.nth(3)) else { continue };
                let Some(inode) = inode.parse().ok().filter(|&inode| inode != 0) else { continue };
                let Some(range) = map_files_entry(range) else { continue };
                all.entry(inode).or_default().push(Mapping { pid, range });
            }
        }
        Self(all)
    }

    /// Processes that map `file`. The numbers of devices in maps are not those of stat(2) on every file system (btrfs), so
    /// the file behind a mapping is compared.
    pub(super) fn of(&self, file: &File) -> io::Result<BTreeSet<u32>> {
        let status = file.metadata()?;
        let wanted = (status.dev(), status.ino());
        let is_same = |mapping: &&Mapping| {
            let way = format!("/proc/{}/map_files/{}", mapping.pid, mapping.range);
            regular::identity(Path::new(&way)).is_ok_and(|behind| behind == wanted)
        };
        let mappings = self.0.get(&wanted.1).into_iter().flatten();
        Ok(mappings.filter(is_same).map(|mapping| mapping.pid).collect())
    }
}
