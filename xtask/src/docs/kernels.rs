//! docs/reference/kernels.md, from what `cargo xtask vm --all --output results/DATE-kernels` has kept.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use spark_trace_common::hook::{HOOKS, Hook};

use super::sources::cell;
use crate::workspace;

/// Results of runs on several kernels end so.
const SUFFIX: &str = "-kernels";

/// What one machine has said.
struct Machine {
    name: String,
    tests: Value,
    doctor: Value,
}

pub fn text() -> Result<String> {
    let dir = newest(&workspace::root().join("results"))?;
    let machines = read(&dir)?;
    let from = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(document(&from, &machines))
}

fn newest(results: &Path) -> Result<PathBuf> {
    let mut dirs = entries(results)?;
    dirs.retain(|dir| dir.is_dir() && dir.to_string_lossy().ends_with(SUFFIX));
    dirs.pop().with_context(|| format!("{} has no *{SUFFIX}", results.display()))
}

fn read(dir: &Path) -> Result<Vec<Machine>> {
    let mut machines = Vec::new();
    for dir in entries(dir)?.into_iter().filter(|dir| dir.is_dir()) {
        let json = |name: &str| -> Result<Value> {
            let path = dir.join(name);
            let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            serde_json::from_slice(&text).with_context(|| format!("{} is no JSON", path.display()))
        };
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        machines.push(Machine { name, tests: json("tests.json")?, doctor: json("doctor.json")? });
    }
    ensure!(!machines.is_empty(), "{} has no machines", dir.display());
    Ok(machines)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}

fn document(from: &str, machines: &[Machine]) -> String {
    let mut out = INTRODUCTION.replace("FROM", from);
    out.push_str("| kernel | release | pages | passed | failed | skipped |\n|---|---|---|---:|---:|---:|\n");
    for Machine { name, tests, .. } in machines {
        let count = |outcome: &str| list(&tests["tests"]).iter().filter(|t| t["outcome"] == outcome).count();
        let (passed, failed, skipped) = (count("passed"), count("failed"), count("skipped"));
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "| {name} | {} {} | {} | {passed} | {failed} | {skipped} |",
            text_of(&tests["release"]),
            text_of(&tests["machine"]),
            text_of(&tests["page_size"]),
        );
    }
    out.push_str(HOOKS_TABLE);
    let on_a_module = |hook: &&Hook| hook.module.is_some();
    let attached = |hook: &Hook| {
        machines
            .iter()
            .any(|machine| row(&machine.doctor, hook.name).is_some_and(|row| row["verdict"] == "ok"))
    };
    if HOOKS.iter().filter(on_a_module).any(attached) {
        out.push_str(STAND_IN);
    }
    let names: Vec<_> = machines.iter().map(|machine| machine.name.as_str()).collect();
    let _ = writeln!(out, "| hooks | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
    let rows = HOOKS.iter().map(|hook| {
        let carried: Vec<_> = machines.iter().map(|machine| carried(&machine.doctor, hook.name)).collect();
        (carried.join(" | "), hook.name)
    });
    for (carried, hooks) in together(rows) {
        let _ = writeln!(out, "| `{}` | {carried} |", hooks.join("`, `"));
    }
    reasons(&mut out, machines);
    remarks(&mut out, machines);
    out
}

/// By what mechanism a machine carries a hook, or its verdict.
fn carried(doctor: &Value, hook: &str) -> String {
    match row(doctor, hook) {
        None => "not tried".to_owned(),
        Some(row) if row["verdict"] == "ok" => text_of(&row["mechanism"]),
        Some(row) => text_of(&row["verdict"]),
    }
}

fn row<'a>(doctor: &'a Value, hook: &str) -> Option<&'a Value> {
    list(&doctor["hooks"]).iter().find(|row| row["name"] == hook)
}

/// Why a better mechanism, or none at all, was possible.
fn reasons(out: &mut String, machines: &[Machine]) {
    out.push_str("\n## Reasons\n\n");
    // Kernels with the same reason are listed together, and hooks with the same reasons on the same kernels.
    let mut listed: Vec<(String, Vec<&str>)> = Vec::new();
    for hook in HOOKS {
        let of_hook = machines.iter().filter_map(|machine| {
            let reason = row(&machine.doctor, hook.name)?["reason"].as_str()?;
            Some((reason.to_owned(), machine.name.as_str()))
        });
        for (reason, names) in together(of_hook) {
            let text = format!("on {}: {}", names.join(", "), cell(&reason));
            add(&mut listed, text, hook.name);
        }
    }
    for (text, hooks) in listed {
        let _ = writeln!(out, "- `{}` {text}", hooks.join("`, `"));
    }
}

