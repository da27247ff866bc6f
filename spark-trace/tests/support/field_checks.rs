//! What must hold of a recording of any program.

use serde_json::Value;

use super::field::{FIGURES, Observed, Program, bytes_of, maybe, tolerance};
use super::{Faults, int, text};

/// Each row of the target's cgroup against the kernel's files at the same time, the highest reading against the peak
/// that the kernel kept, and the processes' peaks against what they said themselves.
pub fn levels(program: &Program, observed: &Observed, faults: &mut Faults) {
    let name = program.name;
    let show = observed.recorded.show();
    let plane = &show["planes"]["cgroup"];
    faults.expect(show["at"] == "peak", || format!("{name}: shown at {}", show["at"]));
    let at_ns = int(&plane["at_ns"]);
    for (what, slugs, figure) in FIGURES {
        let truth = observed.around(at_ns, *figure);
        close(faults, &format!("{name}: {what}"), bytes_of(plane, slugs, "bytes"), truth);
    }
    let root = &plane["roots"][0];
    if let (Some(kernel), Some(seen)) = (maybe(&root["kernel_peak"]), observed.kernel_peak()) {
        // The witness may have missed what was charged last.
        faults.expect(kernel >= seen, || format!("{name}: peak {kernel}, and the kernel's file had {seen}"));
        let sampled = int(&root["sampled_peak"]);
        faults
            .expect(sampled <= kernel, || format!("{name}: a reading of {sampled} above the peak {kernel}"));
    }
    for (comm, bytes) in &observed.reported {
        let rows = show["processes"].as_array().into_iter().flatten();
        let peaks =
            rows.filter(|row| row["comm"] == comm.as_str()).filter_map(|row| row["rss_peak"].as_i64());
        let peak = peaks.max();
        faults.expect(peak.is_some_and(|peak| peak + tolerance(*bytes) >= *bytes), || {
            format!("{name}: {comm} said {bytes} bytes, and its peak is {peak:?}")
        });
    }
}

/// What no text about an ordinary program says.
pub fn words(program: &Program, observed: &Observed, faults: &mut Faults) {
    let name = program.name;
    let text = observed.recorded.table();
    faults.expect(!text.contains("KV cache"), || format!("{name}: `show` speaks of a KV cache:\n{text}"));
    let mut kv = super::spark_trace();
    let kv = kv.arg("kv").arg(&observed.recorded.output).output().unwrap();
    let said = String::from_utf8_lossy(&kv.stderr).into_owned();
    faults.expect(kv.status.code() == Some(2) && kv.stdout.is_empty(), || {
        format!("{name}: kv exits with {:?}: {}{said}", kv.status.code(), String::from_utf8_lossy(&kv.stdout))
    });
}

/// Every difference that `diff` prints against the difference of what the kernel's files said at the same two times.
pub fn difference(name: &str, a: &Observed, b: &Observed, faults: &mut Faults) -> Value {
    let diff = a.recorded.diff(&b.recorded);
    faults.expect(diff["plane"] == "cgroup", || format!("{name}: compared on {}", diff["plane"]));
    faults.expect(text(&diff["at"]) == "peak", || format!("{name}: compared at {}", diff["at"]));
    let (at_a, at_b) = (int(&diff["a"]["at_ns"]), int(&diff["b"]["at_ns"]));
    for (what, slugs, figure) in FIGURES {
        let (truth_a, truth_b) = (a.around(at_a, *figure), b.around(at_b, *figure));
        let truth = truth_b.start() - truth_a.end()..=truth_b.end() - truth_a.start();
        let room = tolerance(*truth_a.end().max(truth_b.end()));
        let said = bytes_of(&diff, slugs, "b_bytes") - bytes_of(&diff, slugs, "a_bytes");
        faults.expect(said >= truth.start() - room && said <= truth.end() + room, || {
            format!("{name}: {what} differs by {said}, truth {truth:?}, room {room}")
        });
    }
    diff
}

fn close(faults: &mut Faults, what: &str, said: i64, truth: std::ops::RangeInclusive<i64>) {
    let room = tolerance(*truth.end());
    let off = if said < *truth.start() { truth.start() - said } else { (said - truth.end()).max(0) };
    println!("{what}: {said}, truth {truth:?}");
    faults
        .expect(off <= room, || format!("{what}: {said} bytes, truth {truth:?}: off by {off}, room {room}"));
}
