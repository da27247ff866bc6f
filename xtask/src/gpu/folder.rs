//! The packed folder: names in it, and finding it again.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

pub const SPARK_TRACE: &str = "spark-trace";
pub const XTASK: &str = "xtask";
/// Linked statically: runs in any image.
pub const STATIC_WORKLOAD: &str = "workload-static";
/// Can load a CUDA driver.
pub const CUDA_WORKLOAD: &str = "spark-trace-workload";
/// Must lie beside the workload: that is where it looks.
pub const SIMULATED_DRIVER: &str = "libspark_trace_simulated_cuda.so";
/// What tests need besides: scripts.
pub const FILES: &str = "gpu";
/// The test program.
pub const TESTS: &str = "gpu-tests";

/// A folder that `pack` has made.
pub struct Folder(pub PathBuf);

impl Folder {
    /// The one that this program lies in.
    pub fn own() -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let folder = Self(program.parent().unwrap_or(Path::new("/")).to_owned());
        for name in [SPARK_TRACE, STATIC_WORKLOAD, CUDA_WORKLOAD, SIMULATED_DRIVER, TESTS] {
            ensure!(
                folder.path(name).is_file(),
                "{} has no {name}: make a folder with `cargo xtask gpu pack DIR`, and run the xtask in it",
                folder.0.display()
            );
        }
        Ok(folder)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}
