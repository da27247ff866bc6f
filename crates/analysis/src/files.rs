//! Which files' pages are in the page cache, who pays for them and who touched them first.

use crate::signed::signed;
use serde::Serialize;

use crate::names::Names;
use crate::nearest_instant;
use crate::paths;
use crate::view::Scope;
use crate::whose::Whose;
use spark_trace_recording::{FileContent, FilePages, FilePlace, FileState, Recording};

/// Page cache of one file charged to one cgroup.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileRow {
    pub whose: Whose,
    /// As the kernel knew it, below the root of its file system.
    pub path: Option<String>,
    /// The path with its mount point, without the container engine's storage in front; device and inode number where
    /// there is none. Two runs have the same one for the same file.
    pub inner_path: String,
    /// For people: the path as it can be opened, or what hinders that.
    pub shown: String,
    /// A path that can be opened where spark-trace ran; absent where none is known.
    pub opens_at: Option<String>,
    /// `major:minor`; with the inode number the file itself.
    pub device: String,
    pub inode: u64,
    /// Bytes added since the trace began and in use at the instant, negative where older pages went; with those that
    /// were there before, where that is known.
    pub bytes: i64,
    /// Bytes cached when the trace began, where that was read.
    pub before: Option<u64>,
    pub bytes_added: u64,
    pub bytes_removed: u64,
    /// Path of the cgroup that pays.
    pub charged_to: String,
    /// The same for people.
    #[serde(skip)]
    pub payer: String,
    /// It is one of the target's.
    pub charged_to_target: bool,
    /// Absent where no page was seen to be added.
    pub first_touch: Option<Touch>,
    /// What shows copies of it.
    #[serde(skip)]
    pub content: Option<FileContent>,
}

