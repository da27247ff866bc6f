//! Pinned tools and package names. Nothing else in the workspace repeats them.

/// LLVM that compiler and linker must share: bitcode of another major version is not readable.
pub const LLVM_MAJOR: u32 = 22;

/// The last bpf-linker whose default features use the LLVM 22 that comes with Rust.
/// 0.11 and later want LLVM 23.
pub const BPF_LINKER: &str = "0.10.0";

/// Rust installed by `rustup toolchain install` where no installed toolchain carries LLVM 22.
/// A released version is as good as a nightly: `RUSTC_BOOTSTRAP=1` unlocks `-Z build-std`.
pub const RUST_WITH_LLVM: &str = "1.95.0";

/// The oldest compiler that builds this workspace (`rust-version` in Cargo.toml).
pub const RUST_MINIMUM: (u32, u32) = (1, 95);

/// rustup component with the source of `core`, which is compiled for the BPF target.
pub const RUST_SRC: &str = "rust-src";

/// Target triple of the kernel side (little endian hosts only: x86-64 and arm64).
pub const BPF_TARGET: &str = "bpfel-unknown-none";

/// Package and binary of the kernel side.
pub const EBPF_PACKAGE: &str = "spark-trace-ebpf";

/// Compiler, cargo and source of `core` as Debian packages: a matched set outside rustup.
pub const DEBIAN_RUST: &[&str] = &["rustc-web", "cargo-web", "rust-web-src"];

/// The same on Ubuntu, where package names carry the version: `rustc-V`, `cargo-V`, `rust-V-src`.
pub const UBUNTU_RUST: &[&str] = &["1.96", "1.95"];

/// Docker's engine, for container tests and the demo.
pub const DEBIAN_DOCKER: &str = "docker.io";

/// Docker's command line, where it is a package of its own (Debian 13 and later).
pub const DEBIAN_DOCKER_CLI: &str = "docker-cli";

/// Only `cargo xtask bench` compares against it.
pub const DEBIAN_BPFTRACE: &str = "bpftrace";

/// C compiler and C library for arm64 on another architecture; both come for static programs, too.
pub const DEBIAN_CROSS_ARM64: &[&str] = &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"];

/// The same for x86-64.
pub const DEBIAN_CROSS_AMD64: &[&str] = &["gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"];
