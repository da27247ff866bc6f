//! Who had memory beside the target.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use spark_trace_recording::{Moment, Recording};

use super::OutsideUse;

/// The largest first.
pub fn processes(recording: &Recording) -> Vec<OutsideUse> {
    let mut found: BTreeMap<(u32, &str), OutsideUse> = BTreeMap::new();
    for row in &recording.provenance.outside {
        let one = found.entry((row.pid, row.comm.as_str())).or_insert_with(|| OutsideUse {
            pid: row.pid,
            comm: row.comm.clone(),
            at_start: None,
            at_end: None,
        });
        match row.moment {
            Some(Moment::Start) => one.at_start = Some(row.bytes),
            Some(Moment::End) => one.at_end = Some(row.bytes),
            _ => {}
        }
    }
    let mut all: Vec<_> = found.into_values().collect();
    all.sort_by_key(|row| Reverse(row.at_start.max(row.at_end)));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_recording::OutsideProcess;
    use spark_trace_testing as testing;

    #[test]
    fn the_largest_at_either_time_comes_first() {
        let mut recording = testing::empty();
        let row = |moment, pid, comm: &str, bytes| OutsideProcess {
            at_ns: 1,
            moment: Some(moment),
            pid,
            comm: comm.to_owned(),
            bytes,
        };
        recording.provenance.outside = vec![
            row(Moment::Start, 7, "python3", 40),
            row(Moment::Start, 8, "redis", 30),
            row(Moment::End, 7, "python3", 10),
            // The number came again.
            row(Moment::End, 8, "sshd", 50),
        ];
        let found = processes(&recording);
        let rows: Vec<_> = found.iter().map(|row| (row.comm.as_str(), row.at_start, row.at_end)).collect();
        assert_eq!(
            rows,
            [("sshd", None, Some(50)), ("python3", Some(40), Some(10)), ("redis", Some(30), None)]
        );
    }
}
