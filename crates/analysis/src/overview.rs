//! All that `report` says of one run, or of two and what makes them differ.

use serde::Serialize;

use crate::attribution;
use crate::comparability::{Comparable, comparable};
use crate::derived::Derived;
use crate::diff;
use crate::findings::{self, Findings};
use crate::flame::{self, Flame};
use crate::instant_spec::InstantSpec;
use crate::kv;
use crate::moment::{Moment, Moments};
use crate::timeline::{self, COLUMNS, Mark, Timeline};
use spark_trace_recording::{Nvidia, Recording};

/// The word of a host whose numbers are those of hardware.
const MEASURED: &str = "measured";

#[derive(Debug, Clone, Serialize)]
pub struct Overview {
    pub at: InstantSpec,
    /// Absent where one run is looked at alone.
    pub a: Option<Run>,
    pub b: Run,
    /// Of two runs: where they are compared and why there.
    pub moment: Option<Moment>,
    /// Plane by plane: the target's first, the machine's last.
    pub findings: Vec<Findings>,
    /// Absent where a run has no KV-cache reading.
    pub kv: Option<kv::Report>,
    /// Of two runs.
    pub comparable: Option<Comparable>,
    /// One of each plane that both runs have: the target's first, the machine's last.
    pub diffs: Vec<diff::Report>,
    pub flames: Vec<Flame>,
    /// Of two runs: how B's stacks differ from A's.
    pub flame_diffs: Vec<Flame>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// The recording's file.
    pub file: String,
    pub provenance: Provenance,
    pub report: attribution::Report,
    pub timelines: Vec<Timeline>,
    pub marks: Vec<Mark>,
}

/// Where a run's numbers come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Provenance {
    /// `measured`, `emulated` or `simulated`, as the recording says.
    pub host: String,
    /// What else played a part that is not its own.
    pub remarks: Vec<String>,
}

impl Provenance {
    /// Nothing in it needs to be warned of.
    pub fn is_measured(&self) -> bool {
        self.host == MEASURED && self.remarks.is_empty()
    }

    pub fn of(recording: &Recording) -> Self {
        let nvidia = recording.host.nvidia.as_ref();
        let stand_in = nvidia.is_some_and(Nvidia::is_stand_in).then(|| {
            "STAND-IN: its NVIDIA kernel modules are test modules; rows nvidia-* are not those of a driver".to_owned()
        });
        let simulated = nvidia.is_some_and(|nvidia| nvidia.simulated && !nvidia.is_stand_in()).then(|| {
            "SIMULATED: NVIDIA's driver and GPUs were simulated; their numbers are not measured".to_owned()
        });
        let libraries = recording.health.libraries.iter().filter(|library| library.simulated);
        let libraries = libraries.map(|library| {
            format!("SIMULATED: {} is not NVIDIA's; its device memory is not a GPU's", library.path)
        });
        let remarks = stand_in.into_iter().chain(simulated).chain(libraries).collect();
        Self { host: recording.host.provenance.clone(), remarks }
    }
}

