//! The command line as a user meets it: exit codes, formats, help. Needs no kernel and no root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};

use assert_cmd::Command;
use serde_json::Value;

const USAGE: i32 = 64;
const BAD_INPUT: i32 = 2;

fn spark_trace(args: &[&str]) -> Command {
    let mut command = assert_cmd::cargo::cargo_bin_cmd!("spark-trace");
    command.args(args).env("LC_ALL", "C.UTF-8").env_remove("COLUMNS");
    command
}

fn data(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "data", name].iter().collect();
    path.to_str().unwrap().to_owned()
}

fn native() -> String {
    data("synthetic-native.json")
}

fn container() -> String {
    data("synthetic-container.json")
}

fn stdout(args: &[&str]) -> String {
    let output = spark_trace(args).assert().code(0).get_output().clone();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn cuda() -> String {
    data("synthetic-cuda.json")
}

/// The one line on standard error of a command that exits with `code`.
fn error(args: &[&str], code: i32) -> String {
    let output = spark_trace(args).assert().code(code).get_output().clone();
    assert!(output.stdout.is_empty());
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

/// Compares with a committed file; SPARK_TRACE_BLESS=1 rewrites it.
fn golden(name: &str, text: &str) {
    let path = data(name);
    if std::env::var_os("SPARK_TRACE_BLESS").is_some() {
        fs::write(path, text).unwrap();
    } else {
        assert_eq!(fs::read_to_string(path).unwrap(), text, "{name} is stale: run with SPARK_TRACE_BLESS=1");
    }
}

/// Without its end, which names the file.
fn first_screen(text: &str) -> String {
    let (before, more) = text.rsplit_once("\n\nMore\n").unwrap();
    assert!(more.contains("--all"), "{more}");
    format!("{before}\n")
}

#[test]
fn tables_read_as_committed() {
    // In a pipe nothing is cut, so a width is asked for.
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
fn bad_input_is_one_line_that_says_what_and_which_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let whole = fs::read(native()).unwrap();
    let newer =
        String::from_utf8(whole.clone()).unwrap().replace("\"schema_version\": 1", "\"schema_version\": 9");
    let cases = [
        (directory.path().join("none.json").to_str().unwrap().to_owned(), "No such file"),
        (directory.path().to_str().unwrap().to_owned(), "not a file"),
        (file("text.json", b"hello"), "not JSON"),
        (file("other.json", b"{\"name\": \"package\"}"), "not a spark-trace recording"),
        (file("cut.json", &whole[..whole.len() / 2]), "truncated at byte"),
        (file("newer.json", newer.as_bytes()), "written by a newer spark-trace, schema 9"),
        (file("cut.json.zst", &[0x28, 0xb5, 0x2f, 0xfd, 0]), "truncated at byte"),
    ];
    for (path, message) in &cases {
        for args in [
            vec!["show", path],
            vec!["show", path, "--plot"],
            vec!["diff", &native(), path],
            vec!["report", path],
            vec!["report", path, &native()],
            vec!["report", &native(), path, "--format", "html"],
            vec!["export", path, "--to", "csv"],
        ] {
            let text = error(&args, BAD_INPUT);
            assert!(text.contains(message) && text.contains(path.as_str()), "{text}");
        }
    }
}

#[test]
fn a_report_is_a_page_that_is_written_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("report.html");
    let output = path.to_str().unwrap();
    let (a, b) = (native(), cuda());
    let written = spark_trace(&["report", &a, &b, "-o", output]).assert().code(0).get_output().clone();
    assert!(written.stdout.is_empty());
    assert!(String::from_utf8(written.stderr).unwrap().contains("wrote"));
    let page = fs::read_to_string(&path).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
    assert_eq!(page, stdout(&["report", &a, &b, "--format", "html"]), "the same through a pipe");

    // What is there stays, and nothing is read or analysed for nothing.
    fs::write(&path, "mine").unwrap();
    assert!(error(&["report", "none.json", "-o", output], BAD_INPUT).contains("--force"));
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    assert!(error(&["report", "none.json", "-o", output, "--force"], BAD_INPUT).contains("none.json"));
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    spark_trace(&["report", &a, "-o", output, "--force", "--at", "end"]).assert().code(0);
    assert!(fs::read_to_string(&path).unwrap().contains("at the end,"));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file stays");

    let markdown = directory.path().join("report.md");
    spark_trace(&["report", &a, "-o", markdown.to_str().unwrap()]).assert().code(0);
    assert!(fs::read_to_string(&markdown).unwrap().starts_with("### "), "its name says what it is");
    let nowhere = directory.path().join("none/report.html");
    assert!(error(&["report", &a, "-o", nowhere.to_str().unwrap()], BAD_INPUT).contains("none/report.html"));
}

#[test]
fn what_is_no_file_is_never_replaced_and_a_dash_is_standard_output() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    assert!(Process::new("mkfifo").arg(&fifo).status().unwrap().success());
    let (fifo, native) = (fifo.to_str().unwrap(), native());
    for name in [fifo, "/dev/null", "/dev/stdout"] {
        let before = fs::symlink_metadata(name).unwrap().file_type();
        for words in [&["report", &native][..], &["export", &native, "--to", "csv"], &["recover", "none"]] {
            for force in [&[][..], &["--force"]] {
                let said = error(&[words, &["-o", name], force].concat(), BAD_INPUT);
                assert!(said.contains("never replaced"), "{words:?}: {said}");
            }
        }
        assert_eq!(fs::symlink_metadata(name).unwrap().file_type(), before);
    }
    assert_eq!(stdout(&["report", &native, "-o", "-"]), stdout(&["report", &native]));
    let html = stdout(&["report", &native, "-o", "-", "--format", "html"]);
    assert_eq!(html, stdout(&["report", &native, "--format", "html"]));
}

