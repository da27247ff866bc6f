//! What `show` says of a GPU beside the rows of its plane.

use super::document::{Cell, Document, Fit, Table};
use spark_trace_analysis::devices::{DeviceProcess, DeviceReport, Range};
use spark_trace_recording::units::{known, unsigned};

pub(super) fn title(device: Option<&DeviceReport>) -> String {
    let Some(device) = device else { return "GPUs: device memory in use".to_owned() };
    let name = device.name.as_deref().unwrap_or("of unknown name");
    let simulated = if device.simulated { " (simulated)" } else { "" };
    let what = if device.note.is_none() { "device memory in use" } else { "device memory of processes" };
    format!("GPU {} {name}{simulated}: {what}", device.index)
}

pub(super) fn details(document: &mut Document, device: &DeviceReport) {
    if let Some(note) = &device.note {
        document.line(note.clone());
    }
    document.table(Table::of(PROCESSES, &device.processes));
    let ranges: Vec<_> = device.readings.iter().map(range).collect();
    if !ranges.is_empty() {
        document.line(format!("lowest / median / highest of the run: {}", ranges.join("; ")));
    }
    if !device.throttle_reasons.is_empty() {
        document.line(format!("clocks were limited by: {}", device.throttle_reasons.join(", ")));
    }
}

const PROCESSES: &[Cell<DeviceProcess>] = &[
    ("PID", Fit::Number, |row| row.pid.to_string()),
    ("PROCESS", Fit::Name, |row| match (&row.comm, row.target) {
        (Some(comm), true) => comm.clone(),
        (None, true) => "the target's".to_owned(),
        (_, false) => "not the target's".to_owned(),
    }),
    ("START", Fit::Number, |row| known(row.bytes_at_start, unsigned)),
    ("PEAK", Fit::Number, |row| known(row.bytes_at_peak, unsigned)),
    ("END", Fit::Number, |row| known(row.bytes_at_end, unsigned)),
];

/// How a column is shown: its name, its unit, and how many of the recording's units are one of that.
const UNITS: [(&str, &str, &str, u64); 6] = [
    ("utilization.gpu", "utilization", "%", 1),
    ("utilization.memory", "memory busy", "%", 1),
    ("temperature.gpu", "temperature", "C", 1),
    ("power.draw", "power", "W", 1000),
    ("clock.sm", "SM clock", "MHz", 1),
    ("clock.memory", "memory clock", "MHz", 1),
];

fn range(range: &Range) -> String {
    let units = UNITS.iter().find(|(column, ..)| *column == range.column);
    let (name, unit, scale) =
        units.map_or((range.column, "", 1), |&(_, name, unit, scale)| (name, unit, scale));
    let [min, median, max] = [range.min, range.median, range.max].map(|value| value / scale);
    format!("{name} {min}/{median}/{max} {unit}")
}
