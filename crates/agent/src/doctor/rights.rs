//! What the kernel lets this process do.

use std::{fs, io::Read};

use super::{Finding, Machine};
use crate::subject::command::Invoker;

pub fn user(_: &Machine) -> Finding {
    // SAFETY: no arguments, cannot fail.
    let uid = unsafe { libc::geteuid() };
    match (uid, Invoker::from_environment()) {
        (0, Some(invoker)) => {
            Finding::ok(format!("root, through sudo by {} ({})", invoker.name, invoker.uid))
        }
        (0, None) => Finding::ok("root"),
        (uid, _) => Finding::missing(format!("user {uid}: checks that need root were not made")),
    }
}

/// A capability, and by which others it is contained.
struct Capability {
    name: &'static str,
    bits: &'static [u32],
    /// Nothing is recorded without it.
    required: bool,
}

const CAP_SYS_ADMIN: u32 = 21;

/// Bits: include/uapi/linux/capability.h. CAP_SYS_ADMIN stands for what was split off from it in 5.8.
const CAPABILITIES: &[Capability] = &[
    Capability { name: "CAP_BPF", bits: &[39, CAP_SYS_ADMIN], required: true },
    Capability { name: "CAP_PERFMON", bits: &[38, CAP_SYS_ADMIN], required: true },
    Capability { name: "CAP_SYS_ADMIN", bits: &[CAP_SYS_ADMIN], required: false },
    Capability { name: "CAP_SYS_PTRACE", bits: &[19], required: false },
    Capability { name: "CAP_SYSLOG", bits: &[34], required: false },
];

pub fn capabilities(_: &Machine) -> Finding {
    match fs::read_to_string("/proc/self/status").ok().as_deref().and_then(effective) {
        Some(mask) => judge(mask),
        None => Finding::warning("/proc/self/status does not show it"),
    }
}

fn effective(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

fn judge(mask: u64) -> Finding {
    let has = |capability: &Capability| capability.bits.iter().any(|bit| mask >> bit & 1 == 1);
    let (present, lacking): (Vec<_>, Vec<_>) = CAPABILITIES.iter().partition(|c| has(c));
    let names = |of: &[&Capability]| of.iter().map(|c| c.name).collect::<Vec<_>>().join(", ");
    if lacking.is_empty() {
        return Finding::ok(names(&present));
    }
    let found = format!("lacking {}", names(&lacking));
    if lacking.iter().any(|c| c.required) { Finding::missing(found) } else { Finding::warning(found) }
}

pub fn lockdown(_: &Machine) -> Finding {
    match fs::read_to_string("/sys/kernel/security/lockdown") {
        Ok(text) => match selected(&text) {
            Some("confidentiality") => Finding::missing("confidentiality"),
            Some(mode) => Finding::ok(mode),
            None => Finding::warning(text.trim()),
        },
        Err(e) => {
            Finding::not_applicable(format!("no lockdown, or securityfs is not mounted ({})", e.kind()))
        }
    }
}

/// The word in brackets of `none [integrity] confidentiality`.
pub fn selected(text: &str) -> Option<&str> {
    Some(text.split_once('[')?.1.split_once(']')?.0)
}

pub fn unprivileged_bpf(_: &Machine) -> Finding {
    let path = "/proc/sys/kernel/unprivileged_bpf_disabled";
    match fs::read_to_string(path).as_deref().map(str::trim) {
        Ok("0") => Finding::ok("0: unprivileged programs are allowed, ours are privileged"),
        Ok("1") => Finding::ok("1: off for good, for those without CAP_BPF"),
        Ok("2") => Finding::ok("2: off, for those without CAP_BPF"),
        Ok(other) => Finding::warning(other),
        Err(e) => Finding::not_applicable(format!("{path}: {e}")),
    }
}

pub fn kernel_symbols(_: &Machine) -> Finding {
    let restrict = fs::read_to_string("/proc/sys/kernel/kptr_restrict").unwrap_or_default();
    let restrict = format!("kptr_restrict {}", restrict.trim());
    // The beginning suffices: addresses are hidden for all or none.
    let mut beginning = vec![0; 4096];
    let read = fs::File::open("/proc/kallsyms").and_then(|mut file| file.read(&mut beginning));
    match read {
        Ok(len) if shows_addresses(&beginning[..len]) => {
            Finding::ok(format!("addresses are shown ({restrict})"))
        }
        Ok(0) => Finding::missing("/proc/kallsyms is empty"),
        Ok(_) => Finding::missing(format!("addresses are hidden ({restrict})")),
        Err(e) => Finding::missing(format!("/proc/kallsyms: {e}")),
    }
}

/// On x86-64 the first symbols are per-CPU offsets from zero: some line must have an address.
fn shows_addresses(kallsyms: &[u8]) -> bool {
    let lines = kallsyms.split(|byte| *byte == b'\n');
    let mut addresses = lines.map(|line| line.split(|byte| *byte == b' ').next().unwrap_or_default());
    addresses.any(|digits| digits.len() >= 8 && digits.iter().any(|digit| *digit != b'0'))
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn capabilities_are_judged_by_what_needs_them() {
        let everything = effective("Name:\tx\nCapEff:\t000001ffffffffff\n").unwrap();
        assert_eq!(judge(everything).status, Status::Ok);
        assert_eq!(judge(0).status, Status::Missing);
        // CAP_BPF and CAP_PERFMON alone do for recording.
        let least = judge(1 << 39 | 1 << 38);
        assert_eq!(least, Finding::warning("lacking CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_SYSLOG"));
        // CAP_SYS_ADMIN stands for both.
        assert_eq!(judge(1 << 21).status, Status::Warning);
    }

    #[test]
    fn hidden_symbols_are_seen_as_such() {
        assert!(shows_addresses(b"0000000000000000 A a\nffffffff81000000 T b\n"));
        assert!(!shows_addresses(b"0000000000000000 A a\n0000000000000000 T b\n"));
        assert!(!shows_addresses(b""));
        assert_eq!(selected("none [integrity] confidentiality\n"), Some("integrity"));
    }
}
