//! The table of all ways to take memory. Its order is that of the phases.

use anyhow::Result;

use super::{Env, Taken, anon, children, file, kernel, shmem};
use crate::cli::AllocArgs;

pub struct Step {
    /// The phase's name; also the option that requests it.
    pub phase: &'static str,
    pub is_requested: fn(&AllocArgs) -> bool,
    pub take: fn(&AllocArgs, &Env) -> Result<Taken>,
}

/// Children before threads: a fork of a process with several threads may do next to nothing.
#[rustfmt::skip]
pub const STEPS: &[Step] = &[
    Step { phase: "anon", is_requested: |a| a.anon.is_some(), take: anon::anon },
    Step { phase: "anon-untouched", is_requested: |a| a.anon_untouched.is_some(), take: anon::anon_untouched },
    Step { phase: "thp", is_requested: |a| a.thp.is_some(), take: anon::thp },
    Step { phase: "thp-zero", is_requested: |a| a.thp_zero.is_some(), take: anon::thp_zero },
    Step { phase: "shmem", is_requested: |a| a.shmem.is_some(), take: shmem::shmem },
    Step { phase: "tmpfs", is_requested: |a| a.tmpfs.is_some(), take: shmem::tmpfs },
    Step { phase: "file-read", is_requested: |a| a.file_read.is_some(), take: file::file_read },
    Step { phase: "file-mmap", is_requested: |a| a.file_mmap.is_some(), take: file::file_mmap },
    Step { phase: "file-private", is_requested: |a| a.file_private.is_some(), take: file::file_private },
    Step { phase: "file-write", is_requested: |a| a.file_write.is_some(), take: file::file_write },
    Step { phase: "hugetlb", is_requested: |a| a.hugetlb.is_some(), take: anon::hugetlb },
    Step { phase: "small-mappings", is_requested: |a| a.small_mappings.is_some(), take: anon::small_mappings },
    Step { phase: "children", is_requested: |a| a.children.is_some(), take: children::children },
    Step { phase: "threads", is_requested: |a| a.threads.is_some(), take: children::threads },
    Step { phase: "pipes", is_requested: |a| a.pipes.is_some(), take: kernel::pipes },
    Step { phase: "sockets", is_requested: |a| a.sockets.is_some(), take: kernel::sockets },
];

/// The requested steps, in order.
pub fn plan(args: &AllocArgs) -> impl Iterator<Item = &'static Step> {
    STEPS.iter().filter(|step| (step.is_requested)(args))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn phases(line: &str) -> Vec<&'static str> {
        let words = ["spark-trace-workload", "alloc"].into_iter().chain(line.split_whitespace());
        let Command::Alloc(args) = Cli::try_parse_from(words).unwrap().command else { unreachable!() };
        plan(&args).map(|step| step.phase).collect()
    }

    #[test]
    fn the_table_not_the_command_line_gives_the_order() {
        assert_eq!(phases("--sockets 1 --shmem 1M --anon 1M"), ["anon", "shmem", "sockets"]);
        assert_eq!(phases(""), Vec::<&str>::new());
    }

    #[test]
    fn every_step_is_an_option_of_its_name() {
        let needs = [
            ("file-read", "--file /f"),
            ("file-mmap", "--mmap-file /f"),
            ("file-private", "--private-file /f"),
            ("file-write", "--write-file /f"),
            ("children", "--child-anon 1M"),
            ("threads", "--thread-anon 1M"),
        ];
        for step in STEPS {
            let more = needs.iter().find(|(phase, _)| *phase == step.phase).map_or("", |(_, more)| more);
            assert_eq!(phases(&format!("--{} 4096 {more}", step.phase)), [step.phase]);
        }
    }

    #[test]
    fn forks_come_before_threads() {
        let position = |phase| STEPS.iter().position(|step| step.phase == phase).unwrap();
        assert!(position("children") < position("threads"));
    }
}
