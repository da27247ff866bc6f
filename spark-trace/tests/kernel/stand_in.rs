//! Pages that NVIDIA's kernel modules take, on the modules that stand in for them (testing/stand-in/): the kernel's own pages
//! and cgroups, functions of the real names, no GPU. Truth is the workload's report and the kernel's files.
//!
//! What is looked at where the machine's memory is at its peak stays for 3 s: levels are not read while stacks are, which an
//! emulated CPU that shares its machine may need a second for.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::ledger::source_row;
use crate::support::stand_in::{during, pooled, stand_in};
use crate::support::{self, Faults, MIB, Recorded, array, cgroup, int, json, record, source, text, workload};

/// Records `driver-alloc LINE`; gives the workload's report too.
fn recorded(dir: &TempDir, name: &str, line: &str) -> (Recorded, Value) {
    let truth = support::path(dir, &format!("{name}.truth.json"));
    let line = format!("-- {} driver-alloc {line} --output {truth}", workload());
    let recorded = record(&support::path(dir, &format!("{name}.json")), &line).exited(0);
    (recorded, json(truth))
}

/// A hook, where this kernel can carry it: what it cannot load or attach is a fault.
fn carried<'a>(recording: &'a Value, name: &str) -> Option<&'a Value> {
    let hook = array(&recording["health"]["hooks"]).iter().find(|hook| hook["name"] == name).unwrap();
    match text(&hook["verdict"]) {
        "ok" => Some(hook),
        "off" | "unsupported" | "not-applicable" => {
            println!("{name} is not there: {}", hook["reason"]);
            None
        }
        verdict => panic!("{name}: {verdict}: {}", hook["reason"]),
    }
}

/// What the target had requested of the driver and not freed, by kind; nothing where no hook sees it.
fn requested_bytes<'a>(recording: &Value, show: &'a Value) -> Option<Vec<(&'a str, i64)>> {
    carried(recording, "nvidia-alloc")?;
    let rows = array(&show["driver_allocs"]).iter().filter(|row| row["pid"] != 0);
    let mut kinds: BTreeMap<&str, i64> = BTreeMap::new();
    for row in rows {
        *kinds.entry(text(&row["kind"])).or_default() += int(&row["live"]);
    }
    Some(kinds.into_iter().filter(|(_, live)| *live > 0).collect())
}

/// Runs of a hook that is attached.
fn hits(recording: &Value, name: &str) -> Option<i64> {
    Some(int(&carried(recording, name)?["hits"]))
}

