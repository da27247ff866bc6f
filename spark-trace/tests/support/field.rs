//! Programs that nobody here wrote, run as their users run them, and a witness that reads the kernel's files beside
//! spark-trace.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::clock::monotonic_ns;
use super::docker::Named;
use super::{MIB, Recorded, Running, array, cgroup, int};

/// One program of the field. Its script runs under `sh` with `$DIR`, a directory of its own on a disk, and calls
/// `ready` when it has taken what it takes: that waits until the test has seen enough.
pub struct Program {
    pub name: &'static str,
    /// Files without which it cannot run; `*` stands for a version.
    pub needs: &'static [&'static str],
    script: &'static str,
}

/// What each script begins with. `ready` prints a line and waits for somebody to write to the pipe.
const PRELUDE: &str = "set -e\nready() { echo READY; read -r answer < \"$DIR/go\"; }\n";

pub const PROGRAMS: &[Program] = &[
    Program {
        name: "python3",
        needs: &["/usr/bin/python3"],
        script: r#"exec /usr/bin/python3 - <<'END'
import os
d = os.environ['DIR']
with open(d + '/data', 'wb') as f:
    for _ in range(48): f.write(os.urandom(1 << 20))
table = {i: b'%d' % i * 100 for i in range(200000)}
data = open(d + '/data', 'rb').read()
hwm = [l for l in open('/proc/self/status') if l.startswith('VmHWM')][0].split()[1]
print('TRUTH python3 hwm', int(hwm) * 1024, flush=True)
print('READY', flush=True)
open(d + '/go').read()
END
"#,
    },
    Program {
        name: "sqlite3",
        needs: &["/usr/bin/sqlite3"],
        script: r#"/usr/bin/sqlite3 "$DIR/on-disk.db" "create table t(x); with recursive n(i) as (select 1 union all select i+1 from n where i<20000) insert into t select randomblob(1000) from n;"
/usr/bin/sqlite3 <<'END'
create table t(x);
with recursive n(i) as (select 1 union all select i+1 from n where i<60000) insert into t select randomblob(1000) from n;
create index i on t(x);
.shell echo READY
.shell read -r answer < "$DIR/go"
END
"#,
    },
    Program {
        name: "git",
        needs: &["/usr/bin/git"],
        script: r#"cd "$DIR"; git init -q repo; cd repo
git config user.email a@b; git config user.name a
i=0; while [ $i -lt 12 ]; do head -c 1000000 /dev/urandom | base64 > file$i; i=$((i+1)); done
git add .; git commit -q -m one; git repack -q -a -d -f
ready
"#,
    },
    Program {
        name: "gcc",
        needs: &["/usr/bin/gcc"],
        script: r#"i=0; { echo 'int f(int x) { switch (x) {'; while [ $i -lt 6000 ]; do echo "case $i: return x * $i + (x >> ($i % 31));"; i=$((i+1)); done; echo '} return 0; }'; } > "$DIR/large.c"
/usr/bin/gcc -O2 -c -o "$DIR/large.o" "$DIR/large.c"
ready
"#,
    },
    Program {
        name: "sort",
        needs: &["/usr/bin/sort"],
        script: r#"head -c 24000000 /dev/urandom | base64 > "$DIR/lines"
/usr/bin/sort -S 64M -o "$DIR/sorted" "$DIR/lines"
ready
"#,
    },
    Program {
        name: "redis",
        needs: &["/usr/bin/redis-server", "/usr/bin/redis-benchmark", "/usr/bin/redis-cli"],
        script: r#"cd "$DIR"
/usr/bin/redis-server --port 0 --unixsocket "$DIR/redis" --save '' --daemonize no > "$DIR/redis.log" &
until /usr/bin/redis-cli -s "$DIR/redis" ping >/dev/null 2>&1; do :; done
/usr/bin/redis-benchmark -s "$DIR/redis" -t set -n 60000 -r 60000 -d 1000 -P 16 -q > "$DIR/benchmark.log"
echo TRUTH redis-server used $(/usr/bin/redis-cli -s "$DIR/redis" info memory | sed -n 's/^used_memory_rss:\([0-9]*\).*/\1/p')
ready
/usr/bin/redis-cli -s "$DIR/redis" shutdown nosave; wait
"#,
    },
    Program {
        name: "postgres",
        needs: &["/usr/lib/postgresql/*/bin/initdb", "/usr/lib/postgresql/*/bin/pgbench", "/usr/bin/setpriv"],
        script: r#"bin=$(echo /usr/lib/postgresql/*/bin | sed 's/.* //'); mkdir -p "$DIR/pg"; chown postgres "$DIR/pg"; chmod 755 "$DIR"
as() { /usr/bin/setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; }
cd "$DIR/pg"
as "$bin/initdb" -D "$DIR/pg/data" --no-sync -A trust > "$DIR/initdb.log" 2>&1
as "$bin/pg_ctl" -D "$DIR/pg/data" -w -l "$DIR/pg/log" -o "-k $DIR/pg -h '' -c shared_buffers=64MB -c fsync=off" start > "$DIR/start.log"
as "$bin/pgbench" -h "$DIR/pg" -i -s 4 -q postgres > "$DIR/bench.log" 2>&1
as "$bin/pgbench" -h "$DIR/pg" -c 2 -t 200 postgres >> "$DIR/bench.log" 2>&1
ready
as "$bin/pg_ctl" -D "$DIR/pg/data" -m immediate -w stop > "$DIR/stop.log"
"#,
    },
    Program {
        name: "node",
        needs: &["/usr/bin/node"],
        script: r#"exec /usr/bin/node -e '
const kept = [];
for (let i = 0; i < 80; i++) kept.push(Buffer.alloc(1 << 20, i));
const objects = []; for (let i = 0; i < 300000; i++) objects.push({ i, text: "x" + i });
console.log("READY");
require("fs").readFileSync(process.env.DIR + "/go");
'
"#,
    },
];

