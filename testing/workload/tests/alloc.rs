//! Is the ground truth true? What the program says it holds, against what the kernel says about it.

// Helpers unwrap as tests do: one that cannot go on should stop.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use harness::*;
use serde_json::Value;

#[test]
fn anonymous_and_shared_memory() {
    let running = Running::start("--anon 32M --anon-untouched 64M --shmem 16M");
    let (before, after) = (running.before, running.status());
    assert_grew(before.rss_anon, after.rss_anon, 32 * MIB);
    assert_grew(before.rss_shmem, after.rss_shmem, 16 * MIB);
    assert_grew(before.virt, after.virt, 112 * MIB);
    let maps = fs::read_to_string(format!("/proc/{}/maps", running.pid())).unwrap();
    assert!(maps.contains("/memfd:spark-trace-shmem"));

    let report = running.stop();
    assert_eq!(source(&report, "anon")["bytes"], 32 * MIB);
    assert_eq!(source(&report, "memfd")["bytes"], 16 * MIB);
    assert_eq!(source(&report, "memfd")["source"], "shmem");
    let untouched = source(&report, "anon-untouched");
    assert_eq!((&untouched["bytes"], &untouched["detail"]["reserved"]), (&0.into(), &(64 * MIB).into()));
    assert_eq!(phases(&report), ["start", "anon", "anon-untouched", "shmem", "hold", "release"]);
    for (field, value) in [("self", "rss_anon"), ("self_exact", "anonymous")] {
        assert_between(report[field][value].as_u64().unwrap(), 32 * MIB - slack(), 36 * MIB);
    }
    // The address is one that the kernel shows there, too.
    let address = source(&report, "memfd")["address"].as_u64().unwrap();
    assert!(maps.contains(&format!("{address:x}-")));
}

#[test]
fn odd_sizes_are_rounded_up_to_pages() {
    let report = report("alloc --anon 1 --shmem 5000 --hold 0");
    assert_eq!(source(&report, "anon")["bytes"], page_size());
    assert_eq!(source(&report, "memfd")["bytes"], 5000_u64.next_multiple_of(page_size()));
    assert_eq!(report["page_size"], page_size());
}

#[test]
fn huge_pages_as_the_kernel_counts_them() {
    if !Path::new("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size").exists() {
        return;
    }
    let running = Running::start("--thp 16M");
    assert_grew(running.before.rss_anon, running.status().rss_anon, 16 * MIB);
    let smaps = fs::read_to_string(format!("/proc/{}/smaps", running.pid())).unwrap();
    let huge: u64 = smaps
        .lines()
        .filter_map(|line| line.strip_prefix("AnonHugePages:"))
        .map(|rest| rest.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10)
        .sum();
    let report = running.stop();
    assert_eq!(source(&report, "thp")["detail"]["at_hold_end"]["huge_bytes"], huge);
}

#[test]
fn huge_pages_that_are_only_read_are_nobodys_own() {
    let Ok(size) = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size") else { return };
    let running = Running::start(&format!("--thp-zero {}", size.trim()));
    assert_grew(running.before.rss_anon, running.status().rss_anon, 0);
    let report = running.stop();
    assert_eq!(source(&report, "thp-zero")["bytes"].to_string(), size.trim());
    assert_eq!(source(&report, "thp-zero")["source"], "huge-zero-page");
}

