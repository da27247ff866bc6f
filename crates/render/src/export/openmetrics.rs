//! The levels at one instant as metrics, in the text of [`exposition`](crate::exposition).
//!
//! Every sample has the time of its reading, so what takes history (`promtool tsdb create-blocks-from openmetrics`)
//! puts it where it belongs.

use super::{Exported, Options};
use crate::exposition::{Dialect, Exposition, Family, Point, labels};
use spark_trace_analysis::attribution::{self, level_of};
use spark_trace_analysis::cuda::DEVICE_ALL;
use spark_trace_analysis::levels;
use spark_trace_analysis::processes::Split;
use spark_trace_recording::Recording;

/// Resident memory of a process by kind.
type Kind = (&'static str, fn(&Split) -> Option<u64>);

const KINDS: &[Kind] = &[
    ("anon", |split| split.rss_anon),
    ("file", |split| split.rss_file),
    ("shmem", |split| split.rss_shmem),
    ("swap", |split| split.swap),
];

/// Bytes of each source; metrics of `serve` have the same names.
pub const MEMORY: Family = Family {
    name: "spark_trace_memory_bytes",
    unit: "bytes",
    about: "Bytes of each source of a plane; unattributed is the counter of the plane minus its sources, and may be negative.",
};
pub const PLANE: Family =
    Family { name: "spark_trace_plane_bytes", unit: "bytes", about: "The counter of the plane." };
const PROCESS: Family = Family {
    name: "spark_trace_process_bytes",
    unit: "bytes",
    about: "Resident or swapped memory; shared pages count in each process.",
};
const CUDA: Family = Family {
    name: "spark_trace_cuda_bytes",
    unit: "bytes",
    about: "Allocated through the CUDA driver and not yet freed; requested bytes.",
};
const RECORDING: Family = Family {
    name: "spark_trace_recording",
    unit: "",
    about: "Target, machine and version of the recording.",
};

pub fn export(recording: &Recording, options: Options) -> Exported {
    let report = attribution::report(recording, options.at);
    let mut metrics = Exposition::new(Dialect::OpenMetrics);
    let offset_ns = recording.clock.realtime_offset_ns;
    let point = |labels, value, at_ns| Point { labels, value, time: Some(time(at_ns, offset_ns)) };
    let (mut sources, mut planes) = (vec![], vec![]);
    for object in levels::objects(recording) {
        let balance = object.view.choose(options.at);
        let plane = [("plane", object.view.scope.as_str()), ("object", &object.name)];
        for source in object.view.plane.sources() {
            let labels = labels(&[&plane[..], &[("source", source.slug)]].concat());
            sources.push(point(labels, level_of(&balance, source.slug), balance.at_ns));
        }
        planes.push(point(labels(&plane), levels::counter(&balance), balance.at_ns));
    }
    metrics.gauge(MEMORY, sources);
    metrics.gauge(PLANE, planes);
    let processes = report.processes.iter().filter_map(|process| Some((process, process.at?)));
    let processes = processes.flat_map(|(process, split)| {
        KINDS.iter().map(move |(kind, bytes)| {
            let pid = process.pid.to_string();
            let labels = labels(&[("pid", pid.as_str()), ("comm", &process.comm), ("kind", kind)]);
            point(labels, level(bytes(&split)), split.at_ns)
        })
    });
    metrics.gauge(PROCESS, processes);
    let cuda = report.cuda.iter().flat_map(|cuda| cuda.totals.iter().map(|total| (total, cuda.at_ns)));
    let cuda = cuda.filter(|(total, _)| total.kind != DEVICE_ALL);
    let cuda = cuda.map(|(total, at_ns)| point(labels(&[("kind", &total.kind)]), level(total.live), at_ns));
    metrics.gauge(CUDA, cuda);
    let at = options.at.to_string();
    let about = [
        ("version", recording.tool.version.as_str()),
        ("target", recording.target.kind.as_str()),
        ("kernel", &recording.host.kernel),
        ("arch", &recording.host.arch),
        ("provenance", &recording.host.provenance),
        ("at", &at),
    ];
    // It has a time as well: promtool takes no series without one.
    metrics.info(RECORDING, labels(&about), Some(time(recording.target.started_ns, offset_ns)));
    Ok(metrics.finish().into())
}

fn level(bytes: Option<u64>) -> Option<i64> {
    bytes.and_then(|bytes| i64::try_from(bytes).ok())
}

/// Seconds since the epoch.
fn time(at_ns: u64, offset_ns: i64) -> String {
    let ns = (i128::from(at_ns) + i128::from(offset_ns)).max(0);
    format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
}
