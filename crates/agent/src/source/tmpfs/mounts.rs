//! Which file systems live in memory, by a mount table.

use crate::mounts::Mount;

/// File systems whose files are memory and nothing else.
const KINDS: &[&str] = &["tmpfs", "devtmpfs", "ramfs"];

/// One file system, wherever it is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InMemory {
    /// `major:minor`, and the same as a number.
    pub(super) device: String,
    pub(super) number: u64,
    pub(super) kind: String,
    /// Where, in the order in which to try; those of the whole of it come first, and of them the shortest.
    pub(super) points: Vec<String>,
}

/// Whether it is only a part that is mounted, how long the path is, and the path: points are tried in this order.
type Point = (bool, usize, String);

pub(super) fn in_memory(mounts: &[Mount]) -> Vec<InMemory> {
    let mut found: Vec<(InMemory, Vec<Point>)> = Vec::new();
    for mount in mounts.iter().filter(|mount| KINDS.contains(&mount.kind.as_str())) {
        let index = found.iter().position(|(known, _)| known.number == mount.number).unwrap_or_else(|| {
            let (device, kind) = (mount.device.clone(), mount.kind.clone());
            found.push((InMemory { device, number: mount.number, kind, points: Vec::new() }, Vec::new()));
            found.len() - 1
        });
        if let Some((_, points)) = found.get_mut(index) {
            points.push((mount.root != "/", mount.point.len(), mount.point.clone()));
        }
    }
    let ordered = found.into_iter().map(|(known, mut points)| {
        points.sort();
        InMemory { points: points.into_iter().map(|(.., point)| point).collect(), ..known }
    });
    ordered.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts;

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
        let found = in_memory(&mounts::parse(text));
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
}
