//! Bytes of file systems in memory when a run began, at its peak and when it ended, and whose they are.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::names::Names;
use crate::whose::Whose;
use spark_trace_recording::{Moment, Recording, TmpfsFile, TmpfsUse};

/// One file system. Its bytes are part of `shmem` on the system plane, those of a ramfs of nothing there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TmpfsRow {
    /// The target's: mounted in its own mount namespace, or shared with the machine and changed during the run.
    pub whose: Whose,
    pub mount_point: String,
    /// For people: the mount point, and in whose mounts it is one.
    #[serde(skip)]
    pub shown: String,
    pub kind: String,
    /// Name or id of the container whose mount point it is; absent where it is the machine's.
    pub container: Option<String>,
    /// Absent where it was not mounted then, or not read.
    pub bytes_at_start: Option<u64>,
    pub bytes_at_end: Option<u64>,
    /// The highest of the readings at peaks of the target's cgroups, and when that was; only in the target's own mount
    /// namespaces.
    pub bytes_at_peak: Option<u64>,
    pub peak_at_ns: Option<u64>,
    /// The largest then.
    pub files_at_start: Vec<TmpfsFile>,
    pub files_at_peak: Vec<TmpfsFile>,
    pub files_at_end: Vec<TmpfsFile>,
    /// Why the files may not be all.
    pub notes: Vec<String>,
    #[serde(skip)]
    device: Option<String>,
    /// Whether the target has it mounted, where that was looked at.
    #[serde(skip)]
    has_it: Option<bool>,
}

impl TmpfsRow {
    /// Of the latest reading that has any.
    pub fn largest(&self) -> Option<&TmpfsFile> {
        [&self.files_at_end, &self.files_at_peak, &self.files_at_start]
            .into_iter()
            .find_map(|files| files.first())
    }

    /// The highest of all readings.
    pub fn highest(&self) -> Option<u64> {
        self.bytes_at_start.max(self.bytes_at_peak).max(self.bytes_at_end)
    }

    /// From the start to the end.
    pub fn growth(&self) -> Option<i64> {
        let (end, start) = self.bytes_at_end.zip(self.bytes_at_start)?;
        i64::try_from(i128::from(end) - i128::from(start)).ok()
    }

    fn has_changed(&self) -> bool {
        let mut readings = [self.bytes_at_start, self.bytes_at_peak, self.bytes_at_end].into_iter().flatten();
        let first = readings.next();
        self.bytes_at_start.is_none() || readings.any(|bytes| Some(bytes) != first)
    }
}

/// All of them: the target's first, and of them the fullest.
pub fn rows(recording: &Recording) -> Vec<TmpfsRow> {
    let names = Names::new(recording);
    let mut rows: Vec<TmpfsRow> = Vec::new();
    let mut known = Known::default();
    let readings = &recording.provenance.tmpfs;
    // Where readings do not say so: the first time is before the target starts; a trace that was killed has no other.
    let Some(first_ns) = readings.iter().map(|reading| reading.at_ns).min() else { return rows };
    for reading in readings {
        let other = if reading.at_ns == first_ns { Moment::Start } else { Moment::End };
        let row = row(&names, &mut rows, &mut known, reading);
        match reading.moment.unwrap_or(other) {
            Moment::Start => {
                (row.bytes_at_start, row.files_at_start) = (Some(reading.used), reading.files.clone());
            }
            Moment::End => (row.bytes_at_end, row.files_at_end) = (Some(reading.used), reading.files.clone()),
            Moment::Peak if Some(reading.used) > row.bytes_at_peak => {
                row.bytes_at_peak = Some(reading.used);
                row.peak_at_ns = Some(reading.at_ns);
                row.files_at_peak.clone_from(&reading.files);
            }
            Moment::Peak => {}
        }
    }
    let target = &recording.target;
    // A container has mounts of its own: what was not looked at is not taken for one of them.
    let may_have = target.container.is_none();
    for row in rows.iter_mut().filter(|_| !target.is_whole_machine()) {
        let own = row.shown != row.mount_point;
        // The machine's that the target has mounted as well: whoever changed it.
        let shared = row.has_it.unwrap_or(may_have) && row.has_changed();
        row.whose = if own || shared { Whose::Target } else { Whose::Others };
    }
    rows.sort_by_key(|row| (row.whose, std::cmp::Reverse(row.highest())));
    rows
}

