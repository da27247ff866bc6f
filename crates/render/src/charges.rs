//! What `show` and `diff` say of charges to cgroups, and of requests to the NVIDIA driver.

use super::document::{Cell, Document, Fit, Table};
use spark_trace_analysis::charges::{Agreement, ChargeRow, Charges};
use spark_trace_analysis::diff::detail::ChargeDelta;
use spark_trace_analysis::driver_allocs::DriverAllocRow;
use spark_trace_analysis::passing::{self, Stack};
use spark_trace_recording::units::{delta, unsigned};

/// Rows shown; JSON has all.
const MOST: usize = 20;

/// Charges by stack, and whether hooks and kernel count the same. `at`: the time the rows are about, and when they were read.
pub fn show(document: &mut Document, charges: &Charges, at: &str) {
    document.heading(format!("Charged by stack, until {at} (including bytes uncharged since)"));
    document.table(Table::of(STACKS, charges.stacks.iter().take(MOST)));
    let left_out = charges.stacks.len().saturating_sub(MOST);
    if left_out > 0 {
        let bytes = charges.stacks[MOST..].iter().map(|row| row.bytes_charged).sum();
        document.line(format!("and {} by {left_out} other stacks", unsigned(bytes)));
    }
    if let (Some(charged), Some(uncharged)) = (charges.bytes_charged, charges.bytes_uncharged) {
        let (charged, uncharged) = (unsigned(charged), unsigned(uncharged));
        document.line(format!("charged {charged}, uncharged {uncharged} in the whole run"));
        document.line(agreement(&charges.agreement));
    }
}

fn agreement(agreement: &Agreement) -> String {
    let Agreement { readings, settled, differing, largest_difference, reseeds, corrected } = *agreement;
    let compared = match (settled, differing) {
        (0, _) if readings == 0 => "hooks and the cgroup's usage were never read together".to_owned(),
        (0, _) => format!(
            "hooks and the cgroup's usage cannot be compared: charges changed during all {readings} readings"
        ),
        (_, 0) => format!(
            "hooks and the cgroup's usage agree: difference 0 in {settled} of {readings} readings; charges changed during the others"
        ),
        _ => format!(
            "hooks and the cgroup's usage differ in {differing} of {settled} readings without concurrent charges, by {} at most",
            delta(largest_difference)
        ),
    };
    if reseeds == 0 {
        return compared;
    }
    format!(
        "{compared}; the kernel skipped programs, and the level was corrected {reseeds} times, by {} in all",
        delta(corrected)
    )
}

const STACKS: &[Cell<ChargeRow>] = &[
    ("CHARGED", Fit::Number, |row| unsigned(row.bytes_charged)),
    ("TIMES", Fit::Number, |row| row.charges.to_string()),
    ("FOR", Fit::Name, |row| row.class.to_owned()),
    ("STACK", Fit::Text, |row| passing::line(&row.frames, Stack::Kernel)),
];

pub const DRIVER_ALLOCS: &[Cell<DriverAllocRow>] =
    &[
        ("LIVE", Fit::Number, |row| unsigned(row.live)),
        ("REQUESTED", Fit::Number, |row| unsigned(row.bytes_allocated)),
        ("TIMES", Fit::Number, |row| row.allocs.to_string()),
        ("KIND", Fit::Name, |row| row.kind.clone()),
        ("PROCESS", Fit::Name, |row| {
            if row.pid == 0 { row.comm.clone() } else { format!("{} {}", row.pid, row.comm) }
        }),
        ("STACK", Fit::Text, |row| passing::line(&row.frames, Stack::Kernel)),
    ];

pub const DELTAS: &[Cell<ChargeDelta>] = &[
    ("DELTA", Fit::Number, |row| delta(row.delta_bytes)),
    ("A", Fit::Number, |row| unsigned(row.a_bytes)),
    ("B", Fit::Number, |row| unsigned(row.b_bytes)),
    ("FOR", Fit::Name, |row| row.class.to_owned()),
    ("STACK", Fit::Text, |row| passing::line(&row.frames, Stack::Kernel)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_is_one_line() {
        const USAGE: &str = "hooks and the cgroup's usage";
        let all = Agreement { readings: 9, settled: 7, ..Agreement::default() };
        let agree =
            format!("{USAGE} agree: difference 0 in 7 of 9 readings; charges changed during the others");
        assert_eq!(agreement(&all), agree);
        let some = Agreement { differing: 2, largest_difference: -8192, ..all.clone() };
        assert_eq!(
            agreement(&some),
            format!("{USAGE} differ in 2 of 7 readings without concurrent charges, by -8.0 KiB at most")
        );
        let anew = Agreement { reseeds: 3, corrected: 4096, ..all.clone() };
        assert_eq!(
            agreement(&anew),
            format!(
                "{agree}; the kernel skipped programs, and the level was corrected 3 times, by +4.0 KiB in all"
            )
        );
        assert_eq!(
            agreement(&Agreement { settled: 0, ..all }),
            format!("{USAGE} cannot be compared: charges changed during all 9 readings")
        );
        assert_eq!(agreement(&Agreement::default()), format!("{USAGE} were never read together"));
    }
}
