//! Whose the rows of the lists are, of what time, and whether a path can be opened as it is printed: beside the files
//! themselves, mincore(2) and statfs(2).

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::python::{self, python};
use crate::support::{self, Faults, MIB, Running, array, int, record_words, spark_trace, text};

/// The row of the file that can be opened at `path`.
fn at<'a>(show: &'a Value, path: &str) -> &'a Value {
    let rows = array(&show["files"]);
    rows.iter().find(|row| row["opens_at"] == path).unwrap_or_else(|| panic!("no {path}"))
}

fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn files_are_called_as_they_can_be_opened_at_the_end() {
    let dir = support::disk_dir();
    let base = dir.path().canonicalize().unwrap().display().to_string();
    // Renamed where it was made, moved with its directory, and removed.
    let script = format!(
        "cd '{base}'; mkdir d e; make() {{ head -c $2 /dev/zero > $1; }}; make stays 4194304; make d/part 6291456; mv d/part \
         d/whole; make e/moved 8388608; mkdir f; mv e f/g; make gone 2097152; rm gone"
    );
    let recorded = record_words(&support::path(&dir, "r.json"), &["--", "sh", "-c", &script]).exited(0);
    let show = recorded.show_with(&["--at", "end"]);
    let mut faults = Faults::default();
    for (name, mib) in [("stays", 4), ("d/whole", 6), ("f/g/moved", 8)] {
        let path = format!("{base}/{name}");
        let row = at(&show, &path);
        faults.near(name, int(&row["bytes"]), support::cache::resident(&path));
        faults.near(name, int(&row["bytes"]), mib * MIB);
        faults
            .expect(int(&row["inode"]) == i64::try_from(support::inode(&path)).unwrap(), || row.to_string());
        faults.expect(row["whose"] == "target", || format!("{path}: {}", row["whose"]));
    }
    let gone =
        array(&show["files"]).iter().find(|row| text(&row["shown"]).starts_with(&format!("{base}/gone")));
    let gone = gone.expect("the removed file has a row");
    faults
        .expect(gone["opens_at"].is_null() && text(&gone["shown"]).contains("removed"), || gone.to_string());
    // Every path that is said to open opens, whoever's the file is, unless somebody has removed it since.
    let opened = array(&show["files"]).iter().filter_map(|row| Some((row, row["opens_at"].as_str()?)));
    for (row, path) in opened.filter(|(row, _)| row["whose"] == "target") {
        faults.expect(Path::new(path).exists(), || format!("{path}: {row}"));
    }
    faults.finish();
}

