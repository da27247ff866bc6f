//! The last reading as metrics. Pure, but for the figures of the process itself.
//!
//! How many series there are is bounded: sources times planes and GPUs, the largest cgroups and one for the rest, and
//! tables of fixed length. `docs/fleet.md` lists them.

use spark_trace_common::capacities::LossKind;

use spark_trace_analysis::{
    attribution::level_of,
    cgroups,
    levels::{self, Object},
    view::Scope,
};
use spark_trace_recording::ledger::time_of;
use spark_trace_recording::verdict::Verdict;
use spark_trace_recording::{Recording, Series};
use spark_trace_render::{
    export::openmetrics::{MEMORY, PLANE},
    exposition::{Dialect, Exposition, Family, Point, labels},
};

/// Label of what all cgroups without a metric of their own hold. Paths begin with a slash.
pub const REST: &str = "rest";
/// Name of the cgroup plane as a whole: it must not change when cgroups come and go.
const ALL_CGROUPS: &str = "cgroups";
/// Columns of the system's series that only grow.
const EVENTS: &str = "vmstat.";
/// These have a metric of their own, or are no events.
const NO_EVENTS: &[&str] = &["oom_kill", "nr_foll_pin_acquired", "nr_foll_pin_released"];
/// Lines of /proc/meminfo that levels are compared with.
const LINES: &[&str] = &["MemTotal", "MemFree", "MemAvailable"];

const CGROUP: Family = Family {
    name: "spark_trace_cgroup_bytes",
    unit: "bytes",
    about: "Charged to a cgroup without its descendants: the sum over all is the counter of the cgroup plane.",
};
const CHARGED: Family = Family {
    name: "spark_trace_cgroup_charged_bytes",
    unit: "bytes",
    about: "Charged to a cgroup with its descendants: do not sum these.",
};
const CGROUPS: Family =
    Family { name: "spark_trace_cgroups", unit: "", about: "Memory cgroups that are read." };
const MEMINFO: Family = Family {
    name: "spark_trace_meminfo_bytes",
    unit: "bytes",
    about: "Lines of /proc/meminfo as they were read with the levels.",
};
const VMSTAT: Family = Family {
    name: "spark_trace_vm_events",
    unit: "",
    about: "Counters of /proc/vmstat since the machine started.",
};
const OOM_KILLS: Family = Family {
    name: "spark_trace_oom_kills",
    unit: "",
    about: "Processes that the kernel has killed because memory had run out, since the machine started.",
};
const OOM_RECORDINGS: Family = Family {
    name: "spark_trace_oom_recordings",
    unit: "",
    about: "Recordings of the minutes before an OOM kill that this service has written.",
};
const FAILED_WRITES: Family =
    Family { name: "spark_trace_failed_writes", unit: "", about: "Files that this service could not write." };
const READING: Family = Family {
    name: "spark_trace_reading_timestamp_seconds",
    unit: "seconds",
    about: "Time of the last reading of the levels.",
};
const HOOKS: Family = Family {
    name: "spark_trace_hooks",
    unit: "",
    about: "Hooks that are attached, and hooks that the profile needs on this machine.",
};
const LOSSES: Family = Family {
    name: "spark_trace_losses",
    unit: "",
    about: "Events and entries lost in a full buffer or map: provenance is incomplete, levels are not affected.",
};
const AGENT_CPU: Family = Family {
    name: "spark_trace_agent_cpu_seconds",
    unit: "seconds",
    about: "CPU time of the spark-trace process.",
};
const AGENT_RESIDENT: Family = Family {
    name: "spark_trace_agent_resident_bytes",
    unit: "bytes",
    about: "Resident memory of the spark-trace process.",
};
const PROGRAMS: Family = Family {
    name: "spark_trace_programs_run_seconds",
    unit: "seconds",
    about: "Run time of the eBPF programs, extrapolated from the windows in which the kernel counts it.",
};
const KERNEL: Family = Family {
    name: "spark_trace_programs_memory_bytes",
    unit: "bytes",
    about: "Kernel memory of the eBPF programs and maps.",
};
const AGENT: Family = Family { name: "spark_trace_agent", unit: "", about: "What reads, and where." };

