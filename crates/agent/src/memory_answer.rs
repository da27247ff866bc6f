//! The figures that the kernel's own files and calls returned to a program, out of the bytes it got. Pure.

use std::collections::BTreeMap;

use spark_trace_common::event::AnswerSource;
use spark_trace_recording::unlimited::{NO_LIMIT, V1_NO_LIMIT};

/// The figures that a program got.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The file, or the system call.
    pub interface: String,
    /// For the file of a cgroup or process: the directory it lies in.
    pub directory: Option<String>,
    /// Bytes; of vmstat, memory.events and the counters of memory.stat the file's own units.
    pub values: BTreeMap<String, u64>,
    /// Where the answer is a word: `max`.
    pub text: Option<String>,
}

/// `None` for a file that says nothing about memory.
pub fn parse(op: AnswerSource, name: &str, parent: &str, content: &[u8], page_size: u64) -> Option<Answer> {
    let directory = Some(parent.to_owned()).filter(|p| !p.is_empty() && p != "/");
    let answer = match op {
        AnswerSource::Sysinfo => {
            Answer { interface: "sysinfo".to_owned(), values: sysinfo(content)?, ..Answer::default() }
        }
        AnswerSource::ReadProc => {
            let values = match name {
                "meminfo" | "status" | "smaps_rollup" => kib_lines(content),
                "vmstat" => plain_lines(content),
                "statm" => statm(content, page_size),
                _ => return None,
            };
            let interface = match directory {
                None => format!("/proc/{name}"),
                Some(_) => format!("/proc/PID/{name}"),
            };
            Answer { interface, directory, values, text: None }
        }
        AnswerSource::ReadCgroup => {
            let text = String::from_utf8_lossy(content);
            let text = text.trim();
            let (values, text) = match text.parse::<u64>() {
                Ok(number) if unit_of(name) == BYTES && number >= V1_NO_LIMIT => {
                    (BTreeMap::new(), Some(NO_LIMIT.to_owned()))
                }
                Ok(number) => (BTreeMap::from([(unit_of(name).to_owned(), number)]), None),
                Err(_) if !text.contains(char::is_whitespace) => (BTreeMap::new(), Some(text.to_owned())),
                // memory.stat and its like: a name and a number on each line.
                Err(_) => (plain_lines(content), None),
            };
            Answer { interface: name.to_owned(), directory, values, text }
        }
    };
    Some(answer)
}

/// What the one number of a file is called that is a size.
const BYTES: &str = "bytes";
/// What the one number of a cgroup's file is: bytes, or a count or a switch.
fn unit_of(name: &str) -> &'static str {
    const SIZES: &[&str] = &["max", "high", "low", "min", "current", "peak"];
    let sized = SIZES.iter().any(|size| name.rsplit('.').next() == Some(size)) || name.ends_with("_in_bytes");
    if sized { BYTES } else { "value" }
}

/// Whole lines: the last may have been cut, by the reader's buffer or ours.
fn lines(content: &[u8]) -> impl Iterator<Item = &str> {
    let end = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    std::str::from_utf8(content.get(..end).unwrap_or_default()).unwrap_or_default().lines()
}

/// `Name:   123 kB`, in bytes; lines of other form say nothing.
fn kib_lines(content: &[u8]) -> BTreeMap<String, u64> {
    lines(content)
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
            Some((name.to_owned(), kib.saturating_mul(1024)))
        })
        .collect()
}

fn plain_lines(content: &[u8]) -> BTreeMap<String, u64> {
    lines(content)
        .filter_map(|line| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

/// Pages (fs/proc/array.c proc_pid_statm).
fn statm(content: &[u8], page_size: u64) -> BTreeMap<String, u64> {
    let names = ["size", "resident", "shared", "text", "lib", "data"];
    let text = String::from_utf8_lossy(content);
    let pages = text.split_whitespace().map_while(|word| word.parse::<u64>().ok());
    names
        .iter()
        .zip(pages)
        .map(|(name, pages)| ((*name).to_owned(), pages.saturating_mul(page_size)))
        .collect()
}

/// `struct sysinfo` of a 64-bit kernel (include/uapi/linux/sysinfo.h).
fn sysinfo(content: &[u8]) -> Option<BTreeMap<String, u64>> {
    let word = |at: usize| content.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes);
    let unit = u64::from(u32::from_ne_bytes(content.get(104..108)?.try_into().ok()?)).max(1);
    let fields = [
        ("totalram", 32),
        ("freeram", 40),
        ("sharedram", 48),
        ("bufferram", 56),
        ("totalswap", 64),
        ("freeswap", 72),
    ];
    fields.iter().map(|&(name, at)| Some((name.to_owned(), word(at)?.saturating_mul(unit)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_in_bytes_and_a_cut_line_is_left_out() {
        let text = b"MemTotal:       1000 kB\nMemFree:    10 kB\nHugePages_Total:       0\nMemAva";
        let answer = parse(AnswerSource::ReadProc, "meminfo", "/", text, 4096).unwrap();
        assert_eq!(answer.interface, "/proc/meminfo");
        assert_eq!(answer.directory, None);
        assert_eq!(
            answer.values,
            BTreeMap::from([("MemTotal".into(), 1_024_000), ("MemFree".into(), 10_240)])
        );
    }

    #[test]
    fn statm_is_in_pages_of_the_machine() {
        let answer = parse(AnswerSource::ReadProc, "statm", "42", b"100 50 20 5 0 30 0\n", 16384).unwrap();
        assert_eq!((answer.interface.as_str(), answer.directory.as_deref()), ("/proc/PID/statm", Some("42")));
        assert_eq!(answer.values["resident"], 50 * 16384);
    }

    #[test]
    fn cgroup_files_have_a_number_a_word_or_lines() {
        let of = |name: &str, text: &[u8]| parse(AnswerSource::ReadCgroup, name, "leaf", text, 4096).unwrap();
        assert_eq!(of("memory.current", b"4096\n").values["bytes"], 4096);
        assert_eq!(of("memory.limit_in_bytes", b"7\n").values["bytes"], 7);
        let unlimited = of("memory.limit_in_bytes", b"9223372036854771712\n");
        assert_eq!((unlimited.text.as_deref(), unlimited.values.len()), (Some(NO_LIMIT), 0));
        assert_eq!(of("memory.swappiness", b"60\n").values["value"], 60);
        assert_eq!(of("memory.max", b"max\n").text.as_deref(), Some("max"));
        assert_eq!(of("memory.stat", b"anon 12\nfile 3\n").values["anon"], 12);
    }

    #[test]
    fn sysinfo_agrees_with_the_kernel() {
        // SAFETY: all zero is a valid sysinfo, and the pointer is to it.
        let info = unsafe {
            let mut info: libc::sysinfo = std::mem::zeroed();
            libc::sysinfo(&raw mut info);
            info
        };
        // SAFETY: plain data of that size.
        let bytes = unsafe {
            std::slice::from_raw_parts(std::ptr::from_ref(&info).cast::<u8>(), size_of::<libc::sysinfo>())
        };
        let answer = parse(AnswerSource::Sysinfo, "", "", bytes, 4096).unwrap();
        assert_eq!(answer.values["totalram"], info.totalram * u64::from(info.mem_unit));
        assert!(parse(AnswerSource::Sysinfo, "", "", &bytes[..90], 4096).is_none());
    }

    #[test]
    fn other_files_have_no_figures() {
        assert!(parse(AnswerSource::ReadProc, "stat", "1", b"1\n", 4096).is_none());
    }
}
