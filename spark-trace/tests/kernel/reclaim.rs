//! `reclaim`, beside mincore(2) and the kernel's own files: what was named is given back, and nothing else.

use std::fs;
use std::os::unix::fs::symlink;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::cache::resident;
use crate::support::process::Other;
use crate::support::{self, MIB, array, cgroup, int, spark_trace, workload};

const SIZE: i64 = 64 * MIB;
/// What was announced and what was given back differ by no more than this part.
const WITHIN: i64 = 20;
/// The kernel takes clean pages by itself, mostly those that nobody touched for some seconds. What takes them so many times in
/// a row, right after they were read, is not the kernel.
const TRIES: usize = 4;

fn reclaim(words: &[&str]) -> Output {
    spark_trace().args(["reclaim", "--format", "json"]).args(words).output().unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn fine(words: &[&str]) -> Value {
    let output = reclaim(words);
    assert_eq!(output.status.code(), Some(0), "{words:?}: {}", String::from_utf8_lossy(&output.stdout));
    report(&output)
}

fn step(report: &Value) -> &Value {
    let steps = array(&report["steps"]);
    assert_eq!(steps.len(), 1, "{report}");
    &steps[0]
}

/// A file on a disk, written, with all of it in the page cache.
fn cached_file(path: &str) {
    support::cold_file(path, SIZE.unsigned_abs() >> 20);
    read(path);
}

/// Bytes that went to disks and from them since the machine started, and those that are still to be written.
fn moved() -> i64 {
    let counters = fs::read_to_string("/proc/vmstat").unwrap();
    let kib = |name: &str| -> i64 {
        let line = counters.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().parse().unwrap()
    };
    ((kib("pgpgin ") + kib("pgpgout ")) << 10) + support::meminfo("Dirty") + support::meminfo("Writeback")
}

/// Reads all of a file, so that all of it is cached.
fn read(path: &str) {
    let is_cached = || {
        std::io::copy(&mut fs::File::open(path).unwrap(), &mut std::io::sink()).unwrap();
        resident(path) == i64::try_from(fs::metadata(path).unwrap().len()).unwrap()
    };
    assert!((0..TRIES).any(|_| is_cached()), "{path} is not cached");
}

/// Does `body`, which compares what is cached of these files; each try begins with all of them cached.
fn with_cached(files: &[&String], body: impl Fn()) {
    for _ in 1..TRIES {
        files.iter().for_each(|file| read(file));
        if catch_unwind(AssertUnwindSafe(&body)).is_ok() {
            return;
        }
        println!("once more: the kernel may have taken pages");
    }
    files.iter().for_each(|file| read(file));
    if let Err(panic) = catch_unwind(AssertUnwindSafe(&body)) {
        resume_unwind(panic);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn named_files_leave_the_page_cache_and_their_neighbours_stay() {
    let dir = support::disk_dir();
    fs::create_dir_all(dir.path().join("models/below")).unwrap();
    let [one, two, other] = ["models/one", "models/below/two", "other"].map(|name| support::path(&dir, name));
    for path in [&one, &two, &other] {
        cached_file(path);
    }
    symlink(&other, dir.path().join("models/link")).unwrap();
    let models = support::path(&dir, "models");

    with_cached(&[&one, &two, &other], || {
        let expected = fine(&["--files", &models]);
        assert_eq!(expected["applied"], false);
        assert_eq!(int(&step(&expected)["expected_bytes"]), 2 * SIZE);
        assert_eq!([&one, &two, &other].map(|path| resident(path)), [SIZE; 3], "a dry run changed something");

        let applied = fine(&["--files", &models, "--apply"]);
        assert_eq!([&one, &two, &other].map(|path| resident(path)), [0, 0, SIZE]);
        let outcome = &step(&applied)["outcome"];
        assert_eq!(int(&outcome["given_back_bytes"]), 2 * SIZE, "{outcome}");
        assert_eq!(outcome["error"], Value::Null);
        let clean = array(&applied["sources"]).iter().find(|row| row["source"] == "file-clean").unwrap();
        // Programs beside this test read files, too.
        assert!(int(&clean["delta_bytes"]) < -SIZE, "{clean}");
    });
}

/// Python with the file mapped as `pages`, once it has run `first`; it goes on with `then`.
fn mapped_by_python(file: &str, first: &str, then: &str) -> Other {
    let script = format!(
        "import mmap, sys, time\n\
         file = open(sys.argv[1], 'rb')\n\
         pages = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)\n\
         {first}\n\
         open(sys.argv[1] + '.ready', 'w').close()\n\
         {then}"
    );
    let holder = Other::start(Command::new("python3").args(["-c", &script, file]));
    support::wait_for("python3 to have it mapped", || {
        fs::metadata(format!("{file}.ready")).is_ok().then_some(())
    });
    holder
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn files_that_a_process_has_mapped_are_left_alone_unless_they_are_named_so() {
    let dir = support::disk_dir();
    let file = support::path(&dir, "mapped");
    cached_file(&file);
    let holder = mapped_by_python(
        &file,
        "sum(pages[at] for at in range(0, len(pages) // 2, 4096))",
        "time.sleep(300)",
    );

    with_cached(&[&file], || {
        let kept = fine(&["--files", &file, "--apply"]);
        assert_eq!(resident(&file), SIZE);
        let why = step(&kept)["kept"].to_string();
        assert_eq!(int(&step(&kept)["kept"][0]["bytes"]), SIZE, "{why}");
        assert!(why.contains(&format!("({})", holder.pid())), "{why}");

        let dropped = fine(&["--files", &file, "--mapped", "--apply"]);
        // The kernel maps in neighbours of a page that is touched (fault_around_bytes, 64 KiB).
        let left = resident(&file);
        assert!(
            (SIZE / 2..SIZE / 2 + MIB).contains(&left),
            "{left} bytes are left, and half of {SIZE} is mapped in"
        );
        assert_eq!(int(&step(&dropped)["outcome"]["given_back_bytes"]), SIZE - left);
    });
}

/// Mappings are split and merged while they are looked at: no entry of one is no sign that there is no mapping.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_mapping_that_changes_all_the_time_is_one() {
    let dir = support::disk_dir();
    let file = support::path(&dir, "mapped");
    cached_file(&file);
    let changes = "while True: pages.madvise(mmap.MADV_RANDOM, 1 << 20, 1 << 20); pages.madvise(mmap.MADV_NORMAL, 1 << 20, 1 << 20)";
    let _holder = mapped_by_python(&file, "", changes);
    for _ in 0..10 {
        with_cached(&[&file], || {
            fine(&["--files", &file, "--apply"]);
            assert_eq!(resident(&file), SIZE);
        });
    }
}

/// What is shown of two names can be the same, and one of them alone was given.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_name_that_is_no_text_is_not_another_one() {
    use std::os::unix::ffi::OsStrExt;
    let dir = support::disk_dir();
    let [named, other] = [&b"m\xff"[..], "m\u{fffd}".as_bytes()].map(|name| {
        let folder = dir.path().join(std::ffi::OsStr::from_bytes(name));
        fs::create_dir(&folder).unwrap();
        // The page cache has what is written; all of it is clean then.
        let file = fs::File::create(folder.join("file")).unwrap();
        std::io::Write::write_all(&mut &file, &vec![1u8; 4 << 20]).unwrap();
        file.sync_all().unwrap();
        folder
    });
    let [to_go, to_stay] = [&named, &other].map(|folder| folder.join("file"));
    let to_stay = to_stay.to_str().unwrap().to_owned();
    with_cached(&[&to_stay], || {
        fs::read(&to_go).unwrap();
        let output = spark_trace()
            .args(["reclaim", "--format", "json", "--apply", "--files"])
            .arg(&named)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
        assert_eq!(int(&step(&report(&output))["outcome"]["given_back_bytes"]), 4 * MIB);
        assert_eq!(resident(&to_stay), 4 * MIB, "what was not named went");
    });
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn another_mount_below_a_directory_is_left_out() {
    let dir = support::disk_dir();
    let [inside, outside] = ["inside", "outside"].map(|name| support::path(&dir, name));
    fs::create_dir(&inside).unwrap();
    let file = format!("{outside}.bin");
    cached_file(&file);
    let point = format!("{inside}/bound");
    fs::write(&point, "").unwrap();
    // In mounts of its own: nothing is left behind, whatever becomes of the test.
    let script = format!(
        "mount --make-rprivate / && mount --bind '{file}' '{point}' && exec \"$0\" reclaim --format json --apply --files '{inside}'"
    );
    let program = spark_trace().get_program().to_owned();
    with_cached(&[&file], || {
        let output =
            Command::new("unshare").args(["-m", "sh", "-c", &script]).arg(&program).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(resident(&file), SIZE, "what was not named went");
        let notes = step(&report(&output))["notes"].to_string();
        assert!(notes.contains("1 below it are other mounts"), "{notes}");
    });
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn pages_that_the_disk_does_not_have_are_written_only_where_that_is_chosen() {
    let dir = support::disk_dir();
    let file = support::path(&dir, "dirty");
    let write = || fs::write(&file, vec![7u8; SIZE as usize]).unwrap();
    // The kernel writes dirty pages by itself after a while: it counts them right before.
    let dirty = || support::meminfo("Dirty");
    let before = dirty();
    write();
    let by_kernel = dirty() - before;
    let expected = fine(&["--files", &file]);
    let kept: i64 = array(&step(&expected)["kept"]).iter().map(|kept| int(&kept["bytes"])).sum();
    let notes = step(&expected)["notes"].to_string();
    if notes.contains("does not count dirty pages") {
        println!("this kernel has no cachestat(2): {notes}");
    } else {
        assert!(kept > by_kernel / 2, "{kept} kept, the kernel has {by_kernel} more dirty pages");
        assert_eq!(kept + int(&step(&expected)["expected_bytes"]), SIZE);
    }
    let applied = fine(&["--files", &file, "--write-back", "--apply"]);
    assert_eq!(int(&step(&applied)["expected_bytes"]), SIZE);
    assert_eq!(resident(&file), 0);
    assert_eq!(fs::read(&file).unwrap(), vec![7u8; SIZE as usize], "the content changed");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_cannot_be_given_back_is_refused_with_its_reason() {
    let dir = support::disk_dir();
    let file = support::path(&dir, "file");
    cached_file(&file);
    let link = support::path(&dir, "link");
    symlink(&file, &link).unwrap();
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let in_memory = support::path(&memory, "file");
    fs::write(&in_memory, vec![1u8; 1 << 20]).unwrap();

    let missing = support::path(&dir, "missing");
    let with_slash = format!("{link}/");
    for (path, reason) in [(&link, "it is a link"), (&with_slash, "it is a link"), (&missing, "No such file")]
    {
        with_cached(&[&file], || {
            let output = reclaim(&["--files", path, "--apply"]);
            assert_eq!(output.status.code(), Some(1), "{path}");
            let refused = step(&report(&output))["refused"].to_string();
            assert!(refused.contains(reason), "{path}: {refused}");
            assert_eq!(resident(&file), SIZE);
        });
    }

    let kept = fine(&["--files", &in_memory, "--apply"]);
    assert_eq!(int(&step(&kept)["expected_bytes"]), 0);
    assert_eq!(int(&step(&kept)["kept"][0]["bytes"]), MIB);
    assert_eq!(fs::read(&in_memory).unwrap(), vec![1u8; 1 << 20]);

    with_cached(&[&file], || {
        let twice = fine(&["--files", &file, "--files", &file]);
        let expected: Vec<_> =
            array(&twice["steps"]).iter().map(|step| int(&step["expected_bytes"])).collect();
        assert_eq!(expected, [SIZE, 0]);
    });

    let nothing = spark_trace().args(["reclaim", "--apply"]).output().unwrap();
    assert_eq!(nothing.status.code(), Some(64), "{}", String::from_utf8_lossy(&nothing.stderr));
    // An engine that goes by MemAvailable gains nothing by it.
    for path in [&file, &missing] {
        with_cached(&[&file], || {
            let left_out = fine(&["--before-launch", "vllm", "--files", path, "--apply"]);
            assert!(step(&left_out)["needless"].is_string(), "{left_out}");
            assert_eq!(resident(&file), SIZE);
        });
    }
    // One that would gain, without a file; a driver's pools are a step by themselves.
    let words = ["--before-launch", "tensorrt-llm"];
    let steps = array(&fine(&words)["steps"]).len();
    let shown = spark_trace().arg("reclaim").args(words).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&shown.stdout).contains("No step is chosen"), steps == 0);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_cgroup_gives_its_page_cache_back_and_keeps_its_memory() {
    let dir = support::disk_dir();
    let input = support::path(&dir, "input");
    support::cold_file(&input, SIZE.unsigned_abs() >> 20);
    let own = cgroup::Own::create("reclaim");
    let mut command = Command::new(workload());
    command.args(["alloc", "--file-read", "64M", "--file", &input, "--anon", "32M", "--hold", "300s"]);
    own.start_in(&mut command);
    let _holder = Other::holding(&mut command);
    let words = ["--cgroup", &own.path, "--apply"];
    if !cgroup::memory_root().1 {
        with_cached(&[&input], || {
            let output = reclaim(&words);
            let refused = step(&report(&output))["refused"].to_string();
            assert!(refused.contains("cgroup v1"), "{refused}");
            assert_eq!((output.status.code(), resident(&input)), (Some(1), SIZE));
        });
        return;
    }
    let before = cgroup::charged(&own.path);
    let report = report(&reclaim(&words));
    let refused = &step(&report)["refused"];
    if support::meminfo("SwapTotal") > 0 && step(&report)["outcome"]["error"].is_string() {
        // Without the word for it the kernel might swap: nothing may be taken.
        assert_eq!(resident(&input), SIZE);
        return;
    }
    assert_eq!(*refused, Value::Null);
    let after = cgroup::charged(&own.path);
    let (expected, given) =
        (int(&step(&report)["expected_bytes"]), int(&step(&report)["outcome"]["given_back_bytes"]));
    let by_kernel = before.usage - after.usage;
    println!("expected {expected}, given back {given}, by the kernel {by_kernel}");
    assert!((given - by_kernel).abs() <= 2 * MIB, "given back {given}, by the kernel {by_kernel}");
    assert!((expected - given).abs() <= expected / WITHIN, "expected {expected}, given back {given}");
    assert!((before.anon - after.anon).abs() <= MIB, "anonymous memory: {} and {}", before.anon, after.anon);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_machines_page_cache_goes_only_where_that_is_chosen() {
    let dir = support::disk_dir();
    let file = support::path(&dir, "file");
    cached_file(&file);
    with_cached(&[&file], || {
        let shown = fine(&[]);
        let kinds: Vec<_> =
            array(&shown["steps"]).iter().map(|step| step["kind"].as_str().unwrap().to_owned()).collect();
        assert_eq!(kinds, ["driver-pools", "page-cache", "compaction"]);
        assert_eq!(resident(&file), SIZE, "a dry run changed something");
    });
    let cached = || support::meminfo("Cached") + support::meminfo("Buffers") - support::meminfo("Shmem");
    // What programs of the machine read and write between the two looks is cached anew: it fell by so much less. That all of
    // this stays cached is not certain, and files are removed, too: of three trials one is quiet enough.
    let mut trials = Vec::new();
    let agrees = (0..3).any(|_| {
        fs::remove_file(&file).unwrap();
        cached_file(&file);
        // SAFETY: no arguments, no memory.
        unsafe { libc::sync() };
        let (before, moved_before) = (cached(), moved());
        let applied = fine(&["--page-cache", "--apply"]);
        let (fell, anew) = (before - cached(), moved() - moved_before);
        assert_eq!(resident(&file), 0);
        let given = int(&array(&applied["steps"])[0]["outcome"]["given_back_bytes"]);
        trials.push((given, fell, anew));
        let slack = fell / WITHIN + 16 * MIB;
        (fell - slack..=fell + anew + slack).contains(&given)
    });
    assert!(agrees, "given back, what the kernel has less, and what came anew: {trials:?}");
    let applied = fine(&["--compaction", "--apply"]);
    let steps = array(&applied["steps"]);
    assert!(array(&steps[0]["outcome"]["blocks"]).len() == 2, "{}", steps[0]);
}
