//! What is mounted where, in spark-trace's mount namespace and in those of others.

mod handle;
pub mod open;
pub mod places;
pub mod regular;

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::MetadataExt,
};

use super::subject::container::id_in_path;

/// Read of a mount table, at most: whoever makes mounts in a namespace of their own has no limit of a length.
const LONGEST_TABLE: u64 = 4 << 20;

/// One line of /proc/PID/mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub id: u64,
    /// `major:minor` of the file system (`s_dev`), and the same as a number.
    pub device: String,
    pub number: u64,
    /// The part of the file system that is mounted.
    pub root: String,
    pub point: String,
    pub kind: String,
}

pub fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(mount).collect()
}

fn mount(line: &str) -> Option<Mount> {
    // Optional fields end with a hyphen alone.
    let (before, after) = line.split_once(" - ")?;
    let kind = after.split(' ').next()?.to_owned();
    let mut before = before.split(' ');
    let id = before.next()?.parse().ok()?;
    let device = before.nth(1)?.to_owned();
    let (major, minor) = device.split_once(':')?;
    let number = libc::makedev(major.parse().ok()?, minor.parse().ok()?);
    let root = unescaped(before.next()?);
    let point = unescaped(before.next()?);
    Some(Mount { id, device, number, root, point, kind })
}

/// Blanks, tabs, line ends and backslashes are written as three octal digits.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|digits| first == b'\\' && digits.iter().all(u8::is_ascii_digit));
        let byte = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &after[3..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The mounts of a process, as its own root directory has them; nothing where it is gone.
pub fn of_process(pid: &str) -> Vec<Mount> {
    let mut bytes = Vec::new();
    let read = File::open(format!("/proc/{pid}/mountinfo"))
        .and_then(|file| file.take(LONGEST_TABLE).read_to_end(&mut bytes));
    match read {
        Ok(_) => parse(&String::from_utf8_lossy(&bytes)),
        Err(_) => Vec::new(),
    }
}

/// What distinguishes mount namespaces, for as long as each exists.
pub fn namespace(pid: &str) -> Option<u64> {
    fs::metadata(format!("/proc/{pid}/ns/mnt")).ok().map(|status| status.ino())
}

/// Id of the container that a process is in, by the names of its cgroups.
pub fn container_of(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines().find_map(id_in_path).map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_broken_ones_are_not() {
        let text = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
26 22 0:26 /sub /mnt/a\\040b\\134c rw shared:3 master:4 - tmpfs tmpfs rw
broken line
30 22 x:y / /t rw - tmpfs tmpfs rw
";
        let found = parse(text);
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[1].id, found[1].device.as_str(), found[1].number),
            (26, "0:26", libc::makedev(0, 26))
        );
        assert_eq!((found[1].root.as_str(), found[1].point.as_str()), ("/sub", "/mnt/a b\\c"));
        assert_eq!(found[1].kind, "tmpfs");
    }

    #[test]
    fn escapes() {
        assert_eq!(unescaped("/a\\040b\\011\\\\x\\04"), "/a b\t\\\\x\\04");
        assert_eq!(unescaped("\\777"), "\\777");
        assert_eq!(unescaped(""), "");
    }

    #[test]
    fn this_process_has_mounts() {
        assert!(of_process("self").iter().any(|mount| mount.point == "/"));
        assert!(namespace("self").is_some());
        assert!(of_process("0").is_empty() && namespace("0").is_none());
    }
}
