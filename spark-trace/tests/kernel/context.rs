//! What surrounds a run: environment, rights and limits of its processes, and what lives in file systems in memory.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{self, MIB, Recorded, Running, array, int, record, record_words, text, workload};

const LOCKED: &str = "Max locked memory";
/// Values that must be nowhere in a recording.
const SECRET: &str = "do-not-write-this-down";

/// What the kernel calls the workload: 15 characters of its file's name, which is another one in a virtual machine.
fn workload_comm() -> String {
    let path = workload();
    let name = path.rsplit('/').next().unwrap_or_default();
    name.chars().take(15).collect()
}

/// The context of the last process with this name that has one.
fn context_of<'a>(recording: &'a Value, comm: &str) -> &'a Value {
    let mut processes = array(&recording["provenance"]["processes"]).iter().rev();
    let process = processes.find(|process| process["comm"] == comm && process["context"].is_u64());
    let index = int(&process.unwrap_or_else(|| panic!("no {comm} with a context"))["context"]);
    &recording["provenance"]["contexts"][usize::try_from(index).unwrap()]
}

/// A field of /proc/PID/status.
fn status(pid: i64, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap().trim().to_owned()
}

/// Records the workload behind a command that changes what surrounds it; both are compared with what the kernel says.
fn surrounded(dir: &tempfile::TempDir, name: &str, before: &str) -> Recorded {
    let mut command = support::spark_trace();
    command
        .env("CUDA_MODULE_LOADING", "EAGER")
        .env("PYTORCH_CUDA_ALLOC_CONF", "")
        .env("SPARK_TRACE_TEST_OTHER", SECRET)
        .env("HF_TOKEN", SECRET)
        .env("NVIDIA_API_KEY", SECRET)
        .env("TORCH_PASSWORD", SECRET)
        .env_remove("OMP_NUM_THREADS");
    let line = format!("-- {before} {} alloc --anon 32M --hold 400ms --jsonl", workload());
    let words: Vec<_> = line.split_whitespace().collect();
    let mut running = Running::start_as(command, &support::path(dir, name), &words);
    let pid = int(&running.phase("hold")["pid"]);
    let (capabilities, seccomp) = (status(pid, "CapEff"), status(pid, "Seccomp"));
    let recorded = running.finish().exited(0);
    let recording = recorded.recording();
    let comm = workload_comm();
    let found = context_of(&recording, &comm);
    let capabilities = i64::from_str_radix(&capabilities, 16).unwrap();
    assert_eq!(
        (int(&found["capabilities"]), int(&found["seccomp"])),
        (capabilities, seccomp.parse().unwrap())
    );
    assert!(!fs::read_to_string(&recorded.output).unwrap().contains(SECRET), "a secret in {name}");
    recorded
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn contexts_are_those_of_the_processes_after_exec() {
    let dir = support::disk_dir();
    let plain = surrounded(&dir, "plain.json", "");
    let changed = surrounded(
        &dir,
        "changed.json",
        "prlimit --memlock=65536:65536 setpriv --bounding-set=-ipc_lock env -u PYTORCH_CUDA_ALLOC_CONF OMP_NUM_THREADS=3",
    );
    let recording = plain.recording();
    let comm = workload_comm();
    let environment = &context_of(&recording, &comm)["environment"];
    assert_eq!(environment["CUDA_MODULE_LOADING"], "EAGER");
    assert_eq!(environment["PYTORCH_CUDA_ALLOC_CONF"], "");
    assert_eq!(array(&recording["provenance"]["contexts"]).len(), 1, "one process, one set");

    let recording = changed.recording();
    let found = context_of(&recording, &comm);
    assert_eq!(found["environment"]["OMP_NUM_THREADS"], "3");
    assert_eq!(found["environment"].get("PYTORCH_CUDA_ALLOC_CONF"), None);
    assert_eq!(int(&found["limits"][LOCKED]), 65536);
    // The programs before it may have been too short to be read; each that was has its own.
    assert_eq!(found["comm"], comm);
    let contexts = array(&recording["provenance"]["contexts"]);
    for context in contexts {
        let (found, threads) = (text(&context["comm"]), &context["environment"]["OMP_NUM_THREADS"]);
        assert_eq!(found == comm, threads == "3", "{context}");
    }

    let diff = plain.diff(&changed);
    let notes: Vec<_> = array(&diff["comparable"]["notes"]).iter().map(text).collect();
    for wanted in [
        "environment variable differs: OMP_NUM_THREADS: nothing in A, \"3\" in B",
        "environment variable differs: PYTORCH_CUDA_ALLOC_CONF: \"\" in A, nothing in B",
        "capabilities differ: only A has CAP_IPC_LOCK",
        "limit differs: Max locked memory: ",
    ] {
        assert!(notes.iter().any(|note| note.starts_with(wanted)), "{wanted}: {notes:?}");
    }
    assert!(!notes.iter().any(|note| note.contains("CUDA_MODULE_LOADING")), "{notes:?}");
    assert!(changed.table().contains("Environment and rights"));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_process_that_was_there_before_has_its_context() {
    let dir = support::disk_dir();
    let mut sleeper = Command::new("sleep");
    sleeper.arg("60").env("NCCL_DEBUG", "WARN").env("HF_TOKEN", SECRET);
    let sleeper = support::process::Other::start(&mut sleeper);
    let line = format!("--pid {} --duration 200ms", sleeper.pid());
    let recorded = record(&support::path(&dir, "r.json"), &line).exited(0);
    let recording = recorded.recording();
    assert_eq!(context_of(&recording, "sleep")["environment"]["NCCL_DEBUG"], "WARN");
    assert!(!fs::read_to_string(&recorded.output).unwrap().contains(SECRET));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn many_short_processes_share_a_context_and_too_many_are_counted() {
    let dir = support::disk_dir();
    let script = "i=0; while [ $i -lt 40 ]; do /bin/true; i=$((i+1)); done";
    let recorded = record_words(&support::path(&dir, "same.json"), &["--", "sh", "-c", script]).exited(0);
    assert_eq!(array(&recorded.recording()["provenance"]["contexts"]).len(), 1);

    let script = "i=0; while [ $i -lt 300 ]; do OMP_NUM_THREADS=$i sleep 4 & i=$((i+1)); done; wait";
    let recorded = record_words(&support::path(&dir, "many.json"), &["--", "sh", "-c", script]).exited(0);
    let recording = recorded.recording();
    assert_eq!(array(&recording["provenance"]["contexts"]).len(), 256);
    let losses = array(&recording["health"]["losses"]);
    let lost = losses.iter().find(|loss| loss["what"] == "contexts").expect("the loss is reported");
    // The shell has one, too. A kernel that preempts lazily (7.x) skips a few forks or starts, and counts them.
    let (reported, (_, skipped)) = (int(&lost["count"]), support::losses(&recording["health"]));
    let missing = 301 - 256 - reported;
    assert!((0..=skipped).contains(&missing), "{reported} contexts lost, {skipped} runs skipped");
}

/// A mount, a file or a segment that a test made; gone when dropped.
enum Made {
    Mount(PathBuf),
    File(PathBuf),
    Segment(i32),
}

impl Drop for Made {
    fn drop(&mut self) {
        match self {
            Self::Mount(path) => {
                let path = CString::new(path.to_str().unwrap()).unwrap();
                // SAFETY: the string lives through the call.
                unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
            }
            Self::File(path) => drop(fs::remove_file(path)),
            // SAFETY: no pointer is used by this command.
            Self::Segment(id) => drop(unsafe { libc::shmctl(*id, libc::IPC_RMID, std::ptr::null_mut()) }),
        }
    }
}

fn sh(script: &str) {
    let status = Command::new("sh").args(["-c", script]).status().unwrap();
    assert!(status.success(), "{script}");
}

/// A tmpfs of its own for a test.
fn mount(at: &Path) -> Made {
    fs::create_dir(at).unwrap();
    sh(&format!("mount -t tmpfs -o size=64M spark-trace-test '{}'", at.display()));
    Made::Mount(at.into())
}

/// A segment with so many bytes touched, that nobody is attached to.
fn segment(bytes: usize) -> Made {
    // SAFETY: the segment is as large as what is written, and let go of afterwards.
    let id = unsafe {
        let id = libc::shmget(libc::IPC_PRIVATE, bytes, libc::IPC_CREAT | 0o600);
        assert!(id >= 0);
        let at = libc::shmat(id, std::ptr::null(), 0);
        std::ptr::write_bytes(at.cast::<u8>(), 1, bytes);
        libc::shmdt(at);
        id
    };
    Made::Segment(id)
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_dead_processes_left_in_memory_is_there_at_the_start() {
    let dir = support::disk_dir();
    let name = format!("spark-trace-test-{}", std::process::id());
    // By processes that have ended by now.
    let shm = PathBuf::from(format!("/dev/shm/{name}"));
    sh(&format!("head -c 25165824 /dev/zero > {}", shm.display()));
    let _file = Made::File(shm.clone());
    let _segment = segment(5 << 20);
    let own = dir.path().join("a tmpfs");
    let _mount = mount(&own);
    sh(&format!(
        "cd '{}' && mkdir deep && head -c 7340032 /dev/zero > deep/er && ln -s / up && ln deep/er again",
        own.display()
    ));
    // Mounted inside it: another one, whose files are not the outer one's.
    let inner = own.join("inner");
    let _inner = mount(&inner);
    sh(&format!("head -c 3145728 /dev/zero > '{}/file'", inner.display()));

    let script =
        format!("rm '{0}/deep/er' '{0}/again'; head -c 11534336 /dev/zero > '{0}/new'", own.display());
    let recorded = record_words(&support::path(&dir, "r.json"), &["--", "sh", "-c", &script]).exited(0);
    let show = recorded.show();
    let row = |mount_point: &str| {
        let mut rows = array(&show["tmpfs"]).iter();
        rows.find(|row| row["mount_point"] == mount_point).unwrap_or_else(|| panic!("no {mount_point}"))
    };
    let file = |row: &Value, when: &str, path: &str| {
        let found =
            array(&row[when]).iter().find(|file| file["path"] == path).map(|file| int(&file["bytes"]));
        found.unwrap_or_else(|| panic!("no {path} in {}", row[when]))
    };
    let on_disk = |path: &Path| {
        i64::try_from(std::os::unix::fs::MetadataExt::blocks(&fs::metadata(path).unwrap())).unwrap() * 512
    };

    let shared = row("/dev/shm");
    assert_eq!(file(shared, "files_at_start", shm.to_str().unwrap()), on_disk(&shm));
    assert_eq!(on_disk(&shm), 24 * MIB);
    assert!(int(&shared["bytes_at_start"]) >= 24 * MIB && int(&shared["bytes_at_end"]) >= 24 * MIB);

    let ours = row(own.to_str().unwrap());
    assert_eq!((int(&ours["bytes_at_start"]), int(&ours["bytes_at_end"])), (7 * MIB, 11 * MIB), "{ours}");
    assert_eq!(
        array(&ours["files_at_start"]).len(),
        1,
        "two names, one file; no links, no other mount: {ours}"
    );
    assert_eq!(file(ours, "files_at_end", own.join("new").to_str().unwrap()), 11 * MIB);
    let inner = row(inner.to_str().unwrap());
    assert_eq!((int(&inner["bytes_at_start"]), int(&inner["bytes_at_end"])), (3 * MIB, 3 * MIB));

    let segments = row("(System V shared memory)");
    assert!(array(&segments["files_at_end"]).iter().any(|file| int(&file["bytes"]) == 5 * MIB), "{segments}");
    // What has not changed is others', in one sum.
    assert_eq!((text(&ours["whose"]), text(&shared["whose"])), ("target", "others"));
    let others = int(&show["others"]["tmpfs"]["others"]["bytes"]);
    assert!(others >= 27 * MIB, "/dev/shm has 24 MiB, the inner one 3: {others}");
    let table = recorded.table();
    assert!(table.contains("Memory file systems") && table.contains("11.0 MiB"), "{table}");
}
