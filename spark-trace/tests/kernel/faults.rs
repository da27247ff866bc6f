//! What can go wrong around a recorder: storms, other recorders, limits of its own. However it goes, nothing stays attached,
//! no cgroup is left, the command's exit code is passed on, and what is recorded can be read.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::bpf::{self, Ids};
use crate::support::process::partial;
use crate::support::{
    self, Faults, MIB, Recorded, Running, array, cgroup, int, record, record_words, spark_trace, workload,
};

/// Processes, one after the other.
const FORKS: usize = 20_000;
const CGROUPS: usize = 5_000;
/// More than a process may have (vm.max_map_count is 65530): in two of them.
const MAPPINGS: usize = 50_000;

fn nothing_is_left(what: &str, before: &Ids, recorded: &Recorded, faults: &mut Faults) {
    let left = bpf::left_behind(before, &workload());
    faults.expect(left == Ids::default(), || format!("{what}: attached: {left:?}"));
    let leaves = cgroup::leaves_of(recorded.pid);
    faults.expect(leaves.is_empty(), || format!("{what}: {leaves:?} is left"));
    faults.expect(!recorded.partial().exists(), || format!("{what}: the journal is left"));
}

fn warnings(recording: &Value) -> Vec<&str> {
    array(&recording["health"]["warnings"]).iter().filter_map(Value::as_str).collect()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn twenty_thousand_short_processes_are_seen_or_counted_as_lost() {
    let (dir, before, mut faults) = (support::disk_dir(), bpf::ids(), Faults::default());
    let line = format!("-- {} storm fork --rounds {FORKS}", workload());
    let recorded = record(&support::path(&dir, "r.json"), &line).exited(0);
    let recording = recorded.recording();
    let processes = array(&recording["provenance"]["processes"]);
    let pids: BTreeSet<_> = processes.iter().map(|process| int(&process["pid"])).collect();
    let lost: i64 = array(&recording["health"]["losses"]).iter().map(|loss| int(&loss["count"])).sum();
    // The command is one more. Pids are not used again so soon: there are 4 million.
    let seen = i64::try_from(pids.len()).unwrap();
    let forks = i64::try_from(FORKS).unwrap();
    faults.expect(seen > forks || lost >= forks - seen, || format!("{seen} processes, {lost} losses"));
    nothing_is_left("forks", &before, &recorded, &mut faults);
    recorded.table();
    faults.finish();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn five_thousand_cgroups_below_the_target_do_not_end_it() {
    let (dir, before, mut faults) = (support::disk_dir(), bpf::ids(), Faults::default());
    let (root, _) = cgroup::memory_root();
    // In its own leaf: the command makes the cgroups and removes them. With both versions mounted, the memory
    // controller's line counts.
    let script = format!(
        "own=$({{ grep -E ':([^:]*,)?memory(,[^:]*)?:' /proc/self/cgroup || grep '^0:' /proc/self/cgroup; }} | cut -d: -f3); \
         test \"$own\" != / && cd '{}'\"$own\" && python3 -c 'import os\nfor i in range({CGROUPS}): os.mkdir(\"c%d\" % i); os.rmdir(\"c%d\" % i)' && exit 7",
        root.display()
    );
    let recorded = record_words(&support::path(&dir, "r.json"), &["--", "sh", "-c", &script]).exited(7);
    let recording = recorded.recording();
    let cgroups = array(&recording["target"]["cgroups"]);
    let roots = cgroups.iter().filter(|cgroup| cgroup["root"] == true).count();
    faults.expect(roots == 1, || format!("{roots} roots"));
    nothing_is_left("cgroups", &before, &recorded, &mut faults);
    recorded.table();
    faults.finish();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_hundred_thousand_mappings_do_not_end_it() {
    let (dir, before, mut faults) = (support::disk_dir(), bpf::ids(), Faults::default());
    // Every second page may be read: neighbours are not merged.
    let program = format!(
        "import mmap, ctypes\n\
         whole = mmap.mmap(-1, {MAPPINGS} * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n\
         base = ctypes.addressof(ctypes.c_char.from_buffer(whole))\n\
         libc = ctypes.CDLL(None, use_errno=True)\n\
         for page in range(1, {MAPPINGS}, 2):\n\
         \x20   whole[page * 4096] = 1\n\
         \x20   assert libc.mprotect(ctypes.c_void_p(base + page * 4096), 4096, 1) == 0\n\
         print(sum(1 for _ in open('/proc/self/maps')), flush=True)\n"
    );
    let script = support::path(&dir, "many.py");
    fs::write(&script, program).unwrap();
    let line = format!("python3 {script} & python3 {script}; wait");
    let recorded = record_words(&support::path(&dir, "r.json"), &["--", "sh", "-c", &line]).exited(0);
    let mappings: usize = recorded.stdout.lines().filter_map(|line| line.parse::<usize>().ok()).sum();
    faults.expect(mappings > 2 * MAPPINGS, || format!("the programs had {mappings} mappings"));
    nothing_is_left("mappings", &before, &recorded, &mut faults);
    recorded.table();
    faults.finish();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn two_recorders_and_one_in_another_each_have_their_own_target() {
    let (dir, before, mut faults) = (support::disk_dir(), bpf::ids(), Faults::default());
    let alloc = |mib: u64| format!("{} alloc --anon {mib}M --hold 1s", workload());
    let first = Running::start(&support::path(&dir, "a.json"), &["--", "sh", "-c", &alloc(48)]);
    let second = record(&support::path(&dir, "b.json"), &format!("-- {}", alloc(96))).exited(0);
    let first = first.finish().exited(0);
    let inner = support::path(&dir, "inner.json");
    let nested =
        format!("{} record -q -o {inner} -- {}", spark_trace().get_program().to_str().unwrap(), alloc(64));
    let outer = record(&support::path(&dir, "outer.json"), &format!("-- {nested}")).exited(0);
    let inner =
        Recorded { output: PathBuf::from(&inner), ..record(&support::path(&dir, "c.json"), "-- true") };
    for (what, recorded, mib) in [("first", &first, 48), ("second", &second, 96), ("inner", &inner, 64)] {
        let recording = recorded.recording();
        let roots =
            array(&recording["target"]["cgroups"]).iter().filter(|cgroup| cgroup["root"] == true).count();
        faults.expect(roots == 1, || format!("{what}: {roots} roots"));
        let anon = anon_at_peak(recorded);
        // The workload's own pages and those of sh are far less.
        faults.expect((mib * MIB..(mib + 16) * MIB).contains(&anon), || format!("{what}: anon {anon}"));
    }
    nothing_is_left("outer", &before, &outer, &mut faults);
    faults.finish();
}

fn anon_at_peak(recorded: &Recorded) -> i64 {
    let show = recorded.show();
    let rows = array(&show["planes"]["cgroup"]["sources"]);
    let anon = rows.iter().find(|row| row["source"] == "anon").expect("anon is charged");
    int(&anon["bytes_at_peak"])
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn killed_by_its_own_limit_it_leaves_nothing_attached_and_a_journal() {
    let (dir, before, own) = (support::disk_dir(), bpf::ids(), cgroup::Own::create("small"));
    let (_, v2) = cgroup::memory_root();
    let output = support::path(&dir, "r.json");
    let mut command = spark_trace();
    own.start_in(&mut command);
    let mark = support::path(&dir, "truth");
    let line = format!("{} alloc --anon 16M --hold 60s --output {mark}", workload());
    let words: Vec<_> = ["--"].into_iter().chain(line.split(' ')).collect();
    let running = Running::start_as(command, &output, &words);
    let journal = partial(Path::new(&output));
    running.reads(3);
    // Less than it has: the kernel can only kill it. The command is in a leaf of its own elsewhere.
    let limit = own.dir.join(if v2 { "memory.max" } else { "memory.limit_in_bytes" });
    support::wait_for("the kernel to kill it, or it to shrink", || {
        // A limit below what cannot be reclaimed is refused by cgroup v1 (EBUSY): then in steps.
        let refused = fs::write(&limit, "1048576").is_err();
        let alive = !process_ended(running.pid());
        if refused && alive {
            grow(&own);
        }
        (!alive).then_some(())
    });
    assert_eq!(support::processes_with(&mark).len(), 1, "the command is not in that cgroup: it goes on");
    // It has the recorder's pipes, which `finish` reads to their end.
    support::kill_all_with(&mark);
    let recorded = running.finish();
    assert_eq!(recorded.code, Some(137), "{}", recorded.stderr);
    assert_eq!(bpf::left_behind(&before, &workload()), Ids::default());
    assert!(journal.exists(), "no journal");
    let recovered = support::path(&dir, "recovered.json");
    let recover = spark_trace().args(["recover", "-o", &recovered]).arg(&journal).output().unwrap();
    assert!(recover.status.success(), "{}", String::from_utf8_lossy(&recover.stderr));
    assert!(!array(&support::json(&recovered)["samples"]["system"]["begin_ns"]).is_empty());
}

fn process_ended(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

/// Takes memory in the cgroup, until that has a limit at its usage: whoever is in it next to need a page is killed.
fn grow(own: &cgroup::Own) {
    let usage = fs::read_to_string(own.dir.join("memory.usage_in_bytes")).unwrap_or_default();
    let _ = fs::write(own.dir.join("memory.limit_in_bytes"), usage.trim());
    let mut taker = Command::new(workload());
    taker.args(["alloc", "--anon", "8M"]);
    own.start_in(&mut taker);
    let _ = taker.output();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn few_descriptors_and_little_locked_memory_are_an_error_or_a_warning() {
    let (dir, mut faults) = (support::disk_dir(), Faults::default());
    let limits = [("descriptors", libc::RLIMIT_NOFILE, 16), ("locked memory", libc::RLIMIT_MEMLOCK, 0)];
    for (what, resource, value) in limits {
        let before = bpf::ids();
        let mut command = spark_trace();
        // SAFETY: between fork and exec one async-signal-safe call with plain data.
        unsafe {
            command.pre_exec(move || {
                let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
                if libc::setrlimit(resource, &limit) == 0 {
                    Ok(())
                } else {
                    Err(std::io::Error::last_os_error())
                }
            });
        }
        let output = support::path(&dir, &format!("{value}.json"));
        let recorded = Running::start_as(command, &output, &["--", "sh", "-c", "exit 5"]).finish();
        match recorded.code {
            // Its own error: one, before the command ran.
            Some(1) => {
                faults.expect(recorded.stderr.contains("error:"), || format!("{what}: {}", recorded.stderr))
            }
            Some(5) => {
                let recording = recorded.recording();
                let complete = recording["health"]["complete"] == true && warnings(&recording).is_empty();
                faults.expect(!complete || value == 0, || format!("{what}: {}", recording["health"]));
            }
            other => faults.expect(false, || format!("{what}: {other:?}: {}", recorded.stderr)),
        }
        let left = bpf::left_behind(&before, &workload());
        faults.expect(left == Ids::default(), || format!("{what}: attached: {left:?}"));
    }
    faults.finish();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn top_follows_more_cgroups_than_the_usual_limit_of_open_files_allows() {
    // Nine files of each stay open on cgroup v1.
    let _many: Vec<_> = (0..120).map(|number| cgroup::Own::create(&format!("many-{number}"))).collect();
    let program = spark_trace().get_program().to_owned();
    let once = Command::new("sh")
        .args(["-c", "ulimit -n 8192 && ulimit -S -n 1024 && exec \"$0\" top --once"])
        .arg(program)
        .output()
        .unwrap();
    assert!(once.status.success(), "{}", String::from_utf8_lossy(&once.stderr));
    assert!(!once.stdout.is_empty());
}
