//! The workspace's integration tests, sorted by what they need.
//!
//! A test's name is that of its program, its module and its function: `kernel::record::a_test`.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{process, workspace};

/// What the tests of a program need; its name says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing special.
    Plain,
    /// `kernel`: root, to load programs into the running kernel.
    Kernel,
    /// `container`: root and a Docker daemon.
    Container,
    /// `gpu`: root and a GPU; run by `xtask gpu run`.
    Gpu,
}

impl Kind {
    fn of(name: &str) -> Self {
        match name {
            "kernel" => Self::Kernel,
            "container" => Self::Container,
            "gpu" => Self::Gpu,
            _ => Self::Plain,
        }
    }
}

/// One file or folder in a package's `tests/`.
#[derive(Debug, PartialEq, Eq)]
pub struct Suite {
    pub package: String,
    pub name: String,
    pub kind: Kind,
}

/// All of them, as cargo sees them.
pub fn find() -> Result<Vec<Suite>> {
    let mut command: Command = process::cargo();
    command.args(["metadata", "--no-deps", "--format-version=1"]).current_dir(workspace::root());
    let metadata = process::output(&mut command, "listing the tests by cargo metadata")?;
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
    use std::fs;

    use crate::test::ALONE;
    use crate::vm::{LEFT_OUT, MAY_SKIP};

    /// The module of tests at `path`, such as `kernel::record`: its source.
    fn source(path: &str) -> String {
        let file = workspace::root().join("spark-trace/tests").join(path.replace("::", "/") + ".rs");
        fs::read_to_string(&file).unwrap_or_else(|error| panic!("{path}: {}: {error}", file.display()))
    }

    #[test]
    fn tests_that_are_named_here_exist() {
        for row in MAY_SKIP {
            let source = source(row.suite);
            assert!(source.contains(&format!("fn {}", row.test)), "{}::{}", row.suite, row.test);
        }
        for (suite, _) in LEFT_OUT {
            source(suite);
        }
        for name in ALONE {
            let (module, test) = name.split_once("::").unwrap();
            assert!(source(&format!("kernel::{module}")).contains(&format!("fn {test}")), "{name}");
        }
        let script = fs::read_to_string(workspace::root().join(".ci/run")).unwrap();
        let filters: Vec<_> = script.split("--filter ").skip(1).collect();
        assert!(!filters.is_empty(), "{script}");
        for filter in filters {
            let word = filter.split_whitespace().next().unwrap();
            source(word.strip_suffix("::").unwrap_or_else(|| panic!("{word} names no module")));
        }
    }

    /// Rust in a doc comment: `cargo test --doc` compiles the workspace once more, so `cargo xtask test` has no such step.
    #[test]
    fn no_doc_comment_has_an_example_that_nobody_runs() {
        let examples = |text: &str| -> Vec<usize> {
            let comment = |line: &str| {
                let line = line.trim_start();
                Some(line.strip_prefix("///").or_else(|| line.strip_prefix("//!"))?.trim().to_owned())
            };
            let fences = text
                .lines()
                .enumerate()
                .filter_map(|(at, line)| Some((at + 1, comment(line)?.strip_prefix("```")?.to_owned())));
            let opening = fences.step_by(2);
            opening.filter(|(_, language)| language != "text").map(|(at, _)| at).collect()
        };
        assert_eq!(examples("/// ```text\n/// a\n/// ```\n//! ```\n//! f()\n//! ```\n"), [4]);
        let files = workspace::git(&["ls-files", "*.rs"]).unwrap();
        assert!(files.lines().any(|file| file == "xtask/src/suites.rs"), "{files}");
        for file in files.lines() {
            // One that is about to be removed is listed, too.
            let Ok(text) = fs::read_to_string(workspace::root().join(file)) else { continue };
            assert_eq!(examples(&text), [0; 0], "{file}: make it a test, or name its language: ```text");
        }
    }

    #[test]
    fn suites_are_sorted_by_name() {
        let metadata = serde_json::json!({"packages": [{"name": "p", "targets": [
            {"name": "p", "kind": ["lib"]},
            {"name": "cli", "kind": ["test"]},
            {"name": "kernel", "kind": ["test"]},
            {"name": "container", "kind": ["test"]},
            {"name": "gpu", "kind": ["test"]},
        ]}]});
        let found = from_metadata(&metadata);
        let seen: Vec<_> = found.iter().map(|s| (s.name.as_str(), s.kind)).collect();
        let expected = [
            ("cli", Kind::Plain),
            ("kernel", Kind::Kernel),
            ("container", Kind::Container),
            ("gpu", Kind::Gpu),
        ];
        assert_eq!(seen, expected);
    }
}
