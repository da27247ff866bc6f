//! The levels at one instant as metrics: OpenMetrics 1.0 text exposition
//! (<https://prometheus.io/docs/specs/om/open_metrics_spec/>).
//!
//! Every sample has the time of its reading, so what takes history (`promtool tsdb create-blocks-from openmetrics`)
//! puts it where it belongs.

use std::fmt::Write;

use super::{Exported, Options};
use crate::analysis::attribution::{self, level_of};
use crate::analysis::cuda::DEVICE_ALL;
use crate::analysis::levels;
use crate::analysis::processes::Split;
use crate::recording::Recording;
use crate::render::escape;

/// Resident memory of a process by kind.
type Kind = (&'static str, fn(&Split) -> Option<u64>);

const KINDS: &[Kind] = &[
    ("anon", |split| split.rss_anon),
    ("file", |split| split.rss_file),
    ("shmem", |split| split.rss_shmem),
    ("swap", |split| split.swap),
];

struct Metrics {
    text: String,
    /// From the recording's clock to the epoch.
    offset_ns: i64,
}

/// Labels, value, and the time of its reading. What is unknown has no sample.
type Sample = (String, Option<i64>, u64);

pub fn export(recording: &Recording, options: Options) -> Exported {
    let report = attribution::report(recording, options.at);
    let mut metrics = Metrics { text: String::new(), offset_ns: recording.clock.realtime_offset_ns };
    let (mut sources, mut planes) = (vec![], vec![]);
    for object in levels::objects(recording) {
        let balance = object.view.choose(options.at, recording);
        let plane = [("plane", object.view.scope.as_str()), ("object", &object.name)];
        for source in object.view.plane.sources() {
            let labels = [&plane[..], &[("source", source.slug)]].concat();
            sources.push((set(&labels), level_of(&balance, source.slug), balance.at_ns));
        }
        planes.push((set(&plane), levels::counter(&balance), balance.at_ns));
    }
    metrics.gauge(
        "spark_trace_memory_bytes",
        "Held by each source of a plane; unattributed is the rest of the plane's counter, and may be negative.",
        sources,
    );
    metrics.gauge("spark_trace_plane_bytes", "What the plane's own counter says.", planes);
    let processes = report.processes.iter().filter_map(|process| Some((process, process.at?)));
    let processes = processes.flat_map(|(process, split)| {
        KINDS.iter().map(move |(kind, bytes)| {
            let pid = process.pid.to_string();
            let labels = [("pid", pid.as_str()), ("comm", &process.comm), ("kind", kind)];
            (set(&labels), level(bytes(&split)), split.at_ns)
        })
    });
    metrics.gauge(
        "spark_trace_process_bytes",
        "Resident, or swapped out; what processes share is in each.",
        processes,
    );
    let cuda = report.cuda.iter().flat_map(|cuda| cuda.totals.iter().map(|total| (total, cuda.at_ns)));
    let cuda = cuda.filter(|(total, _)| total.kind != DEVICE_ALL);
    metrics.gauge(
        "spark_trace_cuda_bytes",
        "Held through the CUDA driver, as it was asked for.",
        cuda.map(|(total, at_ns)| (set(&[("kind", &total.kind)]), level(total.live), at_ns)),
    );
    metrics.info(recording, options);
    metrics.text.push_str("# EOF\n");
    Ok(metrics.text.into_bytes())
}

fn level(bytes: Option<u64>) -> Option<i64> {
    bytes.and_then(|bytes| i64::try_from(bytes).ok())
}

impl Metrics {
    /// A family without samples is none: not every reader takes one.
    fn gauge(&mut self, name: &str, about: &str, samples: impl IntoIterator<Item = Sample>) {
        let mut samples =
            samples.into_iter().filter_map(|(labels, bytes, at_ns)| Some((labels, bytes?, at_ns))).peekable();
        if samples.peek().is_none() {
            return;
        }
        // Writing to a String cannot fail.
        let _ =
            write!(self.text, "# TYPE {name} gauge\n# UNIT {name} bytes\n# HELP {name} {}\n", text(about));
        for (labels, bytes, at_ns) in samples {
            let _ = writeln!(self.text, "{name}{labels} {bytes} {}", self.time(at_ns));
        }
    }

    /// It has a time as well: promtool takes no series without one.
    fn info(&mut self, recording: &Recording, options: Options) {
        let name = "spark_trace_recording";
        let at = options.at.to_string();
        let labels = [
            ("version", recording.tool.version.as_str()),
            ("target", &recording.target.kind),
            ("kernel", &recording.host.kernel),
            ("arch", &recording.host.arch),
            ("provenance", &recording.host.provenance),
            ("at", &at),
        ];
        let _ = write!(
            self.text,
            "# TYPE {name} info\n# HELP {name} What was recorded, where and by what.\n{name}_info{} 1 {}\n",
            set(&labels),
            self.time(recording.target.started_ns)
        );
    }

    /// Seconds since the epoch.
    fn time(&self, at_ns: u64) -> String {
        let ns = (i128::from(at_ns) + i128::from(self.offset_ns)).max(0);
        format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
    }
}

fn set(labels: &[(&str, &str)]) -> String {
    let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", text(value))).collect();
    format!("{{{}}}", labels.join(","))
}

/// Text in quotes, or behind `# HELP`: line feeds are gone before.
fn text(value: &str) -> String {
    escape::line(value).replace('\\', "\\\\").replace('"', "\\\"")
}