#[test]
fn a_file_in_tmpfs() {
    let running = Running::start("--tmpfs 5000000");
    let name = format!("/dev/shm/spark-trace-workload-{}-0", running.pid());
    let bytes = 5_000_000_u64.next_multiple_of(page_size());
    assert_eq!(fs::metadata(&name).unwrap().blocks() * 512, bytes);
    let report = running.stop();
    assert_eq!(source(&report, "tmpfs")["bytes"], bytes);
    assert_eq!(source(&report, "tmpfs")["path"], name.as_str());
    assert!(!Path::new(&name).exists());

    let dir = disk_dir();
    let (code, error) = fails(&format!("alloc --tmpfs 1M --tmpfs-dir {}", dir.path().display()));
    assert!(code == Some(1) && error.contains("not a tmpfs"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "it tidies up after an error");
}

#[test]
fn a_cold_file_is_read_and_no_more_of_it() {
    let dir = disk_dir();
    let path = made_file(&dir, "in", "32M");
    assert_resident(&path, 0, 0);
    let running = Running::start(&format!("--file-read 16M --file {} --no-readahead", path.display()));
    // At most the rest of the last large folio more.
    assert_resident(&path, 16 * MIB, 17 * MIB);
    assert_grew(running.before.rss_file, running.status().rss_file, 0);
    let report = running.stop();
    assert_eq!(source(&report, "file-read")["bytes"], 16 * MIB);
    assert_eq!(source(&report, "file-read")["source"], "file-clean");

    let drop = run(&format!("file --drop {}", path.display()));
    assert!(drop.status.success());
    assert_resident(&path, 0, 0);
    assert_eq!(harness::report(&format!("file --resident {}", path.display()))["resident"], 0);

    // Readahead may bring in more: the report says how much.
    let report = harness::report(&format!("alloc --file-read 16M --file {} --hold 0", path.display()));
    assert_eq!(source(&report, "file-read")["detail"]["cache_before"]["resident"], 0);
    let after = source(&report, "file-read")["detail"]["at_hold_end"]["resident"].as_u64().unwrap();
    assert_between(after, 15 * MIB, 32 * MIB);
    assert_resident(&path, 16 * MIB, 32 * MIB);
}

#[test]
fn mapped_files() {
    let dir = disk_dir();
    let (shared, private) = (made_file(&dir, "shared", "8M"), dir.path().join("private"));
    let line = format!(
        "--file-mmap 8M --mmap-file {} --file-private 4M --private-file {} --create-files --drop-on-release",
        shared.display(),
        private.display()
    );
    let running = Running::start(&line);
    let (before, after) = (running.before, running.status());
    assert_grew(before.rss_file, after.rss_file, 8 * MIB);
    assert_grew(before.rss_anon, after.rss_anon, 4 * MIB);
    assert_resident(&shared, 8 * MIB, 8 * MIB);
    assert_resident(&private, 4 * MIB, 4 * MIB);
    let report = running.stop();
    assert_eq!(source(&report, "file-mmap")["bytes"], 8 * MIB);
    assert_eq!(source(&report, "file-private")["source"], "anon");
    assert_eq!(source(&report, "file-private-cache")["source"], "file-clean");
    assert_resident(&shared, 0, 0);
    assert_resident(&private, 0, 0);
}

#[test]
fn written_files() {
    let dir = disk_dir();
    let path = dir.path().join("out");
    let line = format!("--file-write 4M --write-file {}", path.display());
    let running = Running::start(&line);
    assert_resident(&path, 4 * MIB, 4 * MIB);
    let report = running.stop();
    assert_eq!(source(&report, "file-write")["source"], "file-dirty");
    assert!(!path.exists());

    let report = harness::report(&format!("alloc {line} --fsync --keep-files --hold 0"));
    assert_eq!(source(&report, "file-write")["source"], "file-clean");
    assert_eq!(fs::metadata(&path).unwrap().len(), 4 * MIB);
    let (code, error) = fails(&format!("alloc {line}"));
    assert!(code == Some(1) && error.contains("never overwritten"), "{error}");
}

#[test]
fn page_tables_of_small_mappings() {
    let running = Running::start("--small-mappings 200");
    let (before, after) = (running.before, running.status());
    let bytes = 200 * page_size();
    assert_grew(before.rss_anon, after.rss_anon, bytes);
    // Besides: the levels above.
    assert_between(
        after.page_tables,
        before.page_tables + bytes,
        before.page_tables + bytes + 8 * page_size(),
    );
    let maps = fs::read_to_string(format!("/proc/{}/maps", running.pid())).unwrap();
    assert!(maps.lines().count() > 200);
    let report = running.stop();
    let tables =
        report["sources"].as_array().unwrap().iter().find(|source| source["source"] == "page-tables");
    assert_eq!(tables.unwrap()["bytes"], bytes);
}

#[test]
fn children_have_their_own_and_share_ours() {
    let running = Running::start("--anon 4M --children 3 --child-anon 8M");
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", running.pid())).unwrap();
    let pids: Vec<u32> = children.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 3);
    for pid in &pids {
        assert_grew(running.before.rss_anon, Status::of(*pid).rss_anon, 12 * MIB);
    }
    assert_grew(running.before.rss_anon, running.status().rss_anon, 4 * MIB);
    let report = running.stop();
    let said = report["sources"].as_array().unwrap().iter().filter(|source| source["kind"] == "child-anon");
    let said: Vec<_> = said.map(|source| source["detail"]["pid"].as_u64().unwrap()).collect();
    assert_eq!(said, pids.iter().map(|pid| u64::from(*pid)).collect::<Vec<_>>());
    assert!(pids.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()), "none stays behind");
}

