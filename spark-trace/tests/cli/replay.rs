//! `top --replay` and `show` say the same to the byte, at every reading of recordings that are kept here.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use spark_trace_analysis::attribution;
use spark_trace_analysis::instant_spec::InstantSpec;
use spark_trace_analysis::live_frame::{self, Frame};
use spark_trace_recording as recording;

use super::stdout;

/// Two made by hand and three of real runs: a container on an emulated machine, PyTorch and an inference on a GPU.
const RECORDINGS: &[&str] = &[
    "spark-trace/tests/data/synthetic-container.json",
    "spark-trace/tests/data/synthetic-cuda.json",
    "results/2026-11-21-emulated-spark/container.json.zst",
    "results/2026-11-21-h200/torch-native.json.zst",
    "results/2026-11-21-h200/llm-docker.json.zst",
];

/// Frames of each that the programs print, too: each is a process.
const FRAMES: usize = 3;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

#[test]
fn every_frame_is_what_show_says() {
    for name in RECORDINGS {
        let recording = recording::read(&path(name)).unwrap();
        let times = live_frame::times(&recording);
        assert!(times.len() >= 2, "{name}: {} readings", times.len());
        for &at_ns in &times {
            let frame = serde_json::to_value(Frame::new(&recording, at_ns, None, 0)).unwrap();
            let shown =
                serde_json::to_value(attribution::report(&recording, InstantSpec::Time(at_ns))).unwrap();
            assert_eq!(levels(&frame), levels_of_show(&shown), "{name} at {at_ns}");
        }
    }
}

#[test]
fn so_do_the_programs() {
    for name in RECORDINGS {
        let file = path(name);
        let file = file.to_str().unwrap();
        let frames = stdout(&["top", "--replay", file, "--format", "json"]);
        let frames: Vec<Value> = frames.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let step = (frames.len() / FRAMES).max(1);
        for frame in frames.iter().step_by(step) {
            let at = format!("@{}", frame["at_ns"]);
            let shown: Value =
                serde_json::from_str(&stdout(&["show", file, "--at", &at, "--format", "json"])).unwrap();
            assert_eq!(levels(frame), levels_of_show(&shown), "{name} at {at}");
        }
    }
}

/// Of each plane its time, counter, residual and rows.
fn levels(frame: &Value) -> Vec<Value> {
    frame["planes"].as_array().unwrap().iter().map(|plane| plane_levels(plane, plane)).collect()
}

fn levels_of_show(shown: &Value) -> Vec<Value> {
    let planes = &shown["planes"];
    let devices = planes["devices"].as_array().unwrap();
    let all =
        [&planes["system"], &planes["cgroup"]].into_iter().filter(|plane| !plane.is_null()).chain(devices);
    all.map(|plane| plane_levels(plane, &plane["level"])).collect()
}

fn plane_levels(plane: &Value, level: &Value) -> Value {
    let rows = plane["sources"].as_array().unwrap().iter();
    let rows: Vec<_> =
        rows.map(|row| json!([row["source"], row["bytes"], row["charged"], row["reclaimable"]])).collect();
    json!([plane["plane"], plane["at_ns"], level["expected"], level["attributed"], level["residual"], rows])
}
