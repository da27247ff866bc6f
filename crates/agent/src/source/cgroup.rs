//! The cgroup plane: the memory controller's files of one cgroup, v1 or v2.

use std::path::Path;

use spark_trace_common::map_records::ChargeLevel;

use super::{KernelFile, Reading};
use crate::{bpf::ObjectError, page_size};
use spark_trace_recording::journal::{Sample, SeriesId};

/// How a file's text becomes columns.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// One number; `max` means no limit and is left out.
    Number,
    /// `key value` lines, columns named `PREFIX.key`.
    Keys(&'static str),
}

/// A file and its form; those read at every sample.
const V2: &[(&str, Form)] = &[
    ("memory.current", Form::Number),
    ("memory.stat", Form::Keys("stat")),
    ("memory.peak", Form::Number),
    ("memory.swap.current", Form::Number),
    ("memory.max", Form::Number),
    ("memory.high", Form::Number),
    ("memory.events", Form::Keys("events")),
    // How many below it are removed and still charged.
    ("cgroup.stat", Form::Keys("cgroup")),
];

const V1: &[(&str, Form)] = &[
    ("memory.usage_in_bytes", Form::Number),
    ("memory.stat", Form::Keys("stat")),
    ("memory.kmem.usage_in_bytes", Form::Number),
    ("memory.max_usage_in_bytes", Form::Number),
    ("memory.kmem.tcp.usage_in_bytes", Form::Number),
    ("memory.memsw.usage_in_bytes", Form::Number),
    ("memory.limit_in_bytes", Form::Number),
    ("memory.failcnt", Form::Number),
    // `oom_kill`, under the name that v2 has for it; of this cgroup alone.
    ("memory.oom_control", Form::Keys("events")),
];

/// The files that say what a cgroup is charged.
const USAGE: [&str; 2] = ["memory.current", "memory.usage_in_bytes"];

/// cgroup v1 says "no limit" with the largest multiple of the page size.
const V1_NO_LIMIT: u64 = 1 << 62;

/// Reads one cgroup.
#[derive(Debug)]
pub struct Cgroup {
    pub id: u64,
    files: Vec<(&'static str, Form, Result<KernelFile, String>)>,
}

/// A cgroup's usage as the kernel's file has it, and what hooks had counted before and after it was read.
#[derive(Debug, Clone, Copy)]
pub struct BracketedUsage {
    pub before: ChargeLevel,
    pub usage: u64,
    pub after: ChargeLevel,
}

impl BracketedUsage {
    /// What to add to the hooks' count to have the file's; `None` where something was counted meanwhile.
    pub fn seed(&self) -> Option<i64> {
        (self.before == self.after).then(|| self.usage as i64 - self.after.net_bytes(page_size()))
    }
}

/// Asks what hooks have counted for a cgroup.
pub type Counted<'a> = &'a mut dyn FnMut() -> Result<ChargeLevel, ObjectError>;

impl Cgroup {
    /// Opens the files of the cgroup at `dir`. A file that cannot be opened is absent with the reason.
    pub fn open(id: u64, dir: &Path, v2: bool) -> Self {
        let files = if v2 { V2 } else { V1 };
        let open = |name: &str| KernelFile::open(&dir.join(name)).map_err(|e| e.to_string());
        Self { id, files: files.iter().map(|(name, form)| (*name, *form, open(name))).collect() }
    }

    /// Reads all files. `None` once the cgroup has been removed.
    pub fn read(&mut self) -> Option<Sample> {
        let mut reading = Reading::begin();
        let mut any = false;
        for index in 0..self.files.len() {
            any |= self.read_file(index, &mut reading);
        }
        any.then(|| reading.end(SeriesId::Cgroup(self.id)))
    }