/// What a recording does not say of the process that serves it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Agent {
    pub cpu_ns: u64,
    pub resident: Option<u64>,
    pub oom_recordings: u64,
    pub failed_writes: u64,
    /// From the recording's clock to the calendar, now.
    pub realtime_offset_ns: i64,
}

/// The metrics of a recording's last reading; at most so many cgroups by themselves.
pub fn text(recording: &Recording, agent: Agent, most_cgroups: usize, dialect: Dialect) -> Vec<u8> {
    let mut metrics = Exposition::new(dialect);
    let system = &recording.samples.system;
    let at_ns = system.end_ns.len().checked_sub(1).and_then(|last| time_of(system, last)).unwrap_or_default();
    planes(&mut metrics, recording, at_ns);
    of_cgroups(&mut metrics, recording, at_ns, most_cgroups);
    of_system(&mut metrics, system);
    about_itself(&mut metrics, recording, agent, at_ns);
    metrics.finish()
}

fn one<V>(value: Option<V>) -> [Point<V>; 1] {
    [point(&[], value)]
}

fn point<V>(with: &[(&str, &str)], value: Option<V>) -> Point<V> {
    // The time of reading the metrics stands for that of the reading, which has a metric of its own: series with times
    // of their own are not seen to end.
    Point { labels: if with.is_empty() { String::new() } else { labels(with) }, value, time: None }
}

fn planes(metrics: &mut Exposition, recording: &Recording, at_ns: u64) {
    let (mut sources, mut counters) = (Vec::new(), Vec::new());
    for object in levels::objects(recording) {
        let balance = object.view.at(at_ns);
        let plane = [("plane", object.view.scope.as_str()), ("object", stable(&object))];
        for source in object.view.plane.sources() {
            let of_source = [&plane[..], &[("source", source.slug)]].concat();
            sources.push(point(&of_source, level_of(&balance, source.slug)));
        }
        counters.push(point(&plane, levels::counter(&balance)));
    }
    metrics.gauge(MEMORY, sources);
    metrics.gauge(PLANE, counters);
}

fn stable<'a>(object: &'a Object<'_>) -> &'a str {
    if object.view.scope == Scope::Cgroup { ALL_CGROUPS } else { &object.name }
}

fn of_cgroups(metrics: &mut Exposition, recording: &Recording, at_ns: u64, most: usize) {
    // The largest first, by what is charged to them alone.
    let rows = cgroups::rows(recording, at_ns);
    let (largest, others) = rows.split_at(most.min(rows.len()));
    let rest = others.iter().filter_map(|row| row.own).reduce(i64::saturating_add);
    let own = largest.iter().map(|row| point(&[("cgroup", &row.path)], row.own));
    metrics.gauge(CGROUP, own.chain([point(&[("cgroup", REST)], rest)]));
    metrics.gauge(CHARGED, largest.iter().map(|row| point(&[("cgroup", &row.path)], row.bytes)));
    metrics.gauge(CGROUPS, one(Some(rows.len())));
}

fn of_system(metrics: &mut Exposition, system: &Series) {
    let last = |column: &str| system.columns.get(column)?.last();
    let lines = LINES.iter().map(|line| point(&[("line", line)], last(&format!("meminfo.{line}"))));
    metrics.gauge(MEMINFO, lines);
    let events = system.columns.iter().filter_map(|(name, column)| {
        let event = name.strip_prefix(EVENTS).filter(|event| !NO_EVENTS.contains(event))?;
        Some(point(&[("event", event)], column.last()))
    });
    metrics.counter(VMSTAT, events);
    metrics.counter(OOM_KILLS, one(last("vmstat.oom_kill")));
}