impl Program {
    /// What of its needs is not on this machine.
    pub fn missing(&self) -> Option<String> {
        self.needs.iter().find(|path| !exists(path)).map(|path| format!("{}: no {path} here", self.name))
    }
}

fn exists(path: &str) -> bool {
    let Some((before, after)) = path.split_once('*') else { return Path::new(path).is_file() };
    let versions = fs::read_dir(before).into_iter().flatten().flatten();
    versions.into_iter().any(|version| version.path().join(after.trim_start_matches('/')).is_file())
}

/// Where a program runs.
pub enum Place {
    Native,
    /// In a container of an image of an empty tree, with the machine's programs mounted into it.
    #[allow(dead_code, reason = "only container tests have an image")]
    Container {
        image: String,
    },
}

/// A program that was recorded, and what the witness saw of its cgroup meanwhile.
pub struct Observed {
    pub recorded: Recorded,
    pub seen: Vec<Seen>,
    /// Lines `TRUTH COMM WHAT BYTES` of its output.
    pub reported: Vec<(String, i64)>,
    _dir: TempDir,
}

/// The kernel's figures of one cgroup between two times of CLOCK_MONOTONIC.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub begin_ns: i64,
    pub end_ns: i64,
    pub anon: i64,
    pub shmem: i64,
    pub file: i64,
    /// The highest usage so far, as the kernel kept it.
    pub peak: Option<i64>,
}

/// Readings that spark-trace takes of a program that is ready, before the program goes on.
const READINGS: usize = 4;

/// Records a program once.
pub fn observe(program: &Program, place: &Place, run: &str) -> Observed {
    let dir = super::disk_dir();
    let path = dir.path().display().to_string();
    fs::write(dir.path().join("script"), format!("{PRELUDE}{}", program.script)).unwrap();
    let go = CString::new(format!("{path}/go")).unwrap();
    // SAFETY: the path is a string that ends in a zero byte.
    let made = unsafe { libc::mkfifo(go.as_ptr(), 0o666) };
    assert_eq!(made, 0, "{path}/go: {}", std::io::Error::last_os_error());
    let output = super::path(&dir, "recording.json");
    let name = Named::new(&format!("{}-{run}", program.name));
    let line = match place {
        Place::Native => format!("-q -- env DIR={path} sh {path}/script"),
        Place::Container { image } => format!(
            "-q -- docker run --rm --name {} --network=none -e DIR={path} -v /usr:/usr:ro -v /etc:/etc:ro \
             -v {path}:{path} {image} sh {path}/script",
            name.0
        ),
    };
    let words: Vec<_> = line.split_whitespace().collect();
    let mut running = Running::start(&output, &words);
    let pid = running.pid();
    let wanted = match place {
        Place::Native => None,
        Place::Container { .. } => Some(name.0.clone()),
    };
    let witness = Witness::start(move || match &wanted {
        None => cgroup::leaves_of(pid).into_iter().next(),
        Some(name) => cgroup_of_container(name),
    });
    running.line(|line| line == "READY");
    running.reads(READINGS);
    fs::write(dir.path().join("go"), "go\n").unwrap();
    let recorded = running.finish().exited(0);
    let reported = recorded.stdout.lines().filter_map(reported).collect();
    Observed { recorded, seen: witness.finish(), reported, _dir: dir }
}

/// What a line of output `TRUTH COMM WHAT BYTES` says.
fn reported(line: &str) -> Option<(String, i64)> {
    let mut words = line.strip_prefix("TRUTH ")?.split_whitespace();
    let (comm, _what) = (words.next()?, words.next()?);
    Some((comm.to_owned(), words.next()?.parse().ok()?))
}

