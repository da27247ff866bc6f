//! The CUDA driver and NVML, wherever they are: on the host, bind-mounted into a container, a copy of their own in
//! an image, several at once. A library is its inode: attached to once, it is seen in every process.
//!
//! What is on the host or mapped already is attached to before the target starts. What turns up later (in an image)
//! is known by the program at system call exit when a process maps it, and attached to then. The process is paused
//! meanwhile ([`super::pause`]); where it is not, how long it ran on is in the recording.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use spark_trace_common::{
    cuda::{FUNCTIONS, Library, cookie},
    map_records::LibraryKey,
};

use super::{
    bpf::Object,
    maps,
    mounts::regular::{self, Links},
    now_ns,
};
use crate::decode::MappedLibrary;
use crate::elf;
use spark_trace_host::nvml::DIRECTORIES;
use spark_trace_recording::LibraryFile;
use spark_trace_recording::verdict::Verdict;

/// What the simulated driver's file is called.
const SIMULATED: &str = "libspark_trace_simulated";

/// Files that are looked at, and as many that could not be. There are few on a machine, but anybody may call a file so.
const MOST_FILES: usize = 128;

/// What distinguishes files of one inode number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum FileKind {
    BuildId(String),
    Device(u64),
}

#[derive(Debug, Default)]
pub struct Libraries {
    /// What became of each file that has been looked at.
    rows: Vec<LibraryFile>,
    /// Which row is a file's. One file shows under several devices where overlays lie over it, so the build id stands
    /// in for the device where there is one.
    seen: HashMap<(u64, FileKind), usize>,
    /// The same by the names that the kernel side has for them.
    known: HashMap<LibraryKey, usize>,
    /// Files that were mapped and could not be opened any more.
    unopened: usize,
    /// Times that a file was not looked at because there were too many.
    left_out: u64,
    /// A CUDA driver was attached to.
    pub driver_watched: bool,
    /// A CUDA driver is mapped, or has been: there is memory to follow that is the driver's. Anybody may call a file so:
    /// one that is none of the driver's counts as none.
    pub driver_in_use: bool,
    /// Rows of files that are no CUDA driver, whatever they are called.
    no_drivers: HashSet<usize>,
}

impl Libraries {
    /// Attaches to what is there already: on the host, and mapped by running processes.
    pub fn present(&mut self, object: &mut Object, extra: &[PathBuf]) -> Vec<LibraryFile> {
        let mut files = Vec::new();
        for path in extra.iter().cloned().chain(on_host()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let useless = |reason: String| LibraryFile {
                library: library_of(&name).map_or("unknown", Library::as_str).to_owned(),
                path: path.display().to_string(),
                verdict: Verdict::Broken.into(),
                reason: Some(reason),
                ..LibraryFile::default()
            };
            match regular::open(&path, Links::Proc) {
                Ok(_) if library_of(&name).is_none() => {
                    let known: Vec<_> =
                        Library::ALL.iter().flat_map(|library| library.file_names()).copied().collect();
                    files.push(useless(format!("its name begins with none of {}", known.join(", "))));
                }
                Ok(file) => drop(self.open(object, &file, &path)),
                Err(e) => files.push(useless(format!("cannot open it: {e}"))),
            }
        }
        for mapped in mapped_by_processes() {
            let name = mapped.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // A process may have ended since.
            let Ok(file) = regular::open_of_process(mapped.pid, &mapped.link) else {
                self.is_used(&name, None);
                continue;
            };
            let row = self.open(object, &file, &mapped.path);
            self.is_used(&name, row);
            match row {
                Some(row) => self.rows[row].in_use = Some(true),
                None => self.left_out += 1,
            }
        }
        files.extend(self.rows.iter().cloned());
        files
    }

    /// What is to be said about files that were not looked at.
    pub fn warning(&self) -> Option<String> {
        (self.left_out > 0).then(|| {
            format!(
                "processes mapped {} more files named like a CUDA library after the first {MOST_FILES}: calls of those files are not followed",
                self.left_out
            )
        })
    }

