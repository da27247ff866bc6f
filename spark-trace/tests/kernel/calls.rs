//! System calls of a process about memory, by each way in which the kernel shows them. The process is this one, so what each
//! call did and what it read is known to the byte.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::Value;
use spark_trace_common::hook::HOOKS;

use crate::support::process::Running;
use crate::support::{self, MIB, array, bpf, cgroup, int, json, record, text, workload};

/// Lengths of the mappings that the calls below make: no other mapping of this process has one.
const MAPPED: usize = 3 << 20;
const MOVED: usize = 37 << 20;
const GROWN: usize = 16 << 20;
const FIRST_GROWN: usize = 19 << 20;
/// ... and would make, where they do not fail.
const REFUSED: usize = 41 << 20;
/// The last call's.
const LAST: usize = 43 << 20;

/// So often a file is read in parts: one that is not read within some time counts as whole, which depends on the machine.
const TRIES: usize = 10;

const LIMIT: i64 = 77 * MIB;

/// Options that leave out more and more of the ways that carry hook `mapping`.
fn ways() -> impl Iterator<Item = Vec<String>> {
    let hook = HOOKS.iter().find(|hook| hook.name == "mapping").unwrap();
    let without = |candidates: usize| {
        let out = hook.candidates[..candidates].iter();
        out.map(|candidate| format!("--exclude-mechanism=mapping:{}", candidate.mechanism.as_str())).collect()
    };
    (0..hook.candidates.len()).map(without)
}

/// What carried hook `mapping`. The last way is one that every kernel has; the first is the one where another hook has it.
fn mechanism(recording: &Value) -> String {
    let hooks = array(&recording["health"]["hooks"]);
    let row = |name: &str| hooks.iter().find(|hook| hook["name"] == name).unwrap();
    let mapping = row("mapping");
    assert_eq!(mapping["verdict"], "ok", "{mapping}");
    let is_out = |reason: &str| reason.contains("left out by") || reason.contains("preempts its own code");
    let left_out = mapping["reason"].as_str().is_some_and(is_out);
    let trampolines = row("charge-try")["mechanism"] == "fexit";
    assert_eq!(mapping["mechanism"] == "fexit", trampolines && !left_out, "{mapping}");
    text(&mapping["mechanism"]).to_owned()
}

/// Runs `test` with the options for each way that this kernel has. It gives what carried the hook.
fn by_each_way(test: impl Fn(&[&str]) -> String) {
    let mut seen: Vec<String> = Vec::new();
    for options in ways() {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let mechanism = test(&options);
        println!("{options:?}: {mechanism}");
        assert!(options.iter().all(|option| !option.ends_with(&format!(":{mechanism}"))), "{options:?}");
        seen.push(mechanism);
    }
    assert_eq!(seen.last().unwrap(), "tp_btf");
}

/// What the calls did.
struct Made {
    thread: i64,
    /// Operation, address, length, and former address, in order.
    mappings: Vec<(&'static str, u64, i64, Option<u64>)>,
    meminfo: String,
    in_parts: Vec<String>,
    statm: String,
    info: libc::sysinfo,
}

/// Maps so many bytes that nobody touches.
fn map(length: usize) -> *mut libc::c_void {
    // SAFETY: a new mapping, wherever the kernel has room.
    let start = unsafe {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0)
    };
    assert_ne!(start, libc::MAP_FAILED);
    start
}

/// Reads a file that is made as it is read, by so many bytes at a time.
fn read_by(path: &Path, bytes: usize) -> String {
    let (mut file, mut all, mut part) = (File::open(path).unwrap(), Vec::new(), vec![0; bytes]);
    loop {
        match file.read(&mut part).unwrap() {
            0 => return String::from_utf8(all).unwrap(),
            length => all.extend_from_slice(&part[..length]),
        }
    }
}

