//! Compiler and linker together.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::compiler::{Compiler, NoCompiler};
use crate::environment::clean_environment;
use crate::linker::{Linker, NoLinker};
use crate::versions::{BPF_TARGET, LLVM_MAJOR};

/// Everything that building the kernel side takes.
#[derive(Debug, Clone)]
pub struct Toolchain {
    pub compiler: Compiler,
    pub linker: Linker,
}

/// What is missing for building the kernel side.
#[derive(Debug, Clone, thiserror::Error)]
pub struct Missing {
    pub compiler: Option<NoCompiler>,
    pub linker: Option<NoLinker>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the tools that compile eBPF are not complete:")?;
        if let Some(compiler) = &self.compiler {
            writeln!(f, "  {compiler}")?;
        }
        if let Some(linker) = &self.linker {
            writeln!(f, "  {linker}")?;
        }
        f.write_str("run `cargo xtask setup`, which installs them or says what to do")
    }
}

/// The tools are there but do not work together.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("cannot write {path}: {source}")]
    Scratch { path: PathBuf, source: std::io::Error },
    #[error("cannot run {path}: {source}")]
    Spawn { path: PathBuf, source: std::io::Error },
    #[error("{path} fails on an empty BPF program:\n{stderr}")]
    Failed { path: PathBuf, stderr: String },
}

impl Toolchain {
    /// Finds compiler and linker.
    pub fn find() -> Result<Self, Missing> {
        match (Compiler::find(), Linker::find()) {
            (Ok(compiler), Ok(linker)) => Ok(Self { compiler, linker }),
            (compiler, linker) => Err(Missing { compiler: compiler.err(), linker: linker.err() }),
        }
    }

    /// A directory below `scratch` for LD_LIBRARY_PATH with nothing but the right LLVM in it.
    ///
    /// bpf-linker loads the first file called `libLLVM*` it sees; a system's library directory may
    /// hold several versions, in any order.
    pub(crate) fn llvm_dir(&self, scratch: &Path) -> std::io::Result<PathBuf> {
        let dir = scratch.join("llvm");
        std::fs::create_dir_all(&dir)?;
        let link = dir.join(format!("libLLVM.so.{LLVM_MAJOR}"));
        if std::fs::read_link(&link).is_ok_and(|target| target == self.compiler.llvm) {
            return Ok(dir);
        }
        match std::fs::remove_file(&link) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::os::unix::fs::symlink(&self.compiler.llvm, &link)?;
        Ok(dir)
    }

    /// Compiles and links an empty BPF program in `scratch`: versions alone do not show whether
    /// bpf-linker finds its LLVM.
    pub fn probe(&self, scratch: &Path) -> Result<(), ProbeError> {
        let scratch_error = |source| ProbeError::Scratch { path: scratch.to_owned(), source };
        std::fs::create_dir_all(scratch).map_err(scratch_error)?;
        let source = scratch.join("probe.rs");
        let bitcode = scratch.join("probe.bc");
        std::fs::write(&source, "#![feature(no_core)]\n#![no_core]\n").map_err(scratch_error)?;
        let llvm = self.llvm_dir(scratch).map_err(scratch_error)?;

        let mut rustc = Command::new(&self.compiler.rustc);
        rustc.args(["--target", BPF_TARGET, "--crate-type=lib", "--emit=obj", "-o"]);
        clean_environment(rustc.arg(&bitcode).arg(&source)).env("RUSTC_BOOTSTRAP", "1");
        run(&self.compiler.rustc, &mut rustc)?;

        let mut linker = Command::new(&self.linker.path);
        linker.args(["--emit=obj", "-o"]).arg(scratch.join("probe.o")).arg(&bitcode);
        linker.env("LD_LIBRARY_PATH", llvm);
        run(&self.linker.path, &mut linker)
    }
}

fn run(path: &Path, command: &mut Command) -> Result<(), ProbeError> {
    let output = command.output().map_err(|source| ProbeError::Spawn { path: path.to_owned(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(ProbeError::Failed { path: path.to_owned(), stderr })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compiler::Rejected;

    #[test]
    fn missing_says_what_and_what_next() {
        let missing = Missing {
            compiler: Some(NoCompiler {
                considered: vec![("/usr/bin/rustc".to_owned(), Rejected::NoSource(PathBuf::from("/x")))],
            }),
            linker: Some(NoLinker { others: vec![(PathBuf::from("/b"), "bpf-linker 0.9.14".to_owned())] }),
        };
        let text = missing.to_string();
        for part in ["/usr/bin/rustc: has no rust-src", "/b: bpf-linker 0.9.14", "cargo xtask setup"] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
    }

    #[test]
    fn llvm_dir_holds_one_link_and_follows_the_compiler() {
        let scratch = tempfile::tempdir().unwrap();
        let toolchain = |llvm: &str| Toolchain {
            compiler: Compiler {
                name: String::new(),
                rustc: PathBuf::new(),
                cargo: PathBuf::new(),
                llvm: llvm.into(),
            },
            linker: Linker { path: PathBuf::new(), version: String::new() },
        };
        for llvm in ["/a/libLLVM.so.22.1", "/b/libLLVM.so.22.1", "/b/libLLVM.so.22.1"] {
            let dir = toolchain(llvm).llvm_dir(scratch.path()).unwrap();
            let entries: Vec<_> = dir.read_dir().unwrap().flatten().collect();
            assert_eq!(entries.len(), 1);
            assert_eq!(std::fs::read_link(entries[0].path()).unwrap(), PathBuf::from(llvm));
        }
    }
}
