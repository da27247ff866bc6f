//! Readers of levels: each turns kernel files into the values of one [`Sample`].

pub mod cache;
pub mod cgroup;
pub mod content;
mod huge_pages;
mod huge_zero;
pub mod nvml;
pub mod outside;
pub mod pool;
pub mod process;
pub mod process_env;
mod refresh;
pub mod system;
pub mod tmpfs;

use std::{cell::RefCell, collections::BTreeMap, fs::File, io, os::unix::fs::FileExt, path::Path};

use crate::{note_not_opened, now_ns};
use spark_trace_recording::journal::{Sample, SeriesId};

/// A kernel file kept open: reading it again costs no path walk, and a cgroup's can still be read for
/// as long as the cgroup exists. There are thousands of them: a buffer of its own would be most of what each takes.
#[derive(Debug)]
pub struct KernelFile(File);

const _: () = assert!(size_of::<KernelFile>() == size_of::<File>());

thread_local! {
    /// What a file has is read here first: the kernel makes the text anew for each read(2), so one should take all of it.
    static TEXT: RefCell<Vec<u8>> = RefCell::new(vec![0; 64 << 10]);
}

impl KernelFile {
    pub fn open(path: &Path) -> io::Result<Self> {
        File::open(path).inspect_err(note_not_opened).map(Self)
    }

    /// The file as it is now.
    pub fn read(&self) -> io::Result<String> {
        self.read_until(|_| false)
    }

    /// The same of a file that the kernel makes in one piece, as it does those of cgroups (fs/kernfs/file.c kernfs_seq_start
    /// has one element, and fs/seq_file.c seq_read_iter gives all of an element that there is room for): what leaves room is
    /// all of it, and is not read once more to find its end.
    pub fn read_piece(&self) -> io::Result<String> {
        self.read_until(|room| room > 0)
    }

    /// Reads to the end, or to what is the end for `is_all`, which knows how much room was left.
    fn read_until(&self, is_all: impl Fn(usize) -> bool) -> io::Result<String> {
        TEXT.with_borrow_mut(|buffer| {
            let mut len = 0;
            loop {
                let n = self.0.read_at(&mut buffer[len..], len as u64)?;
                len += n;
                if n == 0 || is_all(buffer.len() - len) {
                    break;
                }
                if len == buffer.len() {
                    buffer.resize(2 * len, 0);
                }
            }
            let text = std::str::from_utf8(&buffer[..len]);
            text.map(str::to_owned).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
        })
    }
}

/// Collects one reading with its window.
#[derive(Debug)]
pub struct Reading {
    begin_ns: u64,
    pub values: BTreeMap<String, u64>,
    pub absent: Vec<(String, String)>,
}

impl Reading {
    pub fn begin() -> Self {
        Self { begin_ns: now_ns(), values: BTreeMap::new(), absent: Vec::new() }
    }

    pub fn put(&mut self, column: impl Into<String>, value: u64) {
        self.values.insert(column.into(), value);
    }

    pub fn absent(&mut self, column: impl Into<String>, reason: impl ToString) {
        self.absent.push((column.into(), reason.to_string()));
    }

    pub fn end(self, series: SeriesId) -> Sample {
        Sample { series, begin_ns: self.begin_ns, end_ns: now_ns(), values: self.values, absent: self.absent }
    }
}