fn about_itself(metrics: &mut Exposition, recording: &Recording, agent: Agent, at_ns: u64) {
    metrics.counter(OOM_RECORDINGS, one(Some(agent.oom_recordings)));
    metrics.counter(FAILED_WRITES, one(Some(agent.failed_writes)));
    let at = i128::from(at_ns) + i128::from(agent.realtime_offset_ns);
    metrics.gauge(READING, one((at_ns > 0).then(|| seconds(at))));

    let health = &recording.health;
    let verdicts = |unwanted: &[Verdict]| {
        let unwanted =
            |hook: &&spark_trace_recording::Hook| unwanted.iter().any(|verdict| hook.verdict == *verdict);
        health.hooks.iter().filter(|hook| !unwanted(hook)).count()
    };
    let wanted = verdicts(&[Verdict::Off, Verdict::NotApplicable, Verdict::Unsupported]);
    let ok = health.hooks.iter().filter(|hook| hook.verdict == Verdict::Ok).count();
    metrics
        .gauge(HOOKS, [("ok", ok), ("wanted", wanted)].map(|(state, n)| point(&[("state", state)], Some(n))));
    // Those that lost nothing have a series too: growth from nothing would not be seen without it.
    let known = LossKind::ALL.iter().map(|kind| (kind.name(), 0));
    let known = known.filter(|(name, _)| !health.losses.iter().any(|loss| loss.what == *name));
    let lost = health.losses.iter().map(|loss| (loss.what.as_str(), loss.count));
    metrics.counter(LOSSES, known.chain(lost).map(|(what, count)| point(&[("what", what)], Some(count))));

    metrics.counter(AGENT_CPU, one(Some(seconds(agent.cpu_ns.into()))));
    metrics.gauge(AGENT_RESIDENT, one(agent.resident));
    metrics.counter(PROGRAMS, one(recording.cost.bpf_run_time_ns.map(|ns| seconds(ns.into()))));
    metrics.gauge(KERNEL, one(recording.cost.bpf_memory));
    let about = [
        ("version", recording.tool.version.as_str()),
        ("profile", &recording.tool.profile),
        ("kernel", &recording.host.kernel),
        ("arch", &recording.host.arch),
        ("provenance", &recording.host.provenance),
    ];
    metrics.info(AGENT, labels(&about), None);
}

