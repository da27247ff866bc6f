//! Finds the tools that compile eBPF and builds `spark-trace-ebpf` with them.
//!
//! Used by spark-trace's build script and by `cargo xtask`, so both agree on what is needed.
//! [`versions`] is the one place that names tools and versions.

mod btf;
mod compile;
mod compiler;
mod environment;
mod linker;
mod toolchain;
pub mod versions;

pub use compile::{BuildError, Spec, build, object_dir, rerun_if_changed};
pub use compiler::{Compiler, NoCompiler, Rejected};
pub use environment::{clean_environment, find_in_path, remap_paths};
pub use linker::{Linker, NoLinker, private_root};
pub use toolchain::{Missing, ProbeError, Toolchain};
