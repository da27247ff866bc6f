//! `record -- COMMAND` as a user meets it: exit codes, files, where the command runs, signals.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use crate::support::ledger::allocated;
use crate::support::{
    self, MIB, Recorded, Running, cgroup, int, json, record, record_words, source, text, workload,
};

const USAGE: i32 = 64;

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_exit_code_is_the_commands() {
    let dir = support::disk_dir();
    for (options, code) in [("", 0), ("--exit-code 3", 3), ("--abort", 128 + libc::SIGABRT)] {
        let output = support::path(&dir, &format!("{code}.json"));
        let recorded =
            record(&output, &format!("-- {} alloc --anon 4M --hold 50ms {options}", workload())).exited(code);
        assert_eq!(recorded.recording()["target"]["exit_code"], code);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_recording_is_private_and_the_journal_goes() {
    let dir = support::disk_dir();
    for name in ["r.json", "r.json.zst"] {
        let recorded = record(&support::path(&dir, name), "-- true").exited(0);
        assert_eq!(fs::metadata(&recorded.output).unwrap().mode() & 0o7777, 0o600);
        assert!(!recorded.partial().exists(), "the journal of {name}");
        assert_eq!(recorded.show()["health"]["complete"], true);
        assert!(recorded.stderr.contains(name), "says where it is: {}", recorded.stderr);
    }
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_command_runs_in_a_cgroup_of_its_own_that_is_gone_afterwards() {
    let dir = support::disk_dir();
    let output = support::path(&dir, "r.json");
    let recorded = record(&output, "-- cat /proc/self/cgroup").exited(0);
    let path = cgroup::path_in(&recorded.stdout).unwrap();
    assert!(path.starts_with(&format!("/spark-trace-{}-", recorded.pid)), "it ran in {path}");
    let recording = recorded.recording();
    assert_eq!(text(&recording["target"]["cgroups"][0]["path"]), path);
    assert!(cgroup::leaves_of(recorded.pid).is_empty());

    // Also where the command leaves processes and cgroups behind in it.
    let mark = support::path(&dir, "mark");
    // What is left must not have our pipes: they are read to their end.
    let (root, _) = cgroup::memory_root();
    let script = format!(
        "mkdir {}$(grep -E '^0::|memory' /proc/self/cgroup | head -n 1 | cut -d: -f3)/below; sleep 30.1 >/dev/null 2>&1 & \
         touch {mark}",
        root.display()
    );
    let output = support::path(&dir, "left.json");
    let recorded = record_words(&output, &["--", "sh", "-c", &script, &mark]).exited(0);
    assert!(Path::new(&mark).exists());
    let left = cgroup::leaves_of(recorded.pid);
    support::kill_children_named(&["sleep", "30.1"]);
    assert!(left.is_empty(), "{left:?} is left, with {:?}", recorded.stderr);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn without_a_cgroup_the_command_stays_where_it_is_started() {
    let dir = support::disk_dir();
    let own = cgroup::of_process(std::process::id()).unwrap();
    let recorded = record(&support::path(&dir, "r.json"), "--no-cgroup -- cat /proc/self/cgroup").exited(0);
    assert_eq!(cgroup::path_in(&recorded.stdout).unwrap(), own);

    let truth = support::path(&dir, "truth.json");
    let line = format!(
        "--no-cgroup -- {} alloc --anon 64M --children 1 --child-anon 32M --hold 300ms --output {truth}",
        workload()
    );
    let show = record(&support::path(&dir, "w.json"), &line).exited(0).show();
    let truth = json(&truth);
    let row = |pid| support::array(&show["processes"]).iter().find(|row| row["pid"] == pid).unwrap();
    let parent = row(truth["pid"].clone());
    assert!(int(&parent["at_peak"]["rss_anon"]) >= 64 * MIB, "{parent}");
    let child = support::array(&truth["sources"]).iter().find(|s| s["kind"] == "child-anon").unwrap();
    let child = row(child["detail"]["pid"].clone());
    assert!(int(&child["at_peak"]["rss_anon"]) >= 32 * MIB, "{child}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_existing_file_is_kept_without_force() {
    let dir = support::disk_dir();
    let (output, ran) = (support::path(&dir, "r.json"), support::path(&dir, "ran"));
    fs::write(&output, "mine").unwrap();
    let refused = record(&output, &format!("-- touch {ran}"));
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains("--force"), "{}", refused.stderr);
    assert_eq!(fs::read_to_string(&output).unwrap(), "mine");
    assert!(!Path::new(&ran).exists(), "the command must not run for nothing");
    assert!(!refused.partial().exists());

    record(&output, &format!("--force -- touch {ran}")).exited(0).show();
    assert!(Path::new(&ran).exists());
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn wrong_usage_is_reported_before_anything_runs() {
    let dir = support::disk_dir();
    let ran = support::path(&dir, "ran");
    for line in [
        String::new(),
        "--".into(),
        format!("--fly -- touch {ran}"),
        format!("--ring-size 5000 -- touch {ran}"),
        format!("--ring-size 512 -- touch {ran}"),
        format!("--interval soon -- touch {ran}"),
        format!("--interval 0 -- touch {ran}"),
        format!("--interval 999us -- touch {ran}"),
        format!("--gpu-interval 0 -- touch {ran}"),
        format!("--cuda-library {ran} -- touch {ran}"),
        format!("--profile huge -- touch {ran}"),
        "--duration 100ms --pid 1 --system".into(),
        format!("--duration 100ms --pid {} -- touch {ran}", std::process::id()),
    ] {
        let recorded = record(&support::path(&dir, "r.json"), &line);
        assert_eq!(recorded.code, Some(USAGE), "{line}: {}", recorded.stderr);
        assert!(!Path::new(&ran).exists() && !recorded.output.exists(), "{line}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_command_that_cannot_start_has_the_shells_exit_code_and_leaves_no_traces() {
    let dir = support::disk_dir();
    let directory = support::path(&dir, "");
    let mut faults = support::Faults::default();
    let plain = support::path(&dir, "plain");
    fs::write(&plain, "no program").unwrap();
    for (command, code) in
        [("/no/such/program", 127), ("no-such-program-anywhere", 127), (&directory, 126), (&plain, 126)]
    {
        let before = support::bpf::ids();
        let recorded = record(&support::path(&dir, "r.json"), &format!("-- {command}")).exited(code);
        assert!(recorded.stderr.contains(command), "{}", recorded.stderr);
        faults.expect(!recorded.output.exists(), || format!("{command}: a recording of nothing"));
        faults.expect(!recorded.partial().exists(), || format!("{command}: the journal is left"));
        let leaves = cgroup::leaves_of(recorded.pid);
        faults.expect(leaves.is_empty(), || format!("{command}: {leaves:?} is left"));
        let left = support::bpf::left_behind(&before, "");
        faults.expect(left == support::bpf::Ids::default(), || format!("{command}: attached: {left:?}"));
    }
    faults.finish();
    let nowhere = support::path(&dir, "no/such/directory/r.json");
    let recorded = record(&nowhere, "-- true");
    assert!(matches!(recorded.code, Some(1 | 2)), "{:?}: {}", recorded.code, recorded.stderr);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn under_sudo_the_command_and_the_file_are_the_users() {
    const NOBODY: &str = "65534";
    let dir = support::disk_dir();
    let run = |name: &str, words: &[&str]| -> Recorded {
        let mut command = support::spark_trace();
        command.env("SUDO_UID", NOBODY).env("SUDO_GID", NOBODY).env("SUDO_USER", "nobody");
        command.env("HOME", "/root").env("USER", "root").env("LOGNAME", "root").env_remove("SHELL");
        Running::start_as(command, &support::path(&dir, name), words).finish().exited(0)
    };
    for (words, uid) in [(&["--", "id", "-u"][..], NOBODY), (&["--as-root", "--", "id", "-u"], "0")] {
        let recorded = run(&format!("{uid}.json"), words);
        assert_eq!(recorded.stdout.trim(), uid);
        let owner = fs::metadata(&recorded.output).unwrap();
        assert_eq!((owner.uid().to_string(), owner.gid().to_string()), (NOBODY.into(), NOBODY.into()));
        assert_eq!(owner.mode() & 0o7777, 0o600);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn under_sudo_the_environment_is_the_users() {
    let database = fs::read_to_string("/etc/passwd").unwrap();
    let entry = database.lines().find(|line| line.split(':').nth(2) == Some("65534")).expect("a user nobody");
    let fields: Vec<_> = entry.split(':').collect();
    let dir = support::disk_dir();
    let script = r#"printf '%s\n' "$HOME" "$USER" "$LOGNAME" "$SHELL""#;
    let run = |name: &str, home: &str, words: &[&str]| {
        let mut command = support::spark_trace();
        // What this says of the user does not count: the user database does.
        command.env("SUDO_UID", "65534").env("SUDO_GID", "65534").env("SUDO_USER", "someone-else");
        command.env("HOME", home).env("USER", "root").env("LOGNAME", "root").env_remove("SHELL");
        let words = [words, &["sh", "-c", script]].concat();
        Running::start_as(command, &support::path(&dir, name), &words).finish().exited(0).stdout
    };
    let users = format!("{}\n{}\n{}\n{}\n", fields[5], fields[0], fields[0], fields[6]);
    assert_eq!(run("user.json", "/root", &[]), users);
    // What is not root's was set by the user.
    assert!(run("own.json", "/scratch", &[]).starts_with(&format!("/scratch\n{}\n", fields[0])));
    assert!(run("root.json", "/root", &["--as-root"]).starts_with("/root\nroot\nroot\n"));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn words_behind_the_command_are_the_commands_with_and_without_dashes() {
    let dir = support::disk_dir();
    let output = support::path(&dir, "r.json");
    for dashes in [&[][..], &["--"]] {
        let command = ["printf", "<%s>", "--epochs", "1", "-o", "x.json", "--", "-q"];
        let words = [&["--force", "-q"], dashes, &command].concat();
        let recorded = record_words(&output, &words).exited(0);
        assert_eq!(recorded.stdout, "<--epochs><1><-o><x.json><--><-q>\n", "{dashes:?}");
        assert_eq!(recorded.recording()["target"]["argv"], serde_json::json!(command));
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn words_that_are_not_utf_8_reach_the_command_as_they_are() {
    let dir = support::disk_dir();
    let output = support::path(&dir, "r.json");
    let script = r#"printf %s "$1" | od -An -tx1"#;
    let run = support::spark_trace()
        .args(["record", "-o", &output, "sh", "-c", script, "sh"])
        .arg(OsStr::from_bytes(b"caf\xe9"))
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(0), "{}", String::from_utf8_lossy(&run.stderr));
    assert_eq!(String::from_utf8(run.stdout).unwrap().trim(), "63 61 66 e9");
    assert_eq!(json(&output)["target"]["argv"][4], "caf\u{fffd}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn recordings_of_one_second_have_names_of_their_own() {
    let dir = support::disk_dir();
    let long = format!("{}/{}", dir.path().display(), "x".repeat(250));
    fs::copy(support::in_path("true"), &long).unwrap();
    let start = |program: &str| {
        let mut command = support::spark_trace();
        command.args(["record", "-q", program]).current_dir(dir.path()).spawn().unwrap()
    };
    let programs = ["true", "true", "true", "true", long.as_str(), long.as_str()];
    let running = programs.map(start);
    for mut child in running {
        assert_eq!(support::wait_for("a recording", || child.try_wait().unwrap()).code(), Some(0));
    }
    let names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    let recordings = names.iter().filter(|name| name.starts_with("spark-trace-") && name.ends_with(".json"));
    assert_eq!((recordings.count(), names.len()), (programs.len(), programs.len() + 1), "{names:?}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_is_no_file_is_neither_replaced_nor_followed() {
    let dir = support::disk_dir();
    let (other, ran) = (support::path(&dir, "other"), support::path(&dir, "ran"));
    fs::write(&other, "theirs").unwrap();
    let (link, fifo, device) =
        (support::path(&dir, "link"), support::path(&dir, "fifo"), support::path(&dir, "device"));
    std::os::unix::fs::symlink(&other, &link).unwrap();
    for words in [&["mkfifo", fifo.as_str()][..], &["mknod", &device, "c", "1", "3"]] {
        assert!(std::process::Command::new(words[0]).args(&words[1..]).status().unwrap().success());
    }
    let mut names = vec![link.as_str(), &fifo, &device];
    // The journal's name counts as well.
    let journal = support::path(&dir, "r.json");
    std::os::unix::fs::symlink(&other, format!("{journal}.partial")).unwrap();
    names.push(&journal);
    for name in names {
        for force in ["", "--force"] {
            // A FIFO is written to.
            if name != fifo {
                let recorded = record(name, &format!("{force} -- touch {ran}")).exited(2);
                assert!(recorded.stderr.contains("never replaced"), "{}", recorded.stderr);
            }
            let log =
                record(&support::path(&dir, "l.json"), &format!("{force} --log-file {name} -- touch {ran}"));
            assert!(name == journal || log.code == Some(2), "{}", log.stderr);
            assert!(name == journal || !Path::new(&ran).exists(), "{name}: it ran");
            let _ = fs::remove_file(&ran);
            let _ = fs::remove_file(support::path(&dir, "l.json"));
            let _ = fs::remove_file(&journal);
        }
    }
    assert_eq!(fs::read(&other).unwrap(), b"theirs");
    let kind = |name: &str| fs::symlink_metadata(name).unwrap().file_type();
    assert!(kind(&link).is_symlink() && kind(&fifo).is_fifo() && kind(&device).is_char_device());
    let recorded = record(&journal, &format!("--log-file - -- touch {ran}")).exited(USAGE);
    assert!(recorded.stderr.contains("goes to standard output as it is"), "{}", recorded.stderr);
    assert!(!Path::new(&ran).exists());
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_copy_of_the_output_that_cannot_be_made_is_reported_before_the_command_runs() {
    let dir = support::disk_dir();
    let ran = support::path(&dir, "ran");
    let nowhere = support::path(&dir, "none/log");
    let recorded =
        record(&support::path(&dir, "r.json"), &format!("--log-file {nowhere} -- touch {ran}")).exited(2);
    assert!(recorded.stderr.contains(&nowhere), "{}", recorded.stderr);
    assert!(!Path::new(&ran).exists() && !recorded.partial().exists());
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_an_interrupted_recording_left_is_not_overwritten() {
    let dir = support::disk_dir();
    let (output, ran) = (support::path(&dir, "r.json"), support::path(&dir, "ran"));
    fs::write(format!("{output}.partial"), "readings").unwrap();
    let recorded = record(&output, &format!("-- touch {ran}")).exited(2);
    assert!(recorded.stderr.contains("spark-trace recover"), "{}", recorded.stderr);
    assert!(!Path::new(&ran).exists());
    let recorded = record(&output, &format!("--force -- touch {ran}")).exited(0);
    assert!(Path::new(&ran).exists() && !recorded.partial().exists());
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn where_spark_trace_breaks_it_says_what_is_left() {
    let dir = support::disk_dir();
    // The command takes the name of its own recording: that cannot be written, and is not lost.
    let output = support::path(&dir, "r.json");
    let recorded =
        record_words(&output, &["--", "sh", "-c", "echo mine > \"$0\"; exit 3", &output]).exited(3);
    let message = format!("run `spark-trace recover {output}.partial`");
    let last = recorded.stderr.lines().last().unwrap();
    assert!(last.starts_with("spark-trace: the trace failed: ") && last.contains(&message), "{last}");
    assert_eq!(fs::read_to_string(&output).unwrap(), "mine\n");
    let journal = format!("{output}.partial");
    recover(&journal, &support::path(&dir, "recovered.json"));

    // Aborted, as by a failed allocation.
    let output = support::path(&dir, "aborted.json");
    let mark = support::path(&dir, "mark");
    let line = format!("-- {} alloc --anon 4M --hold 10s --output {mark}", workload());
    let running = Running::start(&output, &line.split_whitespace().collect::<Vec<_>>());
    running.has_entry("a reading", |entry| entry["entry"] == "sample");
    running.signal(libc::SIGABRT);
    let recorded = running.finish();
    support::kill_all_with(&mark);
    assert_eq!(recorded.code, Some(128 + libc::SIGABRT), "as a shell gives it");
    let message =
        format!("the journal is kept in {output}.partial; run `spark-trace recover {output}.partial`");
    assert!(recorded.stderr.contains(&message), "{}", recorded.stderr);
    recover(&format!("{output}.partial"), &support::path(&dir, "after-abort.json"));
}

fn recover(journal: &str, output: &str) {
    let run = support::spark_trace().args(["recover", journal, "-o", output]).output().unwrap();
    assert_eq!(run.status.code(), Some(0), "{}", String::from_utf8_lossy(&run.stderr));
    assert!(!support::array(&json(output)["samples"]["system"]["begin_ns"]).is_empty());
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_interrupt_reaches_the_command_and_the_recording_is_finished() {
    let dir = support::disk_dir();
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let truth = support::path(&dir, &format!("{signal}.truth.json"));
        let line = format!("-- {} alloc --anon 64M --hold 60s --jsonl --output {truth}", workload());
        let words: Vec<_> = line.split_whitespace().collect();
        let mut running = Running::start(&support::path(&dir, &format!("{signal}.json")), &words);
        running.phase("hold");
        // What no reading has seen cannot be in the recording: the command ends at once.
        running.has_entry("a reading of 64 MiB", |entry| {
            let columns = ["stat.anon", "stat.total_rss"].map(|column| entry["values"][column].as_i64());
            entry["series"]["cgroup"].is_u64() && columns.into_iter().flatten().any(|bytes| bytes >= 64 * MIB)
        });
        running.signal(signal);
        let recorded = running.finish().exited(128 + signal);
        let truth = json(&truth);
        assert_eq!(truth["stopped_by_signal"], signal, "the workload's own word");
        let recording = recorded.recording();
        assert_eq!(recording["health"]["complete"], true);
        assert_eq!(recording["target"]["exit_code"], 128 + signal);
        let mut faults = support::Faults::default();
        faults.near("anon", source(&recorded.show(), "cgroup", "anon"), allocated(&truth, "anon"));
        faults.finish();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_second_interrupt_kills_the_command() {
    let dir = support::disk_dir();
    let script = "trap 'echo interrupted' INT; echo ready; while :; do sleep 0.05; done";
    let mut running = Running::start(&support::path(&dir, "r.json"), &["--", "sh", "-c", script]);
    running.line(|line| line == "ready");
    running.signal(libc::SIGINT);
    running.line(|line| line == "interrupted");
    running.signal(libc::SIGINT);
    let recorded = running.finish().exited(128 + libc::SIGKILL);
    let recording = recorded.recording();
    assert_eq!(recording["health"]["complete"], true);
    assert_eq!(recording["target"]["exit_code"], 128 + libc::SIGKILL);
    assert!(cgroup::leaves_of(recorded.pid).is_empty());
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_interrupt_at_any_moment_leaves_nothing_behind() {
    let dir = support::disk_dir();
    let mut faults = support::Faults::default();
    for moment in (0..12).map(|step| Duration::from_millis(75 * step)) {
        let mark = support::path(&dir, &format!("{}.truth.json", moment.as_millis()));
        let line = format!("-q -- {} alloc --anon 4M --hold 60s --output {mark}", workload());
        let words: Vec<_> = line.split_whitespace().collect();
        let running = Running::start(&support::path(&dir, &format!("{}.json", moment.as_millis())), &words);
        // The moment is the point; there is nothing to poll for.
        std::thread::sleep(moment);
        running.signal(libc::SIGINT);
        let recorded = running.finish();
        let left = support::processes_with(&mark).len();
        support::kill_all_with(&mark);
        faults.expect(left == 0, || format!("after {moment:?}: the command goes on"));
        faults.expect(recorded.code == Some(128 + libc::SIGINT), || {
            format!("after {moment:?}: exit code {:?}: {}", recorded.code, recorded.stderr)
        });
        let leaves = cgroup::leaves_of(recorded.pid);
        faults.expect(leaves.is_empty(), || format!("after {moment:?}: {leaves:?} is left"));
        faults.expect(!recorded.partial().exists(), || format!("after {moment:?}: the journal is left"));
    }
    faults.finish();
}
