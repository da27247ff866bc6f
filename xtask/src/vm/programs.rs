//! What runs in a machine, and how it gets onto its disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::arch::Arch;
use crate::build::{Build, Profile};
use crate::process;
use crate::suites::Kind;

/// Modules of tests that are left out, and why.
pub const LEFT_OUT: &[(&str, &str)] = &[(
    "container::demo",
    "its inference takes minutes on an emulated CPU; container::record has its recordings",
)];

const KINDS: &[Kind] = &[Kind::Kernel, Kind::Container];

/// Optimised: a debug build takes ten seconds to read the kernel's types in an emulated machine.
fn carried(arch: Arch) -> Build {
    Build { arch: (!arch.is_host()).then_some(arch), profile: Profile::Small }
}

/// What runs in a machine.
pub struct Programs {
    pub arch: Arch,
    spark_trace: PathBuf,
    workload: PathBuf,
    cuda: crate::build::Cuda,
    tests: crate::build::Tests,
}

impl Programs {
    pub fn build(arch: Arch) -> Result<Self> {
        let build = carried(arch);
        let (tests, spark_trace) = if arch.is_host() {
            // Tests wait for others, and `cargo xtask test` has built these anyway.
            (Build { profile: Profile::Debug, ..build }.tests(KINDS)?, build.spark_trace()?)
        } else {
            let tests = build.tests(KINDS)?;
            let spark_trace =
                tests.spark_trace.clone().context("cargo has built tests without spark-trace")?;
            (tests, spark_trace)
        };
        Ok(Self { arch, spark_trace, workload: build.workload()?, cuda: build.cuda()?, tests })
    }

    /// The same but for what lies in target/debug, and may be running.
    pub fn build_ahead(arch: Arch) -> Result<()> {
        let build = carried(arch);
        build.workload()?;
        build.cuda()?;
        if arch.is_host() { build.spark_trace().map(drop) } else { build.tests(KINDS).map(drop) }
    }

    pub fn copy_to(&self, guest: &Path) -> Result<()> {
        let copy = |from: &Path, to: PathBuf| strip_debug(from, &to, self.arch);
        copy(&self.spark_trace, guest.join("spark-trace"))?;
        copy(&self.workload, guest.join("workload-static"))?;
        copy(&self.cuda.workload, guest.join("spark-trace-workload"))?;
        let driver = self.cuda.simulated_driver.file_name().context("the simulated driver has no name")?;
        copy(&self.cuda.simulated_driver, guest.join(driver))?;
        let image = guest.join("image");
        let tests = guest.join("tests");
        for dir in [&image.join("tmp"), &tests] {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        copy(&self.workload, image.join("workload"))?;
        for (name, program) in &self.tests.programs {
            copy(program, tests.join(name))?;
        }
        // Where tests look for them: beside themselves.
        for library in &self.tests.libraries {
            copy(library, tests.join(library.file_name().context("a library has no name")?))?;
        }
        Ok(())
    }
}

/// Copies a program without what only debuggers read: a tenth of it is left.
fn strip_debug(from: &Path, to: &Path, arch: Arch) -> Result<()> {
    let strip = if arch.is_host() { "strip".to_owned() } else { format!("{}-strip", arch.names().gnu) };
    let mut command = Command::new(strip);
    command.arg("--strip-debug").arg("-o").arg(to).arg(from);
    process::output(&mut command, "stripping a program (binutils)").map(drop)
}
