//! Pages of special kinds: of files, huge ones and reserved huge ones, against the kernel's own counts of them.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use serde_json::Value;

use crate::support::cache::resident;
use crate::support::ledger::{file_row, nearest};
use crate::support::oracle::{self, Files, Setting, levels, names, near};
use crate::support::{self, Faults, MIB, array, cgroup, inode, int, json, meminfo, text, workload};

/// What is in the page cache of one of the test's files, and what must be.
struct Known {
    what: &'static str,
    path: String,
    /// By the way it was read: no more than that is brought in.
    expected: i64,
    during: i64,
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn each_file_has_the_pages_that_mincore_counts() {
    let dir = support::disk_dir();
    let [part, sparse, private, written] =
        ["part", "sparse", "private", "written"].map(|name| support::path(&dir, name));
    support::cold_file(&part, 40);
    support::cold_file(&private, 8);
    // Data in the middle, holes around it.
    let file = File::create(&sparse).unwrap();
    file.set_len(24 << 20).unwrap();
    file.write_all_at(&vec![7; 1 << 20], 9 << 20).unwrap();
    file.sync_all().unwrap();
    support::drop_from_cache(&sparse);
    // Its own pages are not what is judged: they are in the page cache before, and charged elsewhere.
    fs::read(workload()).unwrap();
    // Of whole pages, however large they are; one file ends within a page, but in its last block: mincore does not
    // count a page of which only some blocks have been written (mm/mincore.c wants it up to date).
    let page = oracle::page_size();
    let odd = 12 * MIB + page - 100;
    let line = format!(
        "alloc --file-read 16M --file {part} --file-mmap 24M --mmap-file {sparse} --file-private 8M \
         --private-file {private} --file-write {odd} --write-file {written} --no-readahead --keep-files --hold 2s"
    );
    let mut running = oracle::start(&support::path(&dir, "r.json"), "", &line);
    let pid = int(&running.phase("hold")["pid"]);
    let path = cgroup::of_process(u32::try_from(pid).unwrap()).unwrap();
    let known = [
        ("a part of a file", part, 16 * MIB),
        ("a sparse file that is mapped", sparse, 24 * MIB),
        ("a file with private copies", private, 8 * MIB),
        ("a file just written", written, 12 * MIB + page),
    ];
    let known = known.map(|(what, path, expected)| {
        let during = resident(&path);
        Known { what, path, expected, during }
    });
    let recorded = running.finish().exited(0);
    let after: Vec<i64> = known.iter().map(|file| resident(&file.path)).collect();
    let (show, end) = (recorded.show(), recorded.show_with(&["--at", "end"]));

    let mut faults = Faults::default();
    recorded.whole(&mut faults);
    for (Known { what, path: file, expected, during }, after) in known.iter().zip(after) {
        // Others (writeback's readahead, a daemon of the machine) may bring or take some.
        faults.expect(during == expected || !oracle::machine_is_ours(), || {
            format!("{what}: {during} bytes are cached, {expected} were to be")
        });
        let truth = *during.min(&after)..=*during.max(&after);
        let number = inode(file);
        let row = file_row(&end["files"], |row| row["path"] == file.as_str());
        let cached = int(&row["bytes"]);
        faults.expect(truth.contains(&cached), || {
            format!("{what}: {cached} at the end, mincore says {truth:?}")
        });
        let net = int(&row["bytes_added"]) - int(&row["bytes_removed"]);
        faults
            .expect(net == cached, || format!("{what}: {net} by what came and went, {cached} in the cache"));
        faults.expect(row["inode"] == number, || format!("{what}: inode {}, not {number}", row["inode"]));
        faults.expect(row["charged_to"] == path.as_str() && row["charged_to_target"] == true, || {
            format!("{what}: charged to {}, the target is {path}", row["charged_to"])
        });
        faults.expect(row["first_touch"]["pid"] == pid, || format!("{what}: {}", row["first_touch"]));
        // At the peak all of them are cached, too.
        let cached = int(&file_row(&show["files"], |row| row["path"] == file.as_str())["bytes"]);
        faults.expect(truth.contains(&cached), || {
            format!("{what}: {cached} at the peak, mincore says {truth:?}")
        });
    }
    // Together they are what the cgroup pays for, but for the program's own file.
    let cached = levels(&show, "cgroup")["file-clean"] + levels(&show, "cgroup")["file-dirty"];
    let files: i64 = known.iter().map(|file| file.during).sum();
    faults.near("page cache of the cgroup", cached, files);
    faults.finish();
}

const THP: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

#[test]
#[ignore = "needs root: cargo xtask test"]
fn huge_pages_are_anonymous_memory_like_any_other() {
    if !fs::exists(THP).unwrap() {
        return oracle::skip("thp", "this kernel has no transparent huge pages");
    }
    let _setting = Setting::change(THP, "madvise");
    let (mut faults, mut totals) = (Faults::default(), Vec::new());
    let dir = support::disk_dir();
    for kind in ["anon", "thp"] {
        let truth = support::path(&dir, &format!("{kind}.truth.json"));
        let line = format!("alloc --{kind} 96M --hold 5s --output {truth}");
        let mut running = oracle::start(&support::path(&dir, &format!("{kind}.json")), "", &line);
        let files = Files::of_process(int(&running.phase("hold")["pid"]));
        let kernel = files.settled();
        let recorded = running.finish().exited(0);
        let truth = json(&truth);
        recorded.whole(&mut faults);
        let times = kernel.check_samples(&recorded.recording()["samples"]["cgroups"][0], &mut faults);
        let anon = levels(&recorded.show_at(times[0]), "cgroup")["anon"];
        let expected = kernel.range(|reading| reading.stat[names().anon]);
        faults.expect(expected.contains(&anon), || format!("{kind}: anon {anon}, the kernel: {expected:?}"));
        faults.near(
            &format!("{kind}: anon, by the workload"),
            anon,
            support::ledger::allocated(&truth, "anon"),
        );

        let huge = kernel.range(|reading| reading.stat[names().anon_thp]);
        let by_process = truth["sources"][0]["detail"]["at_hold_end"]["huge_bytes"].as_i64();
        match kind {
            "anon" => faults.expect(huge == (0..=0), || format!("huge pages where none may be: {huge:?}")),
            _ => faults.expect(*huge.start() > 0 && by_process == Some(*huge.end()), || {
                format!("huge pages: {huge:?} of the cgroup, {by_process:?} of the process")
            }),
        }
        totals.push(anon);
    }
    faults.near("the same in huge pages", totals[1], totals[0]);
    faults.finish();
}

/// Flags of a page that is part of the huge zero page (include/uapi/linux/kernel-page-flags.h KPF_THP, KPF_ZERO_PAGE).
const HUGE_ZERO: u64 = 1 << 22 | 1 << 24;

#[test]
#[ignore = "needs root: cargo xtask test"]
fn huge_pages_that_are_only_read_are_one_for_all() {
    let Some(size) = support::thp_size() else {
        return oracle::skip("thp", "this kernel has no transparent huge pages");
    };
    let _setting = Setting::change(THP, "madvise");
    let _zero = Setting::change("/sys/kernel/mm/transparent_hugepage/use_zero_page", "1");
    let dir = support::disk_dir();
    let truth = support::path(&dir, "truth.json");
    let line = format!("alloc --anon 8M --thp-zero {} --hold 5s --output {truth}", 3 * size);
    let mut running = oracle::start(&support::path(&dir, "r.json"), "", &line);
    let pid = int(&running.phase("hold")["pid"]);
    let kernel = Files::of_process(pid).settled();
    let flags = flags_of_mapping(pid, 3 * size.unsigned_abs());
    let at_ns = oracle::monotonic_ns();
    let recorded = running.finish().exited(0);
    let show = recorded.show_at(at_ns);

    let mut faults = Faults::default();
    recorded.whole(&mut faults);
    kernel.check_samples(&recorded.recording()["samples"]["cgroups"][0], &mut faults);
    faults.expect(flags.iter().all(|flags| flags & HUGE_ZERO == HUGE_ZERO), || {
        format!("the process has other pages there: flags {flags:x?}")
    });
    let shown = levels(&show, "system")["huge-zero-page"];
    faults.expect(shown == size, || format!("huge-zero-page {shown}, one has {size}"));
    faults.expect(shown == support::ledger::allocated(&json(&truth), "huge-zero-page"), || {
        "by the workload".into()
    });
    let row = support::ledger::source_row(&show["planes"]["cgroup"], "huge-zero-page").clone();
    faults.expect(row["bytes"].is_null(), || format!("nobody is charged for it: {row}"));
    faults.near("anon without it", levels(&show, "cgroup")["anon"], 8 * MIB);
    faults.finish();
}

/// What the kernel says of the page at each huge page's begin of the mapping with this length, by the process's own
/// page table: where that is in memory the test finds in another way than what it tests.
fn flags_of_mapping(pid: i64, length: u64) -> Vec<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let begins = maps.lines().filter_map(|line| {
        let (begin, end) = line.split_once(' ')?.0.split_once('-')?;
        let [begin, end] = [begin, end].map(|address| u64::from_str_radix(address, 16).unwrap());
        (end - begin == length).then_some(begin)
    });
    let [begin] = begins.collect::<Vec<_>>()[..] else {
        panic!("no one mapping of {length} bytes in {maps}")
    };
    let word = |file: &str, index: u64| {
        let mut word = [0; 8];
        File::open(file).unwrap().read_exact_at(&mut word, 8 * index).unwrap();
        u64::from_ne_bytes(word)
    };
    let third = |index: u64| {
        let page = (begin + length / 3 * index) / oracle::page_size().unsigned_abs();
        // Bits 0 to 54 are the frame's number (fs/proc/task_mmu.c PM_PFRAME_MASK).
        let frame = word(&format!("/proc/{pid}/pagemap"), page) & ((1 << 55) - 1);
        word("/proc/kpageflags", frame)
    };
    (0..3).map(third).collect()
}

