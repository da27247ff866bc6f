//! Which file systems live in memory, from /proc/PID/mountinfo.

/// File systems whose files are memory and nothing else.
const KINDS: &[&str] = &["tmpfs", "devtmpfs", "ramfs"];

/// One file system, wherever it is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) device: u64,
    pub(super) kind: String,
    /// Where, in the order in which to try; those of the whole of it come first, and of them the shortest.
    pub(super) points: Vec<String>,
}

/// Whether it is only a part that is mounted, how long the path is, and the path: points are tried in this order.
type Point = (bool, usize, String);

pub(super) fn in_memory(text: &str) -> Vec<Mount> {
    let mut found: Vec<(Mount, Vec<Point>)> = Vec::new();
    for line in text.lines() {
        let Some((device, part, point, kind)) = fields(line) else { continue };
        let index = found.iter().position(|(mount, _)| mount.device == device).unwrap_or_else(|| {
            found.push((Mount { device, kind: kind.to_owned(), points: Vec::new() }, Vec::new()));
            found.len() - 1
        });
        if let Some((_, points)) = found.get_mut(index) {
            points.push((part != "/", point.len(), point));
        }
    }
    let ordered = found.into_iter().map(|(mount, mut points)| {
        points.sort();
        Mount { points: points.into_iter().map(|(.., point)| point).collect(), ..mount }
    });
    ordered.collect()
}

/// Device, the part that is mounted, where, and the kind of file system.
fn fields(line: &str) -> Option<(u64, &str, String, &str)> {
    // Optional fields end with a hyphen alone.
    let (before, after) = line.split_once(" - ")?;
    let kind = after.split(' ').next()?;
    let mut before = before.split(' ').skip(2);
    let (major, minor) = before.next()?.split_once(':')?;
    let device = libc::makedev(major.parse().ok()?, minor.parse().ok()?);
    let part = before.next()?;
    let point = unescaped(before.next()?);
    KINDS.contains(&kind).then_some((device, part, point, kind))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_system_once() {
        let text = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:5 / /dev rw,nosuid shared:2 - devtmpfs udev rw,size=8000k
24 23 0:25 / /dev/shm rw,nosuid,nodev shared:3 master:4 - tmpfs tmpfs rw
25 22 0:26 /sub /srv/a rw - tmpfs tmpfs rw
26 22 0:26 / /mnt/a\\040b\\134c rw - tmpfs tmpfs rw
27 22 0:26 / /mnt/a rw - tmpfs tmpfs rw
28 22 0:27 / /proc rw - proc proc rw
29 22 0:28 / /ram rw - ramfs none rw
broken line
30 22 x:y / /t rw - tmpfs tmpfs rw
";
        let found = in_memory(text);
        let found: Vec<_> =
            found.iter().map(|mount| (mount.kind.as_str(), mount.points.join(" | "))).collect();
        let wanted = [
            ("devtmpfs", "/dev".to_owned()),
            ("tmpfs", "/dev/shm".to_owned()),
            ("tmpfs", "/mnt/a | /mnt/a b\\c | /srv/a".to_owned()),
            ("ramfs", "/ram".to_owned()),
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn escapes() {
        assert_eq!(unescaped("/a\\040b\\011\\\\x\\04"), "/a b\t\\\\x\\04");
        assert_eq!(unescaped("\\777"), "\\777");
        assert_eq!(unescaped(""), "");
    }
}
