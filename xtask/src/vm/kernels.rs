//! The kernels that tests run on in virtual machines: one row each.

use crate::arch::Arch;

/// A kernel that Debian has as a package.
#[derive(Debug)]
pub struct Kernel {
    /// What the command line and reports call it.
    pub name: &'static str,
    pub arch: Arch,
    /// Suite of Debian's archive that has it.
    pub suite: &'static str,
    /// The package's name begins with it; the newest version is taken.
    pub series: &'static str,
    /// The package's name ends with it.
    pub flavour: &'static str,
    /// Debian has headers for it, so that the stand-in for NVIDIA's modules can be built.
    pub headers: bool,
    /// One per architecture is part of `cargo xtask test`, and runs the container tests, too.
    pub always: bool,
}

const fn cloud(
    name: &'static str,
    arch: Arch,
    suite: &'static str,
    series: &'static str,
    always: bool,
) -> Kernel {
    let flavour = match arch {
        Arch::Amd64 => "cloud-amd64",
        Arch::Arm64 => "cloud-arm64",
    };
    Kernel { name, arch, suite, series, flavour, headers: true, always }
}

pub const KERNELS: &[Kernel] = &[
    cloud("6.1-amd64", Arch::Amd64, "bookworm", "6.1.", false),
    cloud("6.1-arm64", Arch::Arm64, "bookworm", "6.1.", false),
    cloud("6.12-amd64", Arch::Amd64, "bookworm-backports", "6.12.", true),
    cloud("6.12-arm64", Arch::Arm64, "bookworm-backports", "6.12.", true),
    cloud("7.2-amd64", Arch::Amd64, "trixie-backports", "7.2.", false),
    cloud("7.2-arm64", Arch::Arm64, "trixie-backports", "7.2.", false),
    // Pages of 16 KiB.
    Kernel {
        name: "6.12-arm64-16k",
        arch: Arch::Arm64,
        suite: "trixie",
        series: "6.12.",
        flavour: "arm64-16k",
        headers: true,
        always: false,
    },
    // The series that a DGX Spark's Ubuntu 24.04 has; Debian keeps its image, and no headers.
    Kernel { headers: false, ..cloud("6.17-arm64", Arch::Arm64, "trixie-backports", "6.17.", false) },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::ARCHES;

    #[test]
    fn names_are_unique_and_each_architecture_has_one_that_always_runs() {
        for (i, kernel) in KERNELS.iter().enumerate() {
            assert!(KERNELS[..i].iter().all(|other| other.name != kernel.name), "{}", kernel.name);
            assert!(kernel.name.contains(kernel.arch.names().debian), "{}", kernel.name);
        }
        for names in ARCHES {
            let always = KERNELS.iter().filter(|kernel| kernel.arch == names.arch && kernel.always);
            assert_eq!(always.count(), 1, "{}", names.debian);
        }
    }
}
