//! Stacks of code without frame pointers, against what backtrace(3) finds out in the process itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{self, MIB, Running, array, cuda_workload, int, text};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernel/files/unwind_truth.c");
const PRELOAD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernel/files/unwind_preload.c");
const COMPILER: &str = "/usr/bin/gcc";

/// Runs that are made until one has no stack that came too late: a machine may be busy.
const RUNS: usize = 20;

/// Builds a program; `None` where there is no compiler.
fn build(dir: &TempDir, source: &str, words: &[&str]) -> Option<String> {
    if !Path::new(COMPILER).exists() {
        println!("SKIPPED: program: not-applicable: no gcc on this machine");
        return None;
    }
    let output = support::path(dir, Path::new(source).file_stem().unwrap().to_str().unwrap());
    let built = Command::new(COMPILER).args(["-O2", "-o", &output, source]).args(words).status().unwrap();
    assert!(built.success());
    Some(output)
}

fn truth(dir: &TempDir) -> Option<String> {
    build(dir, PROGRAM, &["-fomit-frame-pointer", "-rdynamic", "-ldl", "-lpthread"])
}

fn driver() -> String {
    let driver = PathBuf::from(cuda_workload()).with_file_name("libspark_trace_simulated_cuda.so");
    driver.to_str().unwrap().to_owned()
}

/// What the program printed, and the recording.
fn recorded(dir: &TempDir, program: &str, options: &[&str]) -> (Vec<Vec<String>>, Value) {
    let (output, gate) = (support::path(dir, "out.json"), support::path(dir, "gate"));
    let _ = std::fs::remove_file(&gate);
    let driver = driver();
    let words = [&["--force"], options, &["--", program, &driver, &gate]].concat();
    let mut running = Running::start(&output, &words);
    running.line(|line| line == "HOLD");
    running.reads_details();
    std::fs::write(&gate, "").unwrap();
    let mut lines = Vec::new();
    for _ in 0..8 {
        lines.push(running.line(|line| line.starts_with("anon ") || line.starts_with("device ")));
    }
    let recording = running.finish().exited(0).recording();
    let words = |line: &String| line.split(' ').map(str::to_owned).collect();
    (lines.iter().map(words).collect(), recording)
}

/// A run in which every stack came in time.
fn in_time<T>(mut run: impl FnMut() -> (T, Value)) -> (T, Value) {
    for _ in 0..RUNS {
        let (said, recording) = run();
        let counts = &recording["health"]["unwinding"];
        if int(&counts["late"]) == 0 && support::losses(&recording["health"]).0 == 0 {
            assert_eq!(int(&counts["failed"]), 0, "{counts}");
            return (said, recording);
        }
    }
    panic!("stacks came too late in all of {RUNS} runs");
}

/// How a stack was found, and its frames.
type Found = (Option<String>, Vec<Value>);

/// Stacks of anonymous mappings and of device allocations, by their size.
fn stacks(recording: &Value) -> BTreeMap<(&'static str, i64), Found> {
    let provenance = &recording["provenance"];
    let known: BTreeMap<i64, &Value> =
        array(&provenance["stacks"]).iter().map(|stack| (int(&stack["id"]), stack)).collect();
    let symbols = array(&provenance["symbols"]);
    let of = |row: &Value| {
        let stack = known[&row["stack"].as_i64()?];
        let frames = array(&stack["frames"]).iter().map(|index| symbols[int(index) as usize].clone());
        Some((stack["way"].as_str().map(str::to_owned), frames.collect()))
    };
    let mappings =
        array(&provenance["mappings"]).iter().filter(|row| row["op"] == "mmap" && row["kind"] == "anon");
    let mappings = mappings.filter_map(|row| Some((("anon", int(&row["length"])), of(row)?)));
    let devices = array(&provenance["cuda_allocs"]).iter().filter(|row| row["kind"] == "device");
    let devices = devices.filter_map(|row| Some((("device", int(&row["bytes_allocated"])), of(row)?)));
    mappings.chain(devices).collect()
}

