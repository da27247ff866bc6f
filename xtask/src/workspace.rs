//! Where things are.

use std::path::{Path, PathBuf};
use std::process::Command;

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
    let metadata = process::output(&mut command, "reading the target directory by cargo metadata")?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata).context("cargo metadata is no JSON")?;
    let dir = metadata["target_directory"].as_str().context("cargo metadata names no target_directory")?;
    Ok(PathBuf::from(dir))
}

/// What was built: the commit, and whether anything differs from it.
pub fn commit() -> String {
    let Ok(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "no commit".to_owned() };
    // A failure is not called clean.
    let clean =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_ok_and(|changes| changes.is_empty());
    format!("commit {}{}", commit.trim(), if clean { "" } else { ", with changes" })
}

pub fn git(args: &[&str]) -> Result<String> {
    process::output(Command::new("git").args(args).current_dir(root()), "running git")
}
