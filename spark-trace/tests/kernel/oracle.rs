//! What is recorded and shown of a cgroup, against the kernel's own files read at the same time.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::process::Command;

use serde_json::Value;

use crate::support::oracle::{self, Bracket, Files, levels, names, near, stock};
use crate::support::process::Other;
use crate::support::{self, Faults, MIB, Running, array, cgroup, int, json, text, workload};

/// Rows of `show` that together are a sum of keys of memory.stat.
type Sum = (&'static [&'static str], &'static [&'static str]);

/// The kernel's own sums: what is split in `show` must add up to them again.
const V2: &[Sum] = &[
    (&["anon", "anon-pinned"], &["anon"]),
    (&["shmem", "shmem-pinned"], &["shmem"]),
    (&["file-dirty"], &["file_dirty", "file_writeback"]),
    (&["shmem", "shmem-pinned", "file-clean", "file-dirty", "swap-cache"], &["file"]),
    (&["slab-reclaimable", "slab-unreclaimable"], &["slab"]),
    (&["kernel-stack"], &["kernel_stack"]),
    (&["page-tables"], &["pagetables", "sec_pagetables"]),
    (&["percpu"], &["percpu"]),
    (&["sock"], &["sock"]),
    (
        &[
            "slab-reclaimable",
            "slab-unreclaimable",
            "kernel-stack",
            "page-tables",
            "percpu",
            "vmalloc",
            "kernel-other",
            "nvidia-managed",
        ],
        &["kernel"],
    ),
];
const V1: &[Sum] = &[
    (&["anon", "anon-pinned"], &["total_rss"]),
    (&["shmem", "shmem-pinned"], &["total_shmem"]),
    (&["file-dirty"], &["total_dirty", "total_writeback"]),
    (&["shmem", "shmem-pinned", "file-clean", "file-dirty", "swap-cache"], &["total_cache"]),
];

#[test]
#[ignore = "needs root: cargo xtask test"]
fn every_level_is_the_kernels_own_at_that_time() {
    let dir = support::disk_dir();
    let (input, mapped) = (support::path(&dir, "input"), support::path(&dir, "mapped"));
    let (written, truth) = (support::path(&dir, "written"), support::path(&dir, "truth.json"));
    support::cold_file(&input, 24);
    support::cold_file(&mapped, 8);
    let line = format!(
        "alloc --anon 32M --shmem 16M --file-read 24M --file {input} --file-mmap 8M --mmap-file {mapped} \
         --file-write 12M --write-file {written} --small-mappings 40 --children 3 --child-anon 4M --threads 4 \
         --thread-anon 2M --pipes 8 --sockets 4 --hold 7s --output {truth}"
    );
    let mut running = oracle::start(&support::path(&dir, "r.json"), "", &line);
    let pid = int(&running.phase("hold")["pid"]);
    let path = cgroup::of_process(u32::try_from(pid).unwrap()).unwrap();
    let kernel = Files::of(&path).settled();
    let recorded = running.finish().exited(0);
    let recording = recorded.recording();

    let mut faults = Faults::default();
    recorded.whole(&mut faults);
    let times = kernel.check_samples(oracle::series(&recording, &path), &mut faults);
    for at_ns in [times.first(), times.last()].into_iter().flatten() {
        check_levels(&recorded.show_at(*at_ns), &kernel, &mut faults);
    }
    let truth = json(&truth);
    let at = levels(&recorded.show_at(times[0]), "cgroup");
    let allocated = |slug: &str| support::ledger::allocated(&truth, slug);
    // Eight processes and threads have stacks and heaps of their own.
    let anon = allocated("anon")..=allocated("anon") + 8 * 50 * oracle::page_size();
    faults.expect(anon.contains(&at["anon"]), || format!("anon {}, by the workload {anon:?}", at["anon"]));
    faults.near("shmem, by the workload", at["shmem"], allocated("shmem"));
    if names().v2 {
        let tables = array(&truth["sources"]).iter().find(|row| row["source"] == "page-tables").unwrap();
        let (shown, least) = (at["page-tables"], int(&tables["detail"]["page_tables_grew_by"]));
        faults.expect(shown >= least, || format!("page tables: {shown}, of one mapping alone {least}"));
        let (shown, least) = (at["kernel-other"], allocated("kernel-other"));
        faults.expect(shown >= least, || format!("kernel-other: {shown}, the pipes have {least}"));
    }
    faults.finish();
}