#[test]
fn threads_touch_their_own() {
    let running = Running::start("--threads 3 --thread-anon 8M");
    assert_eq!(running.status().threads, 4);
    assert_grew(running.before.rss_anon, running.status().rss_anon, 24 * MIB);
    let report = running.stop();
    assert_eq!(report["sources"].as_array().unwrap().len(), 3);
}

/// Each kind of descriptor by its link (`pipe:[123]`), with a path to one such descriptor.
fn descriptors(pid: u32, kind: &str) -> BTreeMap<String, (u32, std::path::PathBuf)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let path = entry.unwrap().path();
        let link = fs::read_link(&path).unwrap().display().to_string();
        if link.starts_with(kind) {
            found.entry(link).or_insert((0, path)).0 += 1;
        }
    }
    found
}

#[test]
fn pipes_and_sockets_are_full() {
    let running = Running::start("--pipes 3 --sockets 2");
    let mut queued = 0;
    // Our own stdout is a pipe as well, with one end here.
    for (_, path) in descriptors(running.pid(), "pipe:").into_values().filter(|(ends, _)| *ends == 2) {
        let pipe = File::open(path).unwrap();
        let mut bytes: libc::c_int = 0;
        // SAFETY: FIONREAD writes one int.
        assert_eq!(unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &mut bytes) }, 0);
        queued += u64::try_from(bytes).unwrap();
    }
    assert_eq!(descriptors(running.pid(), "socket:").len(), 4);
    let report = running.stop();
    assert_eq!(source(&report, "pipe")["bytes"], queued);
    assert!(queued >= 3 * 16 * page_size());
    let sockets = source(&report, "unix-socket");
    assert!(sockets["bytes"].as_u64() >= sockets["detail"]["payload_bytes"].as_u64());
    assert!(sockets["detail"]["payload_bytes"].as_u64().unwrap() > 4 * 4096);
}

#[test]
fn hugetlb_says_why_not() {
    let reserved = fs::read_to_string("/proc/sys/vm/nr_hugepages").unwrap_or_default();
    if reserved.trim() != "0" {
        return;
    }
    let (code, error) = fails("alloc --hugetlb 4M");
    assert!(code == Some(1) && error.contains("0 are reserved"), "{error}");
}

