//! Studies of random numbers whose truth is known.

use spark_trace_statistics::bootstrap::random::Xoshiro256;

use super::*;
use crate::results::Run;

mod across;
mod attrition;
mod endings;
mod estimands;
mod looks;
mod overheads;
mod relations;
mod table;

const ROUNDS: u32 = 30;

/// What is wrong with a study.
#[derive(Debug, Clone, Copy, Default)]
struct Truth {
    /// Of the mean of 100.
    effect: f64,
    sd: f64,
    /// Added with each run.
    drift: f64,
    /// Blocks of one environment each, one after the other; 0: A B B A.
    blocks: u32,
    /// Of what all runs of a block share.
    block_sd: f64,
    /// How much of a run's deviation the next one has, too.
    memory: f64,
    /// The same of the environment's own run before, of A and of B.
    own_memory: [f64; 2],
    /// Added to the first run; the next ones have less of it, by a factor of e in so many runs.
    warm_up: (f64, f64),
    /// Added to a run after one of B.
    carry_over: f64,
    /// A GPU that is so much warmer in B, and costs 1 for each degree.
    warmer: f64,
    /// Added from the middle of the study on.
    step: f64,
    /// Rounds; 0: [`ROUNDS`].
    rounds: u32,
    shape: Shape,
}

/// Of deviations, all with the standard deviation that is said.
#[derive(Debug, Clone, Copy, Default)]
enum Shape {
    #[default]
    Normal,
    /// Student's t with 3 degrees of freedom: wild values now and then.
    Heavy,
    /// Exponential: a long tail on one side.
    Skewed,
}

impl Shape {
    fn deviation(self, random: &mut Xoshiro256) -> f64 {
        match self {
            Self::Normal => normal(random),
            Self::Heavy => {
                let one = normal(random);
                let squares: f64 = (0..3).map(|_| normal(random).powi(2)).sum();
                // The variance of t is 3 / (3 - 2).
                one / (squares / 3.0).sqrt() / 3.0_f64.sqrt()
            }
            // Half the square of two normal numbers.
            Self::Skewed => (normal(random).powi(2) + normal(random).powi(2)) / 2.0 - 1.0,
        }
    }
}

