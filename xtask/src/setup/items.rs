//! What is needed: one row each, in the order they depend on each other.

use ebpf_build::versions::{
    BPF_LINKER, DEBIAN_BPFTRACE, DEBIAN_DOCKER, DEBIAN_DOCKER_CLI, DEBIAN_RUST, RUST_SRC, RUST_WITH_LLVM,
    UBUNTU_RUST,
};
use ebpf_build::{Compiler, Linker, Toolchain, find_in_path, private_root};

use super::{Remedy, Scope, cross, field, machines};
use crate::arch::Arch;
use crate::{docker, workspace};

/// One thing that is needed.
pub struct Item {
    pub name: &'static str,
    /// The smallest scope that takes it.
    pub scope: Scope,
    /// Who needs it.
    pub purpose: &'static str,
    /// What was found, or why it is not there.
    pub find: fn() -> Result<String, String>,
    /// Ways to get it, the preferred one first.
    pub remedies: fn() -> Vec<Remedy>,
    /// What to do where none of them works.
    pub by_hand: &'static str,
}

pub const ITEMS: &[Item] = &[
    Item {
        name: "Rust for eBPF",
        scope: Scope::Building,
        purpose: "compiles the programs that run in the kernel",
        find: || match Compiler::find() {
            Ok(compiler) => Ok(format!("{}, {}", compiler.name, compiler.llvm.display())),
            Err(none) => Err(none.to_string()),
        },
        remedies: rust_remedies,
        by_hand: "install rustup (https://rustup.rs) and run `rustup toolchain install 1.95.0 --profile minimal \
                  --component rust-src`",
    },
    Item {
        name: "bpf-linker",
        scope: Scope::Building,
        purpose: "links the programs that run in the kernel",
        find: || match Linker::find() {
            Ok(linker) => Ok(format!("{} {}", linker.path.display(), linker.version)),
            Err(none) => Err(none.to_string()),
        },
        remedies: linker_remedies,
        by_hand: "run `cargo install bpf-linker --version 0.10.0 --locked` where crates.io can be reached and copy the \
                  binary into PATH",
    },
    Item {
        name: "eBPF build",
        scope: Scope::Building,
        purpose: "compiler and linker must share LLVM",
        find: || {
            let tools = Toolchain::find().map_err(|_| "waits for the two above".to_owned())?;
            let scratch = workspace::target_dir().map_err(|error| format!("{error:#}"))?.join("ebpf-probe");
            tools.probe(&scratch).map_err(|error| error.to_string())?;
            Ok("compiler and linker turn a BPF program into an object".to_owned())
        },
        remedies: Vec::new,
        by_hand: "SPARK_TRACE_BPF_RUSTC=/path/to/rustc selects another compiler",
    },
    Item {
        name: "Docker",
        scope: Scope::Containers,
        purpose: "container tests and the demo need it",
        find: docker::available,
        remedies: || vec![Remedy::apt(&[DEBIAN_DOCKER], &[DEBIAN_DOCKER_CLI])],
        by_hand: "install Docker's engine (https://docs.docker.com/engine/install/): container tests and the demo need \
                  it; `cargo xtask test --no-root` runs the other tests",
    },
    Item {
        name: "tmux",
        scope: Scope::Containers,
        purpose: "tests press the keys of `spark-trace top` in it",
        find: || Ok(find_in_path("tmux").ok_or("not in PATH")?.display().to_string()),
        remedies: || vec![Remedy::apt(&["tmux"], &[])],
        by_hand: "install tmux from your distribution: tests of `spark-trace top` need it; `cargo xtask test --no-root` \
                  runs the other tests",
    },
    Item {
        name: "programs of the field",
        scope: Scope::Field,
        purpose: "field tests record them and skip those that are missing: `cargo xtask setup --field`",
        find: field::find,
        remedies: || vec![Remedy::apt(field::PACKAGES, &[])],
        by_hand: "install Redis, PostgreSQL, SQLite, Node.js, Python, Git and GCC from your distribution",
    },
    Item {
        name: "bpftrace",
        scope: Scope::Comparisons,
        purpose: "only benchmarks compare with it: `cargo xtask setup --comparisons`",
        find: || {
            let path = find_in_path("bpftrace").ok_or("not in PATH")?;
            Ok(format!("{} (optional, for benchmarks)", path.display()))
        },
        remedies: || vec![Remedy::apt(&[DEBIAN_BPFTRACE], &[])],
        by_hand: "install bpftrace from your distribution",
    },
    Item {
        name: "Rust for the other architecture",
        scope: Scope::Cross,
        purpose: "builds for arm64 on x86-64, and the other way round: `cargo xtask setup --cross`",
        find: cross::find_rust,
        remedies: cross::rust_remedies,
        by_hand: "run `rustup target add aarch64-unknown-linux-gnu` (on arm64: x86_64-unknown-linux-gnu); for Debian's \
                  own Rust install libstd-rust-web-dev of that architecture, after `dpkg --add-architecture`",
    },
    Item {
        name: "C for the other architecture",
        scope: Scope::Cross,
        purpose: "links for arm64 on x86-64, and the other way round: `cargo xtask setup --cross`",
        find: cross::find_c,
        remedies: || vec![Remedy::apt(Arch::other().names().cross_packages, &[])],
        by_hand: "install GCC for the other architecture with a C library that has libc.a; on Debian and Ubuntu: \
                  gcc-aarch64-linux-gnu and libc6-dev-arm64-cross (on arm64: gcc-x86-64-linux-gnu and \
                  libc6-dev-amd64-cross)",
    },
    Item {
        name: "virtual machines",
        scope: Scope::Machines,
        purpose: "tests on kernels and architectures that this machine does not have: `cargo xtask vm`",
        find: machines::find,
        remedies: machines::remedies,
        by_hand: "QEMU and kernels come from Debian's archive, so this needs a machine with apt: make, mke2fs, xz, binutils \
                  and the keys of Debian's archive (debian-archive-keyring)",
    },
];

