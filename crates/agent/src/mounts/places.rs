//! Where files of the page cache are to be found: the kernel knows them by the path below the root of their file system,
//! people by the mount point in front, and programs may have renamed or removed them since.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File},
    os::{
        fd::AsRawFd,
        unix::fs::{DirEntryExt, MetadataExt},
    },
    time::{Duration, Instant},
};

use super::{Mount, container_of, handle, namespace, of_process, open::Paths};
use crate::decode::device_name;
use spark_trace_recording::{FilePages, FilePlace, FileState};

/// Mount namespaces that are kept.
const MOST_NAMESPACES: usize = 64;
/// Files that are looked for at the end, those with the most bytes, and the time for it.
const MOST_FILES: usize = 4096;
const LONGEST_SEARCH: Duration = Duration::from_millis(700);
/// Names that are read in directories whose files were renamed.
const MOST_NAMES: usize = 100_000;

/// The mounts of spark-trace's own namespace, and of those of the target's processes.
#[derive(Debug, Default)]
pub struct Places {
    own: Vec<Mount>,
    own_namespace: Option<u64>,
    others: Vec<Namespace>,
    /// Devices that files were seen on.
    devices: HashSet<u32>,
}

#[derive(Debug)]
struct Namespace {
    inode: u64,
    pid: u32,
    container: Option<String>,
    mounts: Vec<Mount>,
}

impl Places {
    pub fn of_this_process() -> Self {
        Self { own: of_process("self"), own_namespace: namespace("self"), ..Self::default() }
    }

    /// Takes in what has been mounted since; what is no longer mounted stays known.
    pub fn refresh(&mut self) {
        let known = std::mem::replace(&mut self.own, of_process("self"));
        let gone = known.into_iter().filter(|mount| {
            !self
                .own
                .iter()
                .any(|new| (&new.device, &new.root, &new.point) == (&mount.device, &mount.root, &mount.point))
        });
        let gone: Vec<_> = gone.collect();
        self.own.extend(gone);
    }

    /// A file was seen on a device: of one that is new, the mounts are read while they are there.
    pub fn file_on(&mut self, device: u32) {
        if self.devices.insert(device) {
            let name = device_name(device);
            if !self.own.iter().any(|mount| mount.device == name) {
                self.refresh();
            }
        }
    }

    /// A process of the target runs: where it has mounts of its own, they are kept, for it may be gone at the end.
    pub fn process(&mut self, pid: u32) {
        let Some(inode) = namespace(&pid.to_string()) else { return };
        let known = Some(inode) == self.own_namespace || self.others.iter().any(|other| other.inode == inode);
        if known || self.others.len() >= MOST_NAMESPACES {
            return;
        }
        let mounts = of_process(&pid.to_string());
        self.others.push(Namespace { inode, pid, container: container_of(pid), mounts });
    }

    /// Puts the mount points in front, without looking whether the files are there.
    pub fn name(&self, files: &mut [FilePages]) {
        let mut own: BTreeMap<&str, Vec<&Mount>> = BTreeMap::new();
        for mount in &self.own {
            own.entry(&mount.device).or_default().push(mount);
        }
        for file in files.iter_mut().filter(|file| file.place.is_none()) {
            file.place = match file.path.as_deref() {
                Some(path) => {
                    let mounts = own.get(file.device.as_str()).map_or(&[][..], Vec::as_slice);
                    points(mounts.iter().copied(), path)
                        .into_iter()
                        .next()
                        .map(unchecked)
                        .or_else(|| self.elsewhere(&file.device, path))
                }
                None if own.contains_key(file.device.as_str()) => {
                    let mounts = own.get(file.device.as_str()).map_or(&[][..], Vec::as_slice);
                    mounts.iter().any(|mount| mount.kind == "ext4").then(|| own_blocks(file)).flatten()
                }
                None => block_device(&file.device, file.inode),
            };
        }
    }

    /// A path in a mount namespace of the target's, of a file system that is not mounted here.
    fn elsewhere(&self, device: &str, path: &str) -> Option<FilePlace> {
        self.others.iter().find_map(|other| {
            let mounts = other.mounts.iter().filter(|mount| mount.device == device);
            let path = points(mounts, path).into_iter().next()?;
            let (seen_by, container) = (Some(other.pid), other.container.clone());
            Some(FilePlace { path, state: FileState::Unchecked, seen_by, container })
        })
    }

