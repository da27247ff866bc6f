//! Reading series that lie flat in what they belong to.
//!
//! serde's `flatten` reads a value of any form first and makes ours of it: four times the memory, and twice the time.
//! These have the same fields side by side.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::schema::{Absent, CgroupSeries, DeviceSeries, ProcessSeries, Series};

#[derive(Deserialize)]
struct CgroupSeriesFields {
    id: u64,
    path: String,
    begin_ns: Vec<u64>,
    end_ns: Vec<u64>,
    columns: BTreeMap<String, Vec<Option<u64>>>,
    absent: Vec<Absent>,
}

impl<'de> Deserialize<'de> for CgroupSeries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        CgroupSeriesFields::deserialize(deserializer).map(Self::from)
    }
}

impl From<CgroupSeriesFields> for CgroupSeries {
    fn from(fields: CgroupSeriesFields) -> Self {
        let CgroupSeriesFields { id, path, begin_ns, end_ns, columns, absent } = fields;
        Self { id, path, series: Series { begin_ns, end_ns, columns, absent } }
    }
}

#[derive(Deserialize)]
struct ProcessSeriesFields {
    pid: u32,
    begin_ns: Vec<u64>,
    end_ns: Vec<u64>,
    columns: BTreeMap<String, Vec<Option<u64>>>,
    absent: Vec<Absent>,
}

impl<'de> Deserialize<'de> for ProcessSeries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ProcessSeriesFields::deserialize(deserializer).map(Self::from)
    }
}

impl From<ProcessSeriesFields> for ProcessSeries {
    fn from(fields: ProcessSeriesFields) -> Self {
        let ProcessSeriesFields { pid, begin_ns, end_ns, columns, absent } = fields;
        Self { pid, series: Series { begin_ns, end_ns, columns, absent } }
    }
}

#[derive(Deserialize)]
struct DeviceSeriesFields {
    index: u32,
    uuid: Option<String>,
    begin_ns: Vec<u64>,
    end_ns: Vec<u64>,
    columns: BTreeMap<String, Vec<Option<u64>>>,
    absent: Vec<Absent>,
}

impl<'de> Deserialize<'de> for DeviceSeries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        DeviceSeriesFields::deserialize(deserializer).map(Self::from)
    }
}

impl From<DeviceSeriesFields> for DeviceSeries {
    fn from(fields: DeviceSeriesFields) -> Self {
        let DeviceSeriesFields { index, uuid, begin_ns, end_ns, columns, absent } = fields;
        Self { index, uuid, series: Series { begin_ns, end_ns, columns, absent } }
    }
}
