//! A Rust compiler that can build `core` for BPF: it has the source of `core` and the right LLVM.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::environment::{all_in_path, clean_environment, home_or};
use crate::versions::{LLVM_MAJOR, RUST_MINIMUM};

/// Names one compiler to use, and no other: a path to `rustc`.
const OVERRIDE: &str = "SPARK_TRACE_BPF_RUSTC";

/// A compiler that fits, with the cargo and the LLVM library that belong to it.
#[derive(Debug, Clone)]
pub struct Compiler {
    /// For messages: toolchain name or path, and version.
    pub name: String,
    pub rustc: PathBuf,
    pub cargo: PathBuf,
    /// Shared LLVM library of the compiler, for bpf-linker to load.
    pub llvm: PathBuf,
}

/// Why one compiler does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejected {
    /// It did not print its version.
    Unusable(String),
    /// Too old, or another LLVM: no component can change that.
    Unsuitable(String),
    /// All it lacks is the source of `core`, expected at this path.
    NoSource(PathBuf),
    /// Its LLVM is linked in, so bpf-linker cannot load it, or its cargo is elsewhere.
    Incomplete(String),
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unusable(why) | Self::Unsuitable(why) | Self::Incomplete(why) => f.write_str(why),
            Self::NoSource(path) => write!(f, "has no rust-src ({} is not there)", path.display()),
        }
    }
}

/// No compiler fits; what was looked at, and what each one lacks.
#[derive(Debug, Clone, Default)]
pub struct NoCompiler {
    pub considered: Vec<(String, Rejected)>,
}

impl NoCompiler {
    /// rustup toolchains that would fit after `rustup component add rust-src`.
    pub fn lacking_only_source(&self) -> impl Iterator<Item = &str> {
        self.considered.iter().filter_map(|(name, why)| match why {
            Rejected::NoSource(_) => name.strip_prefix(RUSTUP),
            _ => None,
        })
    }
}

impl fmt::Display for NoCompiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no Rust compiler with rust-src and LLVM {LLVM_MAJOR}")?;
        for (name, why) in &self.considered {
            write!(f, "\n    {name}: {why}")?;
        }
        Ok(())
    }
}

/// Prefix of the names of rustup's toolchains.
const RUSTUP: &str = "rustup toolchain ";

impl Compiler {
    /// The first compiler that fits: rustup's toolchains (nightly first), then the system's.
    pub fn find() -> Result<Self, NoCompiler> {
        let mut none = NoCompiler::default();
        for (name, rustc) in candidates() {
            match Self::inspect(&name, &rustc) {
                Ok(compiler) => return Ok(compiler),
                Err(why) => none.considered.push((name, why)),
            }
        }
        Err(none)
    }

    fn inspect(name: &str, rustc: &Path) -> Result<Self, Rejected> {
        let version = output(rustc, &["--version", "--verbose"])?;
        let facts = Version::parse(&version)
            .ok_or_else(|| Rejected::Unusable(format!("version not understood: {}", version.trim())))?;
        facts.check()?;
        let sysroot = PathBuf::from(output(rustc, &["--print", "sysroot"])?.trim());
        let source = sysroot.join("lib/rustlib/src/rust/library/Cargo.lock");
        if !source.is_file() {
            return Err(Rejected::NoSource(source));
        }
        let llvm = find_llvm(&sysroot)
            .ok_or_else(|| Rejected::Incomplete(format!("has no shared libLLVM.so.{LLVM_MAJOR}")))?;
        let cargo = sibling_cargo(rustc)
            .ok_or_else(|| Rejected::Incomplete(format!("no cargo beside {}", rustc.display())))?;
        Ok(Self { name: format!("{name} ({})", facts.release), rustc: rustc.to_owned(), cargo, llvm })
    }
}

/// What `rustc -vV` says, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
struct Version {
    release: String,
    llvm_major: u32,
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let field = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let llvm_major = field("LLVM version:")?.split('.').next()?.parse().ok()?;
        Some(Self { release: field("release:")?.to_owned(), llvm_major })
    }

    fn check(&self) -> Result<(), Rejected> {
        let mut parts = self.release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
        let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        if version < RUST_MINIMUM {
            let (major, minor) = RUST_MINIMUM;
            return Err(Rejected::Unsuitable(format!(
                "is Rust {}, older than {major}.{minor}",
                self.release
            )));
        }
        if self.llvm_major != LLVM_MAJOR {
            return Err(Rejected::Unsuitable(format!("has LLVM {}, not {LLVM_MAJOR}", self.llvm_major)));
        }
        Ok(())
    }
}

