//! Architectures that programs are built for: one row each.

use anyhow::{Context, Result};
use clap::ValueEnum;
use ebpf_build::versions::{DEBIAN_CROSS_AMD64, DEBIAN_CROSS_ARM64};

/// An architecture, by Debian's name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    #[value(alias = "x86_64")]
    Amd64,
    #[value(alias = "aarch64")]
    Arm64,
}

/// Names of one architecture.
#[derive(Debug)]
pub struct Names {
    pub arch: Arch,
    /// In packages of Debian and images of Docker.
    pub debian: &'static str,
    /// `uname -m`, QEMU's name and Rust's `target_arch`.
    pub machine: &'static str,
    /// Rust's target with glibc.
    pub triple: &'static str,
    /// GNU's name: what cross tools begin with, and the directory below /usr with their C library.
    pub gnu: &'static str,
    /// Debian's C compiler and C library for it on another architecture.
    pub cross_packages: &'static [&'static str],
}

pub const ARCHES: &[Names] = &[
    Names {
        arch: Arch::Amd64,
        debian: "amd64",
        machine: "x86_64",
        triple: "x86_64-unknown-linux-gnu",
        gnu: "x86_64-linux-gnu",
        cross_packages: DEBIAN_CROSS_AMD64,
    },
    Names {
        arch: Arch::Arm64,
        debian: "arm64",
        machine: "aarch64",
        triple: "aarch64-unknown-linux-gnu",
        gnu: "aarch64-linux-gnu",
        cross_packages: DEBIAN_CROSS_ARM64,
    },
];

impl Arch {
    pub fn names(self) -> &'static Names {
        // In the table's order; a test sees to it.
        &ARCHES[self as usize]
    }

    /// That of this machine.
    pub fn host() -> Result<Self> {
        let machine = std::env::consts::ARCH;
        let names = ARCHES.iter().find(|names| names.machine == machine);
        names.map(|names| names.arch).with_context(|| format!("spark-trace is not built on {machine}"))
    }

    /// Whether this machine runs its programs.
    pub fn is_host(self) -> bool {
        self.names().machine == std::env::consts::ARCH
    }

    /// The one that this machine is not.
    pub fn other() -> Self {
        if Self::Amd64.is_host() { Self::Arm64 } else { Self::Amd64 }
    }

    /// C compiler and linker for it.
    pub fn gcc(self) -> String {
        format!("{}-gcc", self.names().gnu)
    }

    /// What cargo needs where this machine is another: compiler and linker for C. What the user has set stays.
    pub fn cross_environment(self) -> Vec<(String, String)> {
        if self.is_host() {
            return Vec::new();
        }
        let triple = self.names().triple.replace('-', "_");
        let linker = format!("CARGO_TARGET_{}_LINKER", triple.to_uppercase());
        let names = [linker, format!("CC_{triple}")];
        let unset = names.into_iter().filter(|name| std::env::var_os(name).is_none());
        unset.map(|name| (name, self.gcc())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_the_order_of_the_enum_and_named_as_on_the_command_line() {
        for (arch, names) in Arch::value_variants().iter().zip(ARCHES) {
            assert_eq!(arch.names().arch, names.arch);
            assert_eq!(arch.to_possible_value().unwrap().get_name(), names.debian);
            assert_eq!(names.triple, format!("{}-unknown-linux-gnu", names.machine));
            assert_eq!(Arch::from_str(names.machine, false), Ok(names.arch));
        }
        assert_eq!(Arch::value_variants().len(), ARCHES.len());
    }

    #[test]
    fn cargo_gets_a_cross_compiler_only_where_one_is_needed() {
        let host = Arch::host().unwrap();
        assert_ne!(host, Arch::other());
        assert_eq!(host.cross_environment(), []);
        for (name, value) in Arch::other().cross_environment() {
            let machine = Arch::other().names().machine;
            assert!(name.to_lowercase().contains(machine), "{name}");
            assert_eq!(value, format!("{machine}-linux-gnu-gcc"));
        }
    }
}
