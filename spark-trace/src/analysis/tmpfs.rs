//! What file systems in memory held when a run began and when it ended.

use serde::Serialize;

use crate::recording::{Recording, TmpfsFile, TmpfsUse};

/// One file system. Its bytes are part of `shmem` on the system plane, those of a ramfs of nothing there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TmpfsRow {
    pub mount_point: String,
    pub kind: String,
    /// Absent where it was not mounted then, or not read.
    pub bytes_at_start: Option<u64>,
    pub bytes_at_end: Option<u64>,
    /// The largest then.
    pub files_at_start: Vec<TmpfsFile>,
    pub files_at_end: Vec<TmpfsFile>,
    /// Why the files may not be all.
    pub notes: Vec<String>,
}

impl TmpfsRow {
    pub fn largest(&self) -> Option<&TmpfsFile> {
        self.files_at_end.first().or(self.files_at_start.first())
    }
}

/// All of them, the fullest first.
pub fn rows(recording: &Recording) -> Vec<TmpfsRow> {
    let mut rows: Vec<TmpfsRow> = Vec::new();
    let readings = &recording.provenance.tmpfs;
    // The first time is before the target starts; a trace that was killed has no other.
    let Some(first_ns) = readings.iter().map(|reading| reading.at_ns).min() else { return rows };
    let (before, after): (Vec<&TmpfsUse>, Vec<_>) =
        readings.iter().partition(|reading| reading.at_ns == first_ns);
    for reading in before {
        let row = row(&mut rows, reading);
        (row.bytes_at_start, row.files_at_start) = (Some(reading.used), reading.files.clone());
    }
    for reading in after {
        let row = row(&mut rows, reading);
        (row.bytes_at_end, row.files_at_end) = (Some(reading.used), reading.files.clone());
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.bytes_at_end.max(row.bytes_at_start)));
    rows
}

fn row<'a>(rows: &'a mut Vec<TmpfsRow>, reading: &TmpfsUse) -> &'a mut TmpfsRow {
    let same = |row: &TmpfsRow| row.mount_point == reading.mount_point && row.kind == reading.kind;
    let index = rows.iter().position(same).unwrap_or_else(|| {
        rows.push(TmpfsRow {
            mount_point: reading.mount_point.clone(),
            kind: reading.kind.clone(),
            ..TmpfsRow::default()
        });
        rows.len() - 1
    });
    let row = &mut rows[index];
    let new = reading.note.iter().filter(|note| !row.notes.contains(note));
    let new: Vec<_> = new.cloned().collect();
    row.notes.extend(new);
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::testing::{self, MIB, START};

    #[test]
    fn start_and_end_side_by_side() {
        let file = |path: &str, mib: u64| TmpfsFile { path: path.into(), bytes: mib * MIB };
        let reading = |at_ns, mount_point: &str, mib: u64, files: &[TmpfsFile]| TmpfsUse {
            at_ns,
            mount_point: mount_point.into(),
            kind: "tmpfs".into(),
            used: mib * MIB,
            files: files.into(),
            note: (mib > 5).then(|| "cut short".into()),
        };
        let mut recording = testing::native();
        assert!(rows(&recording).is_empty());
        recording.provenance.tmpfs = vec![
            reading(START - 1, "/run", 1, &[]),
            reading(START - 1, "/dev/shm", 2, &[file("/dev/shm/old", 2)]),
            reading(START + 9, "/dev/shm", 9, &[file("/dev/shm/new", 7), file("/dev/shm/old", 2)]),
            reading(START + 9, "/run", 6, &[]),
            reading(START + 9, "/mnt", 0, &[]),
        ];
        let found = rows(&recording);
        let mib = |bytes: Option<u64>| bytes.map(|bytes| bytes / MIB);
        let levels: Vec<_> = found
            .iter()
            .map(|row| (row.mount_point.as_str(), mib(row.bytes_at_start), mib(row.bytes_at_end)))
            .collect();
        let wanted = [("/dev/shm", Some(2), Some(9)), ("/run", Some(1), Some(6)), ("/mnt", None, Some(0))];
        assert_eq!(levels, wanted);
        assert_eq!(found[0].largest(), Some(&file("/dev/shm/new", 7)));
        assert_eq!((found[0].notes.as_slice(), found[1].notes.len()), (&["cut short".to_owned()][..], 1));
    }
}
