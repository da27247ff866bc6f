//! What is told of the machines that ran: a line a test, a table in the end, and files to keep.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Ran;
use super::outcome::{Outcome, Test};
use crate::process;

/// One test that has ended.
pub fn line(kernel: &str, test: &Test) -> String {
    let Test { suite, name, outcome, seconds, reason } = test;
    let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{kernel}  {:<7}  {suite}::{name}  {seconds:.1} s{reason}", outcome.as_str())
}

/// One line a machine, in Markdown; then what failed and what was skipped.
pub fn table(ran: &[Ran], took: Duration) -> String {
    let mut text = String::from("| kernel | release | pages | passed | failed | skipped | took |\n");
    text.push_str("|---|---|---|---:|---:|---:|---:|\n");
    for Ran { kernel, console, took, .. } in ran {
        let count = |outcome| console.count(outcome);
        let _ = writeln!(
            text,
            "| {} | {} {} | {} | {} | {} | {} | {} s |",
            kernel.name,
            console.release,
            console.machine,
            console.page_size,
            count(Outcome::Passed),
            count(Outcome::Failed),
            count(Outcome::Skipped),
            took.as_secs()
        );
    }
    let _ = writeln!(text, "\nEmulated by QEMU (TCG). All machines: {} s.", took.as_secs());
    for Ran { kernel, console, .. } in ran {
        for broken in &console.broken {
            let _ = writeln!(text, "- {}: {broken}", kernel.name);
        }
        for test in
            console.tests.iter().filter(|test| test.outcome != Outcome::Passed || test.reason.is_some())
        {
            let _ = writeln!(text, "- {}", line(kernel.name, test));
        }
    }
    text
}

/// Takes what the guest has left on the disk for results: into `dir`. Returns doctor's report.
pub fn take(disk: &Path, dir: &Path) -> Result<Value> {
    unpack(disk, dir)?;
    let path = dir.join("doctor.json");
    let text = fs::read(&path).context("the machine left no doctor.json")?;
    serde_json::from_slice(&text).context("doctor.json is no JSON")
}

/// All that a machine has left in /results.
pub fn unpack(disk: &Path, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let mut untar = Command::new("tar");
    process::output(untar.arg("-xf").arg(disk).arg("-C").arg(dir), "reading the machine's results").map(drop)
}

/// Keeps what one machine has said in a folder below `output`.
pub fn keep(output: &Path, ran: &Ran) -> Result<()> {
    let Ran { kernel, package, console, doctor, log, took } = ran;
    let dir = output.join(kernel.name);
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let mut report = console.to_json();
    report["kernel"] = json!(kernel.name);
    report["package"] = json!(package);
    report["emulated"] = json!("QEMU, TCG");
    report["seconds"] = json!(took.as_secs());
    write(&dir.join("tests.json"), &serde_json::to_string_pretty(&report)?)?;
    write(&dir.join("doctor.json"), &serde_json::to_string_pretty(doctor)?)?;
    write(&dir.join("console.txt"), log)
}

/// Keeps the table beside the machines' folders.
pub fn keep_table(output: &Path, table: &str) -> Result<()> {
    write(&output.join("table.md"), table)?;
    println!("kept in {}", output.display());
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, format!("{}\n", text.trim_end()))
        .with_context(|| format!("cannot write {}", path.display()))
}
