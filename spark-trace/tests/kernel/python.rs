//! Frames of Python in the stacks of CUDA allocations, against what Python itself says of its callers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{self, MIB, Running, array, cuda_workload, int, text};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernel/files/python_truth.py");

/// `PYTHON_DEPTH` of crates/common/src/capacities.rs.
const DEPTH: usize = 32;

/// The interpreters of this machine that are known, by version: those of the system and those of pyenv.
fn interpreters() -> BTreeMap<String, PathBuf> {
    let home = std::env::var_os("HOME").unwrap_or_default();
    let versions =
        std::fs::read_dir(Path::new(&home).join(".pyenv/versions")).into_iter().flatten().flatten();
    let mut all: Vec<PathBuf> = versions.map(|version| version.path().join("bin/python3")).collect();
    all.extend(["/usr/bin/python3", "/usr/local/bin/python3"].map(PathBuf::from));
    let known = |path: PathBuf| {
        let said = std::process::Command::new(&path).arg("--version").output().ok()?;
        let version = String::from_utf8(said.stdout).ok()?.trim().strip_prefix("Python ")?.to_owned();
        let minor: u32 = version.strip_prefix("3.")?.split('.').next()?.parse().ok()?;
        (10..=14).contains(&minor).then_some((version, path))
    };
    all.into_iter().filter_map(known).collect()
}

/// What Python says of itself, and the recording.
fn recorded(python: &Path, name: &str, options: &[&str]) -> (Value, Value) {
    let dir = support::disk_dir();
    let (output, gate) = (support::path(&dir, &format!("{name}.json")), support::path(&dir, "gate"));
    let driver = PathBuf::from(cuda_workload()).with_file_name("libspark_trace_simulated_cuda.so");
    let driver = driver.to_str().unwrap();
    let mut words = options.to_vec();
    words.extend(["--", python.to_str().unwrap(), PROGRAM, driver, &gate]);
    let mut running = Running::start(&output, &words);
    running.line(|line| line == "HOLD");
    running.reads_details();
    std::fs::write(&gate, "").unwrap();
    let recorded = running.finish().exited(0);
    (recorded.said(), recorded.recording())
}

/// Frames of Python of each allocation that was made once, by its size: file, function and line.
fn frames(recording: &Value) -> BTreeMap<String, Vec<Value>> {
    let provenance = &recording["provenance"];
    let stacks: BTreeMap<i64, &Value> =
        array(&provenance["stacks"]).iter().map(|stack| (int(&stack["id"]), stack)).collect();
    let symbols = array(&provenance["symbols"]);
    let of = |row: &Value| {
        let stack = row["stack"].as_i64().and_then(|id| stacks.get(&id));
        let frames = stack.into_iter().flat_map(|stack| array(&stack["frames"]));
        let symbols = frames.map(|index| &symbols[int(index) as usize]);
        let python = symbols.filter(|symbol| symbol["python"] == true);
        python.map(|s| serde_json::json!([s["module"], s["name"], s["line"]])).collect()
    };
    // Each has a stack of its own.
    let rows = array(&provenance["cuda_allocs"]).iter().filter(|row| row["kind"] == "device");
    rows.map(|row| (int(&row["bytes_allocated"]).to_string(), of(row))).collect()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn frames_are_those_that_python_names_itself() {
    let all = interpreters();
    if all.is_empty() {
        println!("SKIPPED: program: not-applicable: no CPython from 3.10 to 3.14 on this machine");
    }
    for (version, python) in all {
        println!("CPython {version}: {}", python.display());
        let (truth, recording) = recorded(&python, &version, &[]);
        assert_eq!(support::losses(&recording["health"]).0, 0, "{}", recording["health"]["losses"]);
        let found = frames(&recording);
        let truth = truth.as_object().unwrap();
        assert_eq!(truth.len(), 13, "{truth:?}");
        for (size, named) in truth {
            let seen =
                found.get(size).unwrap_or_else(|| panic!("{version}: no allocation of {size}: {found:?}"));
            let large = size.parse::<i64>().unwrap() >= MIB;
            let wanted: Vec<_> = array(named).iter().take(if large { DEPTH } else { 0 }).cloned().collect();
            assert_eq!(*seen, wanted, "CPython {version}, {size} bytes");
        }
        let warnings = array(&recording["health"]["warnings"]);
        assert!(!warnings.iter().any(|warning| text(warning).contains("Python")), "{warnings:?}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn frames_are_read_of_sizes_that_are_wanted() {
    let Some((version, python)) = interpreters().pop_last() else {
        println!("SKIPPED: program: not-applicable: no CPython from 3.10 to 3.14 on this machine");
        return;
    };
    for (option, wanted) in [("off", i64::MAX), ("30M", 30 * MIB), ("0", 0)] {
        let (truth, recording) = recorded(&python, &version, &["--python-frames", option]);
        let found = frames(&recording);
        let size_of = |size: &String| size.parse::<i64>().unwrap();
        let mut without = 0;
        for (size, named) in truth.as_object().unwrap() {
            if size_of(size) < wanted {
                without += size_of(size);
            } else {
                let depth = array(named).len().min(DEPTH);
                assert_eq!(found.get(size).map(Vec::len), Some(depth), "{option}: {size} bytes: {found:?}");
            }
        }
        // Those without frames have one stack, or few.
        let seen: i64 =
            found.iter().filter(|(_, frames)| frames.is_empty()).map(|(size, _)| size_of(size)).sum();
        assert_eq!(seen, without, "{option}: {found:?}");
    }
}
