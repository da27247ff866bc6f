//! `cargo xtask build`: the two programs, for this machine or for another architecture.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::arch::Arch;
use crate::suites::{self, Kind, elements};
use crate::{process, setup, workspace};

/// Builds spark-trace and the reference workload and prints where they are
///
/// The workload is linked statically, so it runs in an image that holds nothing else.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask build
  cargo xtask build --release --cuda
  cargo xtask build --arch arm64                  # on x86-64, too
  cargo xtask build --arch arm64 --small --tests  # what an arm64 machine without Rust takes to run the kernel tests

For an architecture other than this machine's, what it takes is installed first, as `cargo xtask setup --cross` does.")]
pub struct Args {
    /// Optimise; the build for measuring
    #[arg(long)]
    release: bool,
    /// Without debug information and a little optimised, to be carried to another machine
    #[arg(long, conflicts_with = "release")]
    small: bool,
    /// Also build the workload that can load a CUDA driver, and the simulated driver beside it
    #[arg(long)]
    cuda: bool,
    /// Also build the kernel tests, and the libraries that they load
    #[arg(long)]
    tests: bool,
    /// Build for this architecture; this machine's where not given
    #[arg(long, value_enum, value_name = "ARCH")]
    arch: Option<Arch>,
}

pub fn run(args: &Args) -> Result<()> {
    let profile = if args.small { Profile::Small } else { Profile::optimised(args.release) };
    let build = Build { arch: args.arch, profile };
    build.ensure_tools()?;
    let built = build.all()?;
    println!("{}", built.spark_trace.display());
    println!("{}", built.workload.display());
    if args.cuda {
        let cuda = build.cuda()?;
        println!("{}\n{}", cuda.workload.display(), cuda.simulated_driver.display());
    }
    if args.tests {
        let tests = build.tests(&[Kind::Kernel])?;
        let programs = tests.programs.iter().map(|(_, program)| program);
        programs.chain(&tests.libraries).for_each(|path| println!("{}", path.display()));
    }
    Ok(())
}

/// Builds both programs for this machine.
pub fn all(release: bool) -> Result<Built> {
    Build { arch: None, profile: Profile::optimised(release) }.all()
}

/// Builds the static workload for this machine.
pub fn workload(release: bool) -> Result<PathBuf> {
    Build { arch: None, profile: Profile::optimised(release) }.workload()
}

/// Builds the workload that can load a driver, and the simulated driver, for this machine.
pub fn cuda(release: bool) -> Result<Cuda> {
    Build { arch: None, profile: Profile::optimised(release) }.cuda()
}

/// Paths of the programs.
pub struct Built {
    pub spark_trace: PathBuf,
    pub workload: PathBuf,
}

/// Paths of what CUDA workloads need.
pub struct Cuda {
    pub workload: PathBuf,
    pub simulated_driver: PathBuf,
}

/// Integration tests as programs, to be run on another machine.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tests {
    /// Names, and where they are.
    pub programs: Vec<(String, PathBuf)>,
    /// Tests look for these beside themselves, under these file names.
    pub libraries: Vec<PathBuf>,
    /// What the tests run, of the same profile.
    pub spark_trace: Option<PathBuf>,
}

/// A profile of the workspace's Cargo.toml.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    Debug,
    Release,
    /// To be carried to another machine: names of functions, but no debug information.
    Small,
    /// For packages: spark-trace without symbols, workloads with the names that stacks are shown by.
    Dist,
}

impl Profile {
    pub fn optimised(yes: bool) -> Self {
        if yes { Self::Release } else { Self::Debug }
    }

    /// What cargo calls it, and the directory below the target directory.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Debug => ("dev", "debug"),
            Self::Release => ("release", "release"),
            Self::Small => ("small", "small"),
            Self::Dist => ("dist", "dist"),
        }
    }
}

/// Package and program.
const SPARK_TRACE: &str = "spark-trace";

/// User stacks are followed by frame pointers.
const FRAME_POINTERS: &str = "-Cforce-frame-pointers=yes";

/// Overrides the profile's `strip`.
const KEEP_NAMES: &str = "-Cstrip=debuginfo";

/// What to build for, and how.
#[derive(Debug, Clone, Copy)]
pub struct Build {
    /// `None`: for this machine, sharing what plain `cargo build` has built.
    pub arch: Option<Arch>,
    pub profile: Profile,
}

impl Build {
    /// Finds or installs what it takes; nothing for this machine: the build says what it lacks.
    pub fn ensure_tools(&self) -> Result<()> {
        match self.arch.filter(|arch| !arch.is_host()) {
            Some(_) => setup::ensure(setup::Scope::Cross),
            None => Ok(()),
        }
    }

    /// spark-trace and the static workload.
    pub fn all(&self) -> Result<Built> {
        let workload = self.workload()?;
        Ok(Built { spark_trace: self.spark_trace()?, workload })
    }

    pub fn spark_trace(&self) -> Result<PathBuf> {
        let mut command = self.cargo("build");
        command.args(["--package", "spark-trace"]);
        self.flags(&mut command, &[]);
        process::run(&mut command, &self.purpose("spark-trace"))?;
        built(self.directory(&workspace::target_dir()?).join("spark-trace"))
    }

    /// The static workload.
    pub fn workload(&self) -> Result<PathBuf> {
        // With a target named, cargo keeps these flags from build scripts and proc macros, which
        // cannot be linked statically.
        let named = Build { arch: Some(self.arch.map_or_else(Arch::host, Ok)?), ..*self };
        let mut command = named.cargo("build");
        command.args(["--package", "spark-trace-workload"]);
        self.flags(&mut command, &["-Ctarget-feature=+crt-static", FRAME_POINTERS, KEEP_NAMES]);
        process::run(&mut command, &named.purpose("the static workload"))?;
        built(named.directory(&workspace::target_dir()?).join("spark-trace-workload"))
    }