/// Two runs are compared at `moment`; of one it is that of B. Each has the name of its file.
pub fn overview<'a, R: Into<Derived<'a>>>(
    a: Option<(&'a str, R)>,
    b: (&'a str, R),
    moment: impl Into<Moment>,
) -> Overview {
    let moment = moment.into();
    let Moments { a: at_a, b: at } = moment.at;
    let (a, b) = (a.map(|(file, a)| (file, a.into())), (b.0, b.1.into()));
    let (a, b) = (a.as_ref().map(|(file, a)| (*file, a)), (b.0, &b.1));
    let derived_a = a.map(|(_, a)| a);
    // Each takes as long as the other, and they share nothing.
    let (run_a, run_b) = std::thread::scope(|scope| {
        let of_a = a.map(|named| scope.spawn(move || run(named, at_a)));
        let of_b = run(b, at);
        // A thread that panicked is a defect: passed on, not hidden.
        let of_a = of_a.map(|handle| handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        (of_a, of_b)
    });
    // An instant alone has neither a growth nor a difference to explain.
    let is_instant = derived_a.is_none() && b.1.recording.target.is_snapshot();
    let findings = if is_instant { vec![] } else { findings::judge(derived_a, b.1, moment.at) };
    let diffs = derived_a.map_or_else(Vec::new, |a| {
        // In the order of the findings: the target's first.
        let planes = findings.iter().map(|findings| findings.plane);
        let diff = |plane| diff::with_findings(a, b.1, Some(plane), moment.clone(), || findings.clone()).ok();
        planes.filter_map(diff).collect()
    });
    Overview {
        at,
        moment: derived_a.map(|_| moment),
        findings,
        kv: kv::report(derived_a.map(Derived::for_kv), b.1.for_kv(), kv::Options::default()).ok(),
        comparable: derived_a.map(|a| comparable(a.recording, b.1.recording)),
        diffs,
        flames: flame::flames(None, &run_b.report),
        flame_diffs: run_a.as_ref().map_or_else(Vec::new, |a| flame::flames(Some(&a.report), &run_b.report)),
        a: run_a,
        b: run_b,
    }
}

fn run((file, derived): (&str, &Derived<'_>), at: InstantSpec) -> Run {
    let recording = derived.recording;
    let report = attribution::report(derived, at);
    let timelines = timeline::all(recording, COLUMNS);
    let ends = |timeline: &Timeline| Some((*timeline.at_ns.first()?, *timeline.at_ns.last()?));
    let axis = timelines.iter().filter_map(ends).reduce(|(a, b), (c, d)| (a.min(c), b.max(d)));
    let marks = axis.map_or_else(Vec::new, |axis| timeline::marks(derived, axis, COLUMNS));
    Run { file: file.to_owned(), provenance: Provenance::of(recording), report, timelines, marks }
}

impl Overview {
    /// A, where there is one, then B, each with its letter; one run alone has none.
    pub fn runs(&self) -> impl Iterator<Item = (&'static str, &Run)> {
        let letter = if self.a.is_some() { "B" } else { "" };
        self.a.iter().map(|run| ("A", run)).chain([(letter, &self.b)])
    }

    /// What the numbers say, where analyses have a sentence for it.
    pub fn headlines(&self) -> impl Iterator<Item = String> {
        self.findings.iter().map(|findings| findings.headline.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Scope;
    use spark_trace_recording::STAND_IN;
    use spark_trace_testing as testing;

    #[test]
    fn two_runs_are_compared_on_every_plane_they_share() {
        let (a, b) = (testing::native(), testing::container());
        let overview = overview(Some(("a.json", &a)), ("b.json", &b), InstantSpec::Peak);
        let planes: Vec<_> = overview.diffs.iter().map(|diff| diff.plane).collect();
        assert_eq!(planes, [Scope::Cgroup, Scope::System]);
        assert!(overview.comparable.as_ref().unwrap().ok);
        let runs: Vec<_> = overview.runs().map(|(letter, run)| (letter, run.file.as_str())).collect();
        assert_eq!(runs, [("A", "a.json"), ("B", "b.json")]);
        let alone = super::overview(None, ("b.json", &b), InstantSpec::Peak);
        assert!(alone.diffs.is_empty() && alone.comparable.is_none() && alone.flame_diffs.is_empty());
    }

    #[test]
    fn whatever_is_not_what_it_seems_is_named() {
        let mut recording = testing::cuda();
        recording.host.provenance = "measured".into();
        let provenance = Provenance::of(&recording);
        assert!(!provenance.is_measured());
        assert!(provenance.remarks.iter().any(|remark| remark.starts_with("SIMULATED: /usr/lib")));
        recording.health.libraries.clear();
        assert!(Provenance::of(&recording).is_measured());
        let kernel_module = Some(STAND_IN.to_owned());
        recording.host.nvidia = Some(Nvidia { kernel_module, simulated: true, ..Nvidia::default() });
        let provenance = Provenance::of(&recording);
        assert_eq!(provenance.remarks.len(), 1);
        assert!(provenance.remarks[0].starts_with("STAND-IN"));
        assert!(!Provenance::of(&testing::native()).is_measured(), "its host is simulated");
    }
}
