//! `top` on a real kernel and a real terminal.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::process::{self, Other};
use crate::support::tmux::Tmux;
use crate::support::{self, MIB, array, bpf, cgroup, int, spark_trace, text, workload};

/// The command line of the program under test, for a shell.
fn program() -> String {
    spark_trace().get_program().to_str().unwrap().to_owned()
}

/// `top` in a terminal, between two notes of the terminal's settings; the shell stays when it has ended.
fn top(dir: &TempDir, name: &str, size: (u16, u16), options: &str) -> Option<Tmux> {
    let at = dir.path().display();
    let script = format!(
        "cd {at}; stty -a >before; {} top --interval 200ms {options}; echo END $?; stty -a >after; sleep 600",
        program()
    );
    Tmux::start(name, size, &script)
}

/// Holds `mib` MiB of anonymous memory, in a cgroup of its own.
fn planted(own: &cgroup::Own, mib: i64) -> Other {
    let mut command = Command::new(workload());
    command.args(["alloc", "--anon", &format!("{mib}M"), "--hold", "600s"]);
    own.start_in(&mut command);
    Other::start(&mut command)
}

/// Processes of the program under test that were started in `dir`.
fn tops(dir: &TempDir) -> Vec<u32> {
    let is_ours = |pid: &u32| {
        let (place, comm) =
            (fs::read_link(format!("/proc/{pid}/cwd")), fs::read_to_string(format!("/proc/{pid}/comm")));
        place.is_ok_and(|place| place == dir.path()) && comm.is_ok_and(|comm| comm.starts_with("spark-trace"))
    };
    support::processes_with("top").into_iter().filter(is_ours).collect()
}

fn line<'a>(screen: &'a str, begins: &str) -> Option<&'a str> {
    screen.lines().find(|line| line.trim_start().starts_with(begins))
}

/// Whether a line has a size between 300 and 310 MiB, with or without a sign.
fn has_planted(line: &str) -> bool {
    line.split_whitespace().any(|word| {
        word.trim_start_matches('+').parse::<f64>().is_ok_and(|number| (300.0..310.0).contains(&number))
    })
}

