//! Licences of the crates that are part of a program. Most require that it is shown with them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::arch::Arch;
use crate::suites::elements;
use crate::{process, workspace};

/// File names that licences and notices begin with.
const LICENCES: &[&str] = &["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

/// Files of others in our crates, with the licence whose text the packages have.
const FILES: &str = "Open Sans 1.10, a part of it, in figures of studies: Apache-2.0, Digitized data copyright 2010-2011, Google \
                     Corporation";

/// Names and licences of the crates in `programs`, with the texts; equal texts once.
pub fn notices(programs: &[&str], arch: Arch) -> Result<String> {
    let mut command = process::cargo();
    command.args(["metadata", "--format-version=1", "--locked", "--filter-platform", arch.names().triple]);
    let metadata =
        process::output(command.current_dir(workspace::root()), "listing the crates by cargo metadata")?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata is no JSON")?;
    let crates = crates(&metadata, programs);
    let mut texts = BTreeMap::<String, Vec<String>>::new();
    let mut list = String::new();
    for package in &crates {
        let text = |key: &str| package[key].as_str().unwrap_or_default();
        let name = format!("{} {}", text("name"), text("version"));
        let licence = Some(text("license")).filter(|licence| !licence.is_empty());
        let found = licences(Path::new(text("manifest_path")).parent().unwrap_or(Path::new("/")))?;
        let authors = elements(&package["authors"]).iter().filter_map(Value::as_str);
        let by = if found.is_empty() { authors.collect::<Vec<_>>().join(", ") } else { String::new() };
        let by = if by.is_empty() { by } else { format!(", by {by}") };
        list.push_str(&format!("{name}: {}{by}\n", licence.unwrap_or("see its text below")));
        for text in found {
            texts.entry(text).or_default().push(name.clone());
        }
    }
    let texts = texts.iter().map(|(text, of)| format!("\n== {}\n\n{}\n", of.join(", "), text.trim_end()));
    Ok(format!(
        "Crates that are part of the programs, beside Rust's own libraries (MIT or Apache-2.0), and their licences.\n\n\
         {list}\nOther files: {FILES}\n{}",
        texts.collect::<String>()
    ))
}

/// Packages that are linked into `programs`, by name: what they depend on, but not to build or to test.
fn crates<'a>(metadata: &'a Value, programs: &[&str]) -> Vec<&'a Value> {
    let packages: BTreeMap<&str, &Value> =
        elements(&metadata["packages"]).iter().filter_map(|p| Some((p["id"].as_str()?, p))).collect();
    let nodes: BTreeMap<&str, &Value> =
        elements(&metadata["resolve"]["nodes"]).iter().filter_map(|n| Some((n["id"].as_str()?, n))).collect();
    let is_program = |id: &&str| packages[id]["name"].as_str().is_some_and(|name| programs.contains(&name));
    let mut open: Vec<&str> = packages.keys().copied().filter(|id| is_program(id)).collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        let is_macro = |package: &Value| {
            elements(&package["targets"])
                .iter()
                .any(|of| elements(&of["kind"]).iter().any(|k| k == "proc-macro"))
        };
        let Some(package) = packages.get(id).filter(|package| !is_macro(package)) else { continue };
        if !seen.insert((package["name"].as_str(), id)) {
            continue;
        }
        let normal = |of: &&Value| elements(&of["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
        let dependencies = nodes.get(id).map(|node| elements(&node["deps"])).unwrap_or_default();
        open.extend(dependencies.iter().filter(normal).filter_map(|of| of["pkg"].as_str()));
    }
    // Our own are under the licence of the package.
    let foreign = seen.iter().map(|(_, id)| packages[id]).filter(|package| !package["source"].is_null());
    foreign.collect()
}

/// Texts in a crate's folder.
fn licences(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        path.is_file() && LICENCES.iter().any(|licence| name.starts_with(licence))
    });
    paths.sort();
    let read =
        |path| fs::read(path).with_context(|| format!("cannot read a licence in {}", folder.display()));
    let texts = paths.iter().map(|path| Ok(String::from_utf8_lossy(&read(path)?).replace("\r\n", "\n")));
    texts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_are_those_that_are_linked() {
        let package = |id: &str, kind: &str, source: Value| serde_json::json!({"id": id, "name": id, "source": source, "targets": [{"kind": [kind]}]});
        let dep = |id: &str, kind: Value| serde_json::json!({"pkg": id, "dep_kinds": [{"kind": kind}]});
        let metadata = serde_json::json!({
            "packages": [
                package("program", "bin", Value::Null),
                package("own", "lib", Value::Null),
                package("used", "lib", "registry".into()),
                package("deep", "lib", "registry".into()),
                package("derive", "proc-macro", "registry".into()),
                package("only-derive", "lib", "registry".into()),
                package("tester", "lib", "registry".into()),
            ],
            "resolve": {"nodes": [
                {"id": "program", "deps": [dep("own", Value::Null), dep("derive", Value::Null), dep("tester", "dev".into())]},
                {"id": "own", "deps": [dep("used", Value::Null)]},
                {"id": "used", "deps": [dep("deep", Value::Null), dep("tester", "build".into())]},
                {"id": "derive", "deps": [dep("only-derive", Value::Null)]},
            ]},
        });
        let names: Vec<_> =
            crates(&metadata, &["program"]).iter().map(|p| p["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["deep", "used"]);
    }

    #[test]
    fn notices_have_names_and_texts() {
        let text = notices(&["xtask"], Arch::host().unwrap()).unwrap();
        assert!(text.contains("\nlibc 0.2."), "{}", &text[..400]);
        assert!(text.contains("Permission is hereby granted"), "no text of a licence");
        assert!(!text.contains("xtask "), "our own crate");
    }
}
