//! Which files' pages are in the page cache, who pays for them and who touched them first.

use serde::Serialize;

use crate::analysis::details;
use crate::analysis::names::Names;
use crate::analysis::paths;
use crate::analysis::view::Scope;
use crate::recording::{FilePages, Recording};

/// Page cache of one file charged to one cgroup.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileRow {
    pub path: Option<String>,
    /// The path without the container engine's storage in front; device and inode number where there is none.
    pub inner_path: String,
    /// `major:minor`; with the inode number the file itself.
    pub device: String,
    pub inode: u64,
    /// Bytes added since the trace began and held at the instant, negative where older pages went; with those that
    /// were there before, where that is known.
    pub bytes: i64,
    /// Bytes cached when the trace began, where that was asked.
    pub before: Option<u64>,
    pub bytes_added: u64,
    pub bytes_removed: u64,
    /// Path of the cgroup that pays.
    pub charged_to: String,
    /// It is one of the target's.
    pub charged_to_target: bool,
    /// Absent where all its pages are older than the trace.
    pub first_touch: Option<Touch>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Touch {
    pub at_ns: u64,
    pub pid: u32,
    pub comm: String,
    pub cgroup: String,
}

/// Files with the bytes they held at the instant that tells most of `at_ns`, the most first.
pub fn rows(recording: &Recording, at_ns: u64) -> Vec<FileRow> {
    let names = Names::new(recording);
    let instant = details::index(recording, at_ns);
    let files = recording.provenance.files.iter();
    let mut rows: Vec<_> = files.map(|file| row(&names, file, instant)).collect();
    // Stable, so that equal files stay in the recording's order.
    rows.sort_by_key(|row| std::cmp::Reverse(row.bytes));
    rows
}

/// Those of one plane: a cgroup's are charged to the target, and the page cache is no memory of a GPU.
pub fn on(recording: &Recording, scope: Scope, at_ns: u64) -> Vec<FileRow> {
    match scope {
        Scope::System => rows(recording, at_ns),
        Scope::Cgroup => rows(recording, at_ns).into_iter().filter(|row| row.charged_to_target).collect(),
        Scope::Device => vec![],
    }
}

fn row(names: &Names<'_>, file: &FilePages, instant: Option<usize>) -> FileRow {
    let inner_path = match file.path.as_deref() {
        Some(path) => paths::inner(path).to_owned(),
        None => format!("(inode {} of {})", file.inode, file.device),
    };
    let before = i64::try_from(file.before.unwrap_or(0)).unwrap_or(i64::MAX);
    FileRow {
        path: file.path.clone(),
        inner_path,
        device: file.device.clone(),
        inode: file.inode,
        bytes: instant.and_then(|index| file.live.get(index)).unwrap_or(0).saturating_add(before),
        before: file.before,
        bytes_added: file.bytes_added,
        bytes_removed: file.bytes_removed,
        charged_to: names.cgroup(file.charged_to),
        charged_to_target: names.is_target(file.charged_to),
        first_touch: file.first_touch.as_ref().map(|touch| Touch {
            at_ns: touch.at_ns,
            pid: touch.pid,
            comm: touch.comm.clone(),
            cgroup: names.cgroup(touch.cgroup),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::testing::{self, MIB, SECOND, START};

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
        assert_eq!(rows(&recording, START)[0].inner_path, "(inode 700 of 259:2)");
    }
}