    /// The same, with what hooks had counted just before and just after the usage was read, if it could be.
    pub fn read_beside(
        &mut self,
        counted: Counted<'_>,
    ) -> Result<Option<(Sample, Option<BracketedUsage>)>, ObjectError> {
        let (mut reading, mut any, mut beside) = (Reading::begin(), false, None);
        for index in 0..self.files.len() {
            let name = self.files[index].0;
            if !USAGE.contains(&name) {
                any |= self.read_file(index, &mut reading);
                continue;
            }
            let before = counted()?;
            any |= self.read_file(index, &mut reading);
            let after = counted()?;
            beside = reading.values.get(name).map(|usage| BracketedUsage { before, usage: *usage, after });
        }
        Ok(any.then(|| (reading.end(SeriesId::Cgroup(self.id)), beside)))
    }

    /// Reads one file; whether there was something to read.
    fn read_file(&self, index: usize, reading: &mut Reading) -> bool {
        let (name, form, file) = &self.files[index];
        let file = match file {
            Ok(file) => file,
            Err(reason) => {
                reading.absent(*name, reason);
                return false;
            }
        };
        match file.read_piece() {
            Ok(text) => {
                put(name, *form, &text, reading);
                true
            }
            // What the kernel answers for files of a removed cgroup.
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => false,
            Err(e) => {
                reading.absent(*name, e);
                false
            }
        }
    }
}

fn put(name: &str, form: Form, text: &str, reading: &mut Reading) {
    match form {
        Form::Number => match text.trim().parse() {
            Ok(value) if value < V1_NO_LIMIT => reading.put(name, value),
            Ok(_) => reading.absent(name, "no limit"),
            Err(_) if text.trim() == "max" => reading.absent(name, "no limit"),
            Err(_) => reading.absent(name, format!("not a number: {}", text.trim())),
        },
        Form::Keys(prefix) => {
            for (key, value) in text.lines().filter_map(|l| l.split_once(' ')) {
                if let Ok(value) = value.trim().parse() {
                    reading.put(format!("{prefix}.{key}"), value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keys_and_no_limit() {
        let mut reading = Reading::begin();
        put("memory.current", Form::Number, "4096\n", &mut reading);
        put("memory.max", Form::Number, "max\n", &mut reading);
        put("memory.limit_in_bytes", Form::Number, "9223372036854771712\n", &mut reading);
        put("memory.stat", Form::Keys("stat"), "anon 1\nfile 2\n", &mut reading);
        assert_eq!(reading.values["memory.current"], 4096);
        assert_eq!(reading.values["stat.file"], 2);
        assert_eq!(reading.values.len(), 3);
        assert!(reading.absent.iter().all(|(_, reason)| reason == "no limit"));
        assert_eq!(reading.absent.len(), 2);
    }

    /// The other reading goes on until the kernel says that there is no more.
    #[test]
    fn what_is_read_in_one_piece_is_all_of_a_file() {
        let layout = crate::cgroup::Layout::detect().unwrap();
        let dir = layout.dir(&layout.of_process(std::process::id()).unwrap());
        let mut compared = 0;
        for (name, form) in V1.iter().chain(V2) {
            let Ok(whole) = std::fs::read_to_string(dir.join(name)) else { continue };
            let piece = KernelFile::open(&dir.join(name)).unwrap().read_piece().unwrap();
            let keys = |text: &str| -> Vec<String> {
                text.lines().filter_map(|line| Some(line.split_once(' ')?.0.to_owned())).collect()
            };
            assert_eq!(keys(&piece), keys(&whole), "{name}");
            assert!(piece.ends_with('\n') && (matches!(form, Form::Keys(_)) || piece.lines().count() == 1));
            compared += 1;
        }
        assert!(compared > 3, "{compared}");
    }

    #[test]
    fn a_directory_without_files_reads_as_absent() {
        let dir = tempfile::tempdir().unwrap();
        let mut cgroup = Cgroup::open(1, dir.path(), true);
        assert!(cgroup.read().is_none());
        std::fs::write(dir.path().join("memory.current"), "5\n").unwrap();
        let sample = Cgroup::open(1, dir.path(), true).read().unwrap();
        assert_eq!(sample.values["memory.current"], 5);
        assert!(sample.absent.iter().any(|(column, _)| column == "memory.stat"));
    }
}
