//! `snapshot`: one instant of the machine, beside the kernel's own files and what the test knows is there.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::process::Other;
use crate::support::{self, Faults, MIB, array, cgroup, int, json, spark_trace, text, workload};

/// What may be in no source of a machine at rest: a hundredth of what is not free.
const CLOSED_WITHIN: i64 = 100;
/// Files that are cached beside what is looked for, and the most bytes of each: of a machine of which next to nothing is
/// used, what the kernel took when it started and lists nowhere is a larger part.
const MANY: (i64, i64) = (32, 64 * MIB);

fn snapshot(words: &[&str]) -> Output {
    let output = spark_trace().arg("snapshot").args(words).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn shown(words: &[&str]) -> Value {
    serde_json::from_slice(&snapshot(&[&["--format", "json"], words].concat()).stdout).unwrap()
}

/// A workload that holds this in a cgroup of its own until it is dropped.
fn holder(own: &cgroup::Own, line: &str) -> Other {
    let mut command = Command::new(workload());
    command.arg("alloc").args(line.split_whitespace()).args(["--hold", "300s"]);
    own.start_in(&mut command);
    Other::holding(&mut command)
}

fn row<'a>(rows: &'a Value, key: &str, value: impl Into<Value>) -> &'a Value {
    let value = value.into();
    let found: Vec<_> = array(rows).iter().filter(|row| row[key] == value).collect();
    assert_eq!(found.len(), 1, "rows with {key} {value}");
    found[0]
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_machines_memory_adds_up_and_known_memory_is_where_it_belongs() {
    // Three quarters of what is available, so that the kernel reclaims nothing of it while the test looks.
    support::cache::drop_unused();
    let each = MANY.1.min(support::meminfo("MemAvailable") / 4 * 3 / MANY.0);
    let dir = support::disk_dir();
    let input = support::path(&dir, "input");
    support::cold_file(&input, 64);
    for index in 0..MANY.0 {
        let path = dir.path().join(format!("other-{index}"));
        fs::File::create(&path).unwrap().set_len(each.unsigned_abs()).unwrap();
        std::io::copy(&mut fs::File::open(&path).unwrap(), &mut std::io::sink()).unwrap();
    }
    let own = cgroup::Own::create("snapshot");
    // It is the first to read the file, so its cgroup pays for the pages.
    let process = holder(&own, &format!("--file-read 64M --file {input} --anon 200M"));
    let cached = support::cache::resident(&input);
    // Pages that are just being given back are in no source for some milliseconds: a machine that is not at rest is
    // looked at again.
    let residual_of = |shown: &Value| int(&shown["planes"]["system"]["level"]["residual"]).abs();
    let files = ["--files", dir.path().to_str().unwrap()];
    let in_use = || support::meminfo("MemTotal") - support::meminfo("MemFree");
    let tries = (0..4).map(|_| {
        let before = in_use();
        let shown = shown(&files);
        (shown, [before, in_use()])
    });
    let (shown, [before, used]) = tries.min_by_key(|(shown, _)| residual_of(shown)).unwrap();
    let after = support::cache::resident(&input);
    let kernel = cgroup::charged(&own.path);

    let mut faults = Faults::default();
    let system = &shown["planes"]["system"];
    let residual = int(&system["level"]["residual"]);
    println!("{residual} of {used} bytes in no source");
    faults.expect(residual.abs() <= used / CLOSED_WITHIN, || format!("{residual} of {used} unattributed"));
    let in_use = int(&system["level"]["expected"]);
    // The kernel gives page cache up meanwhile, or programs take more of it.
    let (least, most) = (before.min(used), before.max(used));
    faults.expect((least - used / 20..=most + used / 20).contains(&in_use), || {
        format!("{in_use} in use, the kernel: {least}..={most}")
    });

    let file = row(&shown["files"], "inner_path", input.as_str());
    let bytes = int(&file["bytes"]);
    faults
        .expect((after..=cached).contains(&bytes), || format!("file: {bytes}, mincore: {after}..={cached}"));
    faults.expect(file["charged_to"] == own.path.as_str(), || format!("{file}"));
    faults.expect(file["first_touch"].is_null(), || format!("nobody saw who: {file}"));

    let found = row(&shown["processes"], "pid", process.pid());
    let anon = found["at"]["rss_anon"].as_i64().unwrap_or(0);
    faults.near("the process's anonymous memory", anon, 200 * MIB);
    faults.expect(found["cgroup"] == own.path.as_str(), || format!("{found}"));
    let region = array(&shown["regions"]).iter().any(|row| int(&row["anonymous"]) >= 200 * MIB);
    faults.expect(region, || "no mapping holds it".to_owned());

    let charged = row(&shown["cgroups"], "path", own.path.as_str());
    let bytes = int(&charged["bytes"]);
    // What the kernel drops of the file meanwhile has gone by the time the test reads.
    faults.expect((bytes - kernel.usage).abs() <= MIB + cached - after, || {
        format!("charged {bytes}, the kernel: {}", kernel.usage)
    });
    faults.near("its anonymous memory", charged["sources"]["anon"].as_i64().unwrap_or(0), kernel.anon);
    faults.finish();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn two_snapshots_are_compared_like_two_runs() {
    let dir = support::disk_dir();
    let own = cgroup::Own::create("snapshots");
    let [a, b] = ["a.json", "b.json.zst"].map(|name| support::path(&dir, name));
    // Others on the machine come and go: the difference is what the kernel had just before and just after each.
    let around = |file: &str| {
        let before = support::meminfo("AnonPages");
        snapshot(&["-o", file]);
        let after = support::meminfo("AnonPages");
        (before.min(after), before.max(after))
    };
    let (a_low, a_high) = around(&a);
    let _process = holder(&own, "--anon 300M");
    let (b_low, b_high) = around(&b);
    let diff =
        spark_trace().args(["diff", &a, &b, "--plane", "system", "--format", "json"]).output().unwrap();
    let diff: Value = serde_json::from_slice(&diff.stdout).unwrap();
    let anon = int(&row(&diff["sources"], "source", "anon")["delta_bytes"]);
    let expected = b_low - a_high - 16 * MIB..=b_high - a_low + 16 * MIB;
    assert!(expected.contains(&anon), "anon differs by {anon}, the kernel: {expected:?}");
    let again = spark_trace().args(["snapshot", "-o", &a]).output().unwrap();
    assert_eq!(again.status.code(), Some(2), "an existing file stays");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_bundle_has_everything_and_with_stand_ins_no_name() {
    let dir = support::disk_dir();
    let secret = support::path(&dir, "secret-model.engine");
    fs::write(&secret, vec![1u8; 8 << 20]).unwrap();
    let own = cgroup::Own::create("secret-cgroup");
    let _process = holder(&own, "--anon 8M");
    let files = dir.path().to_str().unwrap();
    let unpacked = |name: &str, options: &[&str]| -> (TempDir, String) {
        let bundle = support::path(&dir, name);
        snapshot(&[options, &["--files", files, "--bundle", &bundle]].concat());
        let at = support::disk_dir();
        let archive = zstd::decode_all(fs::File::open(&bundle).unwrap()).unwrap();
        tar::Archive::new(&archive[..]).unpack(at.path()).unwrap();
        (at, String::from_utf8_lossy(&archive).into_owned())
    };
    let (at, whole) = unpacked("whole.tar.zst", &[]);
    let program = workload();
    // Names the machine until it starts again.
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    for name in ["secret-model.engine", "secret-cgroup", &program, boot.trim()] {
        assert!(whole.contains(name), "{name} is not in the bundle");
    }
    let place = |at: &TempDir, name: &str| at.path().join("spark-trace").join(name);
    assert_eq!(json(place(&at, "doctor.json"))["can_record"], true);
    assert!(fs::read_to_string(place(&at, "kernel/proc/meminfo")).unwrap().contains("MemTotal:"));

    let (at, hidden) = unpacked("hidden.tar.zst", &["--redact"]);
    for name in ["secret-model.engine", "secret-cgroup", &program, files, boot.trim()] {
        assert!(!hidden.contains(name), "{name} is in the bundle");
    }
    let recording = json(place(&at, "snapshot.json"));
    let engine = array(&recording["provenance"]["files"]).iter().any(|file| file["before"] == 8 << 20);
    assert!(engine, "its bytes are shown");
    let shown = spark_trace().arg("show").arg(place(&at, "snapshot.json")).output().unwrap();
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    assert_eq!(text(&recording["target"]["kind"]), "snapshot");
}
