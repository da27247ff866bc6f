//! The first screen of `show` on a program that nobody here wrote, against what the kernel says of it.

use crate::support::python::{self, python};
use crate::support::{self, array, int, text};

const MIB: i64 = 1 << 20;
/// What the interpreter takes in its last moments, and what is charged beside resident memory.
const NEAR: i64 = 2 * MIB;

/// Takes 96 MiB, says what the kernel counts of it (/proc/PID/status), and stays as it is for some readings.
const TAKES: &str = "
import json
held = bytearray(b'x') * (96 << 20)
status = dict(line.split(':', 1) for line in open('/proc/self/status'))
truth = json.dumps({name: int(status[name].split()[0]) * 1024 for name in ('VmHWM', 'RssAnon')})
hold()
print(truth)
";

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_answer_agrees_with_the_kernel() {
    let Some(python) = python() else { return };
    let dir = support::disk_dir();
    let recorded = python::record(python, &dir, "r", TAKES);
    let (truth, show) = (recorded.said(), recorded.show());
    let (anon, answer) = (int(&truth["RssAnon"]), &show["answer"]);
    assert_eq!(text(&answer["plane"]), "cgroup", "{answer}");
    let part = array(&answer["parts"]).iter().find(|part| part["what"] == "anonymous memory").unwrap();
    assert!((int(&part["bytes"]) - anon).abs() <= NEAR, "{anon} resident, {answer}");
    let bytes = int(&answer["bytes"]);
    assert!(bytes + NEAR >= int(&part["bytes"]), "{answer}");
    // The cgroup's own peak, as the kernel kept it.
    let kernel_peak = int(&show["planes"]["cgroup"]["roots"][0]["kernel_peak"]);
    assert!(bytes <= kernel_peak + NEAR, "{kernel_peak} at its peak, {answer}");
    assert!(int(&answer["unexplained"]).abs() <= NEAR, "{answer}");

    let mut command = support::spark_trace();
    command.env("LC_ALL", "C.UTF-8").arg("show").arg(&recorded.output).args(["--width", "80"]);
    let screen = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let lines: Vec<_> = screen.lines().collect();
    let lead: Vec<_> = lines.iter().copied().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let amount = format!("{:.1} MiB anonymous memory", int(&part["bytes"]) as f64 / MIB as f64);
    assert!(lead.join(" ").contains(&amount), "{amount}: {screen}");
    assert!(lines.len() <= 60 && lines[0].starts_with(python), "{screen}");
}