#[test]
fn exit_statuses() {
    assert_eq!(run("alloc --anon 4096 --hold 0 --exit-code 7").status.code(), Some(7));
    assert_eq!(fails("alloc --file-read 1M").0, Some(2));
    assert_eq!(fails("alloc --repeat 2 --no-release").0, Some(2));
    let (code, error) = fails("alloc --file-read 1M --file /nonexistent/file");
    assert!(
        code == Some(1) && error.contains("/nonexistent/file") && error.contains("os error 2"),
        "{error}"
    );
    let dir = disk_dir();
    let path = made_file(&dir, "short", "5000");
    let (code, error) = fails(&format!("alloc --file-read 1M --file {}", path.display()));
    assert!(code == Some(1) && error.contains("has 5000 bytes"), "{error}");
}

#[test]
fn an_abort_comes_after_the_report() {
    let output = run("alloc --anon 1M --hold 0 --abort");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT));
    assert_eq!(source(&last_line(&output), "anon")["bytes"], MIB);
    assert_eq!(phases(&last_line(&output)), ["start", "anon", "hold"]);
}

#[test]
fn courses() {
    let twice = report("alloc --anon 1M --repeat 2 --hold 0");
    assert_eq!(phases(&twice), ["start", "anon", "hold", "release", "start", "anon", "hold", "release"]);
    let cycles: Vec<&Value> =
        twice["sources"].as_array().unwrap().iter().map(|source| &source["cycle"]).collect();
    assert_eq!(cycles, [0, 1]);

    let kept = report("alloc --anon 1M --children 1 --child-anon 1M --hold 0 --no-release");
    assert_eq!(phases(&kept), ["start", "anon", "children", "hold"]);

    let slow = report("alloc --anon 1M --hold-start 20ms --hold-each 30ms --hold 40ms --hold-release 50ms");
    let lasted = slow["phases"].as_array().unwrap().iter().map(|phase| {
        let time = |name: &str| phase[name].as_u64().unwrap();
        assert!(time("begin_ns") <= time("ready_ns"));
        (time("end_ns") - time("ready_ns")) / 1_000_000
    });
    assert!(lasted.zip([20, 30, 40, 50]).all(|(lasted, wanted)| (wanted..wanted + 2000).contains(&lasted)));
}

#[test]
fn the_report_goes_to_a_file() {
    let dir = disk_dir();
    let path = dir.path().join("report.json");
    let output = run(&format!("alloc --anon 1M --hold 0 --jsonl --output {}", path.display()));
    assert_eq!(std::str::from_utf8(&output.stdout).unwrap().lines().count(), 4);
    assert_eq!(last_line(&output)["phase"], "release");
    let report: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    assert_eq!(report["sources"][0]["kind"], "anon");
    let offset = report["monotonic_to_realtime_offset_ns"].as_i64().unwrap();
    let end = report["phases"][3]["end_ns"].as_i64().unwrap();
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos()).unwrap();
    assert!((0..60_000_000_000).contains(&(now - (end + offset))));
}

#[test]
fn storms() {
    let dir = disk_dir();
    let path = made_file(&dir, "in", "2M");
    let pages = 2 * MIB / page_size();
    for (line, rounds, operations) in [
        ("fault --size 2M --rounds 3".to_owned(), 3, 3 * pages),
        (format!("read --file {} --rounds 2", path.display()), 2, 2 * pages),
        ("mmap --size 64K --rounds 100 --batches 4 --touch".to_owned(), 4, 100),
        ("pipe --size 3M --rounds 4".to_owned(), 4, 4 * 3 * MIB / page_size()),
        ("fork --rounds 5".to_owned(), 5, 5),
        ("call --call getppid --rounds 100 --batches 4".to_owned(), 4, 100),
        ("call --call read --rounds 100 --batches 4".to_owned(), 4, 100),
    ] {
        let report = report(&format!("storm {line}"));
        assert_eq!(report["rounds"].as_array().unwrap().len(), rounds, "{line}");
        assert_eq!(report["operations"], operations, "{line}");
        assert!(report["wall"]["min_ns"].as_u64().unwrap() > 0, "{line}");
        assert!(report["wall"]["median_ns"].as_u64() >= report["wall"]["min_ns"].as_u64(), "{line}");
    }
}
