//! The report of the machines that ran: a line a test, a table in the end, and files to keep.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::job::{Origin, Ran};
use super::kernels::{KERNELS, Kernel};
use super::outcome::{Console, Outcome, Test};
use crate::process;

/// One test that has ended.
pub fn line(kernel: &str, test: &Test) -> String {
    let Test { suite, name, outcome, seconds, reason } = test;
    let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{kernel}  {:<7}  {suite}::{name}  {seconds:.1} s{reason}", outcome.as_str())
}

/// One line a machine, in Markdown; then what failed and what was skipped. From what is kept of each (`summary`).
pub fn table(machines: &[Value], took: Duration) -> String {
    let mut text = String::from("| kernel | release | pages | passed | failed | skipped | took | of |\n");
    text.push_str("|---|---|---|---:|---:|---:|---:|---|\n");
    let mut remarks = String::new();
    let mut together = 0;
    for machine in machines {
        let word = |field: &str| machine[field].as_str().unwrap_or("-");
        let console = Console::from_json(machine);
        let seconds = machine["seconds"].as_u64().unwrap_or(0);
        together += seconds;
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} {} | {} | {} | {} | {} | {seconds} s | {} |",
            word("kernel"),
            word("release"),
            word("machine"),
            word("page_size"),
            console.count(Outcome::Passed),
            console.count(Outcome::Failed),
            console.count(Outcome::Skipped),
            word("commit"),
        );
        for broken in &console.broken {
            let _ = writeln!(remarks, "- {}: {broken}", word("kernel"));
        }
        let tests = console.tests.iter();
        for test in tests.filter(|test| test.outcome != Outcome::Passed || test.reason.is_some()) {
            let _ = writeln!(remarks, "- {}", line(word("kernel"), test));
        }
    }
    let took = took.as_secs();
    format!("{text}\nEmulated by QEMU (TCG). Machines: {together} s together; this run: {took} s.\n{remarks}")
}

/// Takes what the guest has left on the disk for results: into `dir`. Returns doctor's report.
pub fn take(disk: &Path, dir: &Path) -> Result<Value> {
    unpack(disk, dir)?;
    let path = dir.join("doctor.json");
    read(&path).context("the machine left no report of doctor")
}

/// All that a machine has left in /results.
pub fn unpack(disk: &Path, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let mut untar = Command::new("tar");
    process::output(untar.arg("-xf").arg(disk).arg("-C").arg(dir), "reading the machine's results").map(drop)
}

/// What is said of a machine in `tests.json`.
pub fn summary(ran: &Ran) -> Value {
    let mut summary = ran.console.to_json();
    summary["kernel"] = json!(ran.kernel.name);
    summary["package"] = json!(ran.package);
    summary["commit"] = json!(ran.of.commit);
    summary["programs"] = json!(ran.of.programs);
    summary["emulated"] = json!("QEMU, TCG");
    summary["seconds"] = json!(ran.took.as_secs());
    summary
}

/// Keeps what one machine has said in a folder below `output`.
pub fn keep(output: &Path, ran: &Ran) -> Result<()> {
    let dir = output.join(ran.kernel.name);
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    write(&dir.join("tests.json"), &serde_json::to_string_pretty(&summary(ran))?)?;
    write(&dir.join("doctor.json"), &serde_json::to_string_pretty(&ran.doctor)?)?;
    write(&dir.join("console.txt"), &ran.log)
}

/// What is kept of each machine, of this run or of another.
pub fn kept(output: &Path) -> Result<Vec<Value>> {
    let paths = KERNELS.iter().map(|kernel| output.join(kernel.name).join("tests.json"));
    paths.filter(|path| path.is_file()).map(|path| read(&path)).collect()
}

/// Whether what is kept of a kernel is of the same programs, and all of it went well.
pub fn has(output: &Path, kernel: &Kernel, of: &Origin) -> bool {
    let Ok(machine) = read(&output.join(kernel.name).join("tests.json")) else { return false };
    machine["programs"] == of.programs.as_str() && Console::from_json(&machine).is_good()
}

/// Keeps the table beside the machines' folders: of all that are there.
pub fn keep_table(output: &Path, took: Duration) -> Result<()> {
    write(&output.join("table.md"), &table(&kept(output)?, took))
}

fn read(path: &Path) -> Result<Value> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no JSON", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, format!("{}\n", text.trim_end()))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_of_all_that_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let kept = |kernel: &str, commit: &str, outcome: &str| {
            let tests =
                json!([{"suite": "s", "test": kernel, "outcome": outcome, "seconds": 1.5, "reason": "why"}]);
            let machine =
                json!({"kernel": kernel, "commit": commit, "seconds": 60, "tests": tests, "broken": []});
            fs::create_dir_all(dir.path().join(kernel)).unwrap();
            write(&dir.path().join(kernel).join("tests.json"), &machine.to_string()).unwrap();
        };
        let (first, last) = (KERNELS[0].name, KERNELS[KERNELS.len() - 1].name);
        kept(last, "commit b", "passed");
        kept(first, "commit a", "failed");
        kept("no-kernel", "commit c", "failed");
        keep_table(dir.path(), Duration::from_secs(70)).unwrap();
        let text = fs::read_to_string(dir.path().join("table.md")).unwrap();
        let rows: Vec<_> = text.lines().filter(|line| line.contains("| commit ")).collect();
        assert_eq!(rows.len(), 2, "{text}");
        assert!(rows[0].starts_with(&format!("| {first} |")), "in the order of the kernels: {text}");
        assert!(rows[0].ends_with("| 0 | 1 | 0 | 60 s | commit a |"), "{text}");
        assert!(rows[1].ends_with("| 1 | 0 | 0 | 60 s | commit b |"), "{text}");
        assert!(text.contains("Machines: 120 s together; this run: 70 s."), "{text}");
        assert!(text.contains(&format!("- {first}  failed   s::{first}  1.5 s: why")), "{text}");
    }

    #[test]
    fn a_run_goes_on_with_what_failed_or_is_of_other_programs() {
        let dir = tempfile::tempdir().unwrap();
        let kernel = &KERNELS[0];
        let of = Origin { commit: String::new(), programs: "p".to_owned() };
        assert!(!has(dir.path(), kernel, &of), "nothing is kept");
        fs::create_dir_all(dir.path().join(kernel.name)).unwrap();
        let good = json!({"programs": "p", "complete": true, "broken": [], "tests": [
            {"suite": "s", "test": "t", "outcome": "passed", "seconds": 1.0, "reason": null}]});
        let has_with = |field: &str, value: Value| {
            let mut machine = good.clone();
            machine[field] = value;
            write(&dir.path().join(kernel.name).join("tests.json"), &machine.to_string()).unwrap();
            has(dir.path(), kernel, &of)
        };
        assert!(has_with("programs", json!("p")));
        assert!(!has_with("programs", json!("q")));
        assert!(!has_with("complete", json!(false)));
        assert!(!has_with("broken", json!(["a panic"])));
        assert!(!has_with("tests", json!([])));
        let failed =
            json!([{"suite": "s", "test": "t", "outcome": "failed", "seconds": 1.0, "reason": null}]);
        assert!(!has_with("tests", failed));
    }
}
