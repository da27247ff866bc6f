//! A cgroup's memory limit in a sentence.

use spark_trace_analysis::containers::ContainerUse;
use spark_trace_analysis::limits::Limit;
use spark_trace_analysis::names;
use spark_trace_recording::units::{known, unsigned as size};

/// What is read again below this is no news.
const READ_AGAIN: u64 = 1 << 20;

/// `limit 150.0 MiB, reached 12 times; ...`; with its cgroup where there are several.
pub fn line(limit: &Limit, several: bool) -> String {
    let mut text = format!("limit {}", size(limit.bytes));
    if several {
        text.push_str(&format!(" of {}", names::short(&limit.cgroup)));
    }
    match limit.reached {
        Some(0) if limit.reached_by_its_end => text.push_str(", reached after the last reading"),
        Some(0) => text.push_str(", not seen to be reached"),
        Some(1) => text.push_str(", reached once"),
        Some(times) => text.push_str(&format!(", reached {times} times")),
        None => text.push_str(", set on a cgroup above it"),
    }
    if let Some(kills) = limit.oom_kills.filter(|kills| *kills > 0) {
        let processes = if kills == 1 { "process" } else { "processes" };
        text.push_str(&format!("; out of memory: the kernel killed {kills} {processes}"));
    }
    if let Some(bytes) = limit.read_again.filter(|bytes| *bytes >= READ_AGAIN) {
        text.push_str(&format!("; {} of files were read again after they had been reclaimed", size(bytes)));
    }
    text
}

/// A limit beside what it does not count.
pub fn beyond(container: &ContainerUse) -> String {
    format!(
        "limit {}, charged {}, uncharged {}: the limit does not bound CUDA memory",
        size(container.limit),
        known(container.charged, size),
        size(container.uncharged)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_says_how_often_it_was_reached_and_what_that_did() {
        let limit = Limit {
            cgroup: "/docker/0123".into(),
            bytes: 150 << 20,
            file: "memory.max",
            reached: Some(12),
            reached_by_its_end: true,
            oom_kills: Some(0),
            read_again: Some(956 << 20),
        };
        assert_eq!(
            line(&limit, false),
            "limit 150.0 MiB, reached 12 times; 956.0 MiB of files were read again after they had been reclaimed"
        );
        let killed = Limit { reached: Some(1), oom_kills: Some(2), read_again: None, ..limit.clone() };
        assert_eq!(
            line(&killed, true),
            "limit 150.0 MiB of /docker/0123, reached once; out of memory: the kernel killed 2 processes"
        );
        let at_its_end = Limit { reached: Some(0), read_again: None, ..limit.clone() };
        assert_eq!(line(&at_its_end, false), "limit 150.0 MiB, reached after the last reading");
        let above = Limit { reached: None, oom_kills: None, read_again: Some(0), ..limit };
        assert_eq!(line(&above, false), "limit 150.0 MiB, set on a cgroup above it");
    }
}