/// The first row of each file system, which there may be very many of: by device where both row and reading have one,
/// else by place.
#[derive(Default)]
struct Known<'a> {
    by_device: BTreeMap<&'a str, usize>,
    by_place: BTreeMap<(&'a str, &'a str), usize>,
    /// Those without a device alone.
    without_device: BTreeMap<(&'a str, &'a str), usize>,
}

impl<'a> Known<'a> {
    fn find(&self, reading: &'a TmpfsUse) -> Option<usize> {
        let place = (reading.mount_point.as_str(), reading.kind.as_str());
        let Some(device) = reading.device.as_deref() else { return self.by_place.get(&place).copied() };
        let found = [self.by_device.get(device), self.without_device.get(&place)];
        found.into_iter().flatten().min().copied()
    }

    fn insert(&mut self, reading: &'a TmpfsUse, index: usize) {
        let place = (reading.mount_point.as_str(), reading.kind.as_str());
        self.by_place.entry(place).or_insert(index);
        match reading.device.as_deref() {
            Some(device) => self.by_device.entry(device).or_insert(index),
            None => self.without_device.entry(place).or_insert(index),
        };
    }
}

fn row<'a, 'b>(
    names: &Names<'_>,
    rows: &'a mut Vec<TmpfsRow>,
    known: &mut Known<'b>,
    reading: &'b TmpfsUse,
) -> &'a mut TmpfsRow {
    let index = known.find(reading).unwrap_or_else(|| {
        known.insert(reading, rows.len());
        let container = reading.container.as_deref().map(|id| names.container(id));
        let point = &reading.mount_point;
        rows.push(TmpfsRow {
            shown: match (&container, reading.seen_by) {
                (Some(container), _) => format!("{point} (in {container})"),
                (None, Some(pid)) => format!("{point} (of process {pid})"),
                (None, None) => point.clone(),
            },
            mount_point: point.clone(),
            kind: reading.kind.clone(),
            container,
            device: reading.device.clone(),
            ..TmpfsRow::default()
        });
        rows.len() - 1
    });
    let row = &mut rows[index];
    row.has_it = row.has_it.max(reading.target_has_it);
    let new = reading.note.iter().filter(|note| !row.notes.contains(note));
    let new: Vec<_> = new.cloned().collect();
    row.notes.extend(new);
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_testing as testing;
    use spark_trace_testing::{MIB, START};

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
            ..TmpfsUse::default()
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

    #[test]
    fn the_targets_own_come_first_and_the_machines_only_if_they_changed() {
        let reading = |moment, device: &str, container: Option<&str>, has_it, mib: u64| TmpfsUse {
            at_ns: START,
            mount_point: "/dev/shm".into(),
            kind: "tmpfs".into(),
            used: mib * MIB,
            moment: Some(moment),
            device: Some(device.into()),
            seen_by: container.map(|_| 4242),
            container: container.map(str::to_owned),
            target_has_it: Some(has_it),
            ..TmpfsUse::default()
        };
        let mut recording = testing::container();
        recording.provenance.tmpfs = vec![
            reading(Moment::Start, "0:25", None, false, 900),
            reading(Moment::Start, "0:26", None, true, 3),
            reading(Moment::Start, "0:27", None, true, 8),
            reading(Moment::Peak, "0:99", Some("0123456789ab"), true, 300),
            reading(Moment::Peak, "0:99", Some("0123456789ab"), true, 200),
            reading(Moment::End, "0:25", None, false, 900),
            reading(Moment::End, "0:26", None, true, 4),
            reading(Moment::End, "0:27", None, true, 8),
        ];
        let found = rows(&recording);
        let found_bytes: Vec<_> = found.iter().map(|row| (row.whose, row.highest().unwrap() / MIB)).collect();
        use Whose::{Others, Target};
        assert_eq!(found_bytes, [(Target, 300), (Target, 4), (Others, 900), (Others, 8)]);
        assert_eq!(found[0].shown, "/dev/shm (in serve)");
        assert_eq!((found[0].bytes_at_end, found[0].peak_at_ns), (None, Some(START)));
    }
}
