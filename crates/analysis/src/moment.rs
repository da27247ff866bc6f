//! The instants at which two runs are compared, and why those.

use serde::Serialize;

use crate::derived::Derived;
use crate::instant_spec::{Choice, InstantSpec};
use crate::kv;
use spark_trace_recording::Recording;
use spark_trace_recording::units;

/// An instant of each run: of the same kind, though not at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Moments {
    pub a: InstantSpec,
    pub b: InstantSpec,
}

/// The instants of a comparison, for the reader too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Moment {
    pub at: Moments,
    /// Why these, in a sentence.
    pub reason: String,
    /// What makes the two differ in kind.
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no KV-cache reading: no log line states a KV-cache budget, and {}; choose another --at",
    kv::rule()
)]
pub struct NoReading;

/// The instant of one run that a choice names.
pub fn resolve<'a>(choice: Choice, run: impl Into<Derived<'a>>) -> Result<InstantSpec, NoReading> {
    match choice {
        Choice::Fixed(at) => Ok(at),
        Choice::Kv => run.into().kv_instant().map(InstantSpec::Kv).ok_or(NoReading),
    }
}

impl From<InstantSpec> for Moments {
    fn from(at: InstantSpec) -> Self {
        Self { a: at, b: at }
    }
}

impl From<InstantSpec> for Moment {
    fn from(at: InstantSpec) -> Self {
        Self { at: at.into(), reason: format!("Compared at each run's {}.", at.of_a_run()), warnings: vec![] }
    }
}

impl Moment {
    /// Where nobody chooses: the KV-cache reading, where both runs have one, for it is what a smaller cache is about; else
    /// the peak of both.
    pub fn of_runs<'a, R: Into<Derived<'a>>>(a: R, b: R) -> Self {
        let (a, b) = (a.into(), b.into());
        let (kv_a, kv_b) = (a.kv_instant(), b.kv_instant());
        if let Some((a_ns, b_ns)) = kv_a.zip(kv_b) {
            return Self {
                at: Moments { a: InstantSpec::Kv(a_ns), b: InstantSpec::Kv(b_ns) },
                reason:
                    "Compared at each run's KV-cache reading: both runs have one. For the peaks: --at peak."
                        .to_owned(),
                warnings: readings_differ(&a, &b),
            };
        }
        let why = match (kv_a, kv_b) {
            (None, None) => "neither run has a KV-cache reading",
            (None, _) => "A has no KV-cache reading",
            (_, None) => "B has no KV-cache reading",
            // Both was above.
            (Some(_), Some(_)) => "both runs have a KV-cache reading",
        };
        Self { reason: format!("Compared at each run's peak: {why}."), ..InstantSpec::Peak.into() }
    }

    /// Where somebody does.
    pub fn chosen<'a, R: Into<Derived<'a>>>(at: Moments, a: R, b: R) -> Self {
        let (a, b) = (a.into(), b.into());
        let reason = format!("Compared at each run's {}: chosen with --at.", at.b.of_a_run());
        let mut warnings = match at.b {
            InstantSpec::Kv(_) => readings_differ(&a, &b),
            InstantSpec::Time(_) if a.recording.host.boot_id != b.recording.host.boot_id => {
                vec![
                    "the recordings' clocks differ: the machine was started again between the runs"
                        .to_owned(),
                ]
            }
            InstantSpec::Peak | InstantSpec::End | InstantSpec::SinceStart(_) | InstantSpec::Time(_) => {
                vec![]
            }
        };
        for (name, at, run) in [("A", at.a, a), ("B", at.b, b)] {
            warnings.extend(outside(name, at, run.recording));
        }
        Self { at, reason, warnings }
    }
}

/// A time at which a run had not begun or was over: what stands for it is its first or last reading.
fn outside(name: &str, at: InstantSpec, recording: &Recording) -> Option<String> {
    let target = &recording.target;
    // A recording that was cut off has no end.
    if at == InstantSpec::End {
        return (target.ended_ns == 0)
            .then(|| format!("{name} was cut off: its end is its last reading, not the end of the target"));
    }
    let at_ns = at.time(target.started_ns)?;
    if at_ns < target.started_ns {
        return Some(format!("{name} had not begun at that time: its first reading stands for it"));
    }
    (target.ended_ns != 0 && at_ns > target.ended_ns).then(|| {
        let ran = units::seconds(target.ended_ns.saturating_sub(target.started_ns));
        format!("{name} ended after {ran}: its last reading stands for the time chosen")
    })
}

/// Readings of two kinds: other figures of the kernel, at other times of a start.
fn readings_differ(a: &Derived<'_>, b: &Derived<'_>) -> Vec<String> {
    let (Some(a), Some(b)) = (a.reading(), b.reading()) else { return vec![] };
    let differ = |what: &str, a: &str, b: &str| {
        (a != b).then(|| format!("the KV-cache readings differ in kind: {what} {a} in A, {b} in B"))
    };
    let made = differ("made by", &a.query.interface, &b.query.interface);
    let found = differ("found by", a.found_by, b.found_by);
    made.into_iter().chain(found).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_testing as testing;
    use spark_trace_testing::SECOND;

    #[test]
    fn ordinary_programs_are_compared_at_their_peaks() {
        let moment = Moment::of_runs(&testing::native(), &testing::container());
        assert_eq!(moment.at, InstantSpec::Peak.into());
        assert_eq!(moment.reason, "Compared at each run's peak: neither run has a KV-cache reading.");
        assert_eq!(moment.warnings, Vec::<String>::new());
        assert_eq!(resolve(Choice::Kv, &testing::native()), Err(NoReading));
    }

    #[test]
    fn what_stands_for_a_time_outside_of_a_run_is_a_warning() {
        let (a, mut b) = (testing::native(), testing::container());
        let warnings = |at: InstantSpec, b: &Recording| Moment::chosen(at.into(), &a, b).warnings;
        assert!(warnings(InstantSpec::SinceStart(5 * SECOND), &b).is_empty());
        b.target.ended_ns = b.target.started_ns + 4 * SECOND;
        let found = warnings(InstantSpec::SinceStart(5 * SECOND), &b);
        assert_eq!(found, ["B ended after 4.0 s: its last reading stands for the time chosen"]);
        assert!(warnings(InstantSpec::Peak, &b).is_empty());
        b.target.ended_ns = 0;
        assert!(warnings(InstantSpec::End, &b)[0].starts_with("B was cut off"));
        b.host.boot_id = "another".into();
        assert!(warnings(InstantSpec::Time(b.target.started_ns), &b)[0].contains("clocks differ"));
        assert!(warnings(InstantSpec::Time(0), &b)[1].starts_with("A had not begun"));
    }
}