fn make_calls(limit: &Path) -> Made {
    // SAFETY: mappings of this function's own, of which nothing is touched; the heap only grows, into room that
    // the allocator takes for somebody else's; `info` has room for what the kernel writes.
    unsafe {
        let thread = libc::gettid().into();
        let mapped = map(MAPPED);
        assert_eq!(libc::madvise(mapped, MAPPED, libc::MADV_DONTNEED), 0);
        let moved = libc::mremap(mapped, MAPPED, MOVED, libc::MREMAP_MAYMOVE);
        assert_ne!(moved, libc::MAP_FAILED);
        // Not at the start of a page.
        assert_eq!(libc::munmap(moved.add(1), REFUSED), -1);
        assert_eq!(libc::munmap(moved, MOVED), 0);
        // Growth is by the end of the heap at the event before: the first one brings what came in small steps, too.
        assert_ne!(libc::sbrk(FIRST_GROWN.cast_signed()) as isize, -1);
        let heap = libc::sbrk(GROWN.cast_signed());
        assert_ne!(heap as isize, -1);
        let meminfo = read_by(Path::new("/proc/meminfo"), 1 << 16);
        let in_parts = (0..TRIES).map(|_| read_by(Path::new("/proc/meminfo"), 600)).collect();
        let mut statm = [0; 256];
        let length = File::open("/proc/self/statm").unwrap().read_at(&mut statm, 0).unwrap();
        read_by(limit, 64);
        let mut info = std::mem::zeroed();
        assert_eq!(libc::sysinfo(&raw mut info), 0);
        let last = map(LAST);
        assert_eq!(libc::munmap(last, LAST), 0);
        let of = |op, at: *mut libc::c_void, length: usize, from: Option<*mut libc::c_void>| {
            (op, at as u64, length as i64, from.map(|from| from as u64))
        };
        let mappings = vec![
            of("mmap", mapped, MAPPED, None),
            of("madvise", mapped, MAPPED, None),
            of("mremap", moved, MOVED, Some(mapped)),
            of("munmap", moved, MOVED, None),
            of("brk", heap.add(GROWN), GROWN, None),
        ];
        let statm = String::from_utf8(statm[..length].to_vec()).unwrap();
        Made { thread, mappings, meminfo, in_parts, statm, info }
    }
}

/// Figures of a text like /proc/meminfo, in bytes.
fn figures(text: &str) -> Vec<(String, i64)> {
    let line = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_owned(), value.trim().strip_suffix(" kB")?.parse::<i64>().ok()? << 10))
    };
    text.lines().filter_map(line).collect()
}

fn values(query: &Value) -> Vec<(String, i64)> {
    query["values"].as_object().unwrap().iter().map(|(name, value)| (name.clone(), int(value))).collect()
}

