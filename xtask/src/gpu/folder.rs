//! The packed folder: names in it, and finding it again.

use std::fs;
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
/// Test programs begin with it.
pub const TESTS: &str = "gpu_";

/// A folder that `pack` has made.
pub struct Folder(pub PathBuf);

impl Folder {
    /// The one that this program lies in.
    pub fn own() -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let folder = Self(program.parent().unwrap_or(Path::new("/")).to_owned());
        for name in [SPARK_TRACE, STATIC_WORKLOAD, CUDA_WORKLOAD, SIMULATED_DRIVER] {
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

    /// The test programs, by name.
    pub fn tests(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&self.0).with_context(|| format!("cannot list {}", self.0.display()))?;
        let is_test = |path: &PathBuf| {
            path.is_file() && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(TESTS))
        };
        let mut tests: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(is_test).collect();
        tests.sort();
        Ok(tests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_found_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder(dir.path().to_owned());
        assert!(folder.tests().unwrap().is_empty());
        fs::create_dir(folder.path(FILES)).unwrap();
        for name in ["gpu_b", "gpu_a", XTASK] {
            fs::write(folder.path(name), "").unwrap();
        }
        assert_eq!(folder.tests().unwrap(), [folder.path("gpu_a"), folder.path("gpu_b")]);
    }
}
