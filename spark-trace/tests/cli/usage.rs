//! Wrong usage, help, manual pages and completions.

use std::fs;
use std::path::Path;
use std::process::{Command as Process, Stdio};

use super::*;

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
        String::from_utf8(whole.clone()).unwrap().replace("\"schema_version\": 2", "\"schema_version\": 9");
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
fn names_in_error_lines_are_inert() {
    let text = error(&["show", "no\x1b[31m\nsuch"], BAD_INPUT);
    assert!(!text.contains('\x1b'), "{text}");
}

/// What is given, and what the message must name of it.
const WRONG: &[(&[&str], &[&str])] = &[
    (&[], &["Usage: spark-trace <COMMAND>"]),
    (&["fly"], &["'fly'", "--help"]),
    (&["show"], &["<FILE>", "Usage: spark-trace show"]),
    (&["show", "a", "b"], &["'b'", "SECTION", "machine"]),
    (&["show", "a", "--format", "xml"], &["'xml'", "--format", "json"]),
    (&["show", "a", "--at", "later"], &["'later'", "--at", "`peak`"]),
    (&["show", "a", "--plot", "--format", "json"], &["--plot", "--format"]),
    (&["diff", "a", "b", "--plane", "astral"], &["'astral'", "--plane", "cgroup"]),
    (&["report"], &["<A>", "Usage: spark-trace report"]),
    (&["report", "a", "b", "c"], &["'c'", "Usage: spark-trace report"]),
    (&["report", "a", "--format", "pdf"], &["'pdf'", "--format", "html"]),
    (&["report", "a", "--at", "later"], &["'later'", "--at", "`peak`"]),
    (&["export", "a"], &["--to", "Usage: spark-trace export"]),
    (&["export", "a", "--to", "xml"], &["'xml'", "--to", "perfetto"]),
    (&["completions", "basic"], &["'basic'", "SHELL", "fish"]),
    (&["man", "fly"], &["`fly`", "help"]),
    (&["man", "study", "fly"], &["`study fly`", "help"]),
    (&["serve", "--listen", "0.0.0.0:9753"], &["--listen 0.0.0.0:9753", "--token-file"]),
    (&["serve", "--listen", "localhost"], &["'localhost'", "--listen"]),
    (&["serve", "--interval", "1m", "--window", "1s"], &["--window", "--interval"]),
    (&["record", "--since", "5m", "--", "true"], &["--since", "COMMAND"]),
    (&["record", "--since", "5m", "--system"], &["--since", "--system"]),
    (&["record", "--since", "5m", "--interval", "1s"], &["--since", "--interval"]),
    (&["doctor", "--format", "csv"], &["'csv'", "--format", "json"]),
    (&["demo", "--place", "moon"], &["'moon'", "--place", "sandbox"]),
];

#[test]
fn wrong_usage_is_64_and_names_what_is_wrong() {
    for (args, named) in WRONG {
        let output = spark_trace(args).assert().code(USAGE).get_output().clone();
        assert!(output.stdout.is_empty(), "{args:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        for words in *named {
            assert!(text.contains(words), "{args:?}: no {words} in {text}");
        }
    }
}

/// The commands that the help lists, with its sections.
fn commands(help: &str) -> Vec<&str> {
    let listed =
        help.lines().skip_while(|line| !line.ends_with("here:")).take_while(|line| *line != "Exit codes:");
    listed.filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next()).collect()
}

#[test]
fn every_command_explains_itself_with_examples() {
    let help = stdout(&["--help"]);
    for code in ["  0   ", "  1   ", "  2   ", "  64  "] {
        assert!(help.split("Exit codes:").nth(1).unwrap().contains(code), "{help}");
    }
    let commands = commands(&help);
    assert!(["record", "show", "diff", "study", "man"].iter().all(|name| commands.contains(name)), "{help}");
    for command in commands.into_iter().filter(|name| *name != "help") {
        let text = stdout(&[command, "--help"]);
        let examples = text.split("\nExample").nth(1).unwrap_or_else(|| panic!("{command} has no examples"));
        assert!(examples.contains(&format!("spark-trace {command}")), "{command}: {examples}");
        // Manual pages have each hyphen as one that can be searched for.
        let escaped = command.replace('-', "\\-");
        assert!(stdout(&["man", command]).contains(&format!("spark\\-trace\\-{escaped}")), "{command}");
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
    assert!(offered(dir.path(), &["diff", "--al"]).contains(&"--all".to_owned()));
    assert!(offered(dir.path(), &["record", "--inter"]).contains(&"--interval".to_owned()));
}
