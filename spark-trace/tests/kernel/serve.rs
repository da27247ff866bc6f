//! `serve`: its metrics beside the kernel's own numbers, its recent minutes, and recordings of OOM kills.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use openmetrics_parser::{OpenMetricsValue, openmetrics::parse_openmetrics};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::process::Other;
use crate::support::{
    self, Faults, MIB, array, cgroup, elf, int, meminfo, spark_trace, text, wait_for, workload,
};

/// A service on a port that the kernel has chosen, until it is dropped.
struct Serving {
    child: Child,
    address: String,
    dir: TempDir,
}

impl Serving {
    fn start(options: &[&str]) -> Self {
        let dir = support::disk_dir();
        let mut child = command(&dir, "127.0.0.1:0", options).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = lines.next().expect("it ended before it served").unwrap();
        let address =
            line.split_once("http://").and_then(|(_, rest)| rest.split_once('/')).expect(&line).0.to_owned();
        // Its other words are not waited for; nor may they fill a pipe.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("serve: {line}")));
        Self { child, address, dir }
    }

    /// Status, header and body of an answer.
    fn get(&self, path: &str, header: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(support::limit())).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_ascii_lowercase(), body.to_owned())
    }

    fn metrics(&self) -> Metrics {
        let (status, head, body) = self.get("/metrics", "");
        assert_eq!(status, 200, "{body}");
        assert!(
            head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
            "{head}"
        );
        Metrics::of(&body)
    }

    /// Waits until a reading has been taken after this was called.
    fn new_reading(&self) {
        let now = || self.metrics().value("spark_trace_reading_timestamp_seconds", &[]);
        let before = now();
        wait_for("two more readings", || (now() >= before + 0.3).then_some(()));
    }

    fn state(&self, name: &str) -> String {
        support::path(&self.dir, name)
    }

    /// Files of kills.
    fn kills(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.dir.path().join("state")).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path());
        let mut kills: Vec<_> = paths
            .filter(|path| {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                name.starts_with("oom-") && name.ends_with(".json.zst")
            })
            .collect();
        kills.sort();
        kills
    }

    fn end(mut self) -> TempDir {
        support::process::signal(self.child.id(), libc::SIGTERM);
        let status = wait_for("serve to end", || self.child.try_wait().unwrap());
        assert_eq!(status.code(), Some(0));
        std::mem::replace(&mut self.dir, support::disk_dir())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(dir: &TempDir, listen: &str, options: &[&str]) -> Command {
    let mut command = spark_trace();
    command.args(["serve", "--listen", listen, "--interval", "200ms", "--state"]);
    command.arg(dir.path().join("state")).args(options);
    command
}

/// Family, labels, value.
type Sample = (String, Vec<(String, String)>, f64);

/// What was scraped.
struct Metrics(Vec<Sample>);

impl Metrics {
    fn of(body: &str) -> Self {
        let parsed = parse_openmetrics(body).unwrap_or_else(|error| panic!("{error}\n{body}"));
        let mut all = Vec::new();
        for (name, family) in &parsed.families {
            for sample in family.iter_samples() {
                let labels = sample.get_labelset().unwrap();
                let labels = labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
                let value = match &sample.value {
                    OpenMetricsValue::Gauge(number) => number.as_f64(),
                    OpenMetricsValue::Counter(counter) => counter.value.as_f64(),
                    _ => 1.0,
                };
                all.push((name.clone(), labels, value));
            }
        }
        Self(all)
    }

    fn all<'a>(&'a self, name: &'a str, with: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = f64> + 'a {
        let has = |labels: &[(String, String)], key: &str, value: &str| {
            labels.iter().any(|(k, v)| k == key && v == value)
        };
        let found = self.0.iter().filter(move |(family, labels, _)| {
            family == name && with.iter().all(|(key, value)| has(labels, key, value))
        });
        found.map(|(_, _, value)| *value)
    }

    fn value(&self, name: &str, with: &[(&str, &str)]) -> f64 {
        let found: Vec<_> = self.all(name, with).collect();
        assert_eq!(found.len(), 1, "{name} {with:?}");
        found[0]
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn metrics_are_what_the_kernel_says_and_nothing_stays_attached() {
    let before = support::bpf::ids();
    let serving = Serving::start(&[]);
    let own = cgroup::Own::create("serve");
    let mut holder = Command::new(workload());
    holder.args(["alloc", "--anon", "100M", "--hold", "300s"]);
    own.start_in(&mut holder);
    let _holder = Other::start(&mut holder);
    wait_for("the workload to hold its memory", || {
        (cgroup::charged(&own.path).anon >= 100 * MIB).then_some(())
    });

    let mut faults = Faults::default();
    let a = meminfo("AnonPages");
    serving.new_reading();
    let metrics = serving.metrics();
    let b = meminfo("AnonPages");
    let anon = metrics.value("spark_trace_memory_bytes", &[("plane", "system"), ("source", "anon")]);
    let pinned: f64 =
        metrics.all("spark_trace_memory_bytes", &[("plane", "system"), ("source", "anon-pinned")]).sum();
    let truth = (a.min(b) - 16 * MIB) as f64..=(a.max(b) + 16 * MIB) as f64;
    faults.expect(truth.contains(&(anon + pinned)), || format!("anon {anon}, the kernel: {truth:?}"));
    let charged = metrics.value("spark_trace_cgroup_bytes", &[("cgroup", &own.path)]);
    let kernel = cgroup::charged(&own.path).usage;
    faults.expect((charged - kernel as f64).abs() <= MIB as f64, || format!("charged {charged}, {kernel}"));
    for plane in ["system", "cgroup"] {
        let sources: f64 = metrics.all("spark_trace_memory_bytes", &[("plane", plane)]).sum();
        let counter = metrics.value("spark_trace_plane_bytes", &[("plane", plane)]);
        faults.expect(sources == counter, || format!("{plane}: {sources} of {counter}"));
    }
    let cgroups: f64 = metrics.all("spark_trace_cgroup_bytes", &[]).sum();
    let counter = metrics.value("spark_trace_plane_bytes", &[("plane", "cgroup")]);
    faults.expect(cgroups == counter, || format!("cgroups {cgroups} of {counter}"));
    let hooks = |state| metrics.value("spark_trace_hooks", &[("state", state)]);
    faults.expect(hooks("ok") > 5.0 && hooks("ok") == hooks("wanted"), || "hooks".to_owned());
    faults.expect(serving.get("/healthz", "").0 == 200, || "health".to_owned());
    faults.expect(serving.get("/", "").0 == 404, || "a page that is none".to_owned());
    faults.finish();

    let taken = command(&support::disk_dir(), &serving.address, &[]).output().unwrap();
    let error = String::from_utf8_lossy(&taken.stderr).into_owned();
    assert!(!taken.status.success() && error.contains("choose another with --listen"), "{error}");

    let binary = spark_trace().get_program().to_string_lossy().into_owned();
    let dir = serving.end();
    let left = support::bpf::left_behind(&before, &binary);
    assert_eq!(left, support::bpf::Ids::default());
    // What it kept is written at its end.
    let shown = show(&dir.path().join("state/recent.json.zst"));
    assert!(int(&shown["planes"]["system"]["level"]["expected"]) > 0);
}

fn show(file: &std::path::Path) -> Value {
    let output = spark_trace().arg("show").arg(file).args(["--format", "json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A recording as JSON.
fn read(file: &std::path::Path) -> Value {
    serde_json::from_slice(&zstd::decode_all(fs::File::open(file).unwrap()).unwrap()).unwrap()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn with_a_token_nobody_gets_in_without() {
    let dir = support::disk_dir();
    let token = support::path(&dir, "token");
    fs::write(&token, "0123456789abcdef0123\n").unwrap();
    fs::set_permissions(&token, PermissionsExt::from_mode(0o600)).unwrap();
    let serving = Serving::start(&["--token-file", &token, "--light"]);
    for path in ["/metrics", "/healthz"] {
        for header in ["", "Authorization: Bearer 0123456789abcdef0124\r\n", "Authorization: Basic eDp5\r\n"]
        {
            let (status, head, _) = serving.get(path, header);
            assert_eq!(status, 401, "{path} {header}");
            assert!(head.contains("www-authenticate: bearer"), "{head}");
        }
        assert_eq!(serving.get(path, "Authorization: Bearer 0123456789abcdef0123\r\n").0, 200);
    }
    serving.end();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_minutes_before_now_become_a_recording() {
    let serving = Serving::start(&["--light"]);
    let state = serving.state("state");
    let since = |time: &str, file: &str| {
        let output = serving.state(file);
        let done = spark_trace()
            .args(["record", "--since", time, "--state", &state, "-o", &output])
            .output()
            .unwrap();
        (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned(), PathBuf::from(output))
    };
    // More than two seconds of readings, of which only two are wanted.
    let reading = || serving.metrics().value("spark_trace_reading_timestamp_seconds", &[]);
    let first = reading();
    wait_for("four seconds of readings", || (reading() >= first + 4.0).then_some(()));
    let (code, error, file) = since("2s", "short.json.zst");
    assert_eq!(code, Some(0), "{error}");
    let recording = read(&file);
    let times = array(&recording["samples"]["system"]["end_ns"]);
    let (first, last) = (int(&times[1]), int(times.last().unwrap()));
    assert!((1_000_000_000..=2_000_000_000).contains(&(last - first)), "{first} to {last}");
    assert_eq!(text(&recording["target"]["kind"]), "system");
    assert!(int(&show(&file)["planes"]["system"]["level"]["expected"]) > 0);

    let (code, error, file) = since("5m", "long.json.zst");
    assert!(code == Some(0) && error.contains("only the last"), "{error}");
    assert!(array(&read(&file)["samples"]["system"]["end_ns"]).len() > times.len());
    assert_eq!(since("5m", "long.json.zst").0, Some(2), "an existing file stays");

    let other = serving.state("other");
    let done =
        spark_trace().args(["record", "--since", "1m", "--state", &other, "-o", &other]).output().unwrap();
    let error = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(
        done.status.code() == Some(2) && error.contains("no `spark-trace serve` keeps its files"),
        "{error}"
    );
    serving.end();
}

/// The file of a killed program may be made to end whoever looks into it.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_oom_kill_of_a_program_that_means_harm_is_recorded() {
    let serving = Serving::start(&[]);
    serving.new_reading();
    let mut program = fs::read(workload()).unwrap();
    let claim = elf::compressed(1 << 63, b"x");
    elf::add_section(&mut program, ".debug_info", elf::PROGBITS, elf::COMPRESSED, &claim);
    elf::resize_sections(&mut program, elf::SYMTAB, 1 << 62);
    let path = support::path(&serving.dir, "program");
    fs::write(&path, program).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let (_, v2) = cgroup::memory_root();
    let own = cgroup::Own::create("serve-hostile");
    let limit = if v2 { "memory.max" } else { "memory.limit_in_bytes" };
    fs::write(own.dir.join(limit), (64 * MIB).to_string()).unwrap();
    serving.new_reading();
    let mut victim = Command::new(&path);
    victim.args(["alloc", "--anon", "256M", "--hold", "300s"]);
    own.start_in(&mut victim);
    let mut victim = Other::start(&mut victim);
    let pid = victim.pid();
    wait_for("the workload to be killed", || (!victim.runs()).then_some(()));
    let file = wait_for("the recording of it", || serving.kills().first().cloned());
    let shown = show(&file);
    assert!(array(&shown["processes"]).iter().any(|row| row["pid"] == pid && row["exit"] == "signal 9"));
    serving.new_reading();
    serving.end();
}

/// A machine has tens of thousands of files in its cache: a recording of a kill names the largest.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_recording_of_a_kill_names_the_largest_cached_files_alone() {
    const SMALL: usize = 6000;
    const MOST: usize = 4096;
    let serving = Serving::start(&[]);
    serving.new_reading();
    let files = support::disk_dir();
    for number in 0..SMALL {
        fs::write(files.path().join(format!("small-{number}")), [1; 100]).unwrap();
    }
    fs::write(files.path().join("large"), vec![1; 8 * MIB as usize]).unwrap();
    let (_, v2) = cgroup::memory_root();
    let own = cgroup::Own::create("serve-files");
    let limit = if v2 { "memory.max" } else { "memory.limit_in_bytes" };
    fs::write(own.dir.join(limit), (64 * MIB).to_string()).unwrap();
    serving.new_reading();
    let mut victim = Command::new(workload());
    victim.args(["alloc", "--anon", "256M", "--hold", "300s"]);
    own.start_in(&mut victim);
    let mut victim = Other::start(&mut victim);
    wait_for("the workload to be killed", || (!victim.runs()).then_some(()));
    let recording = read(&wait_for("the recording of it", || serving.kills().first().cloned()));
    let seen = array(&recording["provenance"]["files"]).iter().filter(|file| int(&file["bytes_added"]) > 0);
    let seen: Vec<_> = seen.collect();
    assert!(seen.len() <= MOST + 200, "{} rows of files", seen.len());
    let large = seen.iter().filter_map(|file| file["path"].as_str()).filter(|path| path.ends_with("/large"));
    assert_eq!(large.count(), 1);
    let losses = array(&recording["health"]["losses"]);
    let left_out = losses.iter().find(|loss| loss["what"] == "file_rows").map(|loss| int(&loss["count"]));
    assert!(left_out >= Some((SMALL - MOST) as i64), "{losses:?}");
    serving.end();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_oom_kill_leaves_the_minutes_before_it() {
    let serving = Serving::start(&["--keep-oom", "2"]);
    serving.new_reading();
    let (_, v2) = cgroup::memory_root();
    let own = cgroup::Own::create("serve-oom");
    let limit = if v2 { "memory.max" } else { "memory.limit_in_bytes" };
    fs::write(own.dir.join(limit), (64 * MIB).to_string()).unwrap();
    // Readings from before the kill, of which the file must have some.
    for _ in 0..5 {
        serving.new_reading();
    }
    let mut victim = Command::new(workload());
    victim.args(["alloc", "--anon", "256M", "--hold", "300s"]);
    own.start_in(&mut victim);
    let begun = support::oracle::monotonic_ns();
    let mut victim = Other::start(&mut victim);
    let pid = victim.pid();
    wait_for("the workload to be killed", || (!victim.runs()).then_some(()));
    let file = wait_for("the recording of it", || serving.kills().first().cloned());
    let recording = read(&file);
    let shown = show(&file);

    let mut faults = Faults::default();
    let times = array(&recording["samples"]["system"]["end_ns"]);
    let before = times.iter().filter(|time| int(time) < begun).count();
    faults.expect(before >= 5, || format!("{before} readings from before the kill"));
    let marks = array(&recording["phases"]).iter().filter(|phase| phase["name"] == "oom-kill");
    let marks: Vec<_> = marks.map(|phase| int(&phase["at_ns"])).collect();
    faults.expect(marks.len() == 1 && marks[0] > begun, || format!("{marks:?}"));
    let killed = array(&shown["processes"]).iter().any(|row| row["pid"] == pid && row["exit"] == "signal 9");
    faults.expect(killed, || format!("process {pid} is not reported as killed"));
    let instants = array(&recording["provenance"]["instants"]);
    faults.expect(!instants.is_empty(), || "no details were read".to_owned());
    let metrics = serving.metrics();
    faults.expect(metrics.value("spark_trace_oom_recordings", &[]) == 1.0, || "not counted".to_owned());
    faults.finish();
    serving.end();
}