/// A number of the standard normal distribution (Box and Muller 1958).
fn normal(random: &mut Xoshiro256) -> f64 {
    const STEPS: usize = 1 << 52;
    let mut uniform = || (random.below(STEPS) as f64 + 0.5) / STEPS as f64;
    (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()
}

fn simulated(truth: Truth, seed: u64) -> Results {
    let mut random = Xoshiro256::new(seed);
    let mut runs = vec![];
    let rounds = if truth.rounds == 0 { ROUNDS } else { truth.rounds };
    let (mut shared, mut block, mut after_b) = (0.0, (0, 0.0), false);
    // An environment's course is as long as if it had begun before the study.
    let mut own = truth.own_memory.map(|memory| match memory {
        0.0 => 0.0,
        memory => truth.sd / (1.0 - memory * memory).sqrt() * normal(&mut random),
    });
    let order: Vec<(u32, bool)> = match truth.blocks {
        0 => (1..=rounds).flat_map(|round| [(round, round % 2 == 0), (round, round % 2 == 1)]).collect(),
        blocks => {
            (0..2 * rounds).map(|place| (place / 2 + 1, place * blocks / (2 * rounds) % 2 == 1)).collect()
        }
    };
    for (number, (round, in_b)) in (1..).zip(order) {
        let place = f64::from(number - 1);
        let which = (number - 1) * truth.blocks / (2 * rounds);
        if truth.blocks > 0 && (number == 1 || which != block.0) {
            block = (which, truth.block_sd * normal(&mut random));
        }
        let deviation = truth.sd * truth.shape.deviation(&mut random);
        let left = if truth.own_memory == [0.0; 2] {
            shared = truth.memory * shared + deviation;
            shared
        } else {
            let side = usize::from(in_b);
            own[side] = truth.own_memory[side] * own[side] + deviation;
            own[side]
        };
        let temperature = 45.0 + normal(&mut random) + if in_b { truth.warmer } else { 0.0 };
        let (first, tau) = truth.warm_up;
        let mut value =
            100.0 + left + block.1 + truth.drift * f64::from(number) + if in_b { truth.effect } else { 0.0 };
        value += if tau > 0.0 { first * (-place / tau).exp() } else { 0.0 };
        value += if after_b { truth.carry_over } else { 0.0 };
        value += if round > rounds / 2 { truth.step } else { 0.0 };
        value -= if truth.warmer == 0.0 { 0.0 } else { temperature - 45.0 };
        after_b = in_b;
        let state = [("gpu-temperature".to_owned(), temperature)].into_iter();
        let state = state.filter(|_| truth.warmer != 0.0).collect();
        runs.push(Run {
            number,
            attempt: 1,
            environment: if in_b { "docker" } else { "native" }.to_owned(),
            model: "m".to_owned(),
            iteration: round,
            round: (truth.blocks == 0).then_some(round),
            state,
            metrics: [("output-throughput".to_owned(), value)].into(),
            ..Run::default()
        });
    }
    Results {
        schema: crate::results::SCHEMA.to_owned(),
        schema_version: 1,
        name: "simulated".to_owned(),
        description: String::new(),
        origin: Origin::Simulated,
        environments: vec!["native".to_owned(), "docker".to_owned()],
        models: vec!["m".to_owned()],
        alike: vec![],
        order: None,
        primary: vec![],
        planned: None,
        looks: vec![],
        rounds_over: BTreeMap::new(),
        traits: BTreeMap::new(),
        units: BTreeMap::new(),
        machine: BTreeMap::new(),
        runs,
        happenings: vec![],
    }
}

fn judged(truth: Truth, seed: u64) -> Comparison {
    // The bootstrap decides nothing, and takes most of the time.
    let options = Options { resamples: 0, ..Options::default() };
    report(&simulated(truth, seed), options).comparisons.remove(0)
}

fn share(truth: Truth, studies: u64, verdict: Verdict) -> f64 {
    let found = (1..=studies).filter(|seed| judged(truth, *seed).verdict == verdict).count();
    found as f64 / studies as f64
}

#[test]
fn where_nothing_differs_nothing_is_found_but_in_the_nominal_rate() {
    let truth = Truth { sd: 4.0, ..Truth::default() };
    let verdicts: Vec<Verdict> = (1..=1000).map(|seed| judged(truth, seed).verdict).collect();
    let share = |wanted| verdicts.iter().filter(|verdict| **verdict == wanted).count() as f64 / 1000.0;
    // 0.05, and three standard errors of a share of 1000.
    assert!(share(Verdict::Different) <= 0.0707, "{}", share(Verdict::Different));
    assert!(share(Verdict::Confounded) <= 0.02, "{}", share(Verdict::Confounded));
}

#[test]
fn a_difference_of_five_percent_is_found() {
    let truth = Truth { effect: -5.0, sd: 4.0, ..Truth::default() };
    let found = share(truth, 200, Verdict::Different);
    assert!(found > 0.93, "{found}");
    let one = judged(truth, 1);
    let (low, high) = one.ci.unwrap();
    assert!(low < -5.0 && -5.0 < high, "{low} to {high}");
    assert_eq!(one.test, "paired t test");
    assert!(one.overhead.unwrap().contains("below 10 %"));
}

/// Studies of each scenario. More for a table: SPARK_TRACE_STUDIES=1000 cargo test ... -- --nocapture
fn studies(otherwise: u32) -> u32 {
    let wanted = std::env::var("SPARK_TRACE_STUDIES").ok().and_then(|studies| studies.parse().ok());
    wanted.unwrap_or(otherwise)
}

/// What allowing for dependence costs where there is none.
#[test]
fn power_is_that_of_the_paired_test() {
    let truth = Truth { effect: 5.0, sd: 8.0, ..Truth::default() };
    let studies: Vec<Comparison> = (1..=400).map(|seed| judged(truth, seed)).collect();
    let count = |found: &dyn Fn(&Comparison) -> bool| studies.iter().filter(|study| found(study)).count();
    let paired = count(&|study| study.paired.as_ref().is_some_and(|test| test.p < 0.05));
    let different = count(&|study| study.verdict == Verdict::Different);
    // 5 of 100.
    assert!(paired > 200 && paired - different <= 20, "{different} of {paired}");
}

#[test]
fn a_drift_that_the_order_does_not_cancel_is_confounded() {
    // B always after A, and 1 % more from run to run.
    let mut results = simulated(Truth { sd: 0.2, drift: 1.0, ..Truth::default() }, 1);
    for round in results.runs.chunks_mut(2) {
        let environments = ["native", "docker"];
        for (run, environment) in round.iter_mut().zip(environments) {
            run.environment = environment.to_owned();
        }
    }
    let one = report(&results, Options { resamples: 0, ..Options::default() }).comparisons.remove(0);
    assert_eq!(one.verdict, Verdict::Confounded);
    assert!(one.because.starts_with("a drift over the runs makes +"), "{}", one.because);
    // The same drift in the order A B B A makes nothing.
    let one = judged(Truth { sd: 0.2, drift: 1.0, effect: 5.0, ..Truth::default() }, 1);
    assert_eq!(one.verdict, Verdict::Different, "{}", one.because);
    assert!(one.diagnostics.drift.is_some_and(|drift| drift.p < 1e-6));
}

#[test]
fn runs_without_rounds_that_depend_on_each_other_are_confounded() {
    let mut results = simulated(Truth { sd: 1.0, memory: 0.9, ..Truth::default() }, 1);
    results.runs.iter_mut().for_each(|run| run.round = None);
    let one = report(&results, Options { resamples: 0, ..Options::default() }).comparisons.remove(0);
    assert_eq!((one.verdict, one.test), (Verdict::Confounded, "Welch's t test"), "{}", one.because);
    assert!(one.because.contains("depends on that of the run before"), "{}", one.because);
}

#[test]
fn blocks_are_confounded_even_with_a_tiny_p() {
    let one = judged(Truth { effect: 30.0, sd: 1.0, blocks: 2, ..Truth::default() }, 1);
    assert!(one.p.unwrap() < 1e-30);
    assert_eq!(one.verdict, Verdict::Confounded);
    assert!(one.because.contains("came before all of the other"), "{}", one.because);
}

#[test]
fn the_same_is_shown_to_be_the_same() {
    let found = share(Truth { sd: 0.5, ..Truth::default() }, 100, Verdict::Equivalent);
    assert!(found > 0.9, "{found}");
}

#[test]
fn too_few_runs_and_other_states_are_not_comparable() {
    let mut results = simulated(Truth { sd: 1.0, ..Truth::default() }, 1);
    for run in &mut results.runs {
        let warm = if run.environment == "docker" { 60.0 } else { 40.0 };
        run.state.insert("gpu-temperature".to_owned(), warm + f64::from(run.number % 3));
    }
    let warm = report(&results, Options { resamples: 0, ..Options::default() }).comparisons.remove(0);
    assert_eq!(warm.verdict, Verdict::NotComparable, "{}", warm.because);
    assert!(warm.because.contains("gpu-temperature"), "{}", warm.because);
    results.runs.truncate(2);
    let few = report(&results, Options::default()).comparisons.remove(0);
    assert_eq!((few.verdict, few.p), (Verdict::NotComparable, None));
}

#[test]
fn failed_runs_and_warmups_do_not_count_and_are_counted() {
    let mut results = simulated(Truth { sd: 1.0, ..Truth::default() }, 1);
    results.runs[0].warmup = true;
    results.runs[1].failure = Some("exit code 1".to_owned());
    let report = report(&results, Options { resamples: 0, ..Options::default() });
    assert_eq!(report.counts, Counts { planned: None, measured: 58, warmups: 1, failed: 1 });
    assert_eq!((report.comparisons[0].a.n, report.comparisons[0].b.n), (29, 29));
    assert_eq!(report.failures[0].why, "exit code 1");
}

#[test]
fn noise_of_the_same_environment_bounds_what_is_different() {
    let mut results = simulated(Truth { effect: 5.0, sd: 1.0, ..Truth::default() }, 1);
    let again = results.runs.iter().filter(|run| run.environment == "docker").cloned();
    let again: Vec<Run> = again.map(|run| Run { environment: "native-again".to_owned(), ..run }).collect();
    results.runs.extend(again);
    results.environments.push("native-again".to_owned());
    results.alike = vec![("native".to_owned(), "native-again".to_owned())];
    let report = report(&results, Options { resamples: 0, ..Options::default() });
    let docker = &report.comparisons[0];
    assert_eq!((docker.verdict, docker.alike), (Verdict::Undecided, false), "{}", docker.because);
    assert!(docker.because.contains("environments that are the same differ"), "{}", docker.because);
    assert!(report.comparisons[1].alike);
}

#[test]
fn figures_too_large_to_have_a_mean_are_no_panic() {
    let mut results = simulated(Truth { sd: 1.0, ..Truth::default() }, 3);
    let others: Vec<Run> =
        results.runs.iter().map(|run| Run { model: "n".to_owned(), ..run.clone() }).collect();
    results.models.push("n".to_owned());
    results.runs.extend(others);
    let alike = |results: &Results| indistinct::of(results, Options::default()).len();
    assert_eq!(alike(&results), 1);
    for run in &mut results.runs {
        run.metrics.insert("output-throughput".to_owned(), 1.7e308);
    }
    assert_eq!(alike(&results), 0);
    report(&results, Options::default());
}