#[test]
fn two_recordings_to_show_are_for_diff() {
    let native = native();
    let said = |section: &str| {
        let output = spark_trace(&["show", &native, section]).assert().code(USAGE).get_output().clone();
        String::from_utf8(output.stderr).unwrap()
    };
    let tip = "spark-trace diff A B";
    assert!(said(&container()).contains(tip), "{}", said(&container()));
    assert!(!said("nonsense").contains(tip), "{}", said("nonsense"));
}

#[test]
fn a_report_has_a_width_where_it_has_columns() {
    let (native, container) = (native(), container());
    let table = stdout(&["report", &native, &container, "--format", "table", "--width", "80"]);
    assert!(table.lines().all(|line| line.starts_with("    ") || line.chars().count() <= 80), "{table}");
    assert_eq!(table, stdout(&["report", &native, &container, "--width", "80"]));
    let said = error(&["report", &native, "--format", "markdown", "--width", "80"], USAGE);
    assert!(said.contains("--format table"), "{said}");
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
fn a_recording_is_exported_in_every_format() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let recording = cuda();
    for (format, begins, is_text) in [
        ("perfetto", &[0x0a][..], false),
        ("pprof", &[0x1f, 0x8b], false),
        ("folded", b"pages;", true),
        ("flamegraph", b"<?xml", true),
        ("csv", b"time_seconds,plane,object,source,bytes\n", true),
        ("parquet", b"PAR1", false),
        ("openmetrics", b"# TYPE spark_trace_memory_bytes gauge\n", true),
    ] {
        let file = path(format);
        let written = spark_trace(&["export", &recording, "--to", format, "-o", &file]).assert().code(0);
        assert!(written.get_output().stdout.is_empty());
        let bytes = fs::read(&file).unwrap();
        assert!(bytes.starts_with(begins), "{format}");
        let piped = spark_trace(&["export", &recording, "--to", format, "-o", "-"]).assert().code(0);
        assert!(piped.get_output().stdout == bytes && piped.get_output().stderr.is_empty(), "{format}");
        assert!(error(&["export", "none.json", "--to", format, "-o", &file], BAD_INPUT).contains("--force"));
        if is_text {
            assert_eq!(stdout(&["export", &recording, "--to", format]).as_bytes(), bytes, "{format}");
        } else {
            let said = error(&["export", &recording, "--to", format], USAGE);
            assert!(said.contains("name a file with -o"), "{said}");
        }
        assert!(stdout(&["export", "--help"]).contains(format));
    }
}

