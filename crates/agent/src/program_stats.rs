//! What the kernel counts of a program while its statistics are on.

use std::os::fd::{AsRawFd, BorrowedFd};

/// What is known of a hook's programs at one time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counted {
    pub stats: ProgramStats,
    /// Runs that the programs have counted themselves, always: all of them, or those that do not leave at the first comparison.
    pub hits: u64,
}

impl Counted {
    /// What was counted after `before`.
    pub const fn since(self, before: Self) -> Self {
        Self { stats: self.stats.since(before.stats), hits: self.hits.saturating_sub(before.hits) }
    }

    pub const fn plus(self, other: Self) -> Self {
        Self { stats: self.stats.plus(other.stats), hits: self.hits + other.hits }
    }
}

/// The part of `struct bpf_prog_info` that says what a program did (include/uapi/linux/bpf.h).
#[derive(Debug, Clone, Copy, Default)]
pub struct ProgramStats {
    pub runs: u64,
    pub run_time_ns: u64,
    pub recursion_misses: u64,
}

impl ProgramStats {
    /// What was counted after `before`.
    pub const fn since(self, before: Self) -> Self {
        Self {
            runs: self.runs.saturating_sub(before.runs),
            run_time_ns: self.run_time_ns.saturating_sub(before.run_time_ns),
            recursion_misses: self.recursion_misses.saturating_sub(before.recursion_misses),
        }
    }

    /// What is counted only while the statistics are on, where they were for this share of the time.
    pub fn put_up(self, share: f64) -> Self {
        let put_up = |part: u64| (part as f64 / share).round() as u64;
        Self { runs: put_up(self.runs), run_time_ns: put_up(self.run_time_ns), ..self }
    }

    pub const fn plus(self, other: Self) -> Self {
        Self {
            runs: self.runs + other.runs,
            run_time_ns: self.run_time_ns + other.run_time_ns,
            recursion_misses: self.recursion_misses + other.recursion_misses,
        }
    }

    /// Those of a loaded program.
    pub fn read(program: BorrowedFd<'_>) -> Option<Self> {
        // fdinfo has the same figures as bpf_prog_info, in text that does not change with its layout.
        let text = fdinfo(program)?;
        let field = |name: &str| {
            text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?.trim().parse().ok()
        };
        Some(Self {
            runs: field("run_cnt")?,
            run_time_ns: field("run_time_ns")?,
            recursion_misses: field("recursion_misses")?,
        })
    }
}

/// What /proc says of a descriptor of this process.
pub fn fdinfo(fd: BorrowedFd<'_>) -> Option<String> {
    std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()
}