/// A file system of its own, mounted for the test.
struct Mounted(String);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_mount_point_stands_in_front() {
    let dir = support::disk_dir();
    let (disk, point) = (support::path(&dir, "disk"), support::path(&dir, "data"));
    let made = format!(
        "truncate -s 64M '{disk}' && mkfs.ext4 -q '{disk}' && mkdir '{point}' && mount -o loop '{disk}' '{point}'"
    );
    if !Command::new("sh").args(["-c", &made]).status().unwrap().success() {
        return support::oracle::skip("files", "no loop mounts with ext4 here");
    }
    let _mounted = Mounted(point.clone());
    let file = format!("{point}/hub/model");
    let script = format!("mkdir '{point}/hub'; head -c 20971520 /dev/zero > '{file}'; sync");
    let recorded = record_words(&support::path(&dir, "r.json"), &["--", "sh", "-c", &script]).exited(0);
    let show = recorded.show_with(&["--at", "end"]);
    let row = at(&show, &file);
    assert_eq!(text(&row["path"]), "/hub/model");
    let mut faults = Faults::default();
    // Idle pages may have been taken back by now.
    faults.near("the file", int(&row["bytes"]), support::cache::resident(&file));
    faults.finish();
    // Its inodes and directories are pages of the loop device.
    let device = sh(&format!("findmnt -n -o SOURCE '{point}'"));
    let blocks = array(&show["files"]).iter().find(|row| row["opens_at"] == device.trim());
    let blocks = blocks.unwrap_or_else(|| panic!("no blocks of {device}"));
    assert!(text(&blocks["shown"]).contains("file system's own blocks"), "{blocks}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn others_are_one_line_and_the_target_comes_first() {
    let dir = support::disk_dir();
    let [theirs, ours, done] = ["theirs", "ours", "done"].map(|name| support::path(&dir, name));
    // Somebody outside the target's cgroup writes more than the target, between the target's start and end.
    let script = format!(
        "head -c 4194304 /dev/zero > '{ours}'; touch '{ours}.go'; while [ ! -e '{done}' ]; do sleep 0.01; done"
    );
    let go = format!("{ours}.go");
    let other = std::thread::spawn(move || {
        support::wait_for("the target to write", || Path::new(&go).exists().then_some(()));
        fs::write(&theirs, vec![1u8; 40 << 20]).unwrap();
        fs::write(&done, "").unwrap();
        theirs
    });
    let recorded = record_words(&support::path(&dir, "r.json"), &["--", "sh", "-c", &script]).exited(0);
    let theirs = other.join().unwrap();
    let show = recorded.show_with(&["--at", "end"]);
    let rows = array(&show["files"]);
    let place = |path: &str| rows.iter().position(|row| row["opens_at"] == path).unwrap();
    let (first, second) = (place(&ours), place(&theirs));
    assert!(first < second, "the target's come first: {first}, {second}");
    assert_eq!((text(&rows[first]["whose"]), text(&rows[second]["whose"])), ("target", "others"));
    assert_eq!(int(&rows[second]["bytes"]), support::cache::resident(&theirs));
    // What went of files that were cached before is no part of what there is.
    let of_others = rows.iter().filter(|row| row["whose"] == "others" && int(&row["bytes"]) > 0);
    let sum: i64 = of_others.clone().map(|row| int(&row["bytes"])).sum();
    let others = &show["others"]["files"]["others"];
    assert_eq!((int(&others["bytes"]), int(&others["rows"])), (sum, of_others.count() as i64));
    let own = rows.iter().filter(|row| row["whose"] == "tracer");
    let tracer = int(&recorded.recording()["tool"]["pid"]);
    assert!(own.clone().all(|row| int(&row["first_touch"]["pid"]) == tracer));
    let table = String::from_utf8(
        spark_trace().arg("show").arg(&recorded.output).args(["--at", "end"]).output().unwrap().stdout,
    )
    .unwrap();
    let list = table.split("Page cache by file").nth(1).unwrap().split("\n\n").next().unwrap();
    assert!(list.contains("others: ") && !list.contains("theirs"), "{list}");
    assert!(list.contains("4.0 MiB"), "{list}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_mount_namespace_of_its_own_is_the_targets() {
    let dir = support::disk_dir();
    let script = "mount -t tmpfs -o size=64M none /mnt && mkdir /mnt/deep && head -c 12582912 /dev/zero > /mnt/deep/file; \
                  while [ ! -e \"$0\" ]; do sleep 0.02; done";
    let mark = support::path(&dir, "mark");
    let words = ["--", "unshare", "-m", "sh", "-c", script, &mark];
    let running = Running::start(&support::path(&dir, "r.json"), &words);
    running.has_entry("the file in the target's own /mnt", |entry| {
        let systems = entry["file_systems"].as_array();
        systems
            .is_some_and(|all| all.iter().any(|one| one["mount_point"] == "/mnt" && one["used"] == 12 * MIB))
    });
    fs::write(&mark, "").unwrap();
    let recorded = running.finish().exited(0);
    let show = recorded.show();
    let row = array(&show["tmpfs"]).iter().find(|row| row["mount_point"] == "/mnt");
    // It was gone with its last process; at the peak, which is when it was full, it was read.
    let row = row.unwrap_or_else(|| panic!("no /mnt in {}", show["tmpfs"]));
    assert_eq!((text(&row["whose"]), int(&row["bytes_at_peak"])), ("target", 12 * MIB), "{row}");
    assert_eq!(text(&row["files_at_peak"][0]["path"]), "/mnt/deep/file");
    assert!(row["bytes_at_end"].is_null(), "{row}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn mappings_say_when_they_were_read() {
    let dir = support::disk_dir();
    let Some(python) = python() else { return };
    // Nothing is taken in the first 300 ms.
    let script = "import time\nhold()\nprint('taken at', time.monotonic_ns(), flush=True)\n\
                  m = bytearray(b'x') * (64 << 20)\nhold()";
    let recorded = python::record(python, &dir, "r", script);
    let taken_ns: i64 =
        recorded.stdout.lines().find_map(|line| line.strip_prefix("taken at ")).unwrap().parse().unwrap();
    let show = recorded.show_with(&["--at", "0.1s"]);
    let row = array(&show["regions"]).iter().max_by_key(|row| int(&row["anonymous"])).expect("a mapping");
    let after = taken_ns - int(&show["target"]["started_ns"]);
    assert!(after > 300_000_000, "the first hold lasts until details were read: {after}");
    assert!(int(&row["anonymous"]) >= 64 * MIB && int(&row["read_from_ns"]) > taken_ns, "{row}");
    let at = ["--at", "0.1s"];
    let output = spark_trace().arg("show").arg(&recorded.output).args(at).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    let heading = table.lines().find(|line| line.starts_with("Mappings by name")).unwrap();
    let printed: f64 = heading.split_whitespace().rev().nth(1).unwrap().parse().unwrap();
    assert!(printed >= (after as f64 / 1e9 * 10.0).floor() / 10.0, "{heading}: {after} ns");
    // Of another time they are no part of a difference at this one.
    let diff = recorded.diff_with(&recorded, &at);
    assert!(array(&diff["regions"]).is_empty(), "{}", diff["regions"]);
}