    /// Attaches to what a process has just mapped. Gives the file's row where that is new, or in use only from now on.
    pub fn mapped(&mut self, object: &mut Object, event: &MappedLibrary) -> Option<LibraryFile> {
        library_of(&event.name)?;
        let newly_mapped = |file: LibraryFile| LibraryFile {
            mapped_by: Some(event.pid),
            mapped_ns: Some(event.at_ns),
            in_use: Some(true),
            ..file
        };
        // The file itself is known, by whatever path, also where its process has ended since.
        let row = self.known.get(&event.file).copied().or_else(|| {
            let is_it = |mapping: &Mapping| mapping.path.file_name().is_some_and(|name| *name == *event.name);
            let mapping = executable_mappings(event.pid).into_iter().find(is_it)?;
            let file = regular::open_of_process(event.pid, &mapping.link).ok()?;
            self.open(object, &file, &mapping.path)
        });
        self.is_used(&event.name, row);
        let Some(row) = row else {
            if self.rows.len() >= MOST_FILES || self.unopened >= MOST_FILES {
                self.left_out += 1;
                return None;
            }
            self.unopened += 1;
            return Some(newly_mapped(LibraryFile {
                library: library_of(&event.name)?.as_str().to_owned(),
                path: event.name.clone(),
                device: device_text(event.file.device >> MINOR_BITS, event.file.device & MINORS),
                inode: event.file.inode,
                verdict: Verdict::Broken.into(),
                reason: Some("its process had ended, or unmapped it, before it could be opened".to_owned()),
                ..LibraryFile::default()
            }));
        };
        self.know(object, event.file, row);
        let file = &mut self.rows[row];
        if file.in_use == Some(true) {
            return None;
        }
        *file = newly_mapped(std::mem::take(file));
        Some(file.clone())
    }

    /// A process has mapped a file of this name. One that could not be looked into may be the driver.
    fn is_used(&mut self, name: &str, row: Option<usize>) {
        self.driver_in_use |= is_cuda_driver(name) && row.is_none_or(|row| !self.no_drivers.contains(&row));
    }

    /// Nobody is paused for this file any more.
    fn know(&mut self, object: &mut Object, file: LibraryKey, row: usize) {
        if self.known.insert(file, row).is_none() {
            // Without it a process is paused for it again, which costs it a moment.
            let _ = object.is_watched(file);
        }
    }

    /// The row of a file, which is attached to where it is new; `None` where it is none of the libraries.
    fn open(&mut self, object: &mut Object, file: &File, path: &Path) -> Option<usize> {
        let library = library_of(&path.file_name()?.to_string_lossy())?;
        let meta = file.metadata().ok()?;
        let link = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let build_id = elf::build_id(file).ok().flatten();
        let kind = build_id.clone().map_or(FileKind::Device(meta.dev()), FileKind::BuildId);
        let (major, minor) = (libc::major(meta.dev()), libc::minor(meta.dev()));
        let key = LibraryKey { inode: meta.ino(), device: major << MINOR_BITS | minor, reserved: 0 };
        if let Some(&row) = self.seen.get(&(meta.ino(), kind.clone())) {
            self.know(object, key, row);
            return Some(row);
        }
        if self.rows.len() >= MOST_FILES {
            return None;
        }
        let mut found = LibraryFile {
            library: library.as_str().to_owned(),
            path: path.display().to_string(),
            device: device_text(major, minor),
            inode: meta.ino(),
            build_id,
            simulated: path.to_string_lossy().contains(SIMULATED),
            in_use: Some(false),
            ..LibraryFile::default()
        };
        let exports = elf::exports(file, FUNCTIONS.iter().map(|f| f.symbol));
        let is_no_driver =
            exports.as_ref().map_or_else(|_| !is_elf(file), |offsets| !has_any(library, offsets));
        let verdict = match exports {
            Ok(offsets) => attach(object, &link, library, &offsets, &mut found),
            Err(e) => Err((Verdict::NotApplicable, e.to_string())),
        };
        let (verdict, reason) = match verdict {
            Ok(()) => (Verdict::Ok, None),
            Err((verdict, reason)) => (verdict, Some(reason)),
        };
        found.verdict = verdict.into();
        found.reason = reason;
        found.attached_ns = (found.attached > 0).then(now_ns);
        self.driver_watched |= library == Library::Cuda && found.attached > 0;
        let row = self.rows.len();
        if is_no_driver {
            self.no_drivers.insert(row);
        }
        self.rows.push(found);
        self.seen.insert((meta.ino(), kind), row);
        self.know(object, key, row);
        Some(row)
    }
}

/// Device numbers as the kernel keeps them (include/linux/kdev_t.h).
const MINOR_BITS: u32 = 20;
const MINORS: u32 = (1 << MINOR_BITS) - 1;

fn device_text(major: u32, minor: u32) -> String {
    format!("{major}:{minor}")
}

/// Whether a file has functions that are watched of a library.
fn has_any(library: Library, offsets: &HashMap<String, u64>) -> bool {
    FUNCTIONS.iter().any(|function| function.library == library && offsets.contains_key(function.symbol))
}

/// Whether a file begins as a library does; what cannot be read may.
fn is_elf(file: &File) -> bool {
    let mut beginning = [0; 4];
    file.read_exact_at(&mut beginning, 0).map_or(true, |()| beginning == *b"\x7fELF")
}

