//! Builds the kernel side.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::btf;
use crate::environment::{clean_environment, remap_paths};
use crate::toolchain::{Missing, Toolchain};
use crate::versions::{BPF_TARGET, EBPF_PACKAGE};

/// Separates flags in CARGO_ENCODED_RUSTFLAGS.
const FLAG_SEPARATOR: &str = "\x1f";

/// What to build.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The workspace's directory.
    pub workspace: PathBuf,
    /// Architecture the object will run on, as in CARGO_CFG_TARGET_ARCH: programs read registers.
    pub target_arch: String,
    /// Target directory of its own: sharing the outer cargo's would wait for its lock for ever.
    pub target_dir: PathBuf,
    /// With messages for the log: programs that do more.
    pub messages: bool,
    /// Parallel jobs; cargo's default where `None`.
    pub jobs: Option<String>,
}

/// Why the kernel side was not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    Missing(#[from] Missing),
    #[error(
        "no eBPF for {0}: x86_64 and aarch64 are supported; spark-trace-recording, -analysis, -render and -study build everywhere"
    )]
    Architecture(String),
    #[error("cannot prepare {path}: {source}")]
    TargetDir { path: PathBuf, source: std::io::Error },
    #[error("cannot run {cargo}: {source}")]
    Spawn { cargo: PathBuf, source: std::io::Error },
    #[error("{cargo} could not build {EBPF_PACKAGE} with {compiler}; its messages are part of this output")]
    Failed { cargo: PathBuf, compiler: String },
    #[error("{path}: {what}")]
    Btf { path: PathBuf, what: String },
    #[error("the build left no {0}: does {EBPF_PACKAGE} have a binary of that name?")]
    NoObject(PathBuf),
}

/// Builds the kernel side and returns the object's path.
pub fn build(spec: &Spec) -> Result<PathBuf, BuildError> {
    if !matches!(spec.target_arch.as_str(), "x86_64" | "aarch64") {
        return Err(BuildError::Architecture(spec.target_arch.clone()));
    }
    let tools = Toolchain::find()?;
    let llvm = tools
        .llvm_dir(&spec.target_dir)
        .map_err(|source| BuildError::TargetDir { path: spec.target_dir.clone(), source })?;

    // Of its own: the other object has the same name.
    let artifacts = spec.target_dir.join(if spec.messages { "with-messages" } else { "plain" });
    let cargo = &tools.compiler.cargo;
    let mut command = Command::new(cargo);
    clean_environment(&mut command)
        .current_dir(&spec.workspace)
        .args(["build", "--release", "-Z", "build-std=core", "--target", BPF_TARGET])
        .args(["--package", EBPF_PACKAGE, "--bin", EBPF_PACKAGE])
        .arg("--target-dir")
        .arg(&spec.target_dir)
        .args(["-Z", "unstable-options", "--artifact-dir"])
        .arg(&artifacts)
        .env("RUSTC", &tools.compiler.rustc)
        // -Z flags on a released compiler, too.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags(spec).join(FLAG_SEPARATOR))
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &tools.linker.path)
        .env("LD_LIBRARY_PATH", llvm)
        // A build script's stdout is cargo's to read.
        .stdout(Stdio::null());
    if spec.messages {
        command.args(["--features", "messages"]);
    }
    if let Some(jobs) = &spec.jobs {
        command.args(["--jobs", jobs]);
    }
    let status = command.status().map_err(|source| BuildError::Spawn { cargo: cargo.clone(), source })?;
    if !status.success() {
        return Err(BuildError::Failed { cargo: cargo.clone(), compiler: tools.compiler.name });
    }
    let object = artifacts.join(EBPF_PACKAGE);
    if !object.is_file() {
        return Err(BuildError::NoObject(object));
    }
    if !spec.messages {
        return Ok(object);
    }
    // A file of its own: cargo takes the other for what it has made.
    let named = object.with_extension("o");
    let failed = |what: String| BuildError::Btf { path: object.clone(), what };
    let mut bytes = std::fs::read(&object).map_err(|e| failed(e.to_string()))?;
    btf::name_unions(&mut bytes).map_err(|e| failed(e.to_string()))?;
    std::fs::write(&named, bytes).map_err(|e| failed(e.to_string()))?;
    Ok(named)
}

fn flags(spec: &Spec) -> Vec<String> {
    let mut flags = vec![
        "--cfg".to_owned(),
        format!("bpf_target_arch=\"{}\"", spec.target_arch),
        // Debug info is where bpf-linker takes BTF from.
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // bpf-linker's warnings are about LLVM internals; its errors still stop the build.
        "-Alinker-messages".to_owned(),
    ];
    // BTF names the sources.
    flags.extend(remap_paths(&spec.workspace));
    flags
}

/// Directory for [`Spec::target_dir`], shared by all profiles and feature sets of the outer build,
/// from a build script's OUT_DIR: `core` is compiled once, not once for each of them.
pub fn object_dir(out_dir: &Path, target_arch: &str) -> PathBuf {
    // Cargo marks its target directory with this file.
    let target = out_dir.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file()).unwrap_or(out_dir);
    target.join(format!("ebpf-{target_arch}"))
}

/// Tells cargo, on stdout, what the object depends on. For build scripts.
pub fn rerun_if_changed(workspace: &Path) {
    for path in ["spark-trace-ebpf", "crates/common", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
    for name in ["SPARK_TRACE_BPF_RUSTC", "RUSTUP_HOME", "CARGO_HOME"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_architectures_are_refused() {
        let spec = Spec {
            workspace: PathBuf::from("/"),
            target_arch: "s390x".to_owned(),
            target_dir: PathBuf::from("/"),
            messages: false,
            jobs: None,
        };
        assert!(matches!(build(&spec), Err(BuildError::Architecture(arch)) if arch == "s390x"));
    }

    #[test]
    fn paths_of_this_machine_are_not_part_of_the_object() {
        let spec = Spec {
            workspace: PathBuf::from("/home/me/checkout"),
            target_arch: "aarch64".to_owned(),
            target_dir: PathBuf::from("/"),
            messages: false,
            jobs: None,
        };
        let flags = flags(&spec);
        assert!(flags.contains(&"bpf_target_arch=\"aarch64\"".to_owned()), "{flags:?}");
        assert!(
            flags.contains(&"--remap-path-prefix=/home/me/checkout=/spark-trace".to_owned()),
            "{flags:?}"
        );
    }

    #[test]
    fn object_dir_is_in_the_target_directory() {
        let target = tempfile::tempdir().unwrap();
        let out = target.path().join("debug/build/spark-trace-0123/out");
        assert_eq!(object_dir(&out, "x86_64"), out.join("ebpf-x86_64"));
        std::fs::write(target.path().join("CACHEDIR.TAG"), "").unwrap();
        assert_eq!(object_dir(&out, "x86_64"), target.path().join("ebpf-x86_64"));
    }
}
