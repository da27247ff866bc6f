//! Shared memory: a memfd, and a file in tmpfs.

use std::fs::File;
use std::hint::black_box;
use std::io;
use std::os::fd::FromRawFd;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::file::OwnedFile;
use super::map::Mapping;
use super::{Env, Holding, Taken};
use crate::cli::AllocArgs;
use crate::files;
use crate::output::SourceRecord;

struct Memfd {
    mapping: Mapping,
    /// The memory is the file's: it goes when this and the mapping have.
    _file: File,
}

impl Holding for Memfd {
    fn release(self: Box<Self>) -> Result<()> {
        Box::new(self.mapping).release()
    }
}

pub fn shmem(args: &AllocArgs, env: &Env) -> Result<Taken> {
    let len = env.machine.pages_up(args.shmem.unwrap_or_default())?;
    // SAFETY: the name is a C string literal; a new descriptor is all that comes of it.
    let fd = unsafe { libc::memfd_create(c"spark-trace-shmem".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error()).context("memfd_create");
    }
    // SAFETY: memfd_create has just given us this descriptor, nobody else closes it.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(len as u64).with_context(|| format!("ftruncate of a memfd to {len} bytes"))?;
    let mut mapping = Mapping::new(len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, Some(&file))
        .with_context(|| format!("mmap of a memfd of {len} bytes"))?;
    mapping.no_huge_pages()?;
    touch_shmem(&mut mapping, env.machine.page);
    let tables = env.machine.table_bytes(mapping.address(), len);
    let detail = json!({ "name": "spark-trace-shmem", "page_table_bytes": tables });
    let record = SourceRecord::new("shmem", "memfd", len as u64, detail);
    Ok(Taken::new(record.at(mapping.address()), Memfd { mapping, _file: file }))
}

#[inline(never)]
fn touch_shmem(mapping: &mut Mapping, page: usize) {
    mapping.write_each::<0x7368_6d65>(page);
    black_box(mapping);
}

/// Shmem that nobody has mapped, so that no process shows it.
pub fn tmpfs(args: &AllocArgs, env: &Env) -> Result<Taken> {
    let size = args.tmpfs.unwrap_or_default();
    let path = args.tmpfs_dir.join(format!("spark-trace-workload-{}-{}", std::process::id(), env.cycle));
    let mut owned = OwnedFile::create(&path, true)?;
    if !files::is_tmpfs(&owned.file).with_context(|| path.display().to_string())? {
        bail!("{} is not a tmpfs: name one with --tmpfs-dir", args.tmpfs_dir.display());
    }
    write_tmpfs(&mut owned.file, size).with_context(|| {
        format!(
            "cannot write {size} bytes to {} (a container's /dev/shm has 64 MiB: docker --shm-size)",
            path.display()
        )
    })?;
    let bytes = env.machine.pages_up(size)? as u64;
    let record = SourceRecord::new("shmem", "tmpfs", bytes, json!({ "size": size })).of_file(&path);
    Ok(Taken::new(record, owned))
}

#[inline(never)]
fn write_tmpfs(file: &mut File, size: u64) -> io::Result<()> {
    black_box(files::write_noise(file, size, 0x746d_7066))
}