fn rust_remedies() -> Vec<Remedy> {
    let mut remedies = Vec::new();
    if let Err(none) = Compiler::find() {
        for toolchain in none.lacking_only_source() {
            remedies.push(Remedy::command(&[
                "rustup",
                "component",
                "add",
                RUST_SRC,
                "--toolchain",
                toolchain,
            ]));
        }
    }
    if remedies.is_empty() {
        let install = ["rustup", "toolchain", "install", RUST_WITH_LLVM, "--profile", "minimal"];
        remedies.push(Remedy::command(&[&install[..], &["--component", RUST_SRC]].concat()));
    }
    // One attempt with rustup is enough: where its server cannot be reached, each takes a while.
    remedies.truncate(1);
    remedies.push(Remedy::apt(DEBIAN_RUST, &[]));
    for version in UBUNTU_RUST {
        let names = [format!("rustc-{version}"), format!("cargo-{version}"), format!("rust-{version}-src")];
        remedies.push(Remedy::apt(&names.each_ref().map(String::as_str), &[]));
    }
    remedies
}

fn linker_remedies() -> Vec<Remedy> {
    let mut argv = vec!["cargo", "install", "bpf-linker", "--version", BPF_LINKER, "--locked"];
    // Another version that the user has installed is in use for something: ours goes elsewhere.
    let root = private_root().display().to_string();
    if Linker::find().is_err_and(|none| !none.others.is_empty()) {
        argv.extend(["--root", &root]);
    }
    vec![Remedy::command(&argv)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::ARCHES;

    #[test]
    fn instructions_name_the_pinned_versions() {
        let by_hand = |name: &str| ITEMS.iter().find(|item| item.name == name).unwrap().by_hand;
        assert!(by_hand("Rust for eBPF").contains(&format!("toolchain install {RUST_WITH_LLVM} ")));
        assert!(by_hand("bpf-linker").contains(&format!("--version {BPF_LINKER} ")));
        for names in ARCHES {
            assert!(by_hand("Rust for the other architecture").contains(names.triple));
            for package in names.cross_packages {
                assert!(by_hand("C for the other architecture").contains(package), "{package}");
            }
        }
    }

    #[test]
    fn linker_is_installed_at_the_pinned_version() {
        let shown = linker_remedies()[0].to_string();
        assert!(
            shown.starts_with(&format!("cargo install bpf-linker --version {BPF_LINKER} --locked")),
            "{shown}"
        );
    }
}