/// Rows add up to what memory.stat said before and after, and all of them to the charge counter.
fn check_levels(show: &Value, kernel: &Bracket, faults: &mut Faults) {
    let shown = levels(show, "cgroup");
    let sum = |slugs: &[&str]| -> i64 { slugs.iter().filter_map(|slug| shown.get(*slug)).sum() };
    for (slugs, keys) in if names().v2 { V2 } else { V1 } {
        let (shown, truth) = (sum(slugs), kernel.range(|reading| reading.sum(keys)));
        faults.expect(truth.contains(&shown), || format!("{slugs:?}: {shown}, {keys:?} is {truth:?}"));
    }
    let level = &show["planes"]["cgroup"]["level"];
    let (expected, all) = (int(&level["expected"]), shown.values().sum::<i64>());
    faults.expect(all == expected, || format!("rows add up to {all}, the counter is {expected}"));
    let truth = kernel.range(|reading| reading.usage);
    faults.expect(near(expected, &truth, stock()), || format!("charged: {expected}, the kernel: {truth:?}"));
    let residual = int(&level["residual"]);
    // The stock, and on v1 what its counter of kernel memory lags behind.
    faults.expect(residual.abs() <= 2 * stock(), || format!("unattributed: {residual}"));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_removed_cgroup_keeps_its_last_charge_and_peak() {
    let own = cgroup::Own::create("removed");
    if names().v2 {
        Files(own.dir.clone()).write("cgroup.subtree_control", "+memory");
    }
    let dir = support::disk_dir();
    let [go, input, truth] = ["go", "input", "truth.json"].map(|name| support::path(&dir, name));
    support::cold_file(&input, 16);
    let mut stays = Other::start(Command::new("sleep").arg("60"));
    own.move_below("stays", stays.pid());
    let mut command = Command::new(workload());
    let line =
        format!("alloc --file-read 16M --file {input} --anon 32M --hold 1s --wait-go {go} --output {truth}");
    let mut goes = Other::start(command.args(line.split_whitespace()));
    let files = Files(own.move_below("goes", goes.pid()));

    let running = Running::start(&support::path(&dir, "r.json"), &["--cgroup", &own.path]);
    running.follows(goes.pid());
    File::create(&go).unwrap();
    assert!(goes.0.wait().unwrap().success());
    let (usage, peak) = (files.number(names().usage), files.number(names().peak));
    let id = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&files.0).unwrap());
    let before_ns = oracle::monotonic_ns();
    fs::remove_dir(&files.0).unwrap();
    let after_ns = oracle::monotonic_ns();
    assert!(stays.runs());
    drop(stays);
    let recorded = running.finish().exited(0);
    let recording = recorded.recording();

    let mut faults = Faults::default();
    recorded.whole(&mut faults);
    let path = format!("{}/goes", own.path);
    let row = oracle::cgroup_row(&recording, &path);
    faults.expect(row["id"] == id, || format!("it is {} in the recording, {id} in fact", row["id"]));
    let at = int(&row["removed_ns"]);
    faults.expect((before_ns..=after_ns).contains(&at), || {
        format!("removed at {at}, in fact from {before_ns} to {after_ns}")
    });
    let kept = int(&row["peak_at_removal"]);
    faults.expect(kept == peak, || format!("peak {kept}, the kernel's own {peak}"));
    let kept = int(&row["usage_at_removal"]);
    faults.expect((usage - stock()..=usage).contains(&kept), || format!("charge {kept}, it was {usage}"));
    faults.expect(kept >= 16 * MIB, || format!("the file stays charged, charge {kept}"));
    let highest = oracle::highest(oracle::series(&recording, &path), names().usage).unwrap();
    faults.expect(near(highest, &(peak..=peak), stock()), || {
        format!("highest reading {highest} of a lasting peak of {peak}")
    });
    // Its parent, which is the target, had all of it.
    let root = &recorded.show()["planes"]["cgroup"]["roots"][0];
    faults.expect(root["path"] == own.path && int(&root["kernel_peak"]) >= peak, || format!("root {root}"));
    faults.finish();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn processes_are_resident_as_the_kernel_says() {
    let dir = support::disk_dir();
    let truth = support::path(&dir, "truth.json");
    let line = format!("alloc --anon 24M --shmem 8M --children 3 --child-anon 6M --hold 4s --output {truth}");
    let mut running = oracle::start(&support::path(&dir, "r.json"), "", &line);
    let pid = int(&running.phase("hold")["pid"]);
    let path = cgroup::of_process(u32::try_from(pid).unwrap()).unwrap();
    // Counters of a process that sleeps are exact once its CPUs have handed in theirs.
    std::thread::sleep(oracle::SETTLE);
    let pids = Files::of(&path).text("cgroup.procs");
    let kernel: BTreeMap<i64, [i64; 4]> =
        pids.lines().map(|pid| (pid.parse().unwrap(), status(pid))).collect();
    let at_ns = oracle::monotonic_ns();
    let recorded = running.finish().exited(0);
    let show = recorded.show_at(at_ns);

    let mut faults = Faults::default();
    recorded.whole(&mut faults);
    assert_eq!(kernel.len(), 4, "the workload and its children: {kernel:?}");
    for (pid, [anon, file, shmem, swap]) in &kernel {
        let rows: Vec<_> = array(&show["processes"]).iter().filter(|row| row["pid"] == *pid).collect();
        faults.expect(rows.len() == 1, || format!("process {pid} has {} rows", rows.len()));
        let Some(row) = rows.first() else { continue };
        for (column, truth) in [("rss_anon", anon), ("rss_file", file), ("rss_shmem", shmem), ("swap", swap)]
        {
            let shown = &row["at"][column];
            faults.expect(shown == truth, || format!("{pid}: {column} {shown}, the kernel says {truth}"));
        }
        faults.expect(text(&row["cgroup"]) == path, || format!("{pid}: in {}", row["cgroup"]));
    }
    faults.finish();
}

/// Resident and swapped memory of a process by kind, in bytes.
fn status(pid: &str) -> [i64; 4] {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    ["RssAnon:", "RssFile:", "RssShmem:", "VmSwap:"].map(|key| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.split_whitespace().next().unwrap().parse::<i64>().unwrap() << 10
    })
}
