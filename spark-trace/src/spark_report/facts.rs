//! What the recordings of a step say of each pair, without a name in it: what outcomes are judged by.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use spark_trace_analysis::comparability::start_state;
use spark_trace_analysis::derived::Derived;
use spark_trace_analysis::diff::{self, SourceDelta};
use spark_trace_analysis::findings::because::Outside;
use spark_trace_analysis::findings::{DOUBLE_COUNTING, Findings, Verdict};
use spark_trace_analysis::kv;
use spark_trace_analysis::moment::Moment;
use spark_trace_analysis::view::Scope;
use spark_trace_recording as recording;
use spark_trace_recording::units::delta;

use super::plan::{CONTAINER, NATIVE, RUNS};
use spark_trace_study::journal::State;
use spark_trace_study::results::Run;

/// Slug of the hypothesis on copies of files.
const COPIES: &str = "duplicate-files";

/// Two runs compared: B minus A, bytes.
#[derive(Debug, Clone)]
pub struct Pair {
    /// Such as `native 1` and `container 1`.
    pub a: String,
    pub b: String,
    /// Where they are compared, and why there.
    pub at: String,
    /// Of the machine: MemTotal - MemFree.
    pub total: Option<i64>,
    /// The machine's, by source.
    pub sources: BTreeMap<&'static str, i64>,
    /// The target's cgroup, by source; absent where a run has no cgroup of its own.
    pub cgroup: Option<BTreeMap<&'static str, i64>>,
    /// What is charged to the target.
    pub charged: Option<i64>,
    /// A difference smaller than this decides nothing.
    pub threshold: i64,
    pub double_counting: Option<Verdict>,
    pub copies: Option<Verdict>,
    /// Why the figures are no comparison: losses, other hooks, another kernel.
    pub against: Vec<String>,
    /// How the states differ that the runs began in.
    pub start: Vec<String>,
    /// Or why there is none.
    pub kv: Result<Kv, String>,
}

#[derive(Debug, Clone)]
pub struct Kv {
    /// Engine of B, as its makers write it.
    pub engine: Option<&'static str>,
    /// The counters that the engines' readings agree with: of A, of B.
    pub signals: [Option<&'static str>; 2],
    pub free: [u64; 2],
    /// KV cache by the engine's arithmetic.
    pub cache: [Option<i64>; 2],
    pub delta: Option<i64>,
    /// B's cache with A's memory at the readings.
    pub b_with_state_of_a: Option<i64>,
}

/// The pairs of one step.
#[derive(Debug, Clone)]
pub struct StepFacts {
    /// Native against container, one for each round.
    pub between: Vec<Pair>,
    /// Two runs of one side: natively, in the container.
    pub within: Vec<Pair>,
}

/// The files of one run that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    pub name: String,
    pub recording: PathBuf,
}

/// The runs of each side, in their order; absent where one is still to be made.
pub fn made(dir: &Path, state: &State) -> Option<[Vec<Made>; 2]> {
    let of = |environment: &str| -> Option<Vec<Made>> {
        let run = |iteration| {
            let good = |run: &&Run| {
                run.environment == environment && run.iteration == iteration && run.failure.is_none()
            };
            let run = state.runs.iter().rfind(good)?;
            let recording = dir.join(run.recording.as_ref()?);
            Some(Made { name: format!("{environment} {iteration}"), recording })
        };
        (1..=RUNS).map(run).collect()
    };
    Some([of(NATIVE)?, of(CONTAINER)?])
}

/// Reads and compares the runs of a step, two at a time.
pub fn of_step([native, container]: &[Vec<Made>; 2]) -> anyhow::Result<StepFacts> {
    let between = native.iter().zip(container).map(|(a, b)| pair(a, b)).collect::<anyhow::Result<_>>()?;
    let within = [native, container].into_iter().filter_map(|side| side.first().zip(side.last()));
    let within = within.map(|(a, b)| pair(a, b)).collect::<anyhow::Result<_>>()?;
    Ok(StepFacts { between, within })
}