fn cgroup_of_container(name: &str) -> Option<PathBuf> {
    let mut inspect = Command::new("docker");
    let output = inspect.args(["container", "inspect", "--format", "{{.State.Pid}}", name]).output().ok()?;
    let pid: u32 = String::from_utf8_lossy(&output.stdout).trim().parse().ok()?;
    let path = (pid > 0).then(|| cgroup::of_process(pid)).flatten()?;
    // Between fork and the move to its own cgroup it is in the runtime's.
    path.contains(&inspect_id(name)?).then(|| cgroup::memory_root().0.join(path.trim_start_matches('/')))
}

fn inspect_id(name: &str) -> Option<String> {
    let mut inspect = Command::new("docker");
    let output = inspect.args(["container", "inspect", "--format", "{{.Id}}", name]).output().ok()?;
    let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (id.len() == 64).then_some(id)
}

/// Reads the files of one cgroup for as long as it is there.
struct Witness {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Seen>>,
}

/// Often enough for a program that takes 1 GiB a second to move by a few MiB between two readings.
const EVERY: Duration = Duration::from_millis(5);

impl Witness {
    fn start(find: impl Fn() -> Option<PathBuf> + Send + 'static) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let stop = ends.clone();
        let thread = std::thread::spawn(move || {
            let mut seen = Vec::new();
            let mut dir = None;
            while !stop.load(Ordering::Relaxed) {
                match &dir {
                    None => dir = find(),
                    Some(dir) => seen.extend(Seen::read(dir)),
                }
                std::thread::sleep(EVERY);
            }
            seen
        });
        Self { ends, thread }
    }

    fn finish(self) -> Vec<Seen> {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

impl Seen {
    /// `None` once the cgroup is gone.
    fn read(dir: &Path) -> Option<Self> {
        let begin_ns = monotonic_ns();
        let read = |name: &str| fs::read_to_string(dir.join(name)).ok();
        let number = |names: [&str; 2]| names.into_iter().find_map(read)?.trim().parse::<i64>().ok();
        let stat = read("memory.stat")?;
        let value = |key: &str| -> Option<i64> {
            stat.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?.parse().ok()
        };
        let v1 = value("total_rss").is_some();
        let [anon, shmem, file] = match v1 {
            true => ["total_rss", "total_shmem", "total_cache"],
            false => ["anon", "shmem", "file"],
        }
        .map(value);
        Some(Self {
            begin_ns,
            anon: anon?,
            shmem: shmem?,
            file: file? - shmem?,
            peak: number(["memory.peak", "memory.max_usage_in_bytes"]),
            end_ns: monotonic_ns(),
        })
    }
}

impl Observed {
    /// Lowest and highest value of a figure that the witness read around a time: the readings within 30 ms, and the
    /// nearest before and after it.
    pub fn around(&self, at_ns: i64, figure: fn(&Seen) -> i64) -> std::ops::RangeInclusive<i64> {
        const NEAR_NS: i64 = 30_000_000;
        let before = self.seen.iter().rev().find(|seen| seen.end_ns <= at_ns);
        let after = self.seen.iter().find(|seen| seen.begin_ns >= at_ns);
        let near = self.seen.iter().filter(|seen| seen.begin_ns.abs_diff(at_ns) <= NEAR_NS.unsigned_abs());
        let values: Vec<i64> = near.chain(before).chain(after).map(figure).collect();
        let low = values.iter().min().expect("the witness has seen nothing");
        *low..=*values.iter().max().unwrap_or(low)
    }

    /// The kernel's own peak of the cgroup.
    pub fn kernel_peak(&self) -> Option<i64> {
        self.seen.iter().filter_map(|seen| seen.peak).max()
    }
}

/// What it is, the rows that have it, and what the kernel says of it.
type Figure = (&'static str, &'static [&'static str], fn(&Seen) -> i64);

/// The figures that `show` and `diff` have rows for.
pub const FIGURES: &[Figure] = &[
    ("anonymous memory", &["anon", "anon-pinned"], |seen| seen.anon),
    ("shared memory", &["shmem", "shmem-pinned"], |seen| seen.shmem),
    ("page cache", &["file-clean", "file-dirty"], |seen| seen.file),
];

/// Bytes of a group of rows; rows that the kernel does not have count for nothing.
pub fn bytes_of(report: &Value, slugs: &[&str], key: &str) -> i64 {
    let rows =
        array(&report["sources"]).iter().filter(|row| slugs.contains(&row["source"].as_str().unwrap_or("")));
    rows.filter_map(|row| row[key].as_i64()).sum()
}

/// How far a figure may lie from the truth: 2 % of it, or 1 MiB.
pub fn tolerance(truth: i64) -> i64 {
    (truth / 50).max(MIB)
}

/// `int` where the value is there.
pub fn maybe(value: &Value) -> Option<i64> {
    (!value.is_null()).then(|| int(value))
}
