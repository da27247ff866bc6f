//! Who holds the memory of a GPU, by what NVML lists of its processes.

use super::{Cell, Reading};
use crate::Series;

/// How many processes a reading lists. Where it says nothing, a process without a value may hold anything.
const LISTED: &str = "processes.listed";

/// What the target's processes hold together.
pub(super) fn target(reading: &Reading<'_>) -> Cell {
    used_by(reading, true)
}

/// What all other processes hold together.
pub(super) fn others(reading: &Reading<'_>) -> Cell {
    used_by(reading, false)
}

/// Known where every process that is listed has a value: a process that is not listed holds nothing.
fn used_by(reading: &Reading<'_>, by_target: bool) -> Cell {
    let listed = match reading.recorded(LISTED) {
        Cell::Known(listed) => listed,
        cell => return cell,
    };
    let (mut sum, mut known) = (0u64, 0);
    for (pid, bytes) in processes(reading.series, reading.index) {
        known += 1;
        if reading.facts.is_target(pid) == by_target {
            sum = sum.saturating_add(bytes);
        }
    }
    if known == listed { Cell::Known(sum) } else { Cell::Unknown }
}

/// What the target's processes had before the trace began, and still have.
pub(super) fn before(reading: &Reading<'_>) -> Cell {
    if !reading.series.columns.keys().any(|column| column.starts_with(PROCESS) && column.ends_with(BEFORE)) {
        return Cell::NoColumn;
    }
    let ours =
        by_process(reading.series, reading.index, BEFORE).filter(|(pid, _)| reading.facts.is_target(*pid));
    Cell::Known(ours.fold(0, |sum, (_, bytes)| sum.saturating_add(bytes)))
}

/// Processes with what each holds at reading `index`.
pub fn processes(series: &Series, index: usize) -> impl Iterator<Item = (u32, u64)> {
    by_process(series, index, ".used")
}

/// Columns of processes: `process.PID.used` and its like.
const PROCESS: &str = "process.";
const BEFORE: &str = ".before";

fn by_process<'a>(series: &'a Series, index: usize, what: &'a str) -> impl Iterator<Item = (u32, u64)> + 'a {
    series.columns.iter().filter_map(move |(column, values)| {
        let pid = column.strip_prefix(PROCESS)?.strip_suffix(what)?.parse().ok()?;
        Some((pid, values.get(index)?))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{Balance, Facts, Plane, balance};
    use crate::testing::series;

    const OURS: [u32; 2] = [7, 8];

    fn device(columns: &[(&str, u64)]) -> Balance {
        let target = BTreeSet::from(OURS);
        let facts = Facts { target: Some(&target), ..Facts::default() };
        balance(Plane::Device, facts, &series(&[(0, columns)]), 0).unwrap()
    }

    const READING: [(&str, u64); 8] = [
        ("memory.total", 1000),
        ("memory.free", 300),
        ("memory.used", 650),
        ("memory.reserved", 50),
        ("processes.listed", 3),
        ("process.7.used", 400),
        ("process.8.used", 20),
        ("process.9.used", 200),
    ];

    fn without(name: &str) -> Vec<(&'static str, u64)> {
        READING.into_iter().filter(|(column, _)| *column != name).collect()
    }

    #[test]
    fn all_that_is_not_free_has_an_owner_or_is_the_residual() {
        let balance = device(&READING);
        let bytes = |slug| balance.bytes(slug);
        assert_eq!(bytes("gpu-allocated"), None, "nobody followed CUDA calls");
        assert_eq!(bytes("gpu-context"), Some(420), "so all that the target holds is here");
        assert_eq!((bytes("gpu-other-processes"), bytes("gpu-reserved")), (Some(200), Some(50)));
        assert_eq!((balance.expected, balance.attributed, balance.residual), (Some(700), 670, Some(30)));
        assert_eq!(balance.bytes("anon"), None, "no row of system memory");
    }

    #[test]
    fn what_cuda_calls_allocated_is_taken_out_of_the_rest() {
        let balance = device(&[&READING[..], &[("cuda.live", 380)]].concat());
        assert_eq!((balance.bytes("gpu-allocated"), balance.bytes("gpu-context")), (Some(380), Some(40)));
        assert_eq!(balance.residual, Some(30));
    }

    #[test]
    fn memory_of_the_target_from_before_the_trace_has_a_row_of_its_own() {
        let columns =
            [&READING[..], &[("process.7.before", 390), ("process.9.before", 200), ("cuda.live", 5)]]
                .concat();
        let balance = device(&columns);
        let rows = ["gpu-allocated", "gpu-before", "gpu-context"].map(|slug| balance.bytes(slug));
        assert_eq!(rows, [Some(5), Some(390), Some(25)], "that of others is in their row");
        assert_eq!(balance.residual, Some(30));
    }

    #[test]
    fn what_may_be_for_another_gpu_has_a_row_of_its_own() {
        let balance = device(&[&READING[..], &[("cuda.live", 15), ("cuda.mixed", 400)]].concat());
        let rows = ["gpu-allocated", "gpu-shared-process", "gpu-context"].map(|slug| balance.bytes(slug));
        assert_eq!(rows, [Some(15), Some(400), Some(5)]);
        assert_eq!(balance.residual, Some(30));
    }

    #[test]
    fn a_device_without_memory_of_its_own_has_rows_and_no_residual() {
        let columns: Vec<_> = READING.into_iter().filter(|(name, _)| !name.starts_with("memory.")).collect();
        let balance = device(&columns);
        assert_eq!(balance.bytes("gpu-context"), Some(420));
        assert_eq!((balance.expected, balance.residual, balance.bytes("gpu-reserved")), (None, None, None));
    }

    #[test]
    fn a_process_of_unknown_size_makes_both_rows_unknown() {
        for columns in [without("process.9.used"), without("processes.listed")] {
            let balance = device(&columns);
            assert_eq!((balance.bytes("gpu-context"), balance.bytes("gpu-other-processes")), (None, None));
        }
    }

    #[test]
    fn a_process_that_is_gone_holds_nothing() {
        let gone: &[(&str, u64)] = &[("memory.total", 9), ("memory.free", 9), ("processes.listed", 0)];
        let series = series(&[(0, &READING), (1, gone)]);
        let target = BTreeSet::from(OURS);
        let facts = Facts { target: Some(&target), ..Facts::default() };
        let balance = balance(Plane::Device, facts, &series, 1).unwrap();
        assert_eq!((balance.bytes("gpu-context"), balance.residual), (Some(0), Some(0)));
    }

    #[test]
    fn on_a_recording_of_the_whole_machine_nobody_is_another() {
        let balance = balance(Plane::Device, Facts::default(), &series(&[(0, &READING)]), 0).unwrap();
        assert_eq!(balance.bytes("gpu-other-processes"), Some(0));
        assert_eq!(balance.bytes("gpu-context"), Some(620));
    }
}
