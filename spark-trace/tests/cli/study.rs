//! Studies.

use std::fs;

use super::*;

fn study(words: &[&str]) -> assert_cmd::assert::Assert {
    spark_trace(&["study"]).args(words).assert()
}

#[test]
fn a_plan_is_written_once_and_says_what_is_wrong_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let plan = dir.path().join("study.toml").display().to_string();
    study(&["init", "--template", "phase2-baseline", &plan]).success();
    study(&["init", &plan]).code(2);
    let text = fs::read_to_string(&plan).unwrap();
    for (from, to, said) in [
        ("runs = 30", "runs = 30\norder = \"abab\"", "abab"),
        ("runs = 30", "runs = 0", "0 runs show nothing"),
        ("{requests}", "{request}", "unknown placeholder `{request}`"),
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

/// This machine has none of what a template for a Spark names: each is said, with what to do, and with the hours.
#[test]
fn what_a_plan_lacks_here_is_said_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    let plan = dir.path().join("study.toml").display().to_string();
    study(&["init", "--template", "phase2-baseline", &plan]).success();
    let checked = study(&["check", &plan]).code(1).get_output().stdout.clone();
    let checked = String::from_utf8(checked).unwrap();
    let all = [
        "phase2-baseline cannot run on this machine",
        "fatal   files: llama-3-8b: /data/models/huggingface/meta-llama/Meta-Llama-3-8B: No such file",
        "next: mkdir -p /data/models/huggingface",
        "sudo spark-trace study rootfs nvcr.io/nvidia/tensorrt-llm/release:spark-single-gpu-dev /data/rootfs/tensorrt-llm",
        "16000 passes (1000 requests / batch 8 x 128 tokens) x 15.0 GiB / 212.0 GiB per s",
        "620 runs: about ",
    ];
    // A dry run says the same, and is none the worse for it.
    let dry = study(&["run", &plan, "--dry-run"]).success().get_output().stdout.clone();
    let dry = String::from_utf8(dry).unwrap();
    for words in all {
        assert!(checked.contains(words), "no `{words}` in {checked}");
        assert!(dry.contains(words), "no `{words}` in {dry}");
    }
    let json = study(&["check", &plan, "--format", "json"]).code(1).get_output().stdout.clone();
    let report: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((&report["can_run"], report["times"].as_array().map(Vec::len)), (&false.into(), Some(10)));
}

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
    // Against itself nothing differs; in the terminal's form no name from outside reaches the terminal as it is.
    let output =
        study(&["compare", &study_dir, &study_dir, "--format", "json"]).success().get_output().stdout.clone();
    let compared: serde_json::Value = serde_json::from_slice(&output).unwrap();
    let cells = compared["cells"].as_array().unwrap();
    assert!(!cells.is_empty() && cells.iter().all(|row| row["difference"] == 0.0), "{compared}");
    study(&["compare", &study_dir, &study_dir]).success();
    study(&["compare", &study_dir, &dir.path().display().to_string()]).code(2);
    let site = dir.path().join("site");
    study(&["report", &study_dir, "-o", &site.display().to_string()]).success();
    let mut sums = std::process::Command::new("sha256sum");
    sums.args(["--check", "--quiet", "SHA256SUMS"]).current_dir(&site);
    assert!(sums.status().unwrap().success());
    let figures = || fs::read_dir(site.join("figures")).unwrap().map(|file| file.unwrap().path());
    let count = |kind: &str| figures().filter(|file| file.extension().is_some_and(|of| of == kind)).count();
    assert!(count("svg") > 5 && count("svg") == count("pdf"), "{} and {}", count("svg"), count("pdf"));
    // Where there is LaTeX: names from outside do not break it.
    let mut latex = std::process::Command::new("pdflatex");
    latex
        .args(["-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"])
        .current_dir(&site);
    if let Ok(output) = latex.output() {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    // The site is a study: what its runs show can be computed again.
    let again = |dir: &str| study(&["report", dir, "--format", "json"]).success().get_output().stdout.clone();
    assert_eq!(again(&site.display().to_string()), again(&study_dir));
    let runs = study(&["report", &study_dir, "--format", "runs"]).success().get_output().stdout.clone();
    assert_eq!(String::from_utf8(runs).unwrap().lines().count(), 1 + 10);
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
