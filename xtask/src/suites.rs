//! The workspace's integration tests, sorted by what they need.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{process, workspace};

/// What an integration test needs; its name says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing special.
    Plain,
    /// `kernel_*`: root, to load programs into the running kernel.
    Kernel,
    /// `container_*`: root and a Docker daemon.
    Container,
    /// `gpu_*`: root and a GPU; run by `xtask gpu run`.
    Gpu,
}

impl Kind {
    fn of(name: &str) -> Self {
        if name.starts_with("kernel_") {
            Self::Kernel
        } else if name.starts_with("container_") {
            Self::Container
        } else if name.starts_with("gpu_") {
            Self::Gpu
        } else {
            Self::Plain
        }
    }
}

/// One file or folder in a package's `tests/`.
#[derive(Debug, PartialEq, Eq)]
pub struct Suite {
    pub package: String,
    pub name: String,
    pub kind: Kind,
    /// Built only with some feature on.
    pub needs_feature: bool,
}

/// All of them, as cargo sees them.
pub fn find() -> Result<Vec<Suite>> {
    let mut command: Command = process::cargo();
    command.args(["metadata", "--no-deps", "--format-version=1"]).current_dir(workspace::root());
    let metadata = process::output(&mut command, "asking cargo for the tests")?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata is no JSON")?;
    Ok(from_metadata(&metadata))
}

fn from_metadata(metadata: &Value) -> Vec<Suite> {
    let mut suites = Vec::new();
    for package in elements(&metadata["packages"]) {
        for target in elements(&package["targets"]) {
            let is_test = elements(&target["kind"]).iter().any(|kind| kind == "test");
            let (Some(package), Some(name)) = (package["name"].as_str(), target["name"].as_str()) else {
                continue;
            };
            if is_test {
                suites.push(Suite {
                    package: package.to_owned(),
                    name: name.to_owned(),
                    kind: Kind::of(name),
                    needs_feature: !elements(&target["required-features"]).is_empty(),
                });
            }
        }
    }
    suites
}

/// Those of an array; none of anything else.
pub fn elements(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_sorted_by_name() {
        let metadata = serde_json::json!({"packages": [{"name": "p", "targets": [
            {"name": "p", "kind": ["lib"]},
            {"name": "cli", "kind": ["test"]},
            {"name": "kernel_hooks", "kind": ["test"], "required-features": ["live"]},
            {"name": "container_oom", "kind": ["test"]},
            {"name": "gpu_cuda", "kind": ["test"]},
        ]}]});
        let found = from_metadata(&metadata);
        let seen: Vec<_> = found.iter().map(|s| (s.name.as_str(), s.kind, s.needs_feature)).collect();
        let expected = [
            ("cli", Kind::Plain, false),
            ("kernel_hooks", Kind::Kernel, true),
            ("container_oom", Kind::Container, false),
            ("gpu_cuda", Kind::Gpu, false),
        ];
        assert_eq!(seen, expected);
    }
}