/// Bytes of the kernel stacks of one source.
fn stacks<'a>(report: &'a Value, slug: &'a str) -> impl Iterator<Item = &'a Value> {
    array(&report["stacks"]).iter().filter(move |row| row["source"] == slug)
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn system_memory_is_attributed_to_cgroup_and_stack_and_charged_to_nobody() {
    let Some(_modules) = stand_in(false) else { return };
    let dir = support::disk_dir();
    let line = "--bytes 512M --page-size 4K --calls 8 --lock 32M --hold 3s";
    let (recorded, truth) = recorded(&dir, "a", line);
    let (show, recording) = (recorded.show(), recorded.recording());
    let mut faults = Faults::default();

    let taken = 512 * MIB;
    assert_eq!(int(&truth["sources"][0]["bytes"]), taken);
    faults.near("nvidia-sysmem", source(&show, "system", "nvidia-sysmem"), taken);
    // 32 MiB locked, and what a process needs.
    let charged = int(&show["planes"]["cgroup"]["expected"]);
    faults.expect(charged < 64 * MIB, || format!("{charged} bytes are charged to the target"));
    let system = &show["planes"]["system"];
    let unexplained = int(&system["residual"]);
    faults.expect(unexplained.abs() <= taken / 100, || format!("{unexplained} of its growth unattributed"));

    // Stacks and calls of the peak are of the cgroup's, which is charged for none of it.
    let during_hold = recorded.show_with(&["--at", &during(&truth, "hold")]);
    let rows: Vec<_> = stacks(&during_hold, "nvidia-sysmem").collect();
    let bytes = rows.iter().map(|row| int(&row["bytes"])).sum();
    faults.near("by stacks of the driver", bytes, taken);
    let target = text(&recording["target"]["cgroups"][0]["path"]);
    let [row] = rows[..] else { panic!("{} stacks: {rows:#?}", rows.len()) };
    faults.expect(row["charged"] == false, || format!("charged: {row}"));
    faults.expect(row["cgroups"] == serde_json::json!([target]), || format!("cgroups: {row}, not {target}"));
    faults.expect(text(&row["label"]).starts_with("RM system memory"), || format!("label: {row}"));
    let frames: Vec<_> = array(&row["frames"]).iter().map(text).collect();
    for function in
        ["nv_alloc_system_pages [nvidia]", "nv_alloc_pages [nvidia]", "sysmemConstruct_IMPL [nvidia]"]
    {
        faults.expect(frames.contains(&function), || format!("no {function} in {frames:?}"));
    }
    // The functions on the driver's own, where kprobes see them.
    let requested = requested_bytes(&recording, &during_hold);
    let calls_are_seen = requested.is_some();
    faults.expect(
        requested.is_none_or(|requested| requested == [("pinned", 32 * MIB), ("sysmem", taken)]),
        || format!("requested and not freed: {}", during_hold["driver_allocs"]),
    );
    // What it has pinned is a level, too, and details are read at its peak.
    if calls_are_seen {
        let pinned = array(&recording["samples"]["system"]["columns"]["driver.nvidia_pinned"]);
        let most = pinned.iter().filter_map(Value::as_i64).max();
        faults.expect(most == Some(32 * MIB), || format!("pinned at most {most:?}"));
    }
    let read_at = array(&recording["provenance"]["instants"]);
    let why = |instant: &Value| instant["why"] == "driver-peak";
    faults.expect(read_at.iter().any(why), || format!("details were read at {read_at:?}"));
    // And then its pages are counted by the call, not one by one.
    if let Some(calls) = hits(&recording, "nvidia-pages") {
        let pages = taken / support::oracle::page_size();
        faults.expect(calls == 8, || format!("{calls} calls took pages"));
        let single = hits(&recording, "page-alloc").unwrap();
        faults.expect(single < pages / 4, || format!("{single} pages counted one by one, of {pages}"));
    }
    let process = array(&show["processes"]).iter().find(|row| row["pid"] == truth["pid"]);
    faults.expect(process.is_some_and(|row| row["target"] == true), || "its process is not listed".into());
    // Nothing of it may be taken for a driver's.
    let nvidia = &recording["host"]["nvidia"];
    faults
        .expect(nvidia["driver_version"] == "stand-in" && nvidia["simulated"] == true, || nvidia.to_string());
    for said in [&recorded.stderr, &recorded.table()] {
        faults.expect(said.contains("STAND-IN"), || format!("does not say that it is a stand-in: {said}"));
    }
    faults.finish();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn without_kprobes_a_verdict_says_so_and_the_pages_are_counted_one_by_one() {
    let Some(_modules) = stand_in(false) else { return };
    let dir = support::disk_dir();
    let truth = support::path(&dir, "truth.json");
    let line = format!(
        "--exclude-mechanism kprobe -- {} driver-alloc --bytes 128M --calls 8 --hold 3s --output {truth}",
        workload()
    );
    let recorded = record(&support::path(&dir, "a.json"), &line).exited(0);
    let (show, recording) = (recorded.show(), recorded.recording());
    let mut faults = Faults::default();
    let truth = json(&truth);
    let taken = int(&truth["sources"][0]["bytes"]);
    // During the hold: stacks of the peak are of the cgroup's, which is charged for none of it and may be highest when
    // the program writes what it has done.
    let during_hold = recorded.show_with(&["--at", &during(&truth, "hold")]);
    faults.near(
        "nvidia-sysmem",
        int(&source_row(&during_hold["planes"]["system"], "nvidia-sysmem")["bytes"]),
        taken,
    );
    let bytes = stacks(&during_hold, "nvidia-sysmem").map(|row| int(&row["bytes"])).sum();
    faults.near("by stacks of the driver", bytes, taken);
    for name in ["nvidia-alloc", "nvidia-free", "nvidia-pages", "nvidia-pin", "nvidia-unpin"] {
        let hook = array(&recording["health"]["hooks"]).iter().find(|hook| hook["name"] == name).unwrap();
        let said = text(&hook["reason"]).contains("left out by --exclude-mechanism");
        faults.expect(hook["verdict"] == "off" && said, || hook.to_string());
    }
    faults
        .expect(array(&show["driver_allocs"]).is_empty(), || format!("requested: {}", show["driver_allocs"]));
    let single = hits(&recording, "page-alloc").unwrap();
    faults.expect(single >= taken / support::oracle::page_size(), || format!("{single} pages counted"));
    faults.finish();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn profile_deep_counts_no_page_twice() {
    let Some(_modules) = stand_in(false) else { return };
    let dir = support::disk_dir();
    let (output, truth) = (support::path(&dir, "a.json"), support::path(&dir, "truth.json"));
    let line = format!("driver-alloc --bytes 128M --calls 8 --hold 3s --output {truth}");
    let recorded = record(&output, &format!("--profile deep -- {} {line}", workload())).exited(0);
    let (show, recording) = (recorded.show(), recorded.recording());
    let taken = int(&json(truth)["sources"][0]["bytes"]);
    let mut faults = Faults::default();
    let rows: Vec<_> = stacks(&show, "nvidia-sysmem").collect();
    faults.near("by stacks of the driver", rows.iter().map(|row| int(&row["bytes"])).sum(), taken);
    let allocated = rows.iter().map(|row| int(&row["bytes_allocated"])).sum();
    faults.near("allocated by stacks of the driver", allocated, taken);
    // The program that stands in takes what the kernel has skipped, which is little.
    let stood_in = hits(&recording, "page-alloc-nested").unwrap();
    faults.expect(stood_in < taken / support::oracle::page_size() / 100, || format!("{stood_in} stood in"));
    faults.finish();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn profile_light_has_the_requests_to_the_driver() {
    let Some(_modules) = stand_in(false) else { return };
    let dir = support::disk_dir();
    let (output, truth) = (support::path(&dir, "a.json"), support::path(&dir, "truth.json"));
    let line = format!("driver-alloc --bytes 256M --calls 8 --hold 1s --output {truth}");
    let recorded = record(&output, &format!("--profile light -- {} {line}", workload())).exited(0);
    let (show, recording, truth) = (recorded.show(), recorded.recording(), json(truth));
    let Some(requested) = requested_bytes(&recording, &show) else { return };
    let taken = int(&truth["sources"][0]["bytes"]);
    let mut faults = Faults::default();
    faults.near("nvidia-sysmem", source(&show, "system", "nvidia-sysmem"), taken);
    let unexplained = int(&show["planes"]["system"]["residual"]);
    faults.expect(unexplained.abs() <= taken / 50, || format!("{unexplained} of its growth unattributed"));
    faults.expect(requested == [("sysmem", taken)], || format!("requested and not freed: {requested:?}"));
    let rows: Vec<_> =
        array(&show["driver_allocs"]).iter().filter(|row| row["pid"] == truth["pid"]).collect();
    let by_rm = |row: &&Value| array(&row["frames"]).iter().any(|f| f == "sysmemConstruct_IMPL [nvidia]");
    faults.expect(!rows.is_empty() && rows.iter().all(by_rm), || format!("stacks: {rows:#?}"));
    faults.expect(hits(&recording, "page-alloc").is_none(), || "pages were counted one by one".into());
    faults.finish();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn contiguous_and_large_pages_count_once() {
    let Some(_modules) = stand_in(false) else { return };
    let dir = support::disk_dir();
    let mut faults = Faults::default();
    for (name, line) in [
        ("contiguous", "--bytes 64M --calls 64 --contiguous --hold 2s"),
        ("large", "--bytes 128M --page-size 64K --calls 2 --hold 2s"),
    ] {
        let (recorded, truth) = recorded(&dir, name, line);
        let taken = int(&truth["sources"][0]["bytes"]);
        // During the hold: at the machine's peak some of it may not be taken yet.
        let show = recorded.show_with(&["--at", &during(&truth, "hold")]);
        let (_, skipped) = support::losses(&show["health"]);
        let shown = int(&source_row(&show["planes"]["system"], "nvidia-sysmem")["bytes"]);
        faults.near(&format!("{name}, {skipped} runs skipped"), shown, taken);
    }
    faults.finish();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_the_driver_takes_more_is_the_difference_of_two_runs() {
    let Some(_modules) = stand_in(false) else { return };
    let dir = support::disk_dir();
    let (a, _) = recorded(&dir, "a", "--bytes 64M --calls 8 --hold 500ms");
    let (b, _) = recorded(&dir, "b", "--bytes 320M --calls 8 --hold 500ms");
    let diff = a.diff_with(&b, &["--plane", "system"]);
    let mut faults = Faults::default();
    let more = 256 * MIB;
    faults.near("nvidia-sysmem", int(&source_row(&diff, "nvidia-sysmem")["delta_bytes"]), more);
    let by_stack = stacks(&diff, "nvidia-sysmem").map(|row| int(&row["delta_bytes"])).sum();
    faults.near("stacks", by_stack, more);
    let notes = diff["comparable"]["notes"].to_string();
    faults.expect(notes.contains("STAND-IN"), || format!("notes: {notes}"));
    faults.finish();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn freed_pages_that_stay_in_the_pool_are_the_pools() {
    let Some(_modules) = stand_in(true) else { return };
    let dir = support::disk_dir();
    let free = support::meminfo("MemFree");
    // The size that every page size has a pool for.
    let line = "--bytes 256M --page-size 64K --calls 8 --hold 1s --hold-release 1500ms";
    let (recorded, truth) = recorded(&dir, "a", line);
    let taken = int(&truth["sources"][0]["bytes"]);
    let mut faults = Faults::default();
    // MemFree is the same before and after: the instants are named, not the peak.
    for (phase, in_use, pooled) in [("hold", taken, 0), ("release", 0, taken)] {
        let show = recorded.show_with(&["--at", &during(&truth, phase)]);
        let then = |slug| int(&source_row(&show["planes"]["system"], slug)["bytes"]);
        faults.near(&format!("{phase}: in use"), then("nvidia-sysmem"), in_use);
        faults.near(&format!("{phase}: in the pool"), then("nvidia-pool"), pooled);
    }
    // The kernel agrees: nobody holds them, and they are not free.
    let missing = free - support::meminfo("MemFree");
    faults.expect(missing > taken / 2, || format!("MemFree is only {missing} lower"));
    // And a shrinker gives them back.
    fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
    let after = record(&support::path(&dir, "b.json"), &format!("-- {} alloc --hold 200ms", workload()));
    let after = after.exited(0).show();
    let left = int(&source_row(&after["planes"]["system"], "nvidia-pool")["bytes_at_end"]);
    faults.expect(left < taken / 10, || format!("{left} bytes are left in the pool after reclaim"));
    faults.finish();
}

/// What `reclaim` announces is what comes back, by the module's own count and by MemFree.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn pools_are_emptied_by_the_bytes_that_were_announced() {
    let Some(_modules) = stand_in(true) else { return };
    let mut faults = Faults::default();
    // Sizes that each kernel here has a pool for.
    for size in ["64K", "2M"] {
        let before = ["driver-alloc", "--bytes", "192M", "--page-size", size, "--hold", "0s"];
        assert!(Command::new(workload()).args(before).output().unwrap().status.success());
    }
    let staged = 384 * MIB;
    support::wait_for("the pools to have them", || (pooled() == staged).then_some(()));
    let reclaim = |options: &[&str]| -> Value {
        let output =
            support::spark_trace().args(["reclaim", "--format", "json"]).args(options).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let shown = reclaim(&["--driver-pools"]);
    faults.near("shown", int(&shown["steps"][0]["expected_bytes"]), staged);
    faults.expect(pooled() == staged, || format!("a dry run left {} bytes", pooled()));
    let free = support::meminfo("MemFree");
    let applied = reclaim(&["--driver-pools", "--apply"]);
    let freed = support::meminfo("MemFree") - free;
    let step = &applied["steps"][0];
    let (expected, given) = (int(&step["expected_bytes"]), int(&step["outcome"]["given_back_bytes"]));
    println!("{expected} bytes announced, {given} given back, {freed} by MemFree, {} left", pooled());
    let within = staged / 20;
    for (what, bytes) in [("announced", expected), ("given back", given), ("by MemFree", freed)] {
        faults.expect((bytes - staged).abs() <= within, || format!("{what}: {bytes} of {staged}: {step}"));
    }
    // A block that the worker is clearing is on neither list: one of each size.
    faults.expect(pooled() <= 3 * MIB, || format!("{} bytes are left", pooled()));
    faults.finish();
    fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn pages_that_a_pool_had_before_are_not_counted_twice() {
    let Some(_modules) = stand_in(true) else { return };
    let dir = support::disk_dir();
    // There are pools for pages of 4 KiB, 64 KiB and 2 MiB, whatever the kernel's are.
    let size = if support::oracle::page_size() == 4 << 10 { "4K" } else { "64K" };
    let before = ["driver-alloc", "--bytes", "96M", "--page-size", size, "--hold", "0s"];
    assert!(Command::new(workload()).args(before).output().unwrap().status.success());
    support::wait_for("the pool to have them", || (pooled() == 96 * MIB).then_some(()));
    let line = format!("--bytes 224M --page-size {size} --calls 1 --hold 1s --hold-release 1500ms");
    let (recorded, truth) = recorded(&dir, "a", &line);
    let (had, taken) = (96 * MIB, 224 * MIB);
    let mut faults = Faults::default();
    for (phase, in_use, pooled) in [("hold", taken - had, 0), ("release", 0, taken)] {
        let show = recorded.show_with(&["--at", &during(&truth, phase)]);
        let then = |slug| int(&source_row(&show["planes"]["system"], slug)["bytes"]);
        faults.near(&format!("{phase}: taken from the kernel and in use"), then("nvidia-sysmem"), in_use);
        faults.near(&format!("{phase}: in the pool"), then("nvidia-pool"), pooled);
    }
    fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
    faults.finish();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn managed_memory_is_charged_to_the_target() {
    let Some(_modules) = stand_in(false) else { return };
    let dir = support::disk_dir();
    let line = "--bytes 128M --page-size 64K --calls 4 --uvm --hold 3s";
    let (recorded, truth) = recorded(&dir, "a", line);
    let show = recorded.show();
    let taken = int(&truth["sources"][0]["bytes"]);
    let mut faults = Faults::default();
    for plane in ["system", "cgroup"] {
        // Cgroup v1 has one figure for all kernel memory, and this in it.
        if plane == "system" || cgroup::memory_root().1 {
            faults.near(plane, source(&show, plane, "nvidia-managed"), taken);
        }
    }
    let rows: Vec<_> = stacks(&show, "nvidia-managed").collect();
    faults.near("stacks", rows.iter().map(|row| int(&row["bytes"])).sum(), taken);
    faults.expect(rows.iter().all(|row| row["charged"] == true), || format!("charged: {rows:?}"));
    let requested = requested_bytes(&recorded.recording(), &show);
    faults.expect(requested.is_none_or(|requested| requested == [("managed", taken)]), || {
        show["driver_allocs"].to_string()
    });
    let expected = int(&show["planes"]["cgroup"]["expected"]);
    faults.expect(expected > taken, || format!("only {expected} bytes are charged to the target"));
    faults.finish();
}

/// Runs, each alone and traced in turn.
const PAIRS: usize = 3;
/// What tracing may make of a driver's call, on hardware.
const BOUND: f64 = 1.05;
/// The same in numbers of instructions. Profile `light` hooks the call; `default` has a program on each page allocation
/// too, which is more than that bound has room for (results/2026-11-22-driver-calls).
const COUNTED: [(&str, f64); 2] = [("light", BOUND), ("default", 1.4)];
/// And where the CPU is emulated and time is time: that says nothing but that all is not far off.
const BOUND_EMULATED: f64 = 3.0;

#[test]
#[ignore = "needs root: cargo xtask test"]
fn tracing_costs_the_drivers_calls_little() {
    let Some(_modules) = stand_in(false) else { return };
    let dir = support::disk_dir();
    // `cargo xtask vm --count-instructions`: costs are numbers of instructions, and the same each time.
    let counted = std::env::var_os("SPARK_TRACE_COUNTS_INSTRUCTIONS").is_some();
    // 2 GiB where the machine has them to spare and the figures mean something.
    let mib = (support::meminfo("MemFree") / MIB / 2).min(2048);
    let mut faults = Faults::default();
    for (profile, counted_bound) in COUNTED {
        let mib = if counted { mib } else { mib.min(512) };
        let (pairs, emulated) = cost_pairs(&dir, profile, mib);
        let mut ratios: Vec<f64> = pairs.iter().map(|(traced, alone)| traced / alone).collect();
        ratios.sort_by(f64::total_cmp);
        let median = ratios[PAIRS / 2];
        let (unit, bound) = match (counted, emulated) {
            (true, _) => ("instructions", counted_bound),
            (false, true) => ("ns of an emulated CPU", BOUND_EMULATED),
            (false, false) => ("ns", BOUND),
        };
        println!(
            "pages of 4 KiB in 8 calls, profile {profile}, CPU time traced to alone: median {median:.3} of {PAIRS} \
             pairs ({:.3} to {:.3}); bytes and (traced, alone) in {unit}: {mib} MiB, {pairs:?}",
            ratios[0],
            ratios[PAIRS - 1],
        );
        faults.expect(median <= bound, || {
            format!("{profile} makes the driver's calls {median:.3} times as long, the bound is {bound}")
        });
    }
    faults.finish();
}

/// CPU time of the calls, traced and alone in turn, and whether the CPU is emulated.
fn cost_pairs(dir: &TempDir, profile: &str, mib: i64) -> (Vec<(f64, f64)>, bool) {
    let line = format!("driver-alloc --bytes {mib}M --page-size 4K --calls 8 --hold 0s");
    let of_calls = |truth: &Value| int(&truth["sources"][0]["detail"]["cpu_ns"]) as f64;
    let mut emulated = false;
    let pairs = (0..PAIRS).map(|pair| {
        let alone = Command::new(workload()).args(line.split_whitespace()).output().unwrap();
        assert!(alone.status.success(), "{}", String::from_utf8_lossy(&alone.stderr));
        let alone: Value = serde_json::from_slice(&alone.stdout).unwrap();
        let (output, truth) = (support::path(dir, &format!("{pair}.json")), support::path(dir, "truth"));
        let traced = format!("--profile {profile} --force -- {} {line} --output {truth}", workload());
        let recorded = record(&output, &traced).exited(0);
        emulated = recorded.recording()["host"]["provenance"] == "emulated";
        (of_calls(&json(&truth)), of_calls(&alone))
    });
    (pairs.collect(), emulated)
}
