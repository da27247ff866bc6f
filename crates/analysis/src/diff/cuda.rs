//! What two runs took through the CUDA driver, and the memory queries of each.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::attribution::{bytes, difference};
use crate::cuda::{self, CudaReport};
use crate::derived::Derived;
use crate::memory_queries::{self, Queries, Summary};

/// Present where one of the runs used the driver or queried memory.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct CudaDelta {
    pub kinds: Vec<KindDelta>,
    /// Empty where no run has several GPUs.
    pub gpus: Vec<GpuDelta>,
    pub queries: Vec<QueryDelta>,
}

/// One kind of memory, at each run's instant. A run that took none of it has none; one that did not watch is unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct KindDelta {
    pub kind: String,
    pub a_bytes: Option<u64>,
    pub b_bytes: Option<u64>,
    pub delta_bytes: Option<i64>,
    pub a_peak: Option<u64>,
    pub b_peak: Option<u64>,
}

/// Device memory of one GPU, as [`KindDelta`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GpuDelta {
    /// NVML's index; absent for allocations whose GPU is unknown.
    pub device: Option<u32>,
    #[serde(flatten)]
    pub bytes: KindDelta,
}

/// A figure that both runs may have got.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct QueryDelta {
    pub interface: String,
    pub figure: &'static str,
    pub a: Answers,
    pub b: Answers,
}

/// The answers of one run; absent where there are none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Answers {
    pub count: u64,
    pub first: Option<u64>,
    pub last: Option<u64>,
}

/// Each run with its instant, and the time of the query that it is of, if any.
pub fn compare<'a, R: Into<Derived<'a>>>(
    a: (R, u64, Option<u64>),
    b: (R, u64, Option<u64>),
) -> Option<CudaDelta> {
    let runs = [a, b].map(|(run, at_ns, answered_ns)| (run.into(), at_ns, answered_ns));
    let used = runs
        .each_ref()
        .map(|(run, at_ns, answered_ns)| cuda::report_with(run.recording, *at_ns, *answered_ns));
    let queries = runs.each_ref().map(|(run, ..)| run.queries());
    if used.iter().all(Option::is_none) && queries.iter().all(Option::is_none) {
        return None;
    }
    Some(CudaDelta { kinds: kinds(&used), gpus: gpus(&used), queries: query_deltas(queries) })
}

fn kinds([a, b]: &[Option<CudaReport>; 2]) -> Vec<KindDelta> {
    let mut names: Vec<&str> = Vec::new();
    for row in [a, b].into_iter().flatten().flat_map(|report| &report.totals) {
        if !names.contains(&row.kind.as_str()) {
            names.push(&row.kind);
        }
    }
    names.sort_by_key(|name| cuda::order(name));
    let of = |report: &Option<CudaReport>, kind: &str| {
        let Some(report) = report else { return (None, None) };
        match report.totals.iter().find(|row| row.kind == kind) {
            Some(row) => (row.live, Some(row.peak)),
            None => (Some(0), Some(0)),
        }
    };
    let rows = names.into_iter().map(|kind| {
        let ((a_bytes, a_peak), (b_bytes, b_peak)) = (of(a, kind), of(b, kind));
        let delta_bytes = difference(bytes(b_bytes), bytes(a_bytes));
        KindDelta { kind: kind.to_owned(), a_bytes, b_bytes, delta_bytes, a_peak, b_peak }
    });
    rows.collect()
}

/// Older recordings have no rows by GPU: those of the other run stand beside what is unknown.
fn gpus(used: &[Option<CudaReport>; 2]) -> Vec<GpuDelta> {
    if !used.iter().flatten().any(|report| report.several_gpus) {
        return Vec::new();
    }
    let of_target = |report: &Option<CudaReport>| -> Option<BTreeMap<(bool, Option<u32>), cuda::TotalRow>> {
        let rows = report.as_ref()?.gpus.iter().filter(|row| row.pid.is_none());
        let rows: BTreeMap<_, _> =
            rows.map(|row| ((row.device.is_none(), row.device), row.total.clone())).collect();
        (!rows.is_empty()).then_some(rows)
    };
    let [a, b] = [&used[0], &used[1]].map(of_target);
    let devices: BTreeSet<_> = a.iter().chain(&b).flat_map(BTreeMap::keys).copied().collect();
    let of = |run: &Option<BTreeMap<_, cuda::TotalRow>>, device| match run {
        None => (None, None),
        Some(rows) => rows.get(&device).map_or((Some(0), Some(0)), |row| (row.live, Some(row.peak))),
    };
    let row = |device: (bool, Option<u32>)| {
        let ((a_bytes, a_peak), (b_bytes, b_peak)) = (of(&a, device), of(&b, device));
        let delta_bytes = difference(bytes(b_bytes), bytes(a_bytes));
        let kind = cuda::DEVICE_ALL.to_owned();
        GpuDelta {
            device: device.1,
            bytes: KindDelta { kind, a_bytes, b_bytes, delta_bytes, a_peak, b_peak },
        }
    };
    devices.into_iter().map(row).collect()
}

