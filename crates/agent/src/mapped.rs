//! Files of code that processes have mapped, each once. They are kept open while a process has them mapped, so that a file can be
//! read when its process or its name is gone.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::Arc,
};

use super::{
    maps::{self, Mapping},
    mounts::regular,
};
use crate::elf;

/// Files kept open for naming. Beyond that, frames of further files keep their offsets without names.
const OPEN_FILES: usize = 512;
/// Files known, some 4 MiB of them: a trace may go on for days beside programs that are built anew and run.
const MOST_FILES: usize = 16_384;

#[derive(Debug)]
pub struct MappedFile {
    pub path: String,
    pub file: Option<Arc<File>>,
    /// Why it could not be opened.
    pub closed: Option<String>,
    /// As it was first opened; absent if it never was.
    version: Option<Version>,
    /// Absent until a frame in it is kept.
    build_id: Option<Option<String>>,
}

#[derive(Debug, Default)]
pub struct MappedFiles {
    files: Vec<MappedFile>,
    /// Files that are open.
    open: usize,
    by_inode: HashMap<(i32, i32, u64), usize>,
    /// Mappings of further files that were looked at.
    pub refused: u64,
}

impl MappedFiles {
    /// The number of the file that a process has mapped; `None` where there are too many.
    pub fn number(&mut self, pid: u32, mapping: &Mapping) -> Option<usize> {
        let known = self.by_inode.get(&mapping.inode).copied();
        // One that was let go of is opened again: it is in use again.
        if let Some(index) =
            known.filter(|&index| self.files[index].file.is_some() || self.open >= OPEN_FILES)
        {
            return Some(index);
        }
        if known.is_none() && self.files.len() >= MOST_FILES {
            self.refused += 1;
            return None;
        }
        let (file, closed) = if self.open < OPEN_FILES {
            match open(pid, mapping) {
                Ok(file) => (Some(Arc::new(file)), None),
                Err(why) => (None, Some(why)),
            }
        } else {
            (None, Some(format!("{OPEN_FILES} other files were open for naming")))
        };
        let version = file.as_deref().and_then(version);
        // Another file may have got the inode of one that was let go of.
        let same = |index: &usize| version.is_none() || self.files[*index].version == version;
        let index = known.filter(same).unwrap_or(self.files.len());
        match self.files.get_mut(index) {
            Some(again) => (again.file, again.closed) = (file, closed),
            None if index >= MOST_FILES => {
                self.refused += 1;
                return None;
            }
            None => {
                let path = mapping.name.clone();
                self.files.push(MappedFile { path, file, closed, version, build_id: None });
                self.by_inode.insert(mapping.inode, index);
            }
        }
        self.open += usize::from(self.files[index].file.is_some());
        Some(index)
    }

    pub fn get(&self, index: usize) -> &MappedFile {
        &self.files[index]
    }

    /// Its build id, where it has one that can be read.
    pub fn build_id(&mut self, index: usize) -> Option<String> {
        let MappedFile { file, build_id, .. } = &mut self.files[index];
        build_id.get_or_insert_with(|| elf::build_id(file.as_deref()?).ok()?).clone()
    }

    pub fn let_go(&mut self, index: usize) {
        self.open -= usize::from(self.files[index].file.take().is_some());
    }

    /// Lets go of all others.
    pub fn keep_open(&mut self, mapped: &HashSet<usize>) {
        for index in (0..self.files.len()).filter(|index| !mapped.contains(index)) {
            self.let_go(index);
        }
    }
}

/// Opens the file that a process has mapped, whatever its path means in the process's mount namespace.
pub fn open(pid: u32, mapping: &Mapping) -> Result<File, String> {
    let link = PathBuf::from(format!("/proc/{pid}/map_files/{:x}-{:x}", mapping.start, mapping.end));
    match regular::open_of_process(pid, &link) {
        Ok(file) if is_mapped(&file, mapping.inode) => Ok(file),
        // Its names would be those of other code.
        Ok(_) => Err("another file had taken its place when it was opened".to_owned()),
        Err(error) => Err(format!("it could not be opened: {error}")),
    }
}

/// Whether a file is the one that was seen mapped: meanwhile the process may have mapped something else there.
fn is_mapped(file: &File, inode: (i32, i32, u64)) -> bool {
    let numbers = file.metadata().ok().map(|about| {
        let (major, minor) = (libc::major(about.dev()), libc::minor(about.dev()));
        (major as i32, minor as i32, about.ino())
    });
    numbers == Some(inode) || maps::inode_of(file) == Some(inode)
}

/// What distinguishes a file from another one that has its inode after it: size and time of the last change.
type Version = (u64, i64, i64);

fn version(file: &File) -> Option<Version> {
    file.metadata().ok().map(|about| (about.size(), about.mtime(), about.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(find: impl Fn(&Mapping) -> bool) -> (u32, Mapping) {
        let pid = std::process::id();
        (pid, maps::all(pid).unwrap().into_iter().find(find).unwrap())
    }

    #[test]
    fn a_file_that_is_not_the_mapped_one_gives_no_names() {
        let mut files = MappedFiles::default();
        let (pid, mut mapping) = own(|mapping| mapping.executable && mapping.is_file());
        let right = files.number(pid, &mapping).unwrap();
        let opened = files.get(right).file.as_ref().map(|file| file.metadata().unwrap().len());
        assert_eq!(opened, Some(std::fs::metadata(&mapping.name).unwrap().len()));
        // As if another file had been mapped there when this one was seen.
        mapping.inode.2 += 1;
        let wrong = files.number(pid, &mapping).unwrap();
        assert!(files.get(wrong).file.is_none());
        let why = files.get(wrong).closed.as_deref();
        assert_eq!(why, Some("another file had taken its place when it was opened"));
    }

    #[test]
    fn a_file_that_was_let_go_of_is_not_taken_for_another_with_its_inode() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(8192).unwrap();
        // SAFETY: a new mapping wherever the kernel has room; it stays for as long as the test program.
        let start = unsafe {
            let fd = std::os::fd::AsRawFd::as_raw_fd(file.as_file());
            libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_SHARED, fd, 0)
        };
        assert_ne!(start, libc::MAP_FAILED);
        let (pid, mapping) = own(|mapping| mapping.start == start as u64);
        let mut files = MappedFiles::default();
        let mut number = || {
            let number = files.number(pid, &mapping).unwrap();
            assert!(files.get(number).file.is_some() && files.open == 1);
            files.keep_open(&HashSet::new());
            assert!(files.get(number).file.is_none() && files.open == 0);
            number
        };
        assert_eq!((number(), number()), (0, 0));
        file.as_file().set_len(4096).unwrap();
        assert_eq!((number(), number()), (1, 1));
    }

    #[test]
    fn files_beyond_the_bound_are_counted() {
        let (pid, mut mapping) = own(|mapping| mapping.executable && mapping.is_file());
        let path = || String::from("/lib/a.so");
        let known = || MappedFile { path: path(), file: None, closed: None, version: None, build_id: None };
        let mut files = MappedFiles { files: Vec::new(), ..MappedFiles::default() };
        files.files.resize_with(MOST_FILES - 1, known);
        assert_eq!((files.number(pid, &mapping), files.refused), (Some(MOST_FILES - 1), 0));
        mapping.inode.2 += 1;
        assert_eq!((files.number(pid, &mapping), files.refused, files.open), (None, 1, 1));
    }
}