fn seconds(ns: i128) -> String {
    let ns = ns.max(0);
    format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use openmetrics_parser::{OpenMetricsValue, openmetrics::parse_openmetrics};

    use super::*;
    use spark_trace_recording::{CgroupSeries, TargetCgroup, retention};
    use spark_trace_testing as testing;
    use spark_trace_testing::{MIB, START, series};

    /// Values by family and labels.
    type Values = BTreeMap<(String, Vec<(String, String)>), f64>;

    fn parsed(text: &[u8]) -> Values {
        let text = std::str::from_utf8(text).unwrap();
        let parsed = parse_openmetrics(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let mut values = Values::new();
        for (name, family) in &parsed.families {
            for sample in family.iter_samples() {
                let labels = sample.get_labelset().unwrap();
                let labels = labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
                let value = match &sample.value {
                    OpenMetricsValue::Gauge(number) => number.as_f64(),
                    OpenMetricsValue::Counter(counter) => counter.value.as_f64(),
                    OpenMetricsValue::Info => 1.0,
                    other => panic!("{other:?}"),
                };
                assert!(sample.timestamp.is_none());
                assert!(values.insert((name.clone(), labels), value).is_none(), "{name} twice");
            }
        }
        values
    }

    fn of(values: &Values, name: &str) -> Vec<f64> {
        values.iter().filter(|((family, _), _)| family == name).map(|(_, value)| *value).collect()
    }

    /// A machine with so many cgroups at its top, each a MiB more than the one before, with one below each.
    fn machine(cgroups: u64) -> Recording {
        let mut recording = testing::gpus();
        recording.target = spark_trace_recording::Target { kind: "system".into(), ..Default::default() };
        recording.samples.cgroups.clear();
        for id in 1..=cgroups {
            for (id, path, mib) in [(2 * id, format!("/{id}"), id), (2 * id + 1, format!("/{id}/below"), 1)] {
                let root = id % 2 == 0;
                recording.target.cgroups.push(TargetCgroup {
                    id,
                    path: path.clone(),
                    root,
                    ..Default::default()
                });
                let mut samples = series(&[]);
                let columns = [("memory.current", mib * MIB), ("stat.anon", mib * MIB)];
                testing::push(&mut samples, START, columns.map(|(name, value)| (name.to_owned(), value)));
                recording.samples.cgroups.push(CgroupSeries { id, path, series: samples });
            }
        }
        retention::latest(&recording)
    }

    #[test]
    fn sources_add_up_to_the_planes_counters() {
        let values = parsed(&text(&machine(3), Agent::default(), 50, Dialect::OpenMetrics));
        for plane in ["system", "cgroup"] {
            let is_of = |labels: &[(String, String)]| labels.iter().any(|(_, value)| value == plane);
            let sum = |name: &str| -> f64 {
                values
                    .iter()
                    .filter(|((n, labels), _)| n == name && is_of(labels))
                    .map(|(_, value)| value)
                    .sum()
            };
            assert!(sum("spark_trace_plane_bytes") > 0.0, "{plane}");
            assert_eq!(sum("spark_trace_memory_bytes"), sum("spark_trace_plane_bytes"), "{plane}");
        }
        assert_eq!(of(&values, "spark_trace_reading_timestamp_seconds").len(), 1);
        assert_eq!(of(&values, "spark_trace_losses").len(), LossKind::ALL.len());
        assert_eq!(of(&values, "spark_trace_hooks").len(), 2);
    }

    #[test]
    fn cgroups_are_bounded_and_their_sum_stays() {
        let mut series = Vec::new();
        for cgroups in [0, 1, 24, 25, 26, 200] {
            let values = parsed(&text(&machine(cgroups), Agent::default(), 50, Dialect::OpenMetrics));
            let cgroups_shown = of(&values, "spark_trace_cgroup_bytes");
            assert_eq!(
                cgroups_shown.len(),
                (2 * cgroups as usize).min(50) + usize::from(cgroups > 25),
                "{cgroups}"
            );
            let total = (cgroups * (cgroups + 1) / 2 * MIB) as f64;
            assert_eq!(cgroups_shown.iter().sum::<f64>(), total, "{cgroups}");
            assert!(of(&values, "spark_trace_cgroup_charged_bytes").len() <= 50);
            series.push(values.len());
        }
        // The rest, and nothing else.
        assert_eq!(series[5], series[3] + 1);
        let none = parsed(&text(&machine(5), Agent::default(), 0, Dialect::OpenMetrics));
        assert_eq!(of(&none, "spark_trace_cgroup_bytes"), [15.0 * MIB as f64]);
    }

    #[test]
    fn names_of_cgroups_are_inert() {
        let mut recording = machine(1);
        for cgroup in &mut recording.target.cgroups {
            cgroup.path = format!("{}\"}} 1\n# EOF\n\u{202e}\\", cgroup.path);
        }
        let text = text(&recording, Agent::default(), 50, Dialect::OpenMetrics);
        parsed(&text);
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text.matches("# EOF\n").count(), 1);
        assert!(!text.contains('\u{202e}'));
    }

    /// Metrics of the rules and the dashboard are exported: one that is renamed would leave them empty.
    #[test]
    fn rules_and_dashboard_use_metrics_that_exist() {
        let mut recording = machine(60);
        for column in ["vmstat.oom_kill", "vmstat.workingset_refault_file", "meminfo.MemTotal"] {
            recording.samples.system.columns.insert(column.to_owned(), [Some(1)].into());
        }
        (recording.cost.bpf_run_time_ns, recording.cost.bpf_memory) = (Some(1), Some(1));
        let agent = Agent { resident: Some(1), ..Agent::default() };
        let text = String::from_utf8(text(&recording, agent, 50, Dialect::OpenMetrics)).unwrap();
        let name = regex::Regex::new("spark_trace_[a-z_]+").unwrap();
        let exported: std::collections::BTreeSet<_> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| Some(name.find(line)?.as_str()))
            .collect();
        let dashboard = include_str!("../../../docs/grafana-dashboard.json");
        serde_json::from_str::<serde_json::Value>(dashboard).unwrap();
        for document in [dashboard, include_str!("../../../docs/fleet.md")] {
            let names: Vec<_> = name.find_iter(document).map(|found| found.as_str()).collect();
            assert!(names.len() > 5);
            for used in names.iter().filter(|used| **used != "spark_trace_") {
                assert!(exported.contains(used), "{used} is not exported");
            }
        }
    }

    #[test]
    fn an_empty_recording_has_no_levels_and_no_time() {
        let values = parsed(&text(&testing::empty(), Agent::default(), 50, Dialect::OpenMetrics));
        assert!(of(&values, "spark_trace_memory_bytes").is_empty());
        assert!(of(&values, "spark_trace_reading_timestamp_seconds").is_empty());
    }
}
