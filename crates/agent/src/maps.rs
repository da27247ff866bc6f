//! What a process has mapped at an address. Kernels from 6.11 on answer for one address (ioctl PROCMAP_QUERY of
//! /proc/PID/maps, fs/proc/task_mmu.c do_procmap_query); older ones only write out all mappings.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    os::fd::AsRawFd,
    path::PathBuf,
};

/// `_IOWR('f', 17, struct procmap_query)` of include/uapi/linux/fs.h.
const PROCMAP_QUERY: libc::Ioctl = 0xc068_6611_u32 as libc::Ioctl;
/// Bits of its `query_flags` and `vma_flags`.
const EXECUTABLE: u64 = 0x04;
const COVERING_OR_NEXT: u64 = 0x10;
/// A path in the kernel's answer: PATH_MAX and its end.
const LONGEST_NAME: usize = 4096;

/// Mappings of code that are kept of one process.
const MOST_CODE: usize = 16_384;

/// `struct procmap_query`.
#[repr(C)]
#[derive(Default)]
struct Query {
    size: u64,
    query_flags: u64,
    query_addr: u64,
    vma_start: u64,
    vma_end: u64,
    vma_flags: u64,
    vma_page_size: u64,
    vma_offset: u64,
    inode: u64,
    dev_major: u32,
    dev_minor: u32,
    vma_name_size: u32,
    build_id_size: u32,
    vma_name_addr: u64,
    build_id_addr: u64,
}

const _: () = assert!(size_of::<Query>() == 0x68);

/// A mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    pub start: u64,
    pub end: u64,
    pub offset: u64,
    pub executable: bool,
    /// Device, as major and minor number, and inode of its file.
    pub inode: (i32, i32, u64),
    /// Path of its file, or a name in brackets; empty for anonymous memory.
    pub name: String,
}

impl Mapping {
    /// Whether it shows a file that has a path.
    pub fn is_file(&self) -> bool {
        self.name.starts_with('/')
    }
}

/// What the kernel says of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Mapped(Mapping),
    Nothing,
    /// There is no such process any more.
    Gone,
    /// This kernel does not answer for one address.
    Unsupported,
}

/// The mapping that an address of a process lies in.
pub fn at(pid: u32, address: u64) -> Answer {
    match File::open(path(pid)) {
        Ok(maps) => query(&maps, address, 0),
        Err(_) => Answer::Gone,
    }
}

/// The same, also where the kernel only writes out all of them.
fn find(pid: u32, address: u64) -> Option<Mapping> {
    match at(pid, address) {
        Answer::Mapped(mapping) => Some(mapping),
        Answer::Nothing | Answer::Gone => None,
        Answer::Unsupported => {
            all(pid)?.into_iter().find(|mapping| (mapping.start..mapping.end).contains(&address))
        }
    }
}

/// Device and inode of an open file as mappings show them. A file system may answer stat(2) with other numbers (overlayfs,
/// btrfs), so the file is mapped here and looked at.
pub fn inode_of(file: &File) -> Option<(i32, i32, u64)> {
    const LENGTH: usize = 1;
    // SAFETY: a new mapping wherever the kernel has room; nothing of it is read.
    let start = unsafe {
        libc::mmap(std::ptr::null_mut(), LENGTH, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0)
    };
    if start == libc::MAP_FAILED {
        return None;
    }
    let found = find(std::process::id(), start as u64);
    // SAFETY: the mapping made above, of which no address was handed on.
    unsafe { libc::munmap(start, LENGTH) };
    Some(found?.inode)
}

/// All mappings of code, lowest first. `None` where the process is gone.
pub fn code(pid: u32) -> Option<Vec<Mapping>> {
    let maps = File::open(path(pid)).ok()?;
    let (mut found, mut from) = (Vec::new(), 0);
    while found.len() < MOST_CODE {
        match query(&maps, from, COVERING_OR_NEXT | EXECUTABLE) {
            Answer::Mapped(mapping) => {
                from = mapping.end;
                found.push(mapping);
            }
            Answer::Nothing => break,
            Answer::Gone => return None,
            Answer::Unsupported => {
                return Some(all(pid)?.into_iter().filter(|mapping| mapping.executable).collect());
            }
        }
    }
    Some(found)
}

/// Read of the text of all mappings, at most: some 65 thousand of them, with long names.
const LONGEST_TEXT: u64 = 32 << 20;

/// All mappings, lowest first: as dear as there are many. `None` where the process is gone.
pub fn all(pid: u32) -> Option<Vec<Mapping>> {
    let maps = File::open(path(pid)).ok()?;
    let mut lines = BufReader::new(maps.take(LONGEST_TEXT));
    let (mut found, mut line) = (Vec::new(), Vec::new());
    // Of a process that ends meanwhile there is an error, or nothing more.
    while lines.read_until(b'\n', &mut line).ok()? > 0 {
        found.extend(parse(&String::from_utf8_lossy(&line)));
        line.clear();
    }
    Some(found)
}

/// `START-END PERMISSIONS OFFSET DEVICE INODE      NAME` (fs/proc/task_mmu.c show_map_vma). The name is whatever somebody
/// has called a file.
pub fn parse(line: &str) -> Option<Mapping> {
    let mut fields = line.trim_end_matches('\n').splitn(6, ' ');
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?;
    let offset = hex(fields.next()?)?;
    let (major, minor) = fields.next()?.split_once(':')?;
    let number = |text: &str| i32::from_str_radix(text, 16).ok();
    let inode = fields.next()?.parse().ok()?;
    Some(Mapping {
        start: hex(start)?,
        end: hex(end)?,
        offset,
        executable: permissions.contains('x'),
        inode: (number(major)?, number(minor)?, inode),
        name: fields.next().unwrap_or_default().trim_start_matches(' ').to_owned(),
    })
}

