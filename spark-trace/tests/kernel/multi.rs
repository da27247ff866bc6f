//! Calls of a CUDA driver, by both mechanisms that can carry them. The driver is simulated: no GPU is needed.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use aya::maps::{MapData, RingBuf};
use serde_json::Value;
use spark_trace_agent::attach_plan::HookSelection;
use spark_trace_agent::{
    bpf::{Attached, Object},
    btf::Btf,
    cgroup::Layout,
    offsets::{self, Settings},
};
use spark_trace_common::hook::{Mechanism, Profile};
use spark_trace_recording::verdict::Verdict;
use tempfile::NamedTempFile;

use crate::support::{self, Recorded, array, int, text};

/// Blanks separate the words.
const LOAD: &str = "--device 64MiB --device 1MiBx20 --pinned 16MiB --hold 200ms --query";

/// The simulated driver, which cargo builds beside this program.
fn driver() -> PathBuf {
    std::env::current_exe().unwrap().with_file_name("libspark_trace_simulated_cuda.so")
}

fn words(workload: &str, driver: &Path) -> Vec<String> {
    let driver = driver.display().to_string();
    [workload, "cuda-alloc", "--driver", &driver]
        .into_iter()
        .chain(LOAD.split_whitespace())
        .map(ToOwned::to_owned)
        .collect()
}

fn recorded(
    dir: &tempfile::TempDir,
    name: &str,
    options: &[&str],
    command: &[String],
) -> (Recorded, Duration) {
    let library = driver();
    let options = [&["--quiet", "--cuda-library", library.to_str().unwrap()], options, &["--"]].concat();
    let words: Vec<&str> = options.into_iter().chain(command.iter().map(String::as_str)).collect();
    let start = Instant::now();
    let recorded = support::record_words(&support::path(dir, name), &words).exited(0);
    (recorded, start.elapsed())
}

fn hook(recording: &Value) -> Value {
    let hooks = array(&recording["health"]["hooks"]);
    hooks.iter().find(|hook| hook["name"] == "library-call").unwrap().clone()
}