fn name(frame: &Value) -> &str {
    frame["name"].as_str().unwrap_or("?")
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn callers_without_frame_pointers_are_those_that_the_program_sees_itself() {
    let dir = support::disk_dir();
    let Some(program) = truth(&dir) else { return };
    let (said, recording) = in_time(|| recorded(&dir, &program, &["--unwind", "1M"]));
    let found = stacks(&recording);
    let own: BTreeSet<&str> = BTreeSet::from([
        "innermost",
        "middle",
        "variable",
        "aligned",
        "recursive",
        "huge",
        "handler",
        "signalled",
        "thread",
        "compare",
        "main",
        "_start",
    ]);
    for line in &said {
        let kind = if line[0] == "anon" { "anon" } else { "device" };
        let size: i64 = line[1].parse().unwrap();
        let (way, frames) = &found[&(kind, size)];
        assert_eq!(way.as_deref(), Some("eh-frame"), "{line:?}");
        // The system call's stub comes first, of which the program knows nothing.
        let names: Vec<&str> = frames.iter().map(name).skip(usize::from(kind == "anon")).collect();
        // Of a frame that is larger than the copy the callers are missing.
        let is_cut = line.iter().any(|word| word == "huge");
        let callers: Vec<&str> = line[2..].iter().map(String::as_str).collect();
        let callers = match callers.iter().position(|name| *name == "huge").filter(|_| is_cut) {
            Some(at) => &callers[..=at],
            None => &callers,
        };
        assert_eq!(names.len(), callers.len(), "{line:?} {names:?}");
        for (seen, wanted) in names.iter().zip(callers) {
            // Functions of libraries have several names, and some have none.
            assert!(seen == wanted || !own.contains(seen) && !own.contains(wanted), "{line:?} {names:?}");
        }
    }
    // The deepest has more frames than the kernel keeps of a walk by frame pointers.
    let deepest = found.values().map(|(_, frames)| frames.len()).max();
    assert!(deepest > Some(48), "{deepest:?}");
    let counts = &recording["health"]["unwinding"];
    assert!(int(&counts["complete"]) >= 7 && int(&counts["taken"]) > int(&counts["complete"]), "{counts}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn stacks_are_unwound_of_sizes_that_are_wanted() {
    let dir = support::disk_dir();
    let Some(program) = truth(&dir) else { return };
    let (said, recording) = recorded(&dir, &program, &[]);
    assert_eq!(said.len(), 8);
    assert_eq!(recording["health"]["unwinding"], Value::Null, "it is off unless it is wanted");
    let ways = |recording: &Value| {
        let found = stacks(recording);
        let large = found.into_iter().filter(|((_, size), _)| *size >= 8 * MIB);
        large.map(|((_, size), (way, _))| (size, way)).collect::<BTreeMap<_, _>>()
    };
    assert!(ways(&recording).values().all(|way| way.as_deref() == Some("frame-pointers")));
    let (_, recording) = in_time(|| recorded(&dir, &program, &["--unwind", "15M"]));
    for (size, way) in ways(&recording) {
        let wanted = if size >= 15 * MIB { "eh-frame" } else { "frame-pointers" };
        assert_eq!(way.as_deref(), Some(wanted), "{size} bytes");
    }
}

/// Files and places of the callers of each large call of malloc(3), by its size: several calls may have one size.
fn callers(truth: &str) -> BTreeMap<i64, Vec<Vec<String>>> {
    let mut callers: BTreeMap<i64, Vec<Vec<String>>> = BTreeMap::new();
    for line in std::fs::read_to_string(truth).unwrap().lines() {
        let mut words = line.split(' ').map(str::to_owned);
        callers.entry(words.next().unwrap().parse().unwrap()).or_default().push(words.collect());
    }
    callers
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn callers_in_a_strangers_libraries_are_those_that_it_sees_itself() {
    let dir = support::disk_dir();
    let Some(library) = build(&dir, PRELOAD, &["-shared", "-fPIC", "-fno-optimize-sibling-calls", "-ldl"])
    else {
        return;
    };
    let programs = [
        // An interpreter, its standard library in C, and a sort that calls back.
        (
            "/usr/bin/python3",
            "class S(str):\n  def __lt__(a, b):\n    global x; x = bytearray(33 << 20); return a is b\nsorted([S(), S()])\nimport array; array.array('b', [0]) * (35 << 20)\nimport re, json; json.loads('\"' + 'x' * (37 << 20) + '\"')",
        ),
        (
            "/usr/bin/perl",
            "my $x = 'a' x (33 << 20); my @l = sort { my $y = 'b' x (35 << 20); $a <=> $b } (2, 1);",
        ),
    ];
    for (program, script) in programs {
        let option = if program.ends_with("python3") { "-c" } else { "-e" };
        if !Path::new(program).exists() {
            println!("SKIPPED: program: not-applicable: no {program} on this machine");
            continue;
        }
        let truth = support::path(&dir, "truth");
        let (truth, recording) = in_time(|| {
            let _ = std::fs::remove_file(&truth);
            let (preload, to) = (format!("LD_PRELOAD={library}"), format!("UNWIND_TRUTH={truth}"));
            let output = support::path(&dir, "out.json");
            let words =
                ["--force", "--unwind", "1M", "--", "/usr/bin/env", &preload, &to, program, option, script];
            let recording = Running::start(&output, &words).finish().exited(0).recording();
            (callers(&truth), recording)
        });
        assert!(truth.len() >= 2, "{program}: {truth:?}");
        let mut compared = 0;
        for ((_, mapped), (way, frames)) in stacks(&recording) {
            let Some(own) = frames.iter().position(|frame| frame["module"] == *library) else { continue };
            assert_eq!(way.as_deref(), Some("eh-frame"), "{program}: {mapped}");
            // malloc(3) maps a little more, in whole pages.
            let sizes = mapped - 3 * 4096..mapped;
            let callers: Vec<_> = truth.range(sizes).flat_map(|(_, callers)| callers).collect();
            let place = |frame: &Value| format!("{}@{:x}", text(&frame["module"]), int(&frame["address"]));
            let seen: Vec<String> = frames[own + 1..].iter().map(place).collect();
            // The preload is passed by smaller calls as well, of which it says nothing.
            if mapped >= 32 * MIB {
                assert!(callers.contains(&&seen), "{program}: {mapped}: {seen:?} {callers:?}");
                compared += 1;
            }
        }
        println!(
            "{program}: {compared} stacks, the deepest of {:?} frames",
            truth.values().flatten().map(Vec::len).max()
        );
        assert!(compared >= 2, "{program}: {truth:?}");
    }
}