    /// Looks whether files are where they were when their first page was added, and where else if they are not.
    pub fn find(&mut self, files: &mut [FilePages]) {
        self.refresh();
        let Ok(paths) = Paths::of("self", &self.own) else { return };
        let mut search = Search {
            own: &self.own,
            paths,
            until: Instant::now() + LONGEST_SEARCH,
            names: HashMap::new(),
            names_read: 0,
        };
        let weight = |file: &FilePages| {
            let live = (0..file.live.len()).filter_map(|index| file.live.get(index));
            live.map(i64::unsigned_abs).max().unwrap_or(0)
        };
        let wanted = |file: &FilePages| {
            file.place
                .as_ref()
                .is_some_and(|place| place.state == FileState::Unchecked && place.seen_by.is_none())
        };
        let mut order: Vec<usize> = (0..files.len()).filter(|index| wanted(&files[*index])).collect();
        order.sort_by_key(|index| std::cmp::Reverse(weight(&files[*index])));
        // Pages of one file that several cgroups pay for.
        let mut known: HashMap<(String, u64), Option<FilePlace>> = HashMap::new();
        for index in order.into_iter().take(MOST_FILES) {
            if Instant::now() >= search.until {
                break;
            }
            let file = &mut files[index];
            let key = (file.device.clone(), file.inode);
            let found = known.entry(key).or_insert_with(|| search.place(file));
            if let Some(place) = found {
                file.place = Some(place.clone());
            }
        }
    }
}

/// The paths that mounts of a file's device make of its path below the file system's root; those of the whole of it first,
/// and of them the shortest.
fn points<'a>(mounts: impl Iterator<Item = &'a Mount>, path: &str) -> Vec<String> {
    // A path that was too long to be read whole begins with dots.
    if !path.starts_with('/') {
        return Vec::new();
    }
    let mut found: Vec<(bool, usize, String)> = mounts
        .filter_map(|mount| {
            let rest = path.strip_prefix(mount.root.trim_end_matches('/'))?;
            (rest.is_empty() || rest.starts_with('/')).then(|| {
                (mount.root != "/", mount.point.len(), format!("{}{rest}", mount.point.trim_end_matches('/')))
            })
        })
        .collect();
    found.sort();
    found.into_iter().map(|(.., path)| path).collect()
}

fn unchecked(path: String) -> FilePlace {
    FilePlace { path, ..FilePlace::default() }
}

/// Inodes of block devices lie on a file system that is mounted nowhere, have no name, and are numbered by the device
/// (block/bdev.c bdev_add: 12 bits of major, 20 of minor).
fn block_device(device: &str, inode: u64) -> Option<FilePlace> {
    let number = u32::try_from(inode).ok().filter(|number| number >> 20 != 0)?;
    if !device.starts_with("0:") {
        return None;
    }
    device_node(&device_name(number))
}

/// The node of a block device, by its numbers.
fn device_node(number: &str) -> Option<FilePlace> {
    let event = fs::read_to_string(format!("/sys/dev/block/{number}/uevent")).ok()?;
    let name = event.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
    Some(FilePlace { path: format!("/dev/{name}"), state: FileState::BlockDevice, ..FilePlace::default() })
}

/// ext4 keeps what it knows of free blocks in pages of an inode that has no name and a number that no file has
/// (fs/ext4/mballoc.c ext4_mb_init_backend: EXT4_BAD_INO; below EXT4_GOOD_OLD_FIRST_INO all are its own).
fn own_blocks(file: &FilePages) -> Option<FilePlace> {
    const FIRST_FILE: u64 = 11;
    (file.inode < FIRST_FILE).then(|| device_node(&file.device)).flatten()
}

/// What was found at a path.
enum Found {
    This,
    /// Nothing, or another file.
    Other,
    /// Another file system is mounted over it.
    Hidden,
    /// It could not be looked at.
    Unknown,
}

struct Search<'a> {
    own: &'a [Mount],
    paths: Paths,
    until: Instant,
    /// Names by inode number in the directories that were read.
    names: HashMap<String, HashMap<u64, String>>,
    names_read: usize,
}

