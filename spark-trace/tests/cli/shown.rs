//! What is printed of recordings.

use std::fs;
use std::path::Path;
use std::process::{Command as Process, Stdio};

use serde_json::Value;

use super::*;

/// Without its end, which names the file.
fn first_screen(text: &str) -> String {
    let (before, more) = text.rsplit_once("\n\nMore\n").unwrap();
    assert!(more.contains("--all"), "{more}");
    format!("{before}\n")
}

#[test]
fn tables_read_as_committed() {
    // In a pipe nothing is cut, so a width is given.
    let narrow = |args: &[&str]| stdout(&[args, &["--width", "80"]].concat());
    golden("show-first.txt", &first_screen(&narrow(&["show", &container()])));
    golden("show.txt", &narrow(&["show", &container(), "--all"]));
    golden("diff.txt", &narrow(&["diff", &native(), &container()]));
    golden("diff.md", &stdout(&["diff", &native(), &container(), "--format", "markdown"]));
    golden("show-cuda.txt", &narrow(&["show", &cuda(), "--all"]));
    golden("diff-cuda.txt", &narrow(&["diff", &native(), &cuda(), "--plane", "system"]));
    golden("report.md", &stdout(&["report", &native(), &container()]));
    golden("show-plot.txt", &stdout(&["show", &cuda(), "--plot"]));
    golden("show.csv", &stdout(&["show", &native(), "--format", "csv"]));
}

#[test]
fn json_is_json() {
    let show: Value = serde_json::from_str(&stdout(&["show", &container(), "--format", "json"])).unwrap();
    assert_eq!(show["schema"], "spark-trace/show");
    assert_eq!(show["host"]["provenance"], "simulated");
    assert_eq!(show["files"].as_array().unwrap().len(), 3);
    let top: Value =
        serde_json::from_str(&stdout(&["show", &container(), "--format", "json", "--top", "1"])).unwrap();
    assert_eq!(top["files"].as_array().unwrap().len(), 1);
    let diff = ["diff", &native(), &container(), "--format", "json", "--plane", "system"];
    let diff: Value = serde_json::from_str(&stdout(&diff)).unwrap();
    assert_eq!((&diff["schema"], &diff["plane"]), (&"spark-trace/diff".into(), &"system".into()));
}

#[test]
fn the_instant_and_the_order_can_be_chosen() {
    let json = |args: &[&str]| -> Value {
        let file = container();
        let mut all = vec!["show", &file, "--format", "json"];
        all.extend(args);
        serde_json::from_str(&stdout(&all)).unwrap()
    };
    assert_eq!(json(&["--at", "end"])["planes"]["cgroup"]["sources"][0]["bytes"], 20 << 20);
    assert_eq!(json(&["--at", "5s"])["planes"]["cgroup"]["sources"][0]["bytes"], 810 << 20);
    assert_eq!(json(&["--sort", "bytes"])["planes"]["cgroup"]["sources"][0]["source"], "file-clean");
}

#[test]
fn a_time_after_the_end_of_the_run_is_an_error() {
    let native = native();
    for words in [&["show", &native][..], &["diff", &native, &native], &["report", &native]] {
        let said = error(&[words, &["--at", "99s"]].concat(), BAD_INPUT);
        assert!(said.contains("after the end of the run, which took 10.0 s"), "{said}");
    }
    stdout(&["show", &native, "--at", "10s"]);
}

#[test]
fn a_log_of_another_run_is_refused() {
    let native = native();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("other.log");
    let log = path.to_str().unwrap();
    fs::write(log, "[11/20/1999-10:11:22] [TRT-LLM] [I] Estimated max memory in KV cache : 1.5 GiB\n")
        .unwrap();
    let said = error(&["kv", &native, "--log", log], BAD_INPUT);
    assert!(said.contains("other.log and the recording are of different runs"), "{said}");
    // Each log goes with its own recording: a line without a time may be of either.
    let any = dir.path().join("any.log");
    fs::write(&any, "[TRT-LLM] [I] Estimated max memory in KV cache : 1.5 GiB\n").unwrap();
    let said = error(&["kv", &native, &native, "--log", any.to_str().unwrap(), "--log", log], BAD_INPUT);
    assert!(said.contains("other.log and the recording are of different runs"), "{said}");
}