fn sorted(mut figures: Vec<(String, i64)>) -> Vec<(String, i64)> {
    figures.sort();
    figures
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn each_way_shows_calls_and_answers_as_the_caller_has_them() {
    let dir = support::disk_dir();
    let own = cgroup::Own::create("calls");
    let limit = own.dir.join(if cgroup::memory_root().1 { "memory.max" } else { "memory.limit_in_bytes" });
    std::fs::write(&limit, LIMIT.to_string()).unwrap();
    by_each_way(|options| {
        let pid = std::process::id();
        let target = ["--system-calls", "on", "--pid", &pid.to_string()];
        let running =
            Running::start(&support::path(&dir, "r.json"), &[options, &["--force"], &target].concat());
        running.follows(pid);
        running.reads(1);
        // Of a thread that has called nothing else.
        let made = std::thread::scope(|scope| scope.spawn(|| make_calls(&limit)).join().unwrap());
        running.has_entry("the last call", |entry| {
            entry["entry"] == "mapping" && entry["op"] == "munmap" && int(&entry["length"]) == LAST as i64
        });
        running.signal(libc::SIGTERM);
        let recording = running.finish().exited(0).recording();
        check(&recording, pid, &made, &limit);
        mechanism(&recording)
    });
}

fn check(recording: &Value, pid: u32, made: &Made, limit: &Path) {
    let provenance = &recording["provenance"];
    let rows = array(&provenance["mappings"]);
    let lengths = [MAPPED, MOVED, GROWN, REFUSED].map(|length| length as i64);
    let mappings: Vec<_> = rows
        .iter()
        .filter(|row| row["pid"] == pid && lengths.contains(&int(&row["length"])))
        .map(|row| (text(&row["op"]), int(&row["address"]) as u64, int(&row["length"]), row["from"].as_u64()))
        .collect();
    assert_eq!(mappings, made.mappings);
    let mut queries: Vec<_> =
        array(&provenance["queries"]).iter().filter(|query| int(&query["tid"]) == made.thread).collect();
    queries.sort_by_key(|query| int(&query["at_ns"]));
    let interfaces: Vec<_> = queries.iter().map(|query| text(&query["interface"])).collect();
    let name = limit.file_name().unwrap().to_str().unwrap();
    let expected = ["/proc/meminfo"].repeat(1 + TRIES).into_iter();
    let expected: Vec<_> = expected.chain(["/proc/PID/statm", name, "sysinfo"]).collect();
    assert_eq!(interfaces, expected);
    let (whole, in_parts, [statm, limited, info]) =
        (queries[0], &queries[1..=TRIES], [1, 2, 3].map(|more| queries[TRIES + more]));
    // Of one read(2) no more is taken than the first KiB.
    let begins = &made.meminfo[..made.meminfo[..1024].rfind('\n').unwrap() + 1];
    assert_eq!(sorted(values(whole)), sorted(figures(begins)));
    // A file that is read in parts is one query, so each part must be where it belongs.
    let read = in_parts.iter().zip(&made.in_parts).map(|(query, text)| (values(query), figures(text)));
    let read: Vec<_> = read.map(|(shown, read)| (sorted(shown), sorted(read))).collect();
    assert!(read.iter().all(|(shown, read)| shown.iter().all(|figure| read.contains(figure))), "{read:?}");
    assert!(read.iter().any(|(shown, read)| shown == read), "{read:?}");
    let pages: i64 = made.statm.split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(int(&statm["values"]["resident"]), pages * int(&recording["host"]["page_size"]));
    assert_eq!(int(&limited["values"]["bytes"]), LIMIT);
    let unit = i64::from(made.info.mem_unit);
    let ram = [made.info.totalram, made.info.freeram].map(|ram| ram as i64 * unit);
    assert_eq!(ram, ["totalram", "freeram"].map(|name| int(&info["values"][name])));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn each_way_counts_small_mappings_and_knows_the_caller_of_large_ones() {
    let dir = support::disk_dir();
    let truth = support::path(&dir, "truth.json");
    let line = format!(
        "--force -- {} alloc --anon-untouched 64M --small-mappings 100 --hold 100ms --output {truth}",
        workload()
    );
    by_each_way(|options| {
        let line = format!("{} {line}", options.join(" "));
        let recording = record(&support::path(&dir, "r.json"), &line).exited(0).recording();
        let (truth, provenance) = (json(&truth), &recording["provenance"]);
        let source =
            array(&truth["sources"]).iter().find(|source| source["kind"] == "anon-untouched").unwrap();
        let mut rows = array(&provenance["mappings"]).iter();
        let row = rows.find(|row| row["op"] == "mmap" && row["address"] == source["address"]).unwrap();
        assert_eq!((&row["pid"], int(&row["length"])), (&truth["pid"], 64 * MIB));
        let stacks = array(&provenance["stacks"]);
        let stack = stacks.iter().find(|s| s["id"] == row["stack"] && s["space"] == "user").unwrap();
        let symbols = array(&provenance["symbols"]);
        let name = |frame: &Value| symbols[usize::try_from(int(frame)).unwrap()]["name"].as_str();
        let names: Vec<_> = array(&stack["frames"]).iter().filter_map(name).collect();
        assert!(names.iter().any(|name| name.contains("base_pages")), "{names:?}");
        let processes = array(&provenance["processes"]);
        let process = processes.iter().rfind(|process| process["pid"] == truth["pid"]).unwrap();
        let calls = int(&process["small_mmap_calls"]);
        // A program also maps some for itself.
        assert!((100..200).contains(&calls), "{calls} small mappings counted, 100 made");
        mechanism(&recording)
    });
}

/// Nothing of spark-trace's runs at the end of other system calls where the hook is at their functions.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn only_the_last_way_is_at_every_system_call() {
    let dir = support::disk_dir();
    by_each_way(|options| {
        let target = ["--force", "--", "sleep", "600"];
        let running = Running::start(&support::path(&dir, "r.json"), &[options, &target].concat());
        running.reads(1);
        let attached = bpf::tracepoints_of(running.pid());
        running.signal(libc::SIGTERM);
        let mechanism = mechanism(&running.finish().recording());
        assert!(attached.contains("sched_process_exec"), "{attached:?}");
        assert_eq!(attached.contains("sys_exit"), mechanism == "tp_btf", "{attached:?}");
        mechanism
    });
}