fn remarks(out: &mut String, machines: &[Machine]) {
    out.push_str("\n## Tests with a remark\n\n");
    let mut remarks: Vec<(String, Vec<String>)> = Vec::new();
    let mut of_the_machine = 0;
    for (what, names) in together(machines.iter().flat_map(|Machine { name, tests, .. }| {
        list(&tests["tests"]).iter().filter(|test| test["reason"].is_string()).map(|test| {
            let fields = ["suite", "test", "outcome", "reason"].map(|field| text_of(&test[field]));
            (fields, name.as_str())
        })
    })) {
        let [suite, test, outcome, reason] = what;
        if MACHINE.iter().any(|verdict| reason.contains(verdict)) {
            of_the_machine += names.len();
            continue;
        }
        let text = format!("{outcome} on {}: {}", names.join(", "), cell(&reason));
        add(&mut remarks, text, format!("{suite}::{test}"));
    }
    for (text, tests) in &remarks {
        let _ = writeln!(out, "- `{}` {text}", tests.join("`, `"));
    }
    if of_the_machine > 0 {
        let _ = writeln!(
            out,
            "- {of_the_machine} further tests were skipped because of the machine, not the kernel (no tmux, no packages)"
        );
    } else if remarks.is_empty() {
        out.push_str("None.\n");
    }
}

/// Verdicts that say something of a test machine and nothing of its kernel.
const MACHINE: &[&str] = &[": not-applicable: ", ": off: "];

/// Values under their keys, in the order in which the keys come.
fn together<K: PartialEq, V>(pairs: impl Iterator<Item = (K, V)>) -> Vec<(K, Vec<V>)> {
    let mut groups = Vec::new();
    pairs.for_each(|(key, value)| add(&mut groups, key, value));
    groups
}

fn add<K: PartialEq, V>(groups: &mut Vec<(K, Vec<V>)>, key: K, value: V) {
    match groups.iter_mut().find(|(known, _)| *known == key) {
        Some((_, values)) => values.push(value),
        None => groups.push((key, vec![value])),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

const INTRODUCTION: &str = "\
# Kernels

<!-- Generated by `cargo xtask docs` from results/FROM: run `cargo xtask vm --all --output results/DATE-kernels`. -->

Debian's kernels in virtual machines, cgroup v2, as root, emulated by QEMU (TCG): what works, not how fast. Every test and every
verdict of `doctor` is in results/FROM. Nothing here was measured on a GB10.

";

const STAND_IN: &str = "\
The stand-in (`testing/stand-in/`) replaces NVIDIA's modules, where it can be built.

";

const HOOKS_TABLE: &str = "
## Mechanism of each hook

From `spark-trace doctor` on each kernel, with every hook of profile `deep`: the mechanism, or the verdict if none
attaches.

";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn machine(name: &str, hook: Value) -> Machine {
        let tests = json!({"release": "6.1", "machine": "aarch64", "page_size": "4096", "tests": [
            {"suite": "s", "test": "t", "outcome": "skipped", "reason": "x: unsupported: y"},
            {"suite": "s", "test": "u", "outcome": "passed"},
        ]});
        Machine { name: name.to_owned(), tests, doctor: json!({"hooks": [hook]}) }
    }

    #[test]
    fn every_hook_has_a_row_with_mechanism_or_verdict_and_reasons_are_merged() {
        let hook = HOOKS[0].name;
        let lacking = json!({"name": hook, "verdict": "unsupported", "reason": "no|thing"});
        let machines = [
            machine("a", json!({"name": hook, "verdict": "ok", "mechanism": "tp_btf", "reason": null})),
            machine("b", lacking.clone()),
            machine("c", lacking),
        ];
        let text = document("2026-kernels", &machines);
        assert!(text.contains(&format!("| `{hook}` | tp_btf | unsupported | unsupported |")), "{text}");
        assert!(text.contains(&format!("- `{hook}` on b, c: no\\|thing")), "{text}");
        assert!(text.contains("| a | 6.1 aarch64 | 4096 | 1 | 0 | 1 |"), "{text}");
        assert!(text.contains("- `s::t` skipped on a, b, c: x: unsupported: y"), "{text}");
        for hook in HOOKS {
            assert_eq!(
                text.matches(&format!("`{}`", hook.name)).count(),
                if hook.name == HOOKS[0].name { 2 } else { 1 }
            );
        }
    }

    #[test]
    fn the_newest_results_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        assert!(newest(dir.path()).is_err());
        for name in ["2026-01-02-kernels", "2026-01-01-kernels", "2027-01-01-vm"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        assert!(newest(dir.path()).unwrap().ends_with("2026-01-02-kernels"));
    }
}
