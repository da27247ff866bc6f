//! What surrounds the processes of a run, and how that of two runs differs.

use std::collections::{BTreeMap, BTreeSet};

use crate::processes;
use spark_trace_recording::{ProcessContext, Recording};

/// Names of the bits of a set of capabilities, from the first on (capability.h).
const CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Values of `Seccomp` in /proc/PID/status.
const SECCOMP: &[&str] = &["none", "strict", "filter"];

/// Of a value that differs, so much is reported.
const LONGEST_VALUE: usize = 120;
/// Variables that differ and are listed one by one; a container has another environment altogether.
const MOST_VARIABLES: usize = 20;
/// What is not there.
const UNSET: &str = "nothing";

/// Capabilities by name; those that are newer than the table by number.
pub fn capability_names(bits: u64) -> Vec<String> {
    let set = (0..u64::BITS as usize).filter(|bit| bits >> bit & 1 == 1);
    set.map(|bit| CAPABILITIES.get(bit).map_or_else(|| format!("CAP_{bit}"), |name| (*name).to_owned()))
        .collect()
}

/// Capabilities that decide how much memory a process may lock, reserve or see.
const ABOUT_MEMORY: [&str; 5] =
    ["CAP_IPC_LOCK", "CAP_SYS_RESOURCE", "CAP_SYS_ADMIN", "CAP_SYS_NICE", "CAP_SYS_PTRACE"];
/// So many are named.
const MOST_CAPABILITIES: usize = 5;

/// How many of the capabilities that are known, in words.
pub fn capability_count(bits: u64) -> String {
    match bits.count_ones() as usize {
        0 => "none".to_owned(),
        set if set >= CAPABILITIES.len() => "all".to_owned(),
        set => format!("{set} of {}", CAPABILITIES.len()),
    }
}

pub fn seccomp(mode: u32) -> String {
    SECCOMP.get(mode as usize).map_or_else(|| mode.to_string(), |name| (*name).to_owned())
}

/// A soft limit of /proc/PID/limits with its unit, where that is known by its name.
pub fn limit(name: &str, soft: Option<u64>) -> String {
    let Some(soft) = soft else { return "unlimited".to_owned() };
    let counted = name.ends_with("processes") || name.ends_with("files");
    match (counted, soft % 1024) {
        (true, _) => soft.to_string(),
        (false, 0) => format!("{} KiB", soft / 1024),
        (false, _) => format!("{soft} B"),
    }
}

/// What surrounds the process that did the work: the one that had the most resident of those that are known, else the
/// first.
pub fn principal(recording: &Recording) -> Option<&ProcessContext> {
    let provenance = &recording.provenance;
    let largest = processes::rows(recording, recording.target.ended_ns).into_iter().find_map(|row| {
        let mut lives = provenance.processes.iter();
        let process = lives.find(|life| life.pid == row.pid && life.started_ns == row.started_ns)?;
        provenance.contexts.get(process.context? as usize)
    });
    largest.or(provenance.contexts.first())
}

/// What differs between the surroundings of two runs; nothing where one does not say.
pub fn differences(a: &Recording, b: &Recording) -> Vec<String> {
    let Some((a, b)) = principal(a).zip(principal(b)) else { return vec![] };
    let mut notes = variables(a, b);
    notes.extend(capabilities(a, b));
    if let Some((mode_a, mode_b)) = a.seccomp.zip(b.seccomp).filter(|(a, b)| a != b) {
        notes.push(format!("seccomp differs: {} in A, {} in B", seccomp(mode_a), seccomp(mode_b)));
    }
    let limits = a.limits.iter().filter_map(|(name, soft)| Some((name, *soft, *b.limits.get(name)?)));
    let limits = limits.filter(|(_, a, b)| a != b);
    notes.extend(limits.map(|(name, soft_a, soft_b)| {
        format!("limit differs: {name}: {} in A, {} in B", limit(name, soft_a), limit(name, soft_b))
    }));
    notes
}

fn variables(a: &ProcessContext, b: &ProcessContext) -> Vec<String> {
    let names: BTreeSet<_> = a.environment.keys().chain(b.environment.keys()).collect();
    let mut differing: Vec<_> =
        names.into_iter().filter(|name| a.environment.get(*name) != b.environment.get(*name)).collect();
    let more = differing.len().saturating_sub(MOST_VARIABLES);
    differing.truncate(MOST_VARIABLES);
    let value = |environment: &BTreeMap<String, String>, name: &String| {
        environment.get(name).map_or_else(|| UNSET.to_owned(), |value| shown(value))
    };
    let mut notes: Vec<_> = differing
        .into_iter()
        .map(|name| {
            let (a, b) = (value(&a.environment, name), value(&b.environment, name));
            format!("environment variable differs: {name}: {a} in A, {b} in B")
        })
        .collect();
    if more > 0 {
        notes.push(format!("{more} more environment variables differ"));
    }
    notes
}

/// The beginning of a value, in quotes: it may be empty, or hold anything.
fn shown(value: &str) -> String {
    let mut beginning: String = value.chars().take(LONGEST_VALUE).collect();
    if beginning.len() < value.len() {
        beginning.push('…');
    }
    format!("\"{beginning}\"")
}

fn capabilities(a: &ProcessContext, b: &ProcessContext) -> Option<String> {
    let (a, b) = a.capabilities.zip(b.capabilities)?;
    let side =
        |name: &str, bits: u64| (bits != 0).then(|| format!("only {name} has {}", some_capabilities(bits)));
    let sides: Vec<_> = [side("A", a & !b), side("B", b & !a)].into_iter().flatten().collect();
    (!sides.is_empty()).then(|| format!("capabilities differ: {}", sides.join("; ")))
}