const HUGE_PAGES: &str = "/proc/sys/vm/nr_hugepages";

#[test]
#[ignore = "needs root: cargo xtask test"]
fn reserved_huge_pages_are_the_machines_and_not_the_cgroups() {
    if !oracle::machine_is_ours() {
        return oracle::skip("hugetlb", "huge pages are reserved in test machines only");
    }
    let size = meminfo("Hugepagesize");
    let pages = (96 * MIB / size).max(2);
    let _setting = Setting::change(HUGE_PAGES, &pages.to_string());
    assert_eq!(meminfo("Hugetlb"), pages * size, "the requested pool");
    let dir = support::disk_dir();
    let used = (pages - 1) * size;
    let line = format!("alloc --hugetlb {used} --anon 8M --hold 5s");
    let mut running = oracle::start(&support::path(&dir, "r.json"), "", &line);
    let pid = int(&running.phase("hold")["pid"]);
    let kernel = Files::of_process(pid).settled();
    let (pool, at_ns) = (meminfo("Hugetlb"), oracle::monotonic_ns());
    let free = huge_pages("HugePages_Free");
    let recorded = running.finish().exited(0);
    let (show, recording) = (recorded.show_at(at_ns), recorded.recording());

    let mut faults = Faults::default();
    recorded.whole(&mut faults);
    kernel.check_samples(&recording["samples"]["cgroups"][0], &mut faults);
    faults.expect(free == 1, || format!("{free} pages of the pool are free, {pages} less 1 are in use"));
    let shown = levels(&show, "system")["hugetlb"];
    faults.expect(shown == pool, || format!("hugetlb {shown}, /proc/meminfo says {pool}"));
    let recorded_free = nearest(&recording["samples"]["system"], "meminfo.HugePages_Free", at_ns);
    faults.expect(recorded_free == free, || format!("{recorded_free} free in the recording, {free} in fact"));
    let row = |plane: &str| support::ledger::source_row(&show["planes"][plane], "hugetlb").clone();
    // The pool was there before: nothing has grown by its use.
    faults.expect(row("system")["growth"] == 0, || format!("{}", row("system")));
    let charged = &row("cgroup")["bytes"];
    faults.expect(charged.is_null() || *charged == 0, || format!("of the cgroup: {charged}"));
    let usage = kernel.range(|reading| reading.usage);
    let at = int(&show["planes"]["cgroup"]["level"]["expected"]);
    faults.expect(at < size.max(16 * MIB) + 16 * MIB && near(at, &usage, oracle::stock()), || {
        format!("charged {at}, the kernel says {usage:?}")
    });
    let residual = |at: &str| {
        let show = recorded.show_with(&["--at", at]);
        int(&show["planes"]["system"]["level"]["residual"])
    };
    let (before, during) = (residual("0s"), residual(&format!("@{at_ns}")));
    faults.expect((during - before).abs() < used / 4, || {
        format!("unattributed {before} before, {during} with {used} bytes of the pool in use")
    });
    faults.finish();
}

