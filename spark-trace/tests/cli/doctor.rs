//! `doctor` and `demo` as anybody may call them: what they say must be true for root and for others.

use serde_json::Value;

use super::spark_trace;

#[test]
fn the_exit_code_is_the_verdict() {
    let output = spark_trace(&["doctor", "--format", "json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["schema"], &report["schema_version"]), (&"spark-trace/doctor".into(), &1.into()));
    let can_record = report["can_record"].as_bool().unwrap();
    assert_eq!(output.status.code(), Some(if can_record { 0 } else { 1 }));
    assert_eq!(report["obstacle"].is_null(), can_record);
    let verdicts = ["ok", "unsupported", "not-applicable", "broken", "off", "untried"];
    for hook in report["hooks"].as_array().unwrap() {
        let verdict = hook["verdict"].as_str().unwrap();
        assert!(verdicts.contains(&verdict), "{hook}");
        // One that is attached has a reason where a better way is not to be had.
        assert!(verdict == "ok" || !hook["reason"].is_null(), "{hook}");
    }
    let statuses = ["ok", "warning", "missing", "not-applicable"];
    for check in report["checks"].as_array().unwrap() {
        assert!(statuses.contains(&check["status"].as_str().unwrap()), "{check}");
    }
}

#[test]
fn the_table_fits_and_the_markdown_is_a_table() {
    let table = spark_trace(&["doctor"]).env("COLUMNS", "80").output().unwrap().stdout;
    let table = String::from_utf8(table).unwrap();
    assert!(table.starts_with("Recordings can"), "{table}");
    // Only a single long word, such as a path, may stick out.
    let long = table.lines().filter(|line| line.chars().count() > 80);
    assert!(
        long.clone().all(|line| line.trim_start().split(' ').count() == 1),
        "{:?}",
        long.collect::<Vec<_>>()
    );
    assert!(!table.contains('\x1b'));
    let markdown = spark_trace(&["doctor", "--format", "markdown"]).output().unwrap().stdout;
    assert!(String::from_utf8(markdown).unwrap().contains("| CHECK | STATUS | FOUND |"));
}
