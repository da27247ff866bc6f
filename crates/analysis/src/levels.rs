//! Every level of a recording over its whole run, as tools that draw and query series take them.
//!
//! Planes overlap and are not summed. Within a plane its sources and `unattributed` add up to its `counter`.

use std::sync::Arc;

use crate::signed::signed;
use spark_trace_common::cuda::DEVICE_ALL;

use crate::attribution::level_of;
use crate::names::Names;
use crate::view::{Scope, View};
use spark_trace_recording::ledger::{Balance, time_of};
use spark_trace_recording::{Column, Recording, Series};

/// Stands beside the sources of a plane: what the plane's own counter says.
pub const COUNTER: &str = "counter";
/// What processes have mapped. Pages that several share are in each of them.
pub const PROCESS: &str = "process";
/// What the target holds through the CUDA driver: as requested, and part of no plane's sum.
pub const CUDA: &str = "cuda";
/// The columns of the series of [`CUDA`].
const LIVE: &str = "live.";

/// One series.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// `system`, `cgroup`, `device`, [`PROCESS`] or [`CUDA`].
    pub plane: &'static str,
    /// Whose memory it is. May hold names from outside.
    pub object: String,
    /// Of [`PROCESS`].
    pub pid: Option<u32>,
    /// A source of the taxonomy or [`COUNTER`]; of a process the column, of CUDA the kind.
    pub source: String,
    pub points: Points,
}

/// The levels of a series in their order. A day has millions: their times are kept once for all series of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Points {
    /// Of the recording's clock.
    times: Arc<[u64]>,
    /// Bytes; absent where they could not be read.
    bytes: Column<i64>,
}

impl Points {
    /// Times, nanoseconds of the recording's clock, and bytes.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u64, Option<i64>)> + Clone + '_ {
        self.times.iter().zip(self.bytes.iter()).map(|(at_ns, bytes)| (*at_ns, bytes))
    }

    /// The same times for every series of an object: their address distinguishes them.
    pub const fn times(&self) -> &Arc<[u64]> {
        &self.times
    }

    pub fn len(&self) -> usize {
        self.times.len()
    }

    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }
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
    lines.retain(|line| line.points.bytes.known().next().is_some());
    lines
}

fn of_plane(object: &Object<'_>) -> Vec<Line> {
    let view = &object.view;
    let slugs: Vec<_> = view.plane.sources().map(|source| source.slug).collect();
    let times: Arc<[u64]> = view.times().into();
    let mut columns = vec![Column::default(); 1 + slugs.len()];
    for at_ns in &*times {
        let balance = view.at(*at_ns);
        let levels = slugs.iter().map(|slug| level_of(&balance, slug));
        for (column, level) in columns.iter_mut().zip(std::iter::once(counter(&balance)).chain(levels)) {
            column.push(level);
        }
    }
    let line = |(source, bytes): (&str, _)| Line {
        plane: view.scope.as_str(),
        object: object.name.clone(),
        pid: None,
        source: source.to_owned(),
        points: Points { times: Arc::clone(&times), bytes },
    };
    std::iter::once(COUNTER).chain(slugs).zip(columns).map(line).collect()
}

/// Readings of the columns whose names begin with `prefix`, by what follows it.
fn columns<'a>(series: &'a Series, prefix: &'a str) -> impl Iterator<Item = (String, Points)> + 'a {
    let times: Arc<[u64]> = (0..series.begin_ns.len()).filter_map(|index| time_of(series, index)).collect();
    series.columns.iter().filter_map(move |(column, values)| {
        let bytes = (0..times.len()).map(|index| values.get(index).map(signed)).collect();
        Some((column.strip_prefix(prefix)?.to_owned(), Points { times: Arc::clone(&times), bytes }))
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
            for (index, (at_ns, bytes)) in counter.points.iter().enumerate() {
                let parts = of_plane.iter().filter(|line| line.source != COUNTER);
                let sum: i64 = parts.filter_map(|line| line.points.bytes.get(index)).sum();
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
