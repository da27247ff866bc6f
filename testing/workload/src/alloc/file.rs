//! File pages: read, mapped, privately copied, and written.

use std::fs::File;
use std::hint::black_box;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::map::Mapping;
use super::{Env, Holding, Taken};
use crate::cli::AllocArgs;
use crate::files::{self, BUFFER};
use crate::output::SourceRecord;
use crate::sys::Machine;

/// A file that we made and, unless it is to be kept, remove again: also on the way out of an error.
pub struct OwnedFile {
    pub file: File,
    path: Option<PathBuf>,
}

impl OwnedFile {
    pub fn create(path: &Path, remove: bool) -> Result<Self> {
        Ok(Self { file: files::create_new(path)?, path: remove.then(|| path.to_owned()) })
    }

    fn remove(&mut self) -> io::Result<()> {
        self.path.take().map_or(Ok(()), std::fs::remove_file)
    }
}

impl Drop for OwnedFile {
    fn drop(&mut self) {
        let _ = self.remove();
    }
}

impl Holding for OwnedFile {
    fn release(mut self: Box<Self>) -> Result<()> {
        self.remove().context("cannot remove the file again")
    }
}

/// A file we found, what of it we mapped, and how to read its pages.
struct FileHolding {
    mapping: Option<Mapping>,
    file: File,
    drop_cache: bool,
    machine: Machine,
}

impl Holding for FileHolding {
    fn measure(&self) -> Option<Value> {
        Some(cached(&self.file, self.machine))
    }

    fn release(self: Box<Self>) -> Result<()> {
        let Self { mapping, file, drop_cache, .. } = *self;
        if let Some(mapping) = mapping {
            Box::new(mapping).release()?;
        }
        if drop_cache { files::drop_cache(&file) } else { Ok(()) }
    }
}

/// The page cache's view of the file; not knowing it is no reason to stop.
fn cached(file: &File, machine: Machine) -> Value {
    match files::residency(file, machine) {
        Ok(residency) => json!(residency),
        Err(error) => json!({ "resident": null, "reason": format!("{error:#}") }),
    }
}

fn open_input(path: &Path, size: u64) -> Result<File> {
    let file = File::open(path)
        .with_context(|| format!("cannot open {} (--create-files makes missing ones)", path.display()))?;
    let meta = file.metadata().with_context(|| path.display().to_string())?;
    if !meta.is_file() {
        bail!("{} is not a regular file", path.display());
    }
    if meta.len() < size {
        bail!("{} has {} bytes, fewer than the {size} wanted", path.display(), meta.len());
    }
    if files::is_in_memory(&file).with_context(|| path.display().to_string())? {
        bail!(
            "{} is in a tmpfs: its pages are shmem, not a file's cache. Name one on a disk",
            path.display()
        );
    }
    Ok(file)
}

/// Both options are there, or clap would not have let them pass.
fn path_of(path: &Option<PathBuf>) -> &Path {
    path.as_deref().unwrap_or(Path::new(""))
}

pub fn file_read(args: &AllocArgs, env: &Env) -> Result<Taken> {
    let (size, path) = (args.file_read.unwrap_or_default(), path_of(&args.file));
    let mut file = open_input(path, size)?;
    let before = cached(&file, env.machine);
    if args.no_readahead {
        files::no_readahead(&file)?;
    }
    read_file(&mut file, size).with_context(|| format!("cannot read {size} bytes of {}", path.display()))?;
    let detail = json!({ "size": size, "cache_before": before, "cache_after": cached(&file, env.machine) });
    let bytes = env.machine.pages_up(size)? as u64;
    let record = SourceRecord::new("file-clean", "file-read", bytes, detail).of_file(path);
    let holding = FileHolding { mapping: None, file, drop_cache: args.drop_on_release, machine: env.machine };
    Ok(Taken::new(record, holding))
}

/// Reads exactly `size` bytes through one small buffer.
#[inline(never)]
pub fn read_file(file: &mut File, size: u64) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut left = size;
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
        match file.read(&mut buffer[..want]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(got) => left -= got as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    black_box(&buffer);
    Ok(())
}