impl FileRow {
    /// It was cached when the trace began, and is in no count of what came since.
    pub const fn is_from_before(&self) -> bool {
        self.before.is_some()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Touch {
    pub at_ns: u64,
    pub pid: u32,
    pub comm: String,
    pub cgroup: String,
}

/// Files with their bytes at the instant that fits `at_ns` best: the target's first, and of them the most
/// first.
pub fn rows(recording: &Recording, at_ns: u64) -> Vec<FileRow> {
    let names = Names::new(recording);
    let instant = nearest_instant::index(recording, at_ns);
    let files = recording.provenance.files.iter();
    let mut rows: Vec<_> = files.map(|file| row(&names, file, instant)).collect();
    // Stable, so that equal files stay in the recording's order.
    rows.sort_by_key(|row| (row.whose, std::cmp::Reverse(row.bytes)));
    rows
}

/// The same, whoever's they are: the most first.
pub fn largest(recording: &Recording, at_ns: u64) -> Vec<FileRow> {
    let mut rows = rows(recording, at_ns);
    rows.sort_by_key(|row| std::cmp::Reverse(row.bytes));
    rows
}

/// Those of one plane, the most first: a cgroup's are charged to the target, and the page cache is no memory of a GPU.
pub fn on(recording: &Recording, scope: Scope, at_ns: u64) -> Vec<FileRow> {
    match scope {
        Scope::System => largest(recording, at_ns),
        Scope::Cgroup => largest(recording, at_ns).into_iter().filter(|row| row.charged_to_target).collect(),
        Scope::Device => vec![],
    }
}

fn row(names: &Names<'_>, file: &FilePages, instant: Option<usize>) -> FileRow {
    let before = signed(file.before.unwrap_or(0));
    let path = file.place.as_ref().map(|place| &place.path).or(file.path.as_ref());
    let unnamed = || format!("(inode {} of {})", file.inode, file.device);
    FileRow {
        whose: names.whose_file(file),
        path: file.path.clone(),
        inner_path: path.map_or_else(unnamed, |path| paths::inner(path).to_owned()),
        shown: match &file.place {
            Some(place) => shown(names, place),
            None => path.cloned().unwrap_or_else(unnamed),
        },
        opens_at: file.place.as_ref().and_then(opens_at),
        device: file.device.clone(),
        inode: file.inode,
        bytes: instant.and_then(|index| file.live.get(index)).unwrap_or(0).saturating_add(before),
        before: file.before,
        bytes_added: file.bytes_added,
        bytes_removed: file.bytes_removed,
        payer: names.shown_cgroup(&names.cgroup(file.charged_to)),
        charged_to: names.cgroup(file.charged_to),
        charged_to_target: names.is_target(file.charged_to),
        content: file.content.clone(),
        first_touch: file.first_touch.as_ref().map(|touch| Touch {
            at_ns: touch.at_ns,
            pid: touch.pid,
            comm: names.toucher(touch),
            cgroup: names.cgroup(touch.cgroup),
        }),
    }
}

fn shown(names: &Names<'_>, place: &FilePlace) -> String {
    let path = &place.path;
    match (place.state, &place.container, place.seen_by) {
        (FileState::BlockDevice, ..) => format!("{path} (the file system's own blocks)"),
        (_, Some(container), _) => format!("(in container {}) {path}", names.container(container)),
        (_, None, Some(pid)) => format!("(in the mounts of process {pid}) {path}"),
        (FileState::Gone, ..) => format!("{path} (removed or moved since)"),
        (FileState::Hidden, ..) => format!("{path} (hidden by what is mounted over it)"),
        (FileState::Unchecked | FileState::Found | FileState::Renamed, ..) => path.clone(),
    }
}

fn opens_at(place: &FilePlace) -> Option<String> {
    let opens = match place.state {
        FileState::Found | FileState::Renamed | FileState::BlockDevice => true,
        FileState::Unchecked => place.seen_by.is_none(),
        FileState::Gone | FileState::Hidden => false,
    };
    opens.then(|| place.path.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_testing as testing;
    use spark_trace_testing::{MIB, SECOND, START};

    #[test]
    fn files_say_who_pays_and_who_came_first() {
        let recording = testing::container();
        let rows = rows(&recording, START + 5 * SECOND);
        let largest = &rows[0];
        assert_eq!(largest.inner_path, "/usr/lib/libtorch_cuda.so");
        assert_eq!(largest.bytes, 980 * MIB as i64);
        assert!(largest.charged_to_target);
        assert_eq!(largest.first_touch.as_ref().unwrap().comm, "python3");
    }

    #[test]
    fn a_file_without_a_path_has_its_inode() {
        let mut recording = testing::container();
        recording.provenance.files.truncate(1);
        recording.provenance.files[0].path = None;
        recording.provenance.files[0].place = None;
        let row = &rows(&recording, START)[0];
        assert_eq!(row.inner_path, "(inode 700 of 259:2)");
        assert_eq!((row.shown.as_str(), &row.opens_at), ("(inode 700 of 259:2)", &None));
    }

    #[test]
    fn the_targets_files_come_first_and_others_are_marked() {
        let mut recording = testing::container();
        let mut other = recording.provenance.files[0].clone();
        (other.inode, other.charged_to) = (800, 1);
        let touch = other.first_touch.as_mut().unwrap();
        (touch.pid, touch.comm, touch.cgroup) = (77, "cc1".into(), 1);
        let mut own = other.clone();
        (own.inode, own.first_touch.as_mut().unwrap().pid) = (801, recording.tool.pid.unwrap());
        // Paid for by somebody else, and read by the target first.
        let mut shared = recording.provenance.files[1].clone();
        (shared.inode, shared.charged_to) = (802, 1);
        recording.provenance.files.splice(0..0, [other, own, shared]);
        let rows = rows(&recording, START + 5 * SECOND);
        let whose: Vec<_> = rows.iter().map(|row| (row.inode, row.whose)).collect();
        use Whose::{Others, Target, Tracer};
        assert_eq!(
            whose,
            [(700, Target), (701, Target), (802, Target), (900, Target), (801, Tracer), (800, Others)]
        );
        recording.target.kind = "system".into();
        let rows = super::rows(&recording, START + 5 * SECOND);
        let inodes: Vec<_> = rows.iter().filter(|row| row.whose != Target).map(|row| row.inode).collect();
        assert_eq!(inodes, [801], "of a machine everything is the target but what spark-trace read");
    }

    #[test]
    fn a_path_says_whether_it_can_be_opened() {
        let mut recording = testing::container();
        let row = |recording: &mut Recording, place: FilePlace| {
            recording.provenance.files.truncate(1);
            recording.provenance.files[0].place = Some(place);
            rows(recording, START).remove(0)
        };
        let place = |path: &str, state| FilePlace { path: path.into(), state, ..FilePlace::default() };
        let found = row(&mut recording, place("/data/model", FileState::Renamed));
        assert_eq!((found.shown.as_str(), found.opens_at.as_deref()), ("/data/model", Some("/data/model")));
        let gone = row(&mut recording, place("/data/part", FileState::Gone));
        assert_eq!((gone.shown.as_str(), gone.opens_at), ("/data/part (removed or moved since)", None));
        let device = row(&mut recording, place("/dev/vda", FileState::BlockDevice));
        assert_eq!(device.shown, "/dev/vda (the file system's own blocks)");
        let inside = FilePlace {
            seen_by: Some(4242),
            container: Some("0123456789ab".into()),
            ..place("/data/x", FileState::Unchecked)
        };
        let inside = row(&mut recording, inside);
        assert_eq!((inside.shown.as_str(), inside.opens_at), ("(in container serve) /data/x", None));
    }
}