/// Those first that decide about memory; of many only these: an engine takes two dozen away from every container.
fn some_capabilities(bits: u64) -> String {
    let mut names = capability_names(bits);
    names.sort_by_key(|name| {
        ABOUT_MEMORY.iter().position(|about| about == name).unwrap_or(ABOUT_MEMORY.len())
    });
    let more = names.len().saturating_sub(MOST_CAPABILITIES);
    names.truncate(MOST_CAPABILITIES);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_testing as testing;

    fn context(variables: &[(&str, &str)]) -> ProcessContext {
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        ProcessContext { environment: environment.collect(), ..ProcessContext::default() }
    }

    fn with(context: ProcessContext) -> Recording {
        let mut recording = testing::native();
        recording.provenance.contexts = vec![context];
        recording
    }

    #[test]
    fn of_many_capabilities_those_that_matter_are_named() {
        let all = (1u64 << 41) - 1;
        let with = |bits: u64| ProcessContext { capabilities: Some(bits), ..ProcessContext::default() };
        let note = capabilities(&with(all), &with(0)).unwrap();
        assert!(note.starts_with("capabilities differ: only A has CAP_IPC_LOCK, "), "{note}");
        assert!(note.ends_with(" and 36 more"), "{note}");
    }

    #[test]
    fn what_differs_is_named() {
        let a = ProcessContext {
            capabilities: Some(1 << 14 | 1 << 23 | 1),
            seccomp: Some(0),
            limits: BTreeMap::from([
                ("Max locked memory".to_owned(), None),
                ("Max open files".to_owned(), Some(1024)),
                ("Max stack size".to_owned(), Some(8 << 20)),
            ]),
            ..context(&[("CUDA_MODULE_LOADING", "LAZY"), ("TMPDIR", "/tmp"), ("OMP_NUM_THREADS", "")])
        };
        let b = ProcessContext {
            capabilities: Some(1 | 1 << 50),
            seccomp: Some(2),
            limits: BTreeMap::from([
                ("Max locked memory".to_owned(), Some(65536)),
                ("Max open files".to_owned(), Some(2048)),
                ("Max processes".to_owned(), Some(1)),
                ("Max stack size".to_owned(), Some(8 << 20)),
            ]),
            ..context(&[("TMPDIR", "/tmp"), ("OMP_NUM_THREADS", "4")])
        };
        let wanted = [
            "environment variable differs: CUDA_MODULE_LOADING: \"LAZY\" in A, nothing in B",
            "environment variable differs: OMP_NUM_THREADS: \"\" in A, \"4\" in B",
            "capabilities differ: only A has CAP_IPC_LOCK, CAP_SYS_NICE; only B has CAP_50",
            "seccomp differs: none in A, filter in B",
            "limit differs: Max locked memory: unlimited in A, 64 KiB in B",
            "limit differs: Max open files: 1024 in A, 2048 in B",
        ];
        assert_eq!(differences(&with(a.clone()), &with(b)), wanted);
        assert!(differences(&with(a.clone()), &with(a.clone())).is_empty());
        assert!(differences(&with(a), &testing::native()).is_empty(), "unknown is no difference");
    }

    #[test]
    fn an_environment_of_another_kind_is_not_listed_whole() {
        let many: Vec<_> = (0..30).map(|index| (format!("CUDA_{index:02}"), "x".repeat(500))).collect();
        let many: Vec<_> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let notes = differences(&with(context(&many)), &with(context(&[])));
        assert_eq!((notes.len(), notes[20].as_str()), (21, "10 more environment variables differ"));
        assert!(notes[0].chars().count() < 200 && notes[0].contains("x…\""), "{}", notes[0]);
    }

    #[test]
    fn the_largest_process_is_the_one() {
        let mut recording = testing::native();
        assert_eq!(principal(&recording), None);
        recording.provenance.contexts = vec![context(&[("TMPDIR", "0")]), context(&[("TMPDIR", "1")])];
        assert_eq!(principal(&recording), Some(&context(&[("TMPDIR", "0")])), "nobody names one");
        let mut small = recording.provenance.processes[0].clone();
        small.context = Some(0);
        (small.pid, small.rss_peak) = (1, Some(1));
        recording.provenance.processes[0].context = Some(1);
        recording.provenance.processes.insert(0, small);
        assert_eq!(principal(&recording), Some(&context(&[("TMPDIR", "1")])));
        // Gone before it could be read.
        recording.provenance.processes[1].context = None;
        assert_eq!(principal(&recording), Some(&context(&[("TMPDIR", "0")])));
    }

    #[test]
    fn rights_in_words() {
        let all = (1 << CAPABILITIES.len()) - 1;
        assert_eq!(capability_count(all), "all");
        assert_eq!((capability_count(0), capability_count(3)), ("none".to_owned(), "2 of 41".to_owned()));
        assert_eq!(
            (CAPABILITIES[14], CAPABILITIES[21], CAPABILITIES[39]),
            ("CAP_IPC_LOCK", "CAP_SYS_ADMIN", "CAP_BPF")
        );
        assert_eq!((seccomp(2), seccomp(7)), ("filter".to_owned(), "7".to_owned()));
        assert_eq!(limit("Max stack size", Some(1000)), "1000 B");
    }
}
