//! A study run to its end, natively and in Docker, though its runner is killed twice on the way.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{self, MIB, array, int, wait_for};

const ROUNDS: usize = 10;
/// A dozen runs on a busy machine.
const LIMIT: Duration = Duration::from_mins(8);

fn study(words: &[&str]) -> Command {
    let mut command = support::spark_trace();
    command.arg("study").args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn output(words: &[&str]) -> String {
    let output = study(words).output().unwrap();
    let messages = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words:?}: {messages}");
    String::from_utf8(output.stdout).unwrap()
}

fn status(dir: &str) -> Value {
    serde_json::from_str(&output(&["status", dir, "--format", "json"])).unwrap()
}

/// Starts a runner and kills it once `runs` have succeeded and another one is under way.
fn killed_after(words: &[&str], dir: &str, runs: i64) {
    let messages = format!("{dir}.messages");
    let mut runner: Child = study(words).stderr(fs::File::create(&messages).unwrap()).spawn().unwrap();
    let began = Instant::now();
    loop {
        let ended = runner.try_wait().unwrap();
        assert!(
            ended.is_none(),
            "the runner has ended by itself: {}",
            fs::read_to_string(&messages).unwrap()
        );
        assert!(began.elapsed() < LIMIT, "after {LIMIT:?} there are not {runs} runs");
        if fs::exists(format!("{dir}/journal.jsonl")).unwrap() {
            let status = status(dir);
            if int(&status["succeeded"]) >= runs && status["under_way"].is_u64() {
                break;
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    runner.kill().unwrap();
    runner.wait().unwrap();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_study_that_is_killed_twice_loses_nothing_and_repeats_nothing() {
    let parent = support::disk_dir();
    let (plan, dir) = (support::path(&parent, "study.toml"), support::path(&parent, "study"));
    output(&["init", "--template", "demo", &plan]);
    // What else this kernel's machine does must not decide it: the image is this test's own.
    let text = fs::read_to_string(&plan).unwrap().replace("study-demo:latest", "study-test:latest");
    fs::write(&plan, text).unwrap();

    killed_after(&["run", &plan, "--dir", &dir], &dir, 3);
    killed_after(&["resume", &dir], &dir, 12);
    // A second runner is refused while one is at work.
    let mut last = study(&["resume", &dir]).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the runner", || (status(&dir)["running"] == true).then_some(()));
    let refused = study(&["resume", &dir]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("another runner"));
    assert!(last.wait().unwrap().success());

    let status = status(&dir);
    let planned = 2 * (ROUNDS + 1);
    assert_eq!((&status["complete"], int(&status["succeeded"])), (&Value::Bool(true), planned as i64));
    assert_eq!((int(&status["failed"]), int(&status["lost"])), (0, 2));
    // Each run once, in the planned order, with a recording of its own.
    let report: Value = serde_json::from_str(&output(&["report", &dir, "--format", "json"])).unwrap();
    let journal = fs::read_to_string(format!("{dir}/journal.jsonl")).unwrap();
    let mut succeeded: BTreeMap<i64, usize> = BTreeMap::new();
    let mut last_number = 0;
    for line in journal.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        // What only warmed up again has no round, and is none of the plan's.
        let again = line["run"]["warmup"] == true && line["run"]["iteration"] == 0;
        if line["entry"] == "end" && line["run"]["failure"].is_null() && !again {
            let number = int(&line["run"]["number"]);
            assert!(number > last_number, "{number} after {last_number}");
            last_number = number;
            *succeeded.entry(number).or_default() += 1;
            let recording = format!("{dir}/{}", line["run"]["recording"].as_str().unwrap());
            assert!(fs::metadata(&recording).unwrap().len() > 1000, "{recording}");
        }
    }
    assert_eq!(succeeded.len(), planned);
    assert!(succeeded.values().all(|times| *times == 1), "{succeeded:?}");

    // Both take the same: 128 MiB and 32 MiB, and the file that neither finds in memory.
    let comparison = |name: &str| {
        let rows = array(&report["comparisons"]).iter().chain(array(&report["sources"]));
        rows.clone().find(|row| row["subject"]["name"] == name).unwrap_or_else(|| panic!("no {name}"))
    };
    let gib = |bytes: i64| bytes as f64 / (1024.0 * MIB as f64);
    let charged = comparison("cgroup-used");
    for side in ["a", "b"] {
        assert_eq!(int(&charged[side]["n"]), ROUNDS as i64);
        let mean = charged[side]["mean"].as_f64().unwrap();
        assert!(mean > gib(160 * MIB) && mean < gib(240 * MIB), "{side}: {mean}");
    }
    assert_eq!(charged["test"], "paired t test");
    assert_eq!(comparison("unattributed")["a"]["n"], ROUNDS);

    // Its site, and what a second one would destroy.
    let site = support::path(&parent, "site");
    output(&["report", &dir, "-o", &site]);
    let index = fs::read_to_string(format!("{site}/index.html")).unwrap();
    assert!(index.contains("small: docker against native") && index.contains("small--docker.html"));
    assert!(fs::read_to_string(format!("{site}/small--docker.html")).unwrap().contains("<svg"));
    let again = study(&["report", &dir, "-o", &site]).output().unwrap();
    assert_eq!(again.status.code(), Some(2));
    let _ = Command::new("docker").args(["image", "rm", "spark-trace-study-test:latest"]).output();
}

/// A gate that is closed for a while, a model that never runs, one that fails in containers, and a runner that is killed.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_report_says_what_happened_to_the_study() {
    let parent = support::disk_dir();
    let (plan, dir) = (support::path(&parent, "study.toml"), support::path(&parent, "study"));
    // A process that only this test has.
    let blocker = support::path(&parent, "st-closes-gate");
    fs::copy("/bin/sleep", &blocker).unwrap();
    let mut closed = Command::new(&blocker).arg("600").spawn().unwrap();
    let text = r#"
name = "happenings"
runs = 3
give-up-after = 2
timeout = "2m"
[[environments]]
name = "native"
kind = "native"
values = { program = "{workload}", some = "8M" }
[[environments]]
name = "docker"
kind = "docker"
image = "spark-trace-study-happenings:latest"
import-program = "{workload}"
flags = ["--network=none"]
values = { program = "/{workload.name}", some = "nothing" }
[[models]]
name = "good"
values = { anon = "16M" }
[[models]]
name = "half"
values = { anon = "{some}" }
[[models]]
name = "bad"
values = { anon = "nothing" }
[workload]
command = ["{program}", "alloc", "--anon", "{anon}", "--hold", "200ms"]
[gates]
no-processes = ["st-closes-gate"]
wait = "1s"
on-closed = "wait"
[estimate]
run = "5s"
"#;
    fs::write(&plan, text).unwrap();
    // What it finds before it begins, in words and numbers.
    let check: Value = serde_json::from_str(&output(&["check", &plan, "--format", "json"])).unwrap();
    assert_eq!((&check["can_run"], int(&check["runs"])), (&Value::Bool(true), 18));
    assert!((check["hours"].as_f64().unwrap() - 18.0 * 5.0 / 3600.0).abs() < 1e-9);
    let gate = array(&check["findings"]).iter().find(|it| it["check"] == "gates").unwrap();
    assert_eq!((&gate["severity"], &gate["subject"]), (&"warning".into(), &"no-processes".into()));

    let messages = support::path(&parent, "messages");
    let mut runner = study(&["run", &plan, "--dir", &dir]);
    let mut runner = runner.stderr(fs::File::create(&messages).unwrap()).spawn().unwrap();
    let journal = || fs::read_to_string(format!("{dir}/journal.jsonl")).unwrap_or_default();
    wait_for("the gate to be written down", || {
        assert!(runner.try_wait().unwrap().is_none(), "{}", fs::read_to_string(&messages).unwrap());
        journal().contains("\"gate-closed\"").then_some(())
    });
    closed.kill().unwrap();
    closed.wait().unwrap();
    wait_for("a run that is under way after another one", || {
        let status = status(&dir);
        (int(&status["succeeded"]) >= 1 && status["under_way"].is_u64()).then_some(())
    });
    runner.kill().unwrap();
    runner.wait().unwrap();
    output(&["resume", &dir]);

    let status = status(&dir);
    assert_eq!((&status["complete"], int(&status["succeeded"])), (&Value::Bool(true), 9));
    // Two failures each of `half` in Docker and of `bad` in both, then no more.
    assert_eq!((int(&status["failed"]), int(&status["lost"]), int(&status["left_out"])), (6, 1, 3));
    let report: Value = serde_json::from_str(&output(&["report", &dir, "--format", "json"])).unwrap();
    let whats: Vec<&str> = array(&report["happenings"]).iter().filter_map(|it| it["what"].as_str()).collect();
    assert_eq!(whats, ["gate-closed", "resumed", "left-out", "left-out", "left-out"]);
    for form in ["table", "markdown"] {
        let text = output(&["report", &dir, "--format", form]);
        for words in [
            "no-processes was closed for",
            "the study was resumed",
            "half in docker failed 2 times",
            "bad in native failed 2 times",
        ] {
            let words = if form == "markdown" { words.replace('_', "\\_") } else { words.to_owned() };
            assert!(text.contains(&words), "{form}: no `{words}` in {text}");
        }
    }
    let _ = Command::new("docker").args(["image", "rm", "spark-trace-study-happenings:latest"]).output();
}

/// 448 MiB more, of runs that differ by up to 1 MiB: the first look decides, and the other half of the study is not made. Without
/// that MiB all runs of an environment would be alike to the byte, and have no interval. The memory is held for many readings: a
/// busy machine delays some.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_look_ends_a_model_that_it_has_decided() {
    let parent = support::disk_dir();
    let (plan, dir) = (support::path(&parent, "study.toml"), support::path(&parent, "study"));
    let text = r#"
name = "ending"
runs = 6
warmups = 1
looks = [3]
end-at-looks = true
timeout = "2m"
primary = [{ metric = "cgroup-used", margin = { within = 0.02 } }]
[[environments]]
name = "small"
kind = "native"
values = { anon = "65536" }
[[environments]]
name = "large"
kind = "native"
values = { anon = "524288" }
[[models]]
name = "decided"
[[models]]
name = "alike"
values = { anon = "65536" }
[workload]
command = ["sh", "-c", "exec {workload} alloc --anon $(( {anon} + 4 * $(od -An -N1 -tu1 /dev/urandom) ))K --hold 1s"]
"#;
    fs::write(&plan, text).unwrap();
    output(&["run", &plan, "--dir", &dir]);
    let report: Value = serde_json::from_str(&output(&["report", &dir, "--format", "json"])).unwrap();
    let looks: BTreeMap<&str, &Value> =
        array(&report["looks"]).iter().filter_map(|look| Some((look["model"].as_str()?, look))).collect();
    let ended = looks["decided"]["ended"].as_str().unwrap();
    assert!(
        ended.contains("cgroup-used in large") && ended.contains("outside of the margin of 0.020"),
        "{ended}"
    );
    assert_eq!((int(&looks["decided"]["number"]), int(&looks["decided"]["round"])), (1, 3));
    // Both environments of the other model do the same: within the margin, which ends it as well.
    let ended = looks["alike"]["ended"].as_str().unwrap();
    assert!(ended.contains("inside of the margin"), "{ended}");
    let status = status(&dir);
    assert_eq!((&status["complete"], int(&status["left_out"])), (&Value::Bool(true), 12));
    let text = output(&["report", &dir]);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in [
        "stopped at look 1 of 2, after 3 of 6 rounds: the difference of cgroup-used",
        "decided stopped at look 1 of 2",
    ] {
        assert!(text.contains(words), "no `{words}` in {text}");
    }
}

/// Where a gate never opens, rounds are left out, and the study ends.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn rounds_whose_gate_stays_closed_are_left_out() {
    let parent = support::disk_dir();
    let (plan, dir) = (support::path(&parent, "study.toml"), support::path(&parent, "study"));
    let text = "name = \"skips\"\nruns = 2\n[[environments]]\nname = \"a\"\nkind = \"native\"\n[[environments]]\n\
                name = \"b\"\nkind = \"native\"\n[[models]]\nname = \"m\"\n[workload]\ncommand = [\"true\"]\n\
                [gates]\nmem-free = \"1048576T\"\nwait = \"0s\"\non-closed = \"skip\"\n";
    fs::write(&plan, text).unwrap();
    // No run could ever pass it, and that is known before.
    let refused = study(&["run", &plan, "--dir", &dir]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("mem-free is") && said.contains("--no-check"), "{said}");
    assert!(!fs::exists(format!("{dir}/journal.jsonl")).unwrap());
    output(&["run", &plan, "--dir", &dir, "--no-check"]);
    let status = status(&dir);
    assert_eq!((&status["complete"], int(&status["left_out"])), (&Value::Bool(true), 4));
    let why: Vec<&Value> = array(&status["happenings"]).iter().map(|it| &it["numbers"]).collect();
    assert_eq!(why, [&serde_json::json!([1, 2]), &serde_json::json!([3, 4])]);
}

