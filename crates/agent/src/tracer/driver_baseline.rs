//! What the NVIDIA driver had of system memory before the trace began: an estimate, and only where a GPU has no
//! memory of its own. There NVML's figure of a process is pages of the driver; which of them came before the trace
//! no hook has seen.

use std::collections::BTreeMap;

use spark_trace_recording::journal::{Sample, SeriesId};

/// Bytes by device and process at the first reading, and what of them can be left.
#[derive(Debug, Default)]
pub(super) struct DriverBaseline {
    devices: BTreeMap<u32, BTreeMap<String, u64>>,
}

impl DriverBaseline {
    /// Takes a reading in. What a process holds less of by now it has given back, and one that is gone has given
    /// back all; what it holds more of is followed by the hooks.
    pub(super) fn read(&mut self, sample: &Sample) {
        let SeriesId::Device(device) = sample.series else { return };
        if sample.values.contains_key("memory.total") {
            return;
        }
        let now: BTreeMap<String, u64> = sample
            .values
            .iter()
            .filter(|(column, _)| column.starts_with("process.") && column.ends_with(".used"))
            .map(|(column, bytes)| (column.clone(), *bytes))
            .collect();
        match self.devices.get_mut(&device) {
            None => {
                self.devices.insert(device, now);
            }
            Some(before) => before.retain(|process, bytes| match now.get(process) {
                Some(now) => {
                    *bytes = (*bytes).min(*now);
                    true
                }
                None => false,
            }),
        }
    }

    /// All of it; `None` where no GPU shares the system's memory.
    pub(super) fn bytes(&self) -> Option<u64> {
        (!self.devices.is_empty()).then(|| self.devices.values().flat_map(BTreeMap::values).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(values: &[(&str, u64)]) -> Sample {
        Sample {
            series: SeriesId::Device(0),
            begin_ns: 1,
            end_ns: 2,
            values: values.iter().map(|(column, value)| ((*column).to_owned(), *value)).collect(),
            absent: Vec::new(),
        }
    }

    #[test]
    fn what_was_there_first_only_falls() {
        let mut before = DriverBaseline::default();
        assert_eq!(before.bytes(), None);
        before.read(&sample(&[("process.7.used", 100), ("process.8.used", 50), ("power.draw", 9)]));
        assert_eq!(before.bytes(), Some(150));
        // One has grown, a third has come: both since the trace began.
        before.read(&sample(&[("process.7.used", 170), ("process.8.used", 20), ("process.9.used", 500)]));
        assert_eq!(before.bytes(), Some(120));
        before.read(&sample(&[("process.7.used", 170)]));
        assert_eq!(before.bytes(), Some(100));
    }

    #[test]
    fn memory_of_the_gpus_own_is_no_system_memory() {
        let mut before = DriverBaseline::default();
        before.read(&sample(&[("memory.total", 1000), ("process.7.used", 100)]));
        assert_eq!(before.bytes(), None);
    }
}