#[test]
fn an_export_says_what_it_cannot_do() {
    let native = native();
    for (args, code, said) in [
        (&["--to", "csv", "--at", "end"][..], USAGE, "leave out --at"),
        (&["--to", "pprof", "--stacks", "pages", "-o", "-"], USAGE, "leave out --stacks"),
        (&["--to", "openmetrics", "--at", "kv"], BAD_INPUT, "no KV-cache reading"),
        (&["--to", "folded", "--stacks", "cuda"], BAD_INPUT, "no stack holds any bytes"),
    ] {
        let text = error(&[&["export", &native], args].concat(), code);
        assert!(text.contains(said), "{text}");
    }
    let at = |at: &str| stdout(&["export", &native, "--to", "openmetrics", "--at", at]);
    let anon = |text: &str| {
        text.lines().find(|line| line.contains("cgroup") && line.contains("anon")).unwrap().to_owned()
    };
    assert!(anon(&at("peak")).contains(&format!(" {} ", 800 << 20)));
    assert!(anon(&at("end")).contains(&format!(" {} ", 20 << 20)));
}

#[test]
fn pages_and_binary_formats_are_not_for_a_terminal() {
    let program = assert_cmd::cargo::cargo_bin!("spark-trace").display();
    for words in ["report --format html", "export --to parquet -o -"] {
        // `script` gives its command a terminal.
        let line = format!("{program} {words} {}", native());
        let Ok(output) = Process::new("script").args(["-qec", &line, "/dev/null"]).output() else { return };
        assert_eq!(output.status.code(), Some(USAGE));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("name a file with -o"), "{said}");
        assert!(!said.contains("<html") && !said.contains("PAR1"), "{said}");
    }
}

#[test]
fn names_in_error_lines_are_inert() {
    let text = error(&["show", "no\x1b[31m\nsuch"], BAD_INPUT);
    assert!(!text.contains('\x1b'), "{text}");
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
    assert!(error(&["kv", &native, "--log", "a", "--log", "b"], USAGE).contains("give one for each"));
}

#[test]
fn wrong_usage_is_64() {
    for args in [
        &[][..],
        &["fly"],
        &["show"],
        &["show", "a", "b"],
        &["show", "a", "--format", "xml"],
        &["show", "a", "--at", "later"],
        &["show", "a", "--plot", "--format", "json"],
        &["diff", "a", "b", "--plane", "astral"],
        &["report"],
        &["report", "a", "b", "c"],
        &["report", "a", "--format", "pdf"],
        &["report", "a", "--at", "later"],
        &["export", "a"],
        &["export", "a", "--to", "xml"],
        &["completions", "basic"],
        &["man", "fly"],
        &["man", "study", "fly"],
        #[cfg(feature = "live")]
        &["serve", "--listen", "0.0.0.0:9753"],
        #[cfg(feature = "live")]
        &["serve", "--listen", "localhost"],
        #[cfg(feature = "live")]
        &["serve", "--interval", "1m", "--window", "1s"],
        #[cfg(feature = "live")]
        &["record", "--since", "5m", "--", "true"],
        #[cfg(feature = "live")]
        &["record", "--since", "5m", "--system"],
        #[cfg(feature = "live")]
        &["record", "--since", "5m", "--interval", "1s"],
    ] {
        spark_trace(args).assert().code(USAGE);
    }
}

