//! What is written to files: reports and exports.

use std::fs;
use std::process::Command as Process;

use super::*;

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
fn what_is_no_file_is_never_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink("elsewhere", &link).unwrap();
    let native = native();
    for name in [link.to_str().unwrap(), "/dev/null", directory.path().to_str().unwrap()] {
        let before = fs::symlink_metadata(name).unwrap().file_type();
        for words in [&["report", &native][..], &["export", &native, "--to", "csv"], &["recover", "none"]] {
            for force in [&[][..], &["--force"]] {
                let said = error(&[words, &["-o", name], force].concat(), BAD_INPUT);
                assert!(said.contains("never replaced"), "{words:?}: {said}");
            }
        }
        assert_eq!(fs::symlink_metadata(name).unwrap().file_type(), before);
    }
    assert!(!directory.path().join("elsewhere").exists());
}

#[test]
fn standard_output_descriptors_and_fifos_are_written_to() {
    let native = native();
    let expected = stdout(&["report", &native, "--format", "html"]);
    for name in ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        assert_eq!(stdout(&["report", &native, "-o", name, "--format", "html"]), expected, "{name}");
    }
    assert_eq!(stdout(&["report", &native, "-o", "-"]), stdout(&["report", &native]), "markdown");
    assert!(error(&["report", &native, "-o", "/dev/fd/987"], BAD_INPUT).contains("/dev/fd/987"));

    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    assert!(Process::new("mkfifo").arg(&fifo).status().unwrap().success());
    let read = std::thread::spawn({
        let fifo = fifo.clone();
        move || fs::read_to_string(fifo).unwrap()
    });
    let name = fifo.to_str().unwrap();
    spark_trace(&["report", &native, "-o", name, "--format", "html"]).assert().code(0);
    assert_eq!(read.join().unwrap(), expected);
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(&fs::symlink_metadata(&fifo).unwrap().file_type()));
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
        (&["--to", "folded", "--stacks", "cuda"], BAD_INPUT, "no stack has any bytes"),
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