pub fn file_mmap(args: &AllocArgs, env: &Env) -> Result<Taken> {
    let (size, path) = (args.file_mmap.unwrap_or_default(), path_of(&args.mmap_file));
    let file = open_input(path, size)?;
    let before = cached(&file, env.machine);
    let len = env.machine.pages_up(size)?;
    let mapping = Mapping::new(len, libc::PROT_READ, libc::MAP_SHARED, Some(&file))
        .with_context(|| format!("mmap of {}", path.display()))?;
    if args.no_readahead {
        mapping.advise(libc::MADV_RANDOM).context("madvise(MADV_RANDOM)")?;
    }
    black_box(touch_mapped_file(&mapping, env.machine.page));
    let detail = json!({ "size": size, "cache_before": before, "cache_after": cached(&file, env.machine) });
    let record =
        SourceRecord::new("file-clean", "file-mmap", len as u64, detail).of_file(path).at(mapping.address());
    let holding =
        FileHolding { mapping: Some(mapping), file, drop_cache: args.drop_on_release, machine: env.machine };
    Ok(Taken::new(record, holding))
}

#[inline(never)]
fn touch_mapped_file(mapping: &Mapping, page: usize) -> u64 {
    mapping.read_each(page)
}

/// Dirtying a private mapping of a file copies each page: the copies are anonymous, and what they were copied
/// from is in the page cache besides.
pub fn file_private(args: &AllocArgs, env: &Env) -> Result<Taken> {
    let (size, path) = (args.file_private.unwrap_or_default(), path_of(&args.private_file));
    let file = open_input(path, size)?;
    let before = cached(&file, env.machine);
    let len = env.machine.pages_up(size)?;
    let mut mapping = Mapping::new(len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE, Some(&file))
        .with_context(|| format!("private mmap of {}", path.display()))?;
    mapping.no_huge_pages()?;
    if args.no_readahead {
        mapping.advise(libc::MADV_RANDOM).context("madvise(MADV_RANDOM)")?;
    }
    dirty_private_file(&mut mapping, env.machine.page);
    let address = mapping.address();
    let copies = SourceRecord::new("anon", "file-private", len as u64, json!({ "size": size }));
    let detail = json!({ "size": size, "cache_before": before, "cache_after": cached(&file, env.machine) });
    let originals = SourceRecord::new("file-clean", "file-private-cache", len as u64, detail);
    let holding =
        FileHolding { mapping: Some(mapping), file, drop_cache: args.drop_on_release, machine: env.machine };
    // The one whose `measure` counts comes first.
    Ok(Taken {
        sources: vec![originals.of_file(path), copies.of_file(path).at(address)],
        holding: Box::new(holding),
    })
}

#[inline(never)]
fn dirty_private_file(mapping: &mut Mapping, page: usize) {
    mapping.write_each::<0x7072_6976>(page);
    black_box(mapping);
}

struct WrittenFile {
    owned: Box<OwnedFile>,
    drop_cache: bool,
    machine: Machine,
}

impl Holding for WrittenFile {
    fn measure(&self) -> Option<Value> {
        Some(cached(&self.owned.file, self.machine))
    }

    fn release(self: Box<Self>) -> Result<()> {
        if self.drop_cache {
            files::drop_cache(&self.owned.file)?;
        }
        self.owned.release()
    }
}

pub fn file_write(args: &AllocArgs, env: &Env) -> Result<Taken> {
    let (size, path) = (args.file_write.unwrap_or_default(), path_of(&args.write_file));
    let mut owned = Box::new(OwnedFile::create(path, !args.keep_files)?);
    if files::is_in_memory(&owned.file).with_context(|| path.display().to_string())? {
        bail!(
            "{} is in a tmpfs: its pages are shmem (use --tmpfs for that). Name one on a disk",
            path.display()
        );
    }
    write_file(&mut owned.file, size)
        .with_context(|| format!("cannot write {size} bytes to {}", path.display()))?;
    if args.fsync {
        owned.file.sync_all().with_context(|| format!("fsync of {}", path.display()))?;
    }
    let source = if args.fsync { "file-clean" } else { "file-dirty" };
    // The kernel may begin to write dirty pages out at any time: what was really dirty is in the details.
    let detail =
        json!({ "size": size, "fsync": args.fsync, "cache_after": cached(&owned.file, env.machine) });
    let bytes = env.machine.pages_up(size)? as u64;
    let record = SourceRecord::new(source, "file-write", bytes, detail).of_file(path);
    Ok(Taken::new(record, WrittenFile { owned, drop_cache: args.drop_on_release, machine: env.machine }))
}

#[inline(never)]
fn write_file(file: &mut File, size: u64) -> io::Result<()> {
    black_box(files::write_noise(file, size, 0x7772_6974))
}