/// What the runner gives a run: limits, and requests that were made before it. The truth is the shell's own word. The limits
/// are low: without CAP_SYS_RESOURCE, as in some containers, root may not raise them.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_run_has_the_limits_and_the_dataset_of_its_plan() {
    let parent = support::disk_dir();
    let (plan, dir) = (support::path(&parent, "study.toml"), support::path(&parent, "study"));
    let file = support::path(&parent, "requests.jsonl");
    let text = format!(
        r#"
name = "limits"
runs = 1
[[environments]]
name = "native"
kind = "native"
ulimits = ["stack=4194304", "nofile=1000:2000"]
[[models]]
name = "m"
[workload]
command = ["sh", "-c", "ulimit -s; ulimit -Sn; ulimit -Hn; cat {file}"]
[dataset]
file = "{file}"
environment = "native"
ways = [
    {{ probe = ["false"], command = ["sh", "-c", "echo first > {file}.part"] }},
    {{ probe = ["true"], command = ["sh", "-c", "echo second > {file}.part"] }},
]
"#
    );
    fs::write(&plan, text).unwrap();
    output(&["run", &plan, "--dir", &dir]);
    let log = fs::read_to_string(format!("{dir}/runs/0001-1-native-m/log.txt")).unwrap();
    assert_eq!(log.split_whitespace().collect::<Vec<_>>(), ["4096", "1000", "2000", "second"]);
}