    /// The workload that can load a driver, and the simulated driver.
    pub fn cuda(&self) -> Result<Cuda> {
        // A directory of its own: other flags than those of the other builds, which would be built anew each time.
        let directory = workspace::target_dir()?.join("cuda");
        let mut command = self.cargo("build");
        command
            .args(["--package", "spark-trace-workload", "--package", "spark-trace-simulated-cuda"])
            .arg("--target-dir")
            .arg(&directory);
        self.flags(&mut command, &[FRAME_POINTERS, KEEP_NAMES]);
        process::run(&mut command, &self.purpose("the CUDA workload and the simulated driver"))?;
        let directory = self.directory(&directory);
        Ok(Cuda {
            workload: built(directory.join("spark-trace-workload"))?,
            simulated_driver: built(directory.join("libspark_trace_simulated_cuda.so"))?,
        })
    }

    /// spark-trace's integration tests of these kinds, spark-trace with them, and the libraries that they load.
    pub fn tests(&self, kinds: &[Kind]) -> Result<Tests> {
        let suites = suites::find()?;
        let wanted =
            suites.iter().filter(|suite| suite.package == SPARK_TRACE && kinds.contains(&suite.kind));
        let names: Vec<&str> = wanted.map(|suite| &suite.name[..]).collect();
        if names.is_empty() {
            return Ok(Tests::default());
        }
        let mut command = self.cargo("test");
        // No package is named: cargo would choose other features for what they share, and build all of it once more.
        command.args(["--no-run", "--message-format=json-render-diagnostics"]);
        command.args(names.iter().flat_map(|name| ["--test", name]));
        Ok(Tests::from_messages(&process::run_for_output(&mut command, &self.purpose("tests"))?, &names))
    }

    fn cargo(&self, subcommand: &str) -> Command {
        let mut command = process::cargo();
        command.args([subcommand, "--profile", self.profile.names().0]).current_dir(workspace::root());
        if let Some(arch) = self.arch {
            command.args(["--target", arch.names().triple]).envs(arch.cross_environment());
        }
        command
    }

    /// Flags for rustc, in place of the user's; nothing where there are none.
    fn flags(&self, command: &mut Command, flags: &[&str]) {
        let mut flags: Vec<_> = flags.iter().map(|&flag| flag.to_owned()).collect();
        match self.profile {
            Profile::Dist => flags.extend(ebpf_build::remap_paths(&workspace::root())),
            // Debug information is not to be stripped of the others.
            _ => flags.retain(|flag| flag != KEEP_NAMES),
        }
        if !flags.is_empty() {
            command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        }
    }

    fn purpose(&self, what: &str) -> String {
        match self.arch {
            Some(arch) => format!("building {what} for {}", arch.names().debian),
            None => format!("building {what}"),
        }
    }

    /// Where cargo puts programs, below a target directory.
    fn directory(&self, target: &Path) -> PathBuf {
        let mut directory = target.to_owned();
        directory.extend(self.arch.map(|arch| arch.names().triple));
        directory.push(self.profile.names().1);
        directory
    }
}

fn built(path: PathBuf) -> Result<PathBuf> {
    ensure!(path.is_file(), "cargo succeeded but left no {}: was the binary renamed?", path.display());
    Ok(path)
}

impl Tests {
    /// From cargo's messages, one message a line.
    fn from_messages(messages: &str, names: &[&str]) -> Self {
        let mut tests = Self::default();
        for message in messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let target = &message["target"];
            if let (Some(name), Some(path)) = (target["name"].as_str(), message["executable"].as_str())
                && names.contains(&name)
            {
                tests.programs.push((name.to_owned(), path.into()));
            }
            if target["name"] == SPARK_TRACE {
                tests.spark_trace = message["executable"].as_str().map(PathBuf::from).or(tests.spark_trace);
            }
            if elements(&target["kind"]).iter().any(|kind| kind == "cdylib") {
                let files = elements(&message["filenames"]).iter().filter_map(Value::as_str);
                tests.libraries.extend(files.filter(|file| file.ends_with(".so")).map(PathBuf::from));
            }
        }
        tests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_and_their_libraries_are_in_cargos_messages() {
        let messages = r#"{"target":{"name":"spark-trace","kind":["bin"]},"executable":"/t/spark-trace"}
{"target":{"name":"gpu","kind":["test"]},"executable":"/t/deps/gpu-1"}
{"target":{"name":"gpu_lib","kind":["test"]},"executable":null}
{"target":{"name":"sim","kind":["cdylib","rlib"]},"filenames":["/t/deps/libsim.so","/t/deps/libsim.rlib"],"executable":null}
not JSON
{"reason":"build-finished","success":true}"#;
        let expected = Tests {
            programs: vec![("gpu".to_owned(), "/t/deps/gpu-1".into())],
            libraries: vec!["/t/deps/libsim.so".into()],
            spark_trace: Some("/t/spark-trace".into()),
        };
        assert_eq!(Tests::from_messages(messages, &["gpu", "gpu_lib"]), expected);
    }

    #[test]
    fn cargo_gets_profile_and_target() {
        let line = |arch| process::command_line(&Build { arch, profile: Profile::Small }.cargo("build"));
        assert!(line(None).ends_with(" build --profile small"), "{}", line(None));
        let named = line(Some(Arch::Arm64));
        assert!(named.ends_with(" build --profile small --target aarch64-unknown-linux-gnu"), "{named}");
        let build = Build { arch: Some(Arch::Arm64), profile: Profile::Debug };
        assert_eq!(build.directory(Path::new("/t")), Path::new("/t/aarch64-unknown-linux-gnu/debug"));
    }
}
