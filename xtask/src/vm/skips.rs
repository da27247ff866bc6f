//! Which tests may be skipped, and why: one row each. Every other test is required on every kernel.

/// One permission.
pub struct MaySkip {
    /// Module of tests, with its program.
    pub suite: &'static str,
    /// Test in it; all where empty.
    pub test: &'static str,
    /// Kernels whose names begin so; all where empty.
    pub kernels: &'static [&'static str],
    /// How the reason begins that the test gives: the name of the hook that this kernel cannot carry.
    pub reason: &'static str,
}

pub const MAY_SKIP: &[MaySkip] = &[
    // Only where packages were made before.
    MaySkip { suite: "kernel::package", test: "", kernels: &[], reason: "packages" },
    // There are no headers to build it with.
    MaySkip { suite: "kernel::stand_in", test: "", kernels: &["6.17-"], reason: "stand-in" },
    MaySkip { suite: "kernel::stand_in_cuda", test: "", kernels: &["6.17-"], reason: "stand-in" },
    MaySkip { suite: "kernel::kv::on_stand_in", test: "", kernels: &["6.17-"], reason: "stand-in" },
    MaySkip {
        suite: "kernel::findings",
        test: "the_drivers_memory_is_distinguished_from_its_pool",
        kernels: &["6.17-"],
        reason: "stand-in",
    },
    // What distributions bring: not all of it is in the machines.
    MaySkip { suite: "kernel::instant", test: "", kernels: &[], reason: "program" },
    MaySkip {
        suite: "kernel::findings",
        test: "names_of_missing_files_stay_cached",
        kernels: &[],
        reason: "program",
    },
    MaySkip {
        suite: "kernel::findings",
        test: "maps_of_ebpf_are_distinguished_by_their_kind",
        kernels: &[],
        reason: "program",
    },
    MaySkip {
        suite: "kernel::lists",
        test: "mappings_say_when_they_were_read",
        kernels: &[],
        reason: "program",
    },
    MaySkip { suite: "kernel::buffers", test: "", kernels: &[], reason: "program" },
    MaySkip { suite: "kernel::python", test: "", kernels: &[], reason: "program" },
    MaySkip { suite: "kernel::show", test: "", kernels: &[], reason: "program" },
    MaySkip { suite: "kernel::unwind", test: "", kernels: &[], reason: "program" },
    // Linux 6.6 brought them.
    MaySkip { suite: "kernel::multi", test: "", kernels: &["6.1-"], reason: "uprobe.multi" },
    // Machines have no terminal; what needs one is tested where they are started.
    MaySkip { suite: "kernel::top", test: "", kernels: &[], reason: "tmux" },
];

/// Whether a row allows it.
pub fn allows(kernel: &str, suite: &str, test: &str, reason: &str) -> bool {
    let fits = |row: &&MaySkip| {
        row.suite == suite
            && (row.test.is_empty() || row.test == test)
            && (row.kernels.is_empty() || row.kernels.iter().any(|name| kernel.starts_with(name)))
            && reason.strip_prefix(row.reason).is_some_and(|rest| rest.starts_with(':'))
    };
    MAY_SKIP.iter().any(|row| fits(&row))
}