#[test]
fn a_kv_reading_that_a_recording_does_not_have_is_an_error() {
    let native = native();
    for args in [
        &["show", &native, "--at", "kv"][..],
        &["diff", &native, &native, "--at", "kv"],
        &["report", &native, "--format", "markdown", "--at", "kv"],
        &["kv", &native],
    ] {
        assert!(error(args, BAD_INPUT).contains("no KV-cache reading"), "{args:?}");
    }
    assert!(error(&["kv", &native, "--log", "a", "--log", "b"], USAGE).contains("use one for each"));
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    for args in [vec!["schema"], vec!["show", &container()], vec!["--help"]] {
        let mut child = Process::new(assert_cmd::cargo::cargo_bin!("spark-trace"))
            .args(&args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn output_to_a_file_has_no_colour() {
    assert!(!stdout(&["show", &container()]).contains('\x1b'));
}

#[test]
fn a_compressed_recording_is_read_whatever_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run.json");
    let packed = zstd::encode_all(&fs::read(container()).unwrap()[..], 0).unwrap();
    fs::write(&path, packed).unwrap();
    assert_eq!(stdout(&["show", path.to_str().unwrap(), "--all"]), stdout(&["show", &container(), "--all"]));
}

#[test]
fn recordings_follow_the_printed_schema() {
    let schema: Value = serde_json::from_str(&stdout(&["schema"])).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for file in [native(), container(), cuda()] {
        let mut recording: Value = serde_json::from_slice(&fs::read(Path::new(&file)).unwrap()).unwrap();
        let errors: Vec<_> = validator.iter_errors(&recording).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{errors:#?}");
        recording["host"]["page_size"] = "large".into();
        assert!(!validator.is_valid(&recording));
    }
}

#[test]
fn a_pipe_is_not_cut_and_a_width_is_kept() {
    use unicode_width::UnicodeWidthStr;
    let file = container();
    let widest = |text: &str| text.lines().map(UnicodeWidthStr::width).max().unwrap();
    for words in [&["show", &file, "--all"][..], &["diff", &native(), &file]] {
        let whole = stdout(words);
        assert!(!whole.contains('…') && widest(&whole) > 100, "{whole}");
        assert!(widest(&stdout(&[words, &["--width", "80"]].concat())) <= 80);
        let output = spark_trace(words).env("COLUMNS", "90").assert().code(0).get_output().stdout.clone();
        let (of_shell, text) =
            (stdout(&[words, &["--width", "90"]].concat()), String::from_utf8(output).unwrap());
        assert_eq!(text, of_shell);
        assert_eq!(stdout(&[words, &["--width", "none"]].concat()), whole);
    }
    spark_trace(&["show", &file, "--width", "7"]).assert().code(USAGE);
    let plain = spark_trace(&["show", &file, "--width", "80"]).env("LC_ALL", "C").assert().code(0);
    assert!(plain.get_output().stdout.is_ascii());
}

#[test]
fn sections_are_shown_by_name() {
    let file = container();
    let machine = stdout(&["show", &file, "machine", "cost"]);
    assert!(machine.contains("\nSystem: ") && machine.contains("Cost of tracing"), "{machine}");
    assert!(!machine.contains("Page cache by file") && !machine.contains("\nMore\n"), "{machine}");
    let first = stdout(&["show", &file]);
    assert!(!first.contains("\nSystem: ") && first.contains(&format!("show {file} --all")), "{first}");
    let output = spark_trace(&["show", &file, "astral"]).assert().code(USAGE).get_output().stderr.clone();
    let said = String::from_utf8(output).unwrap();
    assert!(said.contains("machine") && said.contains("hooks"), "names them: {said}");
    spark_trace(&["show", &file, "machine", "--format", "json"]).assert().code(USAGE);
}

#[test]
fn a_recording_is_read_from_standard_input() {
    let bytes = fs::read(container()).unwrap();
    let wanted = stdout(&["show", &container(), "--all"]);
    for name in ["-", "/dev/stdin"] {
        let output = spark_trace(&["show", name, "--all"]).write_stdin(bytes.clone()).assert().code(0);
        assert_eq!(String::from_utf8(output.get_output().stdout.clone()).unwrap(), wanted, "{name}");
    }
}

#[test]
fn a_terminal_is_used_as_wide_as_it_is() {
    let program = assert_cmd::cargo::cargo_bin!("spark-trace").display().to_string();
    let line = format!("stty cols 160; {program} show {} --all", container());
    // Its height is not known, as `stty` alone leaves it.
    let script = Process::new("script").args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output();
    let Ok(output) = script else { return };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let stack = text.lines().find(|line| line.contains("nv_alloc_system_pages")).unwrap_or(&text).to_owned();
    assert!(stack.contains("nv_alloc_system_pages [nvidia] <- nv_alloc_pages [nvidia]"), "{text}");
}
