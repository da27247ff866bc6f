//! Readers of levels: each turns kernel files into the values of one [`Sample`].

pub mod cache;
pub mod cgroup;
pub mod content;
pub mod context;
mod huge_pages;
mod huge_zero;
pub mod nvml;
pub mod pool;
pub mod process;
pub mod system;
pub mod tmpfs;

use std::{collections::BTreeMap, fs::File, io, os::unix::fs::FileExt, path::Path};

use crate::{
    live::{note_not_opened, now_ns},
    recording::journal::{Sample, SeriesId},
};

/// A kernel file kept open: reading it again costs no path walk, and a cgroup's can still be read for
/// as long as the cgroup exists.
#[derive(Debug)]
pub struct KernelFile {
    file: File,
    buffer: Vec<u8>,
}

impl KernelFile {
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path).inspect_err(note_not_opened)?;
        Ok(Self { file, buffer: vec![0; 16 << 10] })
    }

    /// The file as it is now.
    pub fn read(&mut self) -> io::Result<&str> {
        let mut len = 0;
        loop {
            let n = self.file.read_at(&mut self.buffer[len..], len as u64)?;
            len += n;
            if n == 0 {
                break;
            }
            if len == self.buffer.len() {
                self.buffer.resize(2 * len, 0);
            }
        }
        std::str::from_utf8(&self.buffer[..len]).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
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