/// What was allocated, without what differs between any two runs: process, numbers of stacks, and instants.
fn allocated(recording: &Value) -> Vec<Value> {
    let rows = array(&recording["provenance"]["cuda_allocs"]).iter().map(|row| {
        let mut row = row.clone();
        let object = row.as_object_mut().unwrap();
        assert!(object.remove("pid").is_some_and(|pid| int(&pid) > 0));
        assert!(object.remove("stack").is_some_and(|stack| !stack.is_null()));
        let live = object.remove("live").unwrap();
        assert_eq!(array(&live).last().unwrap(), 0, "all of it is freed");
        row
    });
    rows.collect()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn one_link_for_a_library_reports_the_same_as_one_for_each_function() {
    let dir = support::disk_dir();
    let command = words(&support::cuda_workload(), &driver());
    let before = support::bpf::ids();
    let (multi, took) = recorded(&dir, "multi.json", &[], &command);
    let left = support::bpf::left_behind(&before, &command[0]);
    assert_eq!(left, support::bpf::Ids::default(), "left attached");
    let (single, longer) = recorded(&dir, "single.json", &["--exclude-mechanism", "uprobe.multi"], &command);
    println!("through one link {took:?}, with a link for each function {longer:?}");
    let left = support::bpf::left_behind(&before, &command[0]);
    assert_eq!(left, support::bpf::Ids::default(), "left attached");

    let (multi, single) = (multi.recording(), single.recording());
    let first = hook(&multi);
    if first["mechanism"] == "uprobe" {
        skipped(text(&first["reason"]));
        return;
    }
    for (recording, mechanism, reason) in [
        (&multi, "uprobe.multi", Value::Null),
        (&single, "uprobe", "uprobe.multi: left out by --exclude-mechanism".into()),
    ] {
        let hook = hook(recording);
        assert_eq!((&hook["mechanism"], &hook["verdict"]), (&mechanism.into(), &"ok".into()), "{hook}");
        assert_eq!((&hook["reason"], &hook["lost"]), (&reason, &0.into()), "{hook}");
        // The kernel measures in a part of the time only: a short run may miss it.
        assert!(int(&hook["run_time_ns"]) >= 0, "{hook}");
        assert_eq!(support::losses(&recording["health"]).0, 0, "{}", recording["health"]["losses"]);
        let library = &recording["health"]["libraries"][0];
        assert!(library["verdict"] == "ok" && int(&library["attached"]) >= 30, "{library}");
    }
    let (multi_hook, single_hook) = (hook(&multi), hook(&single));
    assert_eq!(multi_hook["hits"], single_hook["hits"]);
    let rows = allocated(&multi);
    let total: i64 = rows.iter().map(|row| int(&row["bytes_allocated"])).sum();
    assert_eq!(total, (64 + 20 + 16) << 20, "{rows:?}");
    assert_eq!(rows, allocated(&single));
    let queries = |recording: &Value| array(&recording["provenance"]["queries"]).len();
    assert!(queries(&multi) > 0 && queries(&multi) == queries(&single));
}

/// Kernels before 6.6 have no link for several functions.
fn skipped(reason: &str) {
    println!("SKIPPED: uprobe.multi: unsupported: {reason}");
}

fn without_one_link(hook: &Attached) -> bool {
    let without = hook.mechanism == Some(Mechanism::Uprobe);
    if without {
        skipped(hook.reason.as_deref().unwrap_or_default());
    }
    without
}

/// As a session does it: the ring buffer is taken out, and kept, before anything is attached.
fn loaded(choice: &HookSelection) -> (Object, RingBuf<MapData>) {
    let btf = Btf::from_kernel().unwrap();
    let settings = Settings {
        whole_system: false,
        all_pages: false,
        min_region: 1 << 20,
        python_min: None,
        unwind_min: None,
    };
    let config = offsets::resolve(&btf, &Layout::detect().unwrap(), settings).unwrap();
    let mut object = Object::load(None, &config, 1 << 16).unwrap();
    let events = object.take_events().unwrap();
    object.attach(choice, &btf).unwrap();
    (object, events)
}

fn without_multi() -> HookSelection {
    HookSelection { exclude_mechanisms: vec![Mechanism::UprobeMulti.into()], ..Profile::Light.into() }
}

fn library_hook(object: &Object) -> Attached {
    object.hooks().iter().find(|hook| hook.name == "library-call").unwrap().clone()
}

/// A file that nobody runs: the kernel looks at code when it is mapped, and any place will do.
fn unmapped_file() -> NamedTempFile {
    let file = NamedTempFile::new_in(support::disk_parent()).unwrap();
    file.as_file().set_len(1 << 16).unwrap();
    file
}

fn functions(count: u64) -> Vec<(u64, u64)> {
    (0..count).map(|i| (64 * i, i)).collect()
}

/// Links that this process has open of one of the `kinds`, by the kernel.
fn links(kinds: &[&str]) -> usize {
    let infos = std::fs::read_dir("/proc/self/fdinfo").unwrap().flatten();
    let texts = infos.filter_map(|info| std::fs::read_to_string(info.path()).ok());
    let is_one = |text: &String| {
        text.lines()
            .filter_map(|line| line.strip_prefix("link_type:"))
            .any(|kind| kinds.contains(&kind.trim()))
    };
    texts.filter(is_one).count()
}

/// Newer kernels give those at returns a name of their own.
const MULTI: &[&str] = &["uprobe_multi", "uretprobe_multi"];
const SINGLE: &[&str] = &["perf"];

#[test]
#[ignore = "needs root: cargo xtask test"]
fn functions_of_several_libraries_attach_and_detach_at_once() {
    let (mut object, _events) = loaded(&Profile::Light.into());
    let hook = library_hook(&object);
    if without_one_link(&hook) {
        return;
    }
    assert_eq!((hook.mechanism, hook.verdict), (Some(Mechanism::UprobeMulti), Verdict::NotApplicable));
    let memory = object.memory().unwrap();

    let files = [unmapped_file(), unmapped_file(), unmapped_file()];
    let start = Instant::now();
    for file in &files {
        assert_eq!(object.attach_functions(file.path(), &functions(50)), []);
    }
    let attached = start.elapsed();
    let hook = library_hook(&object);
    assert_eq!((hook.mechanism, hook.verdict), (Some(Mechanism::UprobeMulti), Verdict::Ok));
    assert_eq!(hook.reason, None);
    assert_eq!((links(MULTI), links(SINGLE)), (6, 0), "entries and returns of each file");
    assert_eq!(object.memory(), Some(memory), "other programs were loaded for it");

    let start = Instant::now();
    object.detach_functions();
    let detached = start.elapsed();
    println!("3 x 50 functions: attached in {attached:?}, detached in {detached:?}");
    assert_eq!(links(MULTI), 0);
    // One link for each of the 150 took ten times as long.
    assert!(attached + detached < support::limit() / 20, "{attached:?}, {detached:?}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_library_that_fails_leaves_the_others_alone() {
    let (mut object, _events) = loaded(&Profile::Light.into());
    if without_one_link(&library_hook(&object)) {
        return;
    }
    let (good, other) = (unmapped_file(), unmapped_file());
    assert_eq!(object.attach_functions(good.path(), &functions(2)), []);
    // A place behind the file's end: the kernel refuses a link with it, and of single ones this.
    let failed = object.attach_functions(other.path(), &[(0, 0), (1 << 20, 1)]);
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(failed[0].0 == 1 << 20 && failed[0].1.starts_with("uprobe.multi: attach: "), "{failed:?}");
    assert!(failed[0].1.contains("; uprobe: "), "{failed:?}");
    assert_eq!((links(MULTI), links(SINGLE)), (2, 2));
    let failed = object.attach_functions(Path::new("/no/such/library"), &functions(2));
    assert_eq!(failed.len(), 2, "{failed:?}");

    let hook = library_hook(&object);
    assert_eq!((hook.mechanism, hook.verdict), (Some(Mechanism::UprobeMulti), Verdict::Ok));
    let reason = hook.reason.unwrap();
    assert_eq!(reason.matches("uprobe.multi: attach: ").count(), 2, "{reason}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn without_links_for_many_functions_each_has_its_own() {
    let (mut object, _events) = loaded(&without_multi());
    let hook = library_hook(&object);
    assert_eq!((hook.mechanism, hook.verdict), (Some(Mechanism::Uprobe), Verdict::NotApplicable));
    let reason = hook.reason.unwrap();
    assert!(reason.contains("no CUDA driver") && reason.contains("uprobe.multi: left out"), "{reason}");

    let file = unmapped_file();
    let count = 3;
    let start = Instant::now();
    assert_eq!(object.attach_functions(file.path(), &functions(count)), []);
    let attached = start.elapsed();
    let hook = library_hook(&object);
    assert_eq!((hook.mechanism, hook.verdict), (Some(Mechanism::Uprobe), Verdict::Ok));
    assert_eq!(hook.reason.as_deref(), Some("uprobe.multi: left out by --exclude-mechanism"));
    assert_eq!((links(MULTI), links(SINGLE)), (0, 2 * count as usize));
    let start = Instant::now();
    object.detach_functions();
    println!("{count} functions, one by one: attached in {attached:?}, detached in {:?}", start.elapsed());
    assert_eq!(links(SINGLE), 0);
}