/// Name and path of every `rustc` worth a look, best first.
fn candidates() -> Vec<(String, PathBuf)> {
    if let Some(path) = std::env::var_os(OVERRIDE) {
        let path = PathBuf::from(path);
        return vec![(format!("{} (from {OVERRIDE})", path.display()), path)];
    }
    let mut found = rustup_toolchains();
    let mut system: Vec<PathBuf> = all_in_path("rustc".as_ref()).collect();
    // Ubuntu's packages carry the version in the name: rustc-1.95.
    system.extend(entries(Path::new("/usr/bin")).into_iter().filter(|path| {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        name.strip_prefix("rustc-").is_some_and(|version| version.starts_with("1."))
    }));
    let mut seen = Vec::new();
    for path in system {
        let Ok(real) = path.canonicalize() else { continue };
        // A rustup proxy stands for a toolchain that is listed already.
        let proxy = real.file_name().is_some_and(|n| n == "rustup")
            || path.parent().is_some_and(|dir| dir.join("rustup").is_file());
        if !proxy && !seen.contains(&real) {
            found.push((path.display().to_string(), path));
            seen.push(real);
        }
    }
    found
}

/// Compilers of the installed rustup toolchains, called directly: the proxies in `~/.cargo/bin`
/// obey RUSTUP_TOOLCHAIN and directory overrides of the outer build.
fn rustup_toolchains() -> Vec<(String, PathBuf)> {
    let Some(home) = home_or("RUSTUP_HOME", ".rustup") else { return Vec::new() };
    let mut found: Vec<(String, PathBuf)> = entries(&home.join("toolchains"))
        .into_iter()
        .filter_map(|dir| {
            let name = format!("{RUSTUP}{}", dir.file_name()?.to_str()?);
            let rustc = dir.join("bin/rustc");
            rustc.is_file().then_some((name, rustc))
        })
        .collect();
    found.sort_by_key(|(name, _)| (!name.contains("nightly"), !name.contains("stable"), name.clone()));
    found
}

/// Paths in `dir`, sorted; none where it cannot be read.
fn entries(dir: &Path) -> Vec<PathBuf> {
    let Ok(read) = dir.read_dir() else { return Vec::new() };
    let mut paths: Vec<PathBuf> = read.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// The shared LLVM library of the compiler in `sysroot`: in the sysroot (rustup) or the system (distributions).
fn find_llvm(sysroot: &Path) -> Option<PathBuf> {
    let dirs = [
        sysroot.join("lib"),
        PathBuf::from(format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH)),
        PathBuf::from(format!("/usr/lib/llvm-{LLVM_MAJOR}/lib")),
        PathBuf::from("/usr/lib64"),
        PathBuf::from("/usr/lib"),
    ];
    let wanted = format!("libLLVM.so.{LLVM_MAJOR}.");
    dirs.iter()
        .flat_map(|dir| entries(dir))
        .find(|path| path.file_name().and_then(|n| n.to_str()).is_some_and(|name| name.starts_with(&wanted)))
}

/// The cargo installed with `rustc`: same directory, same version suffix.
fn sibling_cargo(rustc: &Path) -> Option<PathBuf> {
    let suffix = rustc.file_name()?.to_str()?.strip_prefix("rustc")?;
    let cargo = rustc.with_file_name(format!("cargo{suffix}"));
    cargo.is_file().then_some(cargo)
}

fn output(rustc: &Path, args: &[&str]) -> Result<String, Rejected> {
    let mut command = Command::new(rustc);
    let run = clean_environment(command.args(args)).output();
    let output =
        run.map_err(|error| Rejected::Unusable(format!("{} does not run: {error}", rustc.display())))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Rejected::Unusable(format!("{} fails: {stderr}", args.join(" "))));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NIGHTLY: &str = "rustc 1.97.0-nightly (0123456 2026-05-01)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\n\
                           release: 1.97.0-nightly\nLLVM version: 22.1.4\n";

    #[test]
    fn version_is_read() {
        let version = Version::parse(NIGHTLY).unwrap();
        assert_eq!(version, Version { release: "1.97.0-nightly".to_owned(), llvm_major: 22 });
        assert_eq!(version.check(), Ok(()));
        assert_eq!(Version::parse("rustc 1.0\n"), None);
    }

    #[test]
    fn other_llvm_and_old_rust_are_refused() {
        let llvm = Version { release: "1.98.0".to_owned(), llvm_major: 23 }.check();
        assert_eq!(llvm, Err(Rejected::Unsuitable("has LLVM 23, not 22".to_owned())));
        let old = Version { release: "1.85.1".to_owned(), llvm_major: 22 }.check();
        assert!(matches!(old, Err(Rejected::Unsuitable(_))));
    }

    #[test]
    fn only_rustup_toolchains_can_be_completed_by_a_component() {
        let source = || Rejected::NoSource(PathBuf::from("/x"));
        let none = NoCompiler {
            considered: vec![
                ("rustup toolchain nightly".to_owned(), source()),
                ("rustup toolchain 1.80".to_owned(), Rejected::Unsuitable("has LLVM 18, not 22".to_owned())),
                ("/usr/bin/rustc".to_owned(), source()),
            ],
        };
        assert_eq!(none.lacking_only_source().collect::<Vec<_>>(), ["nightly"]);
    }
}