#[test]
fn every_command_explains_itself_with_examples() {
    let help = stdout(&["--help"]);
    assert!(help.contains("Exit codes:"));
    for command in ["show", "diff", "report", "export", "schema", "completions", "man"] {
        assert!(help.contains(command));
        assert!(stdout(&[command, "--help"]).contains("Examples:"), "{command}");
        assert!(stdout(&["man", command]).contains(&format!("spark\\-trace\\-{command}")), "{command}");
    }
    assert!(stdout(&["--version"]).starts_with("spark-trace "));
    assert!(stdout(&["man"]).contains("spark\\-trace"));
}

#[test]
fn all_manual_pages_are_written_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("man1");
    assert_eq!(stdout(&["man", "--output", folder.to_str().unwrap()]), "");
    for (file, words) in [
        ("spark-trace.1", &["man"][..]),
        ("spark-trace-show.1", &["man", "show"]),
        ("spark-trace-study-report.1", &["man", "study", "report"]),
    ] {
        assert_eq!(fs::read_to_string(folder.join(file)).unwrap(), stdout(words), "{file}");
    }
    assert!(!folder.join("spark-trace-help.1").exists());
    // The synopsis has what a command takes, and the examples are a section of their own with a line for each.
    let page = fs::read_to_string(folder.join("spark-trace-diff.1")).unwrap();
    let synopsis = page.split(".SH SYNOPSIS\n").nth(1).unwrap().split(".SH").next().unwrap().to_owned();
    assert!(synopsis.contains("spark\\-trace diff [OPTIONS] <A> <B>"), "{synopsis}");
    assert!(page.contains(".SH EXAMPLES\n.nf\n") && !page.contains("EXTRA"), "{page}");
    spark_trace(&["man", "show", "--output", "x"]).assert().code(USAGE);
    assert!(error(&["man", "--output", "/dev/null/man"], BAD_INPUT).contains("/dev/null/man"));
}

#[test]
fn completions_exist_for_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        assert!(stdout(&["completions", shell]).contains("spark-trace"), "{shell}");
    }
}

/// What bash offers for a command line whose last word is being typed.
fn offered(dir: &Path, words: &[&str]) -> Vec<String> {
    let script = dir.join("completions.bash");
    fs::write(&script, stdout(&["completions", "bash"])).unwrap();
    let line = r#"source "$1"; shift; COMP_WORDS=(spark-trace "$@"); COMP_CWORD=$#
        _spark__trace_all spark-trace "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let output = Process::new("bash")
        .args(["--norc", "-c", line, "bash"])
        .arg(&script)
        .args(words)
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_recordings_and_commands() {
    if Process::new("bash").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("SKIPPED: there is no bash");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for name in ["run.json", "run.json.zst", "run.txt", "other.json"] {
        fs::write(dir.path().join(name), "").unwrap();
    }
    fs::create_dir(dir.path().join("runs")).unwrap();
    let mut recordings = offered(dir.path(), &["show", "ru"]);
    recordings.sort();
    assert_eq!(recordings, ["run.json", "run.json.zst", "runs"]);
    assert_eq!(offered(dir.path(), &["diff", "run.json", "oth"]), ["other.json"]);
    assert!(offered(dir.path(), &["show", "run.json", "mach"]).contains(&"machine".to_owned()));
    assert!(offered(dir.path(), &["record", "--", "prin"]).contains(&"printf".to_owned()));
    assert_eq!(offered(dir.path(), &["record", "--", "cat", "run.t"]), ["run.txt"]);
    assert!(offered(dir.path(), &["record", "--inter"]).contains(&"--interval".to_owned()));
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

fn study(words: &[&str]) -> assert_cmd::assert::Assert {
    spark_trace(&["study"]).args(words).assert()
}

#[cfg(feature = "live")]
#[test]
fn a_plan_is_written_once_and_says_what_is_wrong_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let plan = dir.path().join("study.toml").display().to_string();
    study(&["init", "--template", "phase2-baseline", &plan]).success();
    study(&["init", &plan]).code(2);
    let text = fs::read_to_string(&plan).unwrap();
    for (from, to, said) in [
        ("order = \"abba\"", "order = \"abab\"", "abab"),
        ("runs = 30", "runs = 0", "0 runs tell nothing"),
        ("{requests}", "{request}", "nothing is known of `{request}`"),
        ("name = \"docker\"", "name = \"native\"", "is there twice"),
        ("drop-caches = true", "drop-cache = true", "drop-cache"),
        ("timeout = \"2h\"", "timeout = \"soon\"", "no unit of time"),
    ] {
        assert!(text.contains(from), "{from}");
        let wrong = dir.path().join("wrong.toml").display().to_string();
        fs::write(&wrong, text.replace(from, to)).unwrap();
        let output = study(&["run", &wrong, "--dry-run"]).code(2).get_output().stderr.clone();
        let output = String::from_utf8(output).unwrap();
        assert!(output.contains(said), "{from}: {output}");
    }
}

#[cfg(feature = "live")]
#[test]
fn a_folder_without_a_study_is_an_error_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display().to_string();
    for step in ["report", "status", "resume", "stop"] {
        let output = study(&[step, &path]).code(2).get_output().stderr.clone();
        assert!(String::from_utf8(output).unwrap().contains("no study"), "{step}");
    }
    let results = dir.path().join("results.json");
    fs::write(&results, "{}").unwrap();
    study(&["report", &path]).code(2);
}

