//! Every level of a recording over its whole run, as tools that draw and query series take them.
//!
//! Planes overlap and are not summed. Within a plane its sources and `unattributed` add up to its `counter`.

use crate::signed::signed;
use spark_trace_common::cuda::DEVICE_ALL;

use crate::attribution::level_of;
use crate::names::Names;
use crate::view::{Scope, View};
use spark_trace_recording::ledger::{Balance, time_of};
use spark_trace_recording::{Recording, Series};

/// Stands beside the sources of a plane: what the plane's own counter says.
pub const COUNTER: &str = "counter";
/// What processes have mapped. Pages that several share are in each of them.
pub const PROCESS: &str = "process";
/// What the target holds through the CUDA driver: as requested, and part of no plane's sum.
pub const CUDA: &str = "cuda";
/// The columns of the series of [`CUDA`].
const LIVE: &str = "live.";

/// One series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// `system`, `cgroup`, `device`, [`PROCESS`] or [`CUDA`].
    pub plane: &'static str,
    /// Whose memory it is. May hold names from outside.
    pub object: String,
    /// Of [`PROCESS`].
    pub pid: Option<u32>,
    /// A source of the taxonomy or [`COUNTER`]; of a process the column, of CUDA the kind.
    pub source: String,
    /// Times of the recording's clock in order; absent where it could not be read.
    pub points: Vec<(u64, Option<i64>)>,
}

/// A plane with the name of what it is about.
pub struct Object<'a> {
    pub name: String,
    pub view: View<'a>,
}

/// Every plane that the recording has readings of.
pub fn objects(recording: &Recording) -> Vec<Object<'_>> {
    let planes = [Scope::System, Scope::Cgroup].into_iter().filter_map(|scope| View::new(recording, scope));
    let planes = planes.map(|view| Object { name: name(&view), view });
    let devices = recording.samples.devices.iter().filter_map(|device| {
        Some(Object { name: format!("gpu{}", device.index), view: View::device(recording, device)? })
    });
    planes.chain(devices).collect()
}

fn name(view: &View<'_>) -> String {
    let cgroups: Vec<_> = view.roots.iter().filter_map(|root| root.cgroup).collect();
    match cgroups[..] {
        [] => "machine".to_owned(),
        [cgroup] => cgroup.path.clone(),
        _ => format!("{} cgroups", cgroups.len()),
    }
}

/// What the plane's own counter says, as levels are.
pub fn counter(balance: &Balance) -> Option<i64> {
    balance.expected.map(signed)
}

/// All series that have any value: planes first, then processes, then CUDA.
pub fn lines(recording: &Recording) -> Vec<Line> {
    let mut lines: Vec<_> = objects(recording).iter().flat_map(of_plane).collect();
    let names = Names::new(recording);
    for samples in &recording.samples.processes {
        let object = format!("{} {}", samples.pid, names.comm(samples.pid));
        lines.extend(columns(&samples.series, "").map(|(source, points)| Line {
            plane: PROCESS,
            object: object.clone(),
            pid: Some(samples.pid),
            source,
            points,
        }));
    }
    let cuda = columns(&recording.samples.cuda, LIVE).filter(|(kind, _)| kind != DEVICE_ALL);
    lines.extend(cuda.map(|(source, points)| Line {
        plane: CUDA,
        object: "target".to_owned(),
        pid: None,
        source,
        points,
    }));
    lines.retain(|line| line.points.iter().any(|(_, bytes)| bytes.is_some()));
    lines
}

fn of_plane(object: &Object<'_>) -> Vec<Line> {
    let view = &object.view;
    let balances: Vec<_> = view.times().into_iter().map(|at_ns| (at_ns, view.at(at_ns))).collect();
    let line = |source: &str, level: &dyn Fn(&Balance) -> Option<i64>| Line {
        plane: view.scope.as_str(),
        object: object.name.clone(),
        pid: None,
        source: source.to_owned(),
        points: balances.iter().map(|(at_ns, balance)| (*at_ns, level(balance))).collect(),
    };
    let sources = view.plane.sources().map(|source| source.slug);
    let sources = sources.map(|slug| line(slug, &|balance| level_of(balance, slug)));
    std::iter::once(line(COUNTER, &counter)).chain(sources).collect()
}

/// Readings of the columns whose names begin with `prefix`, by what follows it.
fn columns<'a>(
    series: &'a Series,
    prefix: &'a str,
) -> impl Iterator<Item = (String, Vec<(u64, Option<i64>)>)> + 'a {
    series.columns.iter().filter_map(move |(column, values)| {
        let readings = 0..series.begin_ns.len();
        let point = |index| Some((time_of(series, index)?, values.get(index).map(signed)));
        Some((column.strip_prefix(prefix)?.to_owned(), readings.filter_map(point).collect()))
    })
}

#[cfg(test)]
mod tests {
    use spark_trace_common::source::UNATTRIBUTED;

    use super::*;
    use spark_trace_testing as testing;
    use spark_trace_testing::MIB;

    #[test]
    fn sources_add_up_to_their_planes_counter() {
        let recording = testing::gpus();
        let lines = lines(&recording);
        for object in objects(&recording).iter().filter(|object| object.name != "gpu1") {
            let of_plane: Vec<_> = lines
                .iter()
                .filter(|line| line.plane == object.view.scope.as_str() && line.object == object.name)
                .collect();
            let counter = of_plane.iter().find(|line| line.source == COUNTER).unwrap();
            assert_eq!(counter.points.len(), object.view.times().len());
            for (index, &(at_ns, bytes)) in counter.points.iter().enumerate() {
                let parts = of_plane.iter().filter(|line| line.source != COUNTER);
                let sum: i64 = parts.filter_map(|line| line.points[index].1).sum();
                assert_eq!(bytes, Some(sum), "{} at {at_ns}", object.name);
                assert_eq!(bytes, object.view.at(at_ns).expected.map(|bytes| bytes as i64));
            }
        }
    }

    #[test]
    fn processes_and_cuda_are_beside_the_planes() {
        let lines = lines(&testing::cuda());
        let rss = lines.iter().find(|line| line.plane == PROCESS && line.source == "rss_anon").unwrap();
        assert!(rss.object.ends_with(" python3") && rss.pid.is_some());
        let kinds: Vec<_> = lines.iter().filter(|line| line.plane == CUDA).map(|line| &line.source).collect();
        assert!(kinds.contains(&&"device".to_owned()) && !kinds.contains(&&"device-all".to_owned()));
    }

    #[test]
    fn what_was_never_read_has_no_line() {
        let lines = lines(&testing::container());
        assert!(lines.iter().all(|line| line.source != "zswap" && line.source != "gpu-allocated"));
        let shmem = lines.iter().find(|line| line.plane == "cgroup" && line.source == "shmem").unwrap();
        assert!(shmem.points.iter().all(|point| point.1 == Some(0)), "nothing is not unknown");
        let rest = lines.iter().find(|line| line.plane == "system" && line.source == UNATTRIBUTED).unwrap();
        assert!(rest.points.iter().all(|point| point.1.unwrap() >= 50 * MIB as i64));
        assert!(super::lines(&testing::empty()).is_empty());
    }
}