/// Mounts of a chroot are the command's alone, and a tree that was there already is taken as it is.
#[test]
#[ignore = "needs root and Docker: cargo xtask test"]
fn a_chroot_has_its_own_mounts() {
    let parent = support::disk_dir();
    let path = |name: &str| support::path(&parent, name);
    for made in ["tree", "models"] {
        fs::create_dir(path(made)).unwrap();
    }
    fs::copy(support::workload(), path("tree/workload")).unwrap();
    let image = support::docker::image();
    let adopt = || {
        support::spark_trace()
            .args(["study", "rootfs", &image, &path("rfs"), "--tree", &path("tree")])
            .output()
            .unwrap()
    };
    let open =
        |mode| fs::set_permissions(path("tree"), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    open(0o777);
    let refused = adopt();
    assert_eq!(refused.status.code(), Some(2), "others may write to it");
    open(0o755);
    let adopted = adopt();
    assert!(adopted.status.success(), "{}", String::from_utf8_lossy(&adopted.stderr));
    let create = |mount: &str, name: &str| {
        let mount = format!("{}:/data/models{mount}", path("models"));
        let line = [
            "chroot",
            "--mount",
            &mount,
            &path("rfs"),
            "--",
            "/workload",
            "file",
            "--create",
            name,
            "--size",
            "1M",
        ];
        support::spark_trace().args(line).output().unwrap()
    };
    let written = create("", "/data/models/weights.bin");
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    // On the host's side of the mount, and nowhere in the tree.
    assert_eq!(fs::metadata(path("models/weights.bin")).unwrap().len(), MIB as u64);
    assert_eq!(fs::read_dir(path("tree/data/models")).unwrap().count(), 0);
    assert!(!create(":ro", "/data/models/more.bin").status.success());
    assert!(!fs::exists(path("models/more.bin")).unwrap());
    assert!(!fs::read_to_string("/proc/self/mounts").unwrap().contains(&path("tree")));
}

/// llama-bench's report, written by a shell: what a run says of itself is in its journal, and what is not its own is no run.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_benchmark_s_results_are_those_of_its_run_or_the_run_fails() {
    let parent = support::disk_dir();
    let (plan, dir) = (support::path(&parent, "study.toml"), support::path(&parent, "study"));
    let text = r#"
name = "reports"
runs = 1
[[environments]]
name = "native"
kind = "native"
[[models]]
name = "its-own"
values = { time = "$(date -u +%Y-%m-%dT%H:%M:%SZ)" }
[[models]]
name = "stale"
values = { time = "2001-01-01T00:00:00Z" }
[[models]]
name = "none"
values = { time = "x; exit" }
[workload]
command = ["sh", "-c", """
test {model} = none && exit
echo "{{\\"n_prompt\\": 512, \\"n_gen\\": 0, \\"test_time\\": \\"{time}\\", \\"avg_ts\\": 3012.25}}" > {run.dir}/bench.jsonl
echo '| model | test | t/s |'
echo '| llama 8B | pp512 | 3012.20 ± 2.50 |'
echo '| llama 8B | tg128 | 38.50 ± 0.50 |'
"""]
results = ["bench.jsonl"]
[[metrics]]
name = "prompt-throughput"
required = true
"#;
    fs::write(&plan, text).unwrap();
    output(&["run", &plan, "--dir", &dir]);
    let journal = fs::read_to_string(format!("{dir}/journal.jsonl")).unwrap();
    let entries = journal.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let ended: Vec<Value> = entries.filter(|entry| entry["entry"] == "end").collect();
    let run = |model: &str| {
        let found = ended.iter().map(|entry| &entry["run"]).find(|run| run["model"] == model);
        found.unwrap_or_else(|| panic!("no run of {model}: {journal}"))
    };
    let own = run("its-own");
    assert!(own["failure"].is_null(), "{own}");
    assert_eq!(
        (&own["metrics"]["prompt-throughput"], &own["metrics"]["generation-throughput"]),
        (&3012.25.into(), &38.5.into())
    );
    assert_eq!(own["facts"]["benchmark"], "llama-bench");
    for (model, wanted) in [
        (
            "stale",
            "bench.jsonl and the recording are of different runs: the file's lines are of 2001-01-01 00:00:00",
        ),
        ("none", "bench.jsonl: cannot be used: No such file"),
    ] {
        let failure = run(model)["failure"].as_str().unwrap_or_default().to_owned();
        assert!(failure.contains(wanted), "{model}: {failure}");
    }
    // Read again, with the log of another day beside the recording.
    let before = run("its-own")["recording"].as_str().unwrap().replace("recording.json.zst", "log.txt");
    fs::write(format!("{dir}/{before}"), "[11/20/2001-10:11:12] [TRT-LLM] [I] x\n").unwrap();
    let again = study(&["reread", &dir]).output().unwrap();
    let message = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(
        !again.status.success() && message.contains("log.txt and the recording are of different runs"),
        "{message}"
    );
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_image_runs_in_a_chroot_with_what_its_containers_get() {
    let parent = support::disk_dir();
    let dir = support::path(&parent, "rootfs");
    let mut command = support::spark_trace();
    let output = command.args(["study", "rootfs", &support::docker::image(), &dir]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("inodes:") && text.contains("capabilities:"), "{text}");
    // The engine's own word for what it put there.
    let path = support::docker::docker(&format!(
        "image inspect --format {{{{.Config.Env}}}} {}",
        support::docker::image()
    ));
    let rootfs: Value = support::json(format!("{dir}/rootfs.json"));
    assert_eq!(path.contains("PATH="), rootfs["environment"]["PATH"].is_string(), "{path}: {rootfs}");
    // A second time it would mix two images.
    let mut again = support::spark_trace();
    assert_eq!(
        again.args(["rootfs", &support::docker::image(), &dir]).output().unwrap().status.code(),
        Some(2)
    );
    let bin = support::spark_trace().get_program().to_string_lossy().into_owned();
    let line = format!("-- {bin} chroot {dir} -- /workload alloc --anon 64M --hold 2s");
    let recorded = support::record(&support::path(&parent, "r.json"), &line).exited(0);
    assert_eq!(int(&recorded.said()["sources"][0]["bytes"]), 64 * MIB);
    let anon = support::source(&recorded.show(), "cgroup", "anon");
    assert!((64 * MIB..72 * MIB).contains(&anon), "{anon}");
}

#[test]
#[ignore = "needs root and Docker: cargo xtask test"]
fn an_image_writes_nowhere_but_into_its_tree_and_gives_nobody_rights() {
    use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
    let parent = support::disk_dir();
    let path = |name: &str| support::path(&parent, name);
    fs::write(path("victim"), "theirs").unwrap();
    let mut archive = tar::Builder::new(Vec::new());
    archive.follow_symlinks(false);
    // The names of notes, here and in the directory above, lead out of the tree.
    for name in [".spark-trace-rootfs.json", "rootfs.json", "tree"] {
        symlink(path("victim"), path("link")).unwrap();
        archive.append_path_with_name(path("link"), name).unwrap();
        fs::remove_file(path("link")).unwrap();
    }
    let mut add = |name: &str, kind, mode, contents: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(contents.len() as u64);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        archive.append_data(&mut header, name, contents).unwrap();
    };
    add("rootshell", tar::EntryType::Regular, 0o6755, b"program");
    add("disk", tar::EntryType::Block, 0o666, b"");
    add("null", tar::EntryType::Char, 0o666, b"");
    add("plain", tar::EntryType::Regular, 0o644, b"text");
    fs::write(path("image.tar"), archive.into_inner().unwrap()).unwrap();
    let image = format!("spark-trace-rootfs-test-{}:latest", std::process::id());
    let change = r#"ENV X="$(touch pwned)""#;
    let import = Command::new("docker").args(["import", "-c", change, &path("image.tar"), &image]).output();
    assert!(import.unwrap().status.success());
    let unpack = |dir: &str, options: &[&str]| {
        support::spark_trace().args(["rootfs", &image, &path(dir)]).args(options).output().unwrap()
    };
    let first = unpack("rfs", &[]);
    let again = unpack("rfs", &["--force"]);
    fs::create_dir(path("open")).unwrap();
    let open = unpack("open", &[]);
    let _ = Command::new("docker").args(["image", "rm", &image]).output();
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    assert_eq!(fs::read_to_string(path("victim")).unwrap(), "theirs");
    assert_eq!(fs::metadata(path("rfs")).unwrap().mode() & 0o7777, 0o700);
    for tree in ["rfs/tree", "rfs/tree.1"] {
        let about = |name: &str| fs::symlink_metadata(path(&format!("{tree}/{name}")));
        assert_eq!(about("rootshell").unwrap().mode() & 0o7777, 0o755);
        assert_eq!(about("plain").unwrap().mode() & 0o7777, 0o644);
        for device in ["disk", "null"] {
            let kind = about(device).map(|about| about.file_type());
            assert!(kind.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound), "{device}");
        }
        assert!(!about("rootfs.json").unwrap().file_type().is_block_device());
    }
    let notes: Value = support::json(path("rfs/rootfs.json"));
    assert_eq!(notes["environment"]["X"], "$(touch pwned)");
    assert!(fs::symlink_metadata(path("rfs/rootfs.json")).unwrap().is_file());
    assert_eq!(open.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&open.stderr).contains("chmod 700"));
}