#[test]
fn a_published_study_is_imported_and_reported_in_every_form() {
    let dir = tempfile::tempdir().unwrap();
    let (file, study_dir) = (dir.path().join("all.json"), dir.path().join("s").display().to_string());
    let run = |iteration: u32, hour: u32, peak: f64| {
        format!(
            "{{\"iteration\": {iteration}, \"timestamp\": \"20251109_{hour:02}0000\", \"output_throughput\": {}, \
             \"peak_memory\": {peak}, \"kv_cache\": {}}}",
            120.0 + f64::from(iteration) / 10.0,
            0.9 * (119.708 - peak)
        )
    };
    let runs = |first: u32, peak: f64| {
        (1..=5).map(|n| run(n, first + n, peak + f64::from(n * n % 7))).collect::<Vec<_>>().join(",")
    };
    // A name from outside is inert in every form.
    let text = format!(
        "{{\"models\": {{\"<img src=x onerror=alert(1)>\": {{\"native\": [{}], \"=cmd()\": [{}]}}}}}}",
        runs(0, 70.0),
        runs(10, 100.0)
    );
    fs::write(&file, text).unwrap();
    let file = file.display().to_string();
    study(&["import", "--format", "benchmark-spark", &file, "--dir", &study_dir]).success();
    study(&["import", "--format", "benchmark-spark", &file, "--dir", &study_dir]).code(2);
    for format in ["table", "markdown", "csv", "json", "latex"] {
        let output = study(&["report", &study_dir, "--format", format]).success().get_output().stdout.clone();
        let output = String::from_utf8(output).unwrap();
        assert!(output.contains("confounded"), "{format}");
        assert!(format != "csv" || !output.lines().any(|line| line.contains(",=cmd")), "{output}");
        assert!(format != "markdown" || !output.replace("\\<img", "").contains("<img"), "{output}");
    }
    let site = dir.path().join("site");
    study(&["report", &study_dir, "-o", &site.display().to_string()]).success();
    for page in fs::read_dir(&site).unwrap() {
        let page = page.unwrap();
        assert!(
            page.file_name()
                .to_str()
                .unwrap()
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        );
        if page.path().extension().is_some_and(|extension| extension == "html") {
            let text = fs::read_to_string(page.path()).unwrap();
            assert!(
                !text.contains("<img") && !text.contains("<script") && !text.contains("http:"),
                "{page:?}"
            );
        }
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