fn pair(made_a: &Made, made_b: &Made) -> anyhow::Result<Pair> {
    let (a, b) = recording::read_both(&made_a.recording, &made_b.recording)?;
    let (a, b) = (Derived::from(&a), Derived::from(&b));
    let moment = Moment::of_runs(&a, &b);
    let at = moment.reason.clone();
    let machine = diff::report(&a, &b, Some(Scope::System), moment.clone())?;
    let target = diff::with_findings(&a, &b, Some(Scope::Cgroup), moment, Vec::new).ok();
    let start = start_state(a.recording, b.recording);
    let verdict = |slug: &str| {
        let of_machine = machine.findings.iter().find(|findings| findings.plane == Scope::System)?;
        let finding = of_machine.findings.iter().find(|finding| finding.hypothesis == slug)?;
        Some(finding.verdict)
    };
    let mut against: Vec<String> =
        machine.comparable.reasons.into_iter().filter(|reason| !start.contains(reason)).collect();
    // What the analysis itself does not rely on decides nothing here either.
    against.extend(machine.warnings.iter().cloned());
    against.extend(machine.findings.iter().filter_map(others));
    let threshold =
        |findings: &Findings| (findings.plane == Scope::System).then_some(findings.material_bytes);
    Ok(Pair {
        a: made_a.name.clone(),
        b: made_b.name.clone(),
        at,
        total: machine.total_delta_bytes,
        sources: by_source(&machine.sources),
        charged: target.as_ref().and_then(|target| target.total_delta_bytes),
        cgroup: target.map(|target| by_source(&target.sources)),
        threshold: machine.findings.iter().find_map(threshold).unwrap_or(0),
        double_counting: verdict(DOUBLE_COUNTING),
        copies: verdict(COPIES),
        against,
        start,
        kv: kv::report(Some(a.for_kv()), b.for_kv(), kv::Options::default())
            .map(of_kv)
            .map_err(|error| error.to_string()),
    })
}

/// What other programs took, where that is more than the difference.
fn others(findings: &Findings) -> Option<String> {
    match &findings.untestable {
        Some(Outside::Others { bytes, run }) if findings.plane == Scope::System => {
            Some(format!("other programs took {} in {}", delta(*bytes), run.unwrap_or("both runs")))
        }
        _ => None,
    }
}

fn by_source(rows: &[SourceDelta]) -> BTreeMap<&'static str, i64> {
    rows.iter().filter_map(|row| Some((row.source, row.delta_bytes?))).collect()
}

fn of_kv(report: kv::Report) -> Kv {
    let of_a = report.a.as_ref();
    let a = |of: &dyn Fn(&kv::Budget) -> Option<i64>| of_a.and_then(of);
    Kv {
        engine: report.b.engine.title,
        signals: [of_a.and_then(|a| a.reading.signal), report.b.reading.signal],
        free: [of_a.map_or(0, |a| a.reading.free), report.b.reading.free],
        cache: [a(&|budget| budget.figures.budget()), report.b.figures.budget()],
        delta: report.kv_delta_bytes,
        b_with_state_of_a: report.b_with_state_of_a,
    }
}

impl StepFacts {
    /// Native against container first, then runs of one side.
    pub fn pairs(&self) -> impl Iterator<Item = &Pair> {
        self.between.iter().chain(&self.within)
    }

    /// The mean difference of a group of sources between native and container.
    pub fn mean(&self, of: impl Fn(&Pair) -> Option<i64>) -> Option<i64> {
        let count = i64::try_from(self.between.len()).ok().filter(|&count| count > 0)?;
        let all = self.between.iter().map(of).collect::<Option<Vec<i64>>>()?;
        Some(all.into_iter().fold(0, i64::saturating_add) / count)
    }

    /// What all pairs of native and container say; absent where they differ.
    pub fn verdict(&self, of: impl Fn(&Pair) -> Option<Verdict>) -> Option<Verdict> {
        let mut all = self.between.iter().map(of);
        let first = all.next().flatten()?;
        all.all(|verdict| verdict == Some(first)).then_some(first)
    }
}