/// Whether the workload's function that maps is named: by its path (80 columns may cut the end off), or by its last
/// part, as debug information has it.
fn names_caller(text: &str) -> bool {
    text.contains("spark_trace_workload::alloc") || text.contains("base_pages")
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_planted_source_is_followed_to_its_stack_with_five_keys() {
    let (dir, own) = (support::disk_dir(), cgroup::Own::create("top"));
    let Some(tmux) = top(&dir, "planted", (80, 24), "") else { return };
    tmux.wait_for("the first frame", |screen| line(screen, "anon").map(drop));
    let process = planted(&own, 300);
    tmux.wait_for("anon to grow", |screen| has_planted(line(screen, "anon")?).then_some(()));
    assert!(tmux.screen().contains("unattributed "), "always in sight");

    // One key each, as they are counted in docs/investigation.md.
    tmux.press(&["s"]);
    tmux.wait_for("the order", |screen| screen.lines().nth(1)?.ends_with("by growth").then_some(()));
    // The first row, unless others read or write more: they come and go, so that another row may be where ours was.
    while {
        let rows_above = tmux.wait_for("anon", |screen| {
            let mut rows = screen.lines().skip_while(|line| !line.starts_with("SOURCE")).skip(1);
            rows.position(|row| row.starts_with("anon "))
        });
        (0..rows_above).for_each(|_| tmux.press(&["Down"]));
        tmux.press(&["Enter"]);
        let path = tmux.wait_for("a source's cgroups", |screen| {
            screen.contains("CGROUP").then(|| screen.lines().nth(2).unwrap_or_default().trim_end().to_owned())
        });
        !path.ends_with("anon")
    } {
        tmux.press(&["Escape"]);
        tmux.wait_for("the sources again", |screen| screen.contains("SOURCE").then_some(()));
        tmux.press(&["Home"]);
    }
    let name = own.path.trim_start_matches('/').to_owned();
    // The first row, unless others take more.
    while {
        let rows_above = tmux.wait_for("its cgroup", |screen| {
            let mut rows = screen.lines().skip_while(|line| !line.contains("CGROUP")).skip(1);
            rows.position(|row| row.ends_with(&name) && has_planted(row))
        });
        (0..rows_above).for_each(|_| tmux.press(&["Down"]));
        tmux.press(&["Enter"]);
        let path = tmux.wait_for("a cgroup's processes", |screen| {
            screen.contains("PROCESS").then(|| screen.lines().nth(2).unwrap_or_default().to_owned())
        });
        !path.ends_with(&name)
    } {
        tmux.press(&["Escape"]);
        tmux.wait_for("the cgroups again", |screen| screen.contains("CGROUP").then_some(()));
        tmux.press(&["Home"]);
    }
    tmux.wait_for("its process", |screen| {
        let row = screen.lines().skip_while(|line| !line.contains("PROCESS")).nth(1)?;
        (row.contains(&format!("({})", process.pid())) && has_planted(row)).then_some(())
    });
    tmux.press(&["Enter"]);
    tmux.wait_for("its mapping", |screen| {
        let row = screen.lines().skip_while(|line| !line.contains("COUNTS")).nth(1)?;
        (row.contains("300.0 MiB mapped") && names_caller(row)).then_some(())
    });
    tmux.press(&["Enter"]);
    tmux.wait_for("its stack", |screen| {
        (screen.contains("INNERMOST FIRST") && names_caller(screen) && screen.contains("spark-trace-wor"))
            .then_some(())
    });

    // Another size, and back up again.
    tmux.resize(200, 60);
    tmux.press(&["Escape"]);
    tmux.wait_for("the list above on a larger screen", |screen| {
        (screen.contains("COUNTS") && screen.lines().count() >= 60).then_some(())
    });
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn however_it_ends_the_terminal_is_as_it_was_and_nothing_stays_attached() {
    for (name, signal) in [("key", None), ("term", Some(libc::SIGTERM)), ("hangup", Some(libc::SIGHUP))] {
        let (dir, before) = (support::disk_dir(), bpf::ids());
        let Some(tmux) = top(&dir, name, (80, 24), "") else { return };
        tmux.wait_for("the first frame", |screen| line(screen, "anon").map(drop));
        assert!(tmux.is_taken_over());
        match signal {
            None => tmux.press(&["q"]),
            Some(signal) => {
                let tops = tops(&dir);
                assert_eq!(tops.len(), 1, "{tops:?}");
                process::signal(tops[0], signal);
            }
        }
        tmux.wait_for("the shell again", |screen| screen.contains("END 0").then_some(()));
        let settings = support::wait_for("the shell's note", || {
            let after = fs::read_to_string(dir.path().join("after")).ok()?;
            (after.lines().count() > 2).then_some(after)
        });
        assert!(!tmux.is_taken_over(), "{name}: the screen is not given back");
        assert_eq!(settings, fs::read_to_string(dir.path().join("before")).unwrap(), "{name}");
        let left = bpf::left_behind(&before, "sh");
        assert_eq!(left, bpf::Ids::default(), "{name}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_is_seen_can_be_recorded() {
    let (dir, own) = (support::disk_dir(), cgroup::Own::create("top-record"));
    let Some(tmux) = top(&dir, "record", (120, 30), "") else { return };
    tmux.wait_for("the first frame", |screen| line(screen, "anon").map(drop));
    tmux.press(&["r"]);
    tmux.wait_for("the recording", |screen| screen.contains("REC ").then_some(()));
    let process = planted(&own, 300);
    tmux.wait_for("anon to grow", |screen| has_planted(line(screen, "anon")?).then_some(()));
    // What is recorded is what the frames are of.
    tmux.press(&["3"]);
    tmux.wait_for("its process", |screen| {
        let name = format!("({})", process.pid());
        screen.lines().any(|row| row.contains(&name) && has_planted(row)).then_some(())
    });
    tmux.press(&["r"]);
    let file = support::wait_for("the file", || {
        let mut files = fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.path());
        files.find(|path| path.extension().is_some_and(|extension| extension == "json"))
    });
    let shown =
        spark_trace().arg("show").arg(&file).args(["--format", "json", "--at", "end"]).output().unwrap();
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let charged =
        array(&shown["cgroups"]).iter().find(|row| row["path"] == own.path.as_str()).expect("its cgroup");
    let anon = int(&charged["sources"]["anon"]);
    assert!((300 * MIB..310 * MIB).contains(&anon), "{charged}");
    let row = array(&shown["processes"]).iter().find(|row| row["pid"] == process.pid()).expect("the process");
    assert!((int(&row["at"]["rss_anon"]) - 300 * MIB).abs() <= MIB, "{row}");
    let mapped = array(&shown["mappings"]).iter().any(|row| int(&row["bytes"]) == 300 * MIB);
    assert!(mapped, "{}", shown["mappings"]);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn without_a_terminal_there_are_frames_all_the_same() {
    let refused = spark_trace().arg("top").stdout(Stdio::piped()).output().unwrap();
    assert_eq!(refused.status.code(), Some(64), "{}", String::from_utf8_lossy(&refused.stderr));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--once"));

    let once = spark_trace().args(["top", "--once"]).env("COLUMNS", "80").output().unwrap();
    let once = String::from_utf8(once.stdout).unwrap();
    assert!(
        line(&once, "unattributed").is_some() && once.lines().all(|line| line.chars().count() <= 80),
        "{once}"
    );
    let processes = once.split("The largest processes").nth(1).unwrap_or_default();
    assert!(line(processes, "RESIDENT").is_some() && processes.lines().count() > 3, "{once}");

    // Others on the machine take and give back memory meanwhile: frames lie in the range that the test itself sees.
    let mut frames = spark_trace();
    frames.args(["top", "--format", "json", "--duration", "1500ms"]);
    let printing = std::thread::spawn(move || frames.output().unwrap());
    let mut seen = vec![support::meminfo("AnonPages")];
    while !printing.is_finished() {
        seen.push(support::meminfo("AnonPages"));
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let output = printing.join().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (least, most) = (*seen.iter().min().unwrap(), *seen.iter().max().unwrap());
    let lines = String::from_utf8(output.stdout).unwrap();
    let frames: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(frames.len() >= 2, "{} frames", frames.len());
    for frame in &frames {
        assert_eq!(text(&frame["schema"]), "spark-trace/frame");
        let system = array(&frame["planes"]).iter().find(|plane| plane["plane"] == "system").unwrap();
        let sum: i64 = array(&system["sources"]).iter().filter_map(|row| row["bytes"].as_i64()).sum();
        assert_eq!(sum, int(&system["expected"]), "sources and unattributed add up");
        let anon = int(&support::ledger::source_row(system, "anon")["bytes"]);
        let slack = 64 * MIB;
        assert!((least - slack..=most + slack).contains(&anon), "anon {anon}: {least} to {most}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_stage_of_an_engine_that_it_starts_is_live_and_the_command_ends_with_it() {
    let dir = support::disk_dir();
    let path = |name: &str| support::path(&dir, name);
    let prefix = "(EngineCore pid=7) INFO 06-10 10:00:00";
    let engine = format!(
        "echo '{prefix} [core.py:1] Initializing a V1 LLM engine (v0.25.1) with config: x'
echo '{prefix} [gpu_model_runner.py:1] Starting to load model m...'
while ! [ -e {go} ]; do sleep 0.05; done
echo 'INFO:     Application startup complete.' >&2
if read line; then echo 'a key came'; fi
trap 'echo ended >{ended}; exit' TERM
while :; do sleep 0.05; done",
        go = path("go"),
        ended = path("ended")
    );
    fs::write(path("engine.sh"), engine).unwrap();
    let options = format!("--log-file {} sh {}", path("log"), path("engine.sh"));
    let Some(tmux) = top(&dir, "engine", (100, 30), &options) else { return };
    let stage = |stage: &str| {
        tmux.wait_for(stage, |screen| {
            screen.lines().any(|line| line.contains("vLLM 0.25.1") && line.contains(stage)).then_some(())
        });
    };
    stage("weights since");
    fs::write(path("go"), "").unwrap();
    stage("serving since");
    assert!(!tmux.screen().contains("Application startup"), "the view has the terminal");
    tmux.press(&["q"]);
    tmux.wait_for("the end", |screen| screen.contains("END 0").then_some(()));
    assert_eq!(fs::read_to_string(path("ended")).unwrap(), "ended\n", "by SIGTERM, in order");
    let log = fs::read_to_string(path("log")).unwrap();
    assert!(log.contains("Application startup complete") && !log.contains("a key came"), "{log}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_terminal_that_is_closed_ends_it() {
    let (dir, before) = (support::disk_dir(), bpf::ids());
    let Some(tmux) = top(&dir, "closed", (80, 24), "") else { return };
    tmux.wait_for("the first frame", |screen| line(screen, "anon").map(drop));
    drop(tmux);
    support::wait_for("it to end", || tops(&dir).is_empty().then_some(()));
    assert_eq!(bpf::left_behind(&before, "sh"), bpf::Ids::default());
}
