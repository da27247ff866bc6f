//! `cargo xtask lint`: what the compiler does not check of the layout. docs/architecture.md has the rules.

mod direction;
mod graph;
mod module;
mod names;
mod tree;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use crate::suites::elements;
use crate::{process, workspace};
use graph::Graph;
use tree::Tree;

/// Checks that no files use each other in a circle, and that folders of spark-trace use each other in one direction
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask lint
  cargo xtask lint --uses crates/agent/src/doctor    # what that file or folder uses outside itself")]
pub struct Args {
    /// Only list what this file or folder uses, from the workspace's directory
    #[arg(long, value_name = "PATH")]
    uses: Option<String>,
}

pub fn run(args: &Args) -> Result<()> {
    let metadata = metadata()?;
    let mut graph = Graph::default();
    for root in roots(&metadata)? {
        graph.add(&Tree::read(&workspace::root(), &root)?);
    }
    if let Some(path) = &args.uses {
        let list = graph.list(path);
        ensure!(!list.is_empty(), "{path} uses nothing, or is none of the workspace's files and folders");
        print!("{list}");
        return Ok(());
    }
    let circles = graph.circles();
    for circle in &circles {
        print!("{}", graph.describe(circle));
    }
    let faults = direction::faults(&metadata);
    faults.iter().for_each(|fault| println!("{fault}"));
    if !circles.is_empty() {
        bail!("{} circles of files: move what two files share to a file of its own", circles.len());
    }
    if !faults.is_empty() {
        bail!("{} faults against the table in xtask/src/lint/direction.rs", faults.len());
    }
    println!("{} files: no circle, and every crate uses what it may", graph.uses.len());
    Ok(())
}

fn metadata() -> Result<serde_json::Value> {
    let mut command = process::cargo();
    command.args(["metadata", "--no-deps", "--format-version=1"]).current_dir(workspace::root());
    let metadata = process::output(&mut command, "listing the crates by cargo metadata")?;
    serde_json::from_str(&metadata).context("cargo metadata is no JSON")
}

/// The root file of every target of every crate in the workspace.
fn roots(metadata: &serde_json::Value) -> Result<Vec<PathBuf>> {
    let targets = elements(&metadata["packages"]).iter().flat_map(|package| elements(&package["targets"]));
    let roots: Vec<PathBuf> =
        targets.filter_map(|target| target["src_path"].as_str().map(PathBuf::from)).collect();
    ensure!(!roots.is_empty(), "cargo names no crate");
    Ok(roots)
}