fn path(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/maps"))
}

fn query(maps: &File, address: u64, flags: u64) -> Answer {
    let mut name = [0u8; LONGEST_NAME];
    let mut query = Query {
        size: size_of::<Query>() as u64,
        query_flags: flags,
        query_addr: address,
        vma_name_size: LONGEST_NAME as u32,
        vma_name_addr: name.as_mut_ptr() as u64,
        ..Query::default()
    };
    // SAFETY: the kernel writes the fields of `query`, which has the size it says, and at most `vma_name_size` bytes of `name`.
    let result = unsafe { libc::ioctl(maps.as_raw_fd(), PROCMAP_QUERY, &raw mut query) };
    if result < 0 {
        return match io::Error::last_os_error().raw_os_error() {
            Some(libc::ENOENT) => Answer::Nothing,
            Some(libc::ESRCH) => Answer::Gone,
            _ => Answer::Unsupported,
        };
    }
    let name = name.get(..query.vma_name_size as usize).unwrap_or_default();
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Answer::Mapped(Mapping {
        start: query.vma_start,
        end: query.vma_end,
        offset: query.vma_offset,
        executable: query.vma_flags & EXECUTABLE != 0,
        inode: (query.dev_major as i32, query.dev_minor as i32, query.inode),
        name: String::from_utf8_lossy(name).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel itself writes of this process's mappings.
    fn lines() -> Vec<(u64, u64, String, String)> {
        let text = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = |line: &str| {
            let mut words = line.split_whitespace();
            let (start, end) = words.next()?.split_once('-')?;
            let permissions = words.next()?.to_owned();
            let name = words.nth(3).unwrap_or_default().to_owned();
            let hex = |text| u64::from_str_radix(text, 16).ok();
            Some((hex(start)?, hex(end)?, permissions, name))
        };
        text.lines().filter_map(line).collect()
    }

    #[test]
    fn names_of_any_kind_are_read() {
        let map =
            parse("00400000-00627000 r-xp 00001000 fe:0a 17        /opt/a b/lib.so (deleted)\n").unwrap();
        let wanted = (0x40_0000, 0x62_7000, 0x1000, true, (0xfe, 10, 17), "/opt/a b/lib.so (deleted)");
        let found = (map.start, map.end, map.offset, map.executable, map.inode, map.name.as_str());
        assert_eq!(found, wanted);
        assert!(!map.name.is_empty() && map.is_file());
        // A reader of keys of shared memory would trip over these.
        for name in ["/SYSV", "/SYSV\u{e4}\u{e4}\u{e4}\u{e4}", "/SYSVzzzzzzzz (deleted)", ""] {
            let map = parse(&format!("1000-2000 rw-s 00000000 00:01 5      {name}")).unwrap();
            assert_eq!((map.name.as_str(), map.executable), (name, false));
        }
        for line in ["", "1000 r-xp 0 0:0 1", "1000-2000", "1000-2000 r-xp 0 00 1 /a", "x-y r-xp 0 0:0 1 /a"]
        {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn code_is_what_proc_maps_marks_executable() {
        let found = code(std::process::id()).unwrap();
        let found: Vec<_> = found.into_iter().map(|map| (map.start, map.end, map.name)).collect();
        let lines = lines().into_iter().filter(|line| line.2.contains('x'));
        // Made by the kernel for old programs, and of no process.
        let lines = lines.filter(|line| line.3 != "[vsyscall]");
        let wanted: Vec<_> = lines.map(|line| (line.0, line.1, line.3)).collect();
        assert!(wanted.len() > 1);
        let found: Vec<_> = found.into_iter().filter(|map| map.2 != "[vsyscall]").collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn an_address_lies_in_its_mapping_or_in_none() {
        let pid = std::process::id();
        let here = code as *const () as u64;
        let wanted = lines().into_iter().find(|line| (line.0..line.1).contains(&here)).unwrap();
        match at(pid, here) {
            Answer::Mapped(map) => {
                assert_eq!((map.start, map.end, map.name), (wanted.0, wanted.1, wanted.3));
                assert!(map.executable && map.inode.2 > 0);
                assert_eq!(at(pid, 0x10), Answer::Nothing);
            }
            // A kernel before 6.11.
            other => assert_eq!(other, Answer::Unsupported),
        }
        assert_eq!(at(u32::MAX, here), Answer::Gone);
        assert_eq!(code(u32::MAX), None);
    }

    #[test]
    fn a_file_that_is_open_has_the_inode_of_its_mappings() {
        let exe = std::env::current_exe().unwrap();
        let mapped = all(std::process::id()).unwrap();
        let mapped = mapped.into_iter().find(|map| map.name == exe.to_str().unwrap()).unwrap();
        assert_eq!(inode_of(&File::open(exe).unwrap()), Some(mapped.inode));
        assert_eq!(inode_of(&File::open("/proc/self").unwrap()), None, "a directory");
    }

    #[test]
    fn all_mappings_are_those_of_proc_maps() {
        let map = all(std::process::id()).unwrap().into_iter().find(|map| map.name == "[stack]").unwrap();
        assert!(lines().iter().any(|line| line.3 == "[stack]" && line.0 <= map.start && !map.executable));
    }
}
