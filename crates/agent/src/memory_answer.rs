//! The figures that the kernel's own files and calls gave a program, from the bytes that it got. Pure.

use std::collections::BTreeMap;

use spark_trace_common::event::AnswerSource;
use spark_trace_recording::MemoryQuery;
use spark_trace_recording::unlimited::{NO_LIMIT, V1_NO_LIMIT};

/// `row` with the answer of a file, which has a name and a directory; `None` for a file that shows nothing about memory.
pub fn file(
    source: AnswerSource,
    (name, parent): (&str, &str),
    content: &[u8],
    page_size: u64,
    row: MemoryQuery,
) -> Option<MemoryQuery> {
    let directory = Some(parent.to_owned()).filter(|p| !p.is_empty() && p != "/");
    Some(match source {
        AnswerSource::Sysinfo => return None,
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
            MemoryQuery { interface, directory, values, ..row }
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
            MemoryQuery { interface: name.to_owned(), directory, values, text, ..row }
        }
    })
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

/// `row` with the answer of sysinfo(2): `struct sysinfo` of a 64-bit kernel (include/uapi/linux/sysinfo.h). `None` where that
/// is cut.
pub fn sysinfo(content: &[u8], row: MemoryQuery) -> Option<MemoryQuery> {
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
    let values = fields.iter().map(|&(name, at)| Some((name.to_owned(), word(at)?.saturating_mul(unit))));
    Some(MemoryQuery { interface: "sysinfo".to_owned(), values: values.collect::<Option<_>>()?, ..row })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(source: AnswerSource, name: &str, parent: &str, text: &[u8], page: u64) -> Option<MemoryQuery> {
        let row = MemoryQuery { pid: 7, ..MemoryQuery::default() };
        let answer = file(source, (name, parent), text, page, row);
        assert!(answer.as_ref().is_none_or(|answer| answer.pid == 7), "the rest of the row stays");
        answer
    }

    #[test]
    fn meminfo_is_in_bytes_and_a_cut_line_is_left_out() {
        let text = b"MemTotal:       1000 kB\nMemFree:    10 kB\nHugePages_Total:       0\nMemAva";
        let answer = of(AnswerSource::ReadProc, "meminfo", "/", text, 4096).unwrap();
        assert_eq!(answer.interface, "/proc/meminfo");
        assert_eq!(answer.directory, None);
        assert_eq!(
            answer.values,
            BTreeMap::from([("MemTotal".into(), 1_024_000), ("MemFree".into(), 10_240)])
        );
    }

    #[test]
    fn statm_is_in_pages_of_the_machine() {
        let answer = of(AnswerSource::ReadProc, "statm", "42", b"100 50 20 5 0 30 0\n", 16384).unwrap();
        assert_eq!((answer.interface.as_str(), answer.directory.as_deref()), ("/proc/PID/statm", Some("42")));
        assert_eq!(answer.values["resident"], 50 * 16384);
    }

    #[test]
    fn cgroup_files_have_a_number_a_word_or_lines() {
        let of = |name: &str, text: &[u8]| of(AnswerSource::ReadCgroup, name, "leaf", text, 4096).unwrap();
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
        let answer = sysinfo(bytes, MemoryQuery::default()).unwrap();
        assert_eq!(answer.interface, "sysinfo");
        assert_eq!(answer.values["totalram"], info.totalram * u64::from(info.mem_unit));
        assert!(sysinfo(&bytes[..90], MemoryQuery::default()).is_none());
    }

    #[test]
    fn other_files_have_no_figures() {
        assert!(of(AnswerSource::ReadProc, "stat", "1", b"1\n", 4096).is_none());
    }
}