/// Attaches to every function of the table that the file has.
fn attach(
    object: &mut Object,
    link: &Path,
    library: Library,
    offsets: &HashMap<String, u64>,
    found: &mut LibraryFile,
) -> Result<(), (Verdict, String)> {
    let mut symbols: HashMap<u64, &str> = HashMap::new();
    let mut functions = Vec::new();
    let rows = FUNCTIONS.iter().enumerate().filter(|(_, function)| function.library == library);
    for (index, function) in rows {
        let Some(&offset) = offsets.get(function.symbol) else {
            found.missing.push(function.symbol.to_owned());
            continue;
        };
        // Two names of one function would count its calls twice.
        if symbols.insert(offset, function.symbol).is_none() {
            functions.push((offset, cookie(index)));
        }
    }
    if functions.is_empty() {
        return Err((Verdict::NotApplicable, "it has none of the watched functions".to_owned()));
    }
    let failed = object.attach_functions(link, &functions);
    found.attached = functions.len().saturating_sub(failed.len()) as u32;
    let Some((offset, reason)) = failed.first() else { return Ok(()) };
    let symbol = symbols.get(offset).copied().unwrap_or_default();
    let more = if failed.len() > 1 { format!("; and {} more", failed.len() - 1) } else { String::new() };
    Err((Verdict::Broken, format!("{symbol}: {reason}{more}")))
}

/// The library that a file of this name is.
fn library_of(name: &str) -> Option<Library> {
    Library::ALL
        .into_iter()
        .find(|library| library.file_names().iter().any(|beginning| name.starts_with(beginning)))
}

fn on_host() -> Vec<PathBuf> {
    let path = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(DIRECTORIES.iter().map(PathBuf::from));
    let mut found = Vec::new();
    for directory in directories.filter(|d| d.is_absolute()) {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            if library_of(&entry.file_name().to_string_lossy()).is_some()
                // Where links lead, so that the path names the version.
                && let Ok(path) = entry.path().canonicalize()
                && !found.contains(&path)
            {
                found.push(path);
            }
        }
    }
    found
}

/// An executable mapping of a file.
struct Mapping {
    pid: u32,
    path: PathBuf,
    /// Leads to the file itself, whatever its path means in the process's mount namespace.
    link: PathBuf,
}

fn executable_mappings(pid: u32) -> Vec<Mapping> {
    let code = maps::code(pid).unwrap_or_default().into_iter().filter(maps::Mapping::is_file);
    let mapping = |map: maps::Mapping| {
        let link = PathBuf::from(format!("/proc/{pid}/map_files/{:x}-{:x}", map.start, map.end));
        Mapping { pid, path: PathBuf::from(map.name), link }
    };
    code.map(mapping).collect()
}

/// Whether a file of this name is a CUDA driver.
pub fn is_cuda_driver(name: &str) -> bool {
    library_of(name) == Some(Library::Cuda)
}

/// Watched libraries that any process of the machine has mapped.
fn mapped_by_processes() -> Vec<Mapping> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_watched = |mapping: &Mapping| {
        mapping.path.file_name().is_some_and(|name| library_of(&name.to_string_lossy()).is_some())
    };
    pids.flat_map(executable_mappings).filter(is_watched).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_driver_by_its_functions_and_not_by_its_name() {
        let cuda = FUNCTIONS.iter().find(|function| function.library == Library::Cuda).unwrap().symbol;
        let nvml = FUNCTIONS.iter().find(|function| function.library == Library::Nvml).unwrap().symbol;
        let offsets = |symbol: &str| HashMap::from([(symbol.to_owned(), 1)]);
        assert!(has_any(Library::Cuda, &offsets(cuda)) && !has_any(Library::Cuda, &offsets(nvml)));
        let file = |content: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            std::io::Write::write_all(&mut file, content).unwrap();
            file
        };
        assert!(is_elf(&file(b"\x7fELF and what nobody can read")));
        assert!(!is_elf(&file(b"a text of this name")));
        let mut libraries = Libraries { no_drivers: HashSet::from([3]), ..Libraries::default() };
        libraries.is_used("libcuda.so.1", Some(3));
        libraries.is_used("libnvidia-ml.so.1", Some(4));
        assert!(!libraries.driver_in_use);
        // One that nobody could look into may be the driver.
        libraries.is_used("libcuda.so.1", None);
        assert!(libraries.driver_in_use);
    }

    #[test]
    fn libraries_are_known_by_name() {
        assert_eq!(library_of("libcuda.so.580.95.05"), Some(Library::Cuda));
        assert_eq!(library_of("libcuda.so"), Some(Library::Cuda));
        assert_eq!(library_of("libspark_trace_simulated_cuda.so"), Some(Library::Cuda));
        assert_eq!(library_of("libnvidia-ml.so.1"), Some(Library::Nvml));
        assert_eq!(library_of("libcudart.so.13"), None);
        assert_eq!(library_of("libcudadebugger.so.1"), None);
    }
}
