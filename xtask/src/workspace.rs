//! Where things are.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::process;

/// The workspace's directory.
pub fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_owned()
}

/// Cargo's target directory, wherever environment or configuration put it.
pub fn target_dir() -> Result<PathBuf> {
    let mut command = process::cargo();
    command.args(["metadata", "--no-deps", "--format-version=1"]).current_dir(root());
    let metadata = process::output(&mut command, "asking cargo for its target directory")?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata).context("cargo metadata is no JSON")?;
    let dir = metadata["target_directory"].as_str().context("cargo metadata names no target_directory")?;
    Ok(PathBuf::from(dir))
}