/// A count in /proc/meminfo, which is no size.
fn huge_pages(key: &str) -> i64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
    line.trim().parse().unwrap()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_pool_that_grows_is_growth_of_hugetlb() {
    if !oracle::machine_is_ours() {
        return oracle::skip("hugetlb", "huge pages are reserved in test machines only");
    }
    let size = meminfo("Hugepagesize");
    let pages = (64 * MIB / size).max(1);
    let dir = support::disk_dir();
    let script = format!("echo {pages} >{HUGE_PAGES}; sleep 1");
    let setting = Setting::change(HUGE_PAGES, "0");
    let recorded =
        support::record_words(&support::path(&dir, "r.json"), &["--", "sh", "-c", &script]).exited(0);
    drop(setting);
    let show = recorded.show_with(&["--at", "end"]);
    let row = support::ledger::source_row(&show["planes"]["system"], "hugetlb");
    assert_eq!(int(&row["growth"]), pages * size, "{row}");
    let grown: Vec<&Value> = array(&show["planes"]["system"]["sources"])
        .iter()
        .filter(|row| row["growth"].as_i64().is_some_and(|bytes| bytes > pages * size / 2))
        .collect();
    assert_eq!(grown.iter().map(|row| text(&row["source"])).collect::<Vec<_>>(), ["hugetlb"], "{grown:?}");
}