/// Library calls first, as in `show`. Files of single processes and cgroups are not the same in two runs.
fn query_deltas(queries: [Option<&Queries>; 2]) -> Vec<QueryDelta> {
    let [a, b] = queries.map(|queries| -> Vec<&Summary> {
        let summaries = queries.into_iter().flat_map(|queries| &queries.summaries);
        summaries.filter(|summary| summary.directory.is_none() && summary.count > 0).collect()
    });
    let mut seen = BTreeSet::new();
    let mut interfaces: Vec<_> =
        a.iter().chain(&b).filter(|summary| seen.insert(&summary.interface)).collect();
    interfaces.sort_by_key(|summary| !summary.is_call);
    let rows = interfaces.into_iter().flat_map(|summary| {
        let side = |summaries: &[&Summary], figure: &str| {
            let summary = summaries.iter().find(|other| other.interface == summary.interface);
            summary.map_or_else(Answers::default, |summary| Answers {
                count: summary.count,
                first: summary.first.as_ref().and_then(|answer| answer.values.get(figure).copied()),
                last: summary.last.as_ref().and_then(|answer| answer.values.get(figure).copied()),
            })
        };
        let figures = memory_queries::figures(&summary.interface).iter();
        figures
            .map(|&figure| QueryDelta {
                interface: summary.interface.clone(),
                figure,
                a: side(&a, figure),
                b: side(&b, figure),
            })
            .collect::<Vec<_>>()
    });
    rows.filter(|row| row.a.first.or(row.b.first).is_some()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_testing as testing;
    use spark_trace_testing::{MIB, SECOND, START};

    const PEAK: u64 = START + 5 * SECOND;

    #[test]
    fn runs_without_the_driver_have_nothing_to_compare() {
        assert_eq!(compare((&testing::native(), PEAK, None), (&testing::container(), PEAK, None)), None);
    }

    #[test]
    fn what_a_run_did_not_watch_is_unknown_and_what_it_did_not_take_is_none() {
        let (with, mut without) = (testing::cuda(), testing::native());
        let device = |without: &spark_trace_recording::Recording| {
            let delta = compare((without, PEAK, None), (&with, PEAK, None)).unwrap();
            let row = delta.kinds[0].clone();
            (row.kind, row.a_bytes, row.b_bytes, row.delta_bytes)
        };
        assert_eq!(device(&without), ("device".into(), None, Some(512 * MIB), None));
        without.health.libraries = with.health.libraries.clone();
        assert_eq!(device(&without), ("device".into(), Some(0), Some(512 * MIB), Some(512 << 20)));
    }

    #[test]
    fn answers_stand_side_by_side() {
        let (a, mut b) = (testing::cuda(), testing::cuda());
        for query in b.provenance.queries.iter_mut().filter(|query| query.interface == "cuMemGetInfo_v2") {
            *query.values.get_mut("free").unwrap() -= 1000 * MIB;
        }
        let delta = compare((&a, PEAK, None), (&b, PEAK, None)).unwrap();
        let free = &delta.queries[0];
        assert_eq!((free.interface.as_str(), free.figure, free.a.count), ("cuMemGetInfo_v2", "free", 3));
        assert_eq!((free.a.first, free.b.first), (Some(12000 * MIB), Some(11000 * MIB)));
        assert_eq!((free.a.last, free.b.last), (Some(11190 * MIB), Some(10190 * MIB)));
        assert!(
            delta.queries.iter().all(|row| row.interface != "/proc/meminfo"),
            "read by the library alone"
        );
    }
}