impl Search<'_> {
    fn place(&mut self, file: &FilePages) -> Option<FilePlace> {
        let mounts = self.own.iter().filter(|mount| mount.device == file.device);
        let candidates = points(mounts, file.path.as_deref()?);
        let with = |path: String, state| Some(FilePlace { path, state, ..FilePlace::default() });
        let (mut unknown, mut hidden) = (false, false);
        for path in &candidates {
            match self.look(path, file) {
                Found::This => return with(path.clone(), FileState::Found),
                Found::Hidden => hidden = true,
                Found::Unknown => unknown = true,
                Found::Other => {}
            }
        }
        if unknown {
            return None;
        }
        let renamed = candidates.iter().find_map(|path| self.beside(path, file));
        if let Some(path) = renamed.or_else(|| self.by_handle(file)) {
            return with(path, FileState::Renamed);
        }
        let path = candidates.into_iter().next()?;
        with(path, if hidden { FileState::Hidden } else { FileState::Gone })
    }

    fn look(&self, path: &str, file: &FilePages) -> Found {
        let opened = match self.paths.open(path, libc::O_PATH) {
            Ok(opened) => opened,
            Err(error) => {
                return match error.raw_os_error() {
                    Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => Found::Other,
                    _ => Found::Unknown,
                };
            }
        };
        let Ok(status) = opened.metadata() else { return Found::Unknown };
        let device = status.dev();
        // stat(2) of a btrfs names a device of its own for each subvolume: then the mount decides.
        let same_device = format!("{}:{}", libc::major(device), libc::minor(device)) == file.device
            || self.device_of(&opened).as_deref() == Some(file.device.as_str());
        match (same_device, status.ino() == file.inode) {
            (true, true) => Found::This,
            (true, false) => Found::Other,
            (false, _) => Found::Hidden,
        }
    }

    /// The device of the mount that a descriptor was opened on (fs/proc/fd.c seq_show).
    fn device_of(&self, opened: &File) -> Option<String> {
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", opened.as_raw_fd())).ok()?;
        let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse::<u64>().ok()?;
        self.own.iter().find(|mount| mount.id == id).map(|mount| mount.device.clone())
    }

    /// Another name of the file in the same directory: what is written under a name for the time being is renamed there,
    /// as a rule.
    fn beside(&mut self, path: &str, file: &FilePages) -> Option<String> {
        let (directory, _) = path.rsplit_once('/')?;
        let directory = if directory.is_empty() { "/" } else { directory };
        if !self.names.contains_key(directory) {
            let names = self.read(directory);
            self.names.insert(directory.to_owned(), names);
        }
        let name = self.names.get(directory)?.get(&file.inode)?;
        let path = format!("{}/{name}", directory.trim_end_matches('/'));
        matches!(self.look(&path, file), Found::This).then_some(path)
    }

    fn read(&mut self, directory: &str) -> HashMap<u64, String> {
        let mut names = HashMap::new();
        if self.paths.is_foreign(directory) {
            return names;
        }
        let Ok(opened) = self.paths.open(directory, libc::O_RDONLY | libc::O_DIRECTORY) else { return names };
        let Ok(entries) = fs::read_dir(format!("/proc/self/fd/{}", opened.as_raw_fd())) else { return names };
        for entry in entries.flatten() {
            if self.names_read >= MOST_NAMES || Instant::now() >= self.until {
                break;
            }
            self.names_read += 1;
            names.insert(entry.ino(), entry.file_name().to_string_lossy().into_owned());
        }
        names
    }

    /// Wherever it is, on file systems that find an inode by its number.
    fn by_handle(&self, file: &FilePages) -> Option<String> {
        let has_handles =
            |mount: &&Mount| mount.device == file.device && mount.root == "/" && mount.kind == "ext4";
        let mount = self.own.iter().find(has_handles)?;
        let opened = self.paths.open(&mount.point, libc::O_RDONLY | libc::O_DIRECTORY).ok()?;
        let path = handle::path_of(&opened, file).ok()?;
        matches!(self.look(&path, file), Found::This).then_some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_recording::Column;

    fn mount(device: &str, root: &str, point: &str) -> Mount {
        Mount {
            id: 0,
            device: device.into(),
            number: 0,
            root: root.into(),
            point: point.into(),
            kind: "ext4".into(),
        }
    }

    #[test]
    fn mount_points_come_in_front() {
        let mounts = [
            mount("8:1", "/", "/"),
            mount("8:2", "/hub", "/srv/models"),
            mount("8:2", "/", "/data"),
            mount("8:2", "/other", "/o"),
            mount("8:3", "/one/file", "/etc/hosts"),
        ];
        let of =
            |device: &str, path: &str| points(mounts.iter().filter(|mount| mount.device == device), path);
        assert_eq!(of("8:1", "/usr/lib/a"), ["/usr/lib/a"]);
        assert_eq!(of("8:2", "/hub/model"), ["/data/hub/model", "/srv/models/model"]);
        assert_eq!(of("8:2", "/hubs/x"), ["/data/hubs/x"]);
        assert_eq!(of("8:3", "/one/file"), ["/etc/hosts"]);
        assert!(of("8:3", "/one/other").is_empty() && of("8:1", ".../deep/x").is_empty());
    }

    fn pages(path: &std::path::Path) -> FilePages {
        let status = fs::metadata(path).unwrap();
        FilePages {
            device: format!("{}:{}", libc::major(status.dev()), libc::minor(status.dev())),
            inode: status.ino(),
            path: None,
            live: Column::from([Some(1)]),
            ..FilePages::default()
        }
    }

    /// Of a file at `path`, the path below its file system's root.
    fn below(places: &Places, path: &std::path::Path) -> String {
        let device = pages(path).device;
        let path = path.display().to_string();
        let mounts = places.own.iter().filter(|mount| mount.device == device && mount.root == "/");
        let inside = mounts.filter_map(|mount| path.strip_prefix(mount.point.trim_end_matches('/')));
        inside.min_by_key(|rest| rest.len()).unwrap().to_owned()
    }

    #[test]
    fn files_are_found_where_they_are_or_where_they_went() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let base = dir.path().canonicalize().unwrap();
        let mut places = Places::of_this_process();
        let mut files = Vec::new();
        for name in ["stays", "part", "removed"] {
            let path = base.join(name);
            fs::write(&path, name).unwrap();
            files.push(FilePages { path: Some(below(&places, &path)), ..pages(&path) });
        }
        fs::rename(base.join("part"), base.join("whole")).unwrap();
        fs::remove_file(base.join("removed")).unwrap();
        places.name(&mut files);
        assert!(files.iter().all(|file| file.place.as_ref().unwrap().state == FileState::Unchecked));
        places.find(&mut files);
        let found: Vec<_> = files.iter().map(|file| file.place.clone().unwrap()).collect();
        let path = |name: &str| base.join(name).display().to_string();
        assert_eq!((found[0].state, &found[0].path), (FileState::Found, &path("stays")));
        assert_eq!((found[1].state, &found[1].path), (FileState::Renamed, &path("whole")));
        assert_eq!((found[2].state, &found[2].path), (FileState::Gone, &path("removed")));
    }

    #[test]
    fn what_is_mounted_for_the_target_alone_says_so() {
        let other = Namespace {
            inode: 5,
            pid: 77,
            container: Some("0123456789ab".into()),
            mounts: vec![mount("9:9", "/", "/data")],
        };
        let places = Places { others: vec![other], ..Places::default() };
        let mut files = [FilePages { device: "9:9".into(), path: Some("/x".into()), ..FilePages::default() }];
        places.name(&mut files);
        let place = files[0].place.as_ref().unwrap();
        assert_eq!((place.path.as_str(), place.seen_by), ("/data/x", Some(77)));
        assert_eq!(place.container.as_deref(), Some("0123456789ab"));
    }

    #[test]
    fn block_devices_are_known_by_their_numbers() {
        // A disk of this machine, whichever it has.
        let disks = fs::read_dir("/sys/dev/block").into_iter().flatten().flatten();
        for disk in disks.take(3) {
            let name = disk.file_name().to_string_lossy().into_owned();
            let (major, minor) = name.split_once(':').unwrap();
            let number = major.parse::<u64>().unwrap() << 20 | minor.parse::<u64>().unwrap();
            let place = block_device("0:3", number).unwrap();
            assert!(std::path::Path::new(&place.path).exists() || place.path.starts_with("/dev/"));
            assert_eq!((place.state, block_device("8:1", number)), (FileState::BlockDevice, None));
        }
        assert_eq!(block_device("0:3", 77), None);
    }
}
