//! Verdicts of many studies of random numbers: what is wrong with them, and the shares that are allowed.

use super::*;

/// What a scenario must show.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    /// Nothing differs: `different` no more often than in 5 of 100.
    Nothing,
    /// `different` at least so often, and never with the wrong sign.
    Found(f64),
    /// As often as the paired t test alone, less 5 in 100; never with the wrong sign.
    AsThePairedTest,
}

fn of(effect: f64, sd: f64) -> Truth {
    Truth { effect, sd, ..Truth::default() }
}

fn drift(effect: f64, percent: f64) -> Truth {
    Truth { drift: percent / 60.0, ..of(effect, 1.0) }
}

#[rustfmt::skip]
fn interleaved() -> Vec<(&'static str, Truth, Wanted)> {
    use Wanted::*;
    let heavy = |effect: f64| Truth { shape: Shape::Heavy, ..of(effect, 4.0) };
    let skewed = |effect: f64| Truth { shape: Shape::Skewed, ..of(effect, 4.0) };
    let few = |rounds: u32, effect: f64, sd: f64| Truth { rounds, ..of(effect, sd) };
    let memory = |memory: f64, effect: f64, sd: f64| Truth { memory, ..of(effect, sd) };
    let own = |own_memory: [f64; 2]| Truth { own_memory, ..of(0.0, 6.0) };
    vec![
        ("no effect (0.5 %)", of(0.0, 0.5), Nothing),
        ("no effect (2 %)", of(0.0, 2.0), Nothing),
        ("no effect (4 %)", of(0.0, 4.0), Nothing),
        ("no effect (8 %)", of(0.0, 8.0), Nothing),
        ("no effect, 3 rounds (2 %)", few(3, 0.0, 2.0), Nothing),
        ("no effect, 5 rounds (2 %)", few(5, 0.0, 2.0), Nothing),
        ("no effect, 10 rounds (2 %)", few(10, 0.0, 2.0), Nothing),
        ("no effect, wild values (4 %)", heavy(0.0), Nothing),
        ("no effect, skewed values (4 %)", skewed(0.0), Nothing),
        ("drift of 2 % in all (1 %)", drift(0.0, 2.0), Nothing),
        ("drift of 10 % (1 %)", drift(0.0, 10.0), Nothing),
        ("step of 3 % in the middle (1 %)", Truth { step: 3.0, ..of(0.0, 1.0) }, Nothing),
        ("warm-up of 10 % that decays in 5 runs (1 %)", Truth { warm_up: (10.0, 5.0), ..of(0.0, 1.0) }, Nothing),
        ("warm-up of 20 % that decays in one run (1 %)", Truth { warm_up: (20.0, 1.0), ..of(0.0, 1.0) }, Nothing),
        ("autocorrelation -0.3 (4 %)", memory(-0.3, 0.0, 4.0), Nothing),
        ("autocorrelation 0.2 (6 %)", memory(0.2, 0.0, 6.0), Nothing),
        ("autocorrelation 0.3 (6 %)", memory(0.3, 0.0, 6.0), Nothing),
        ("autocorrelation 0.5 (6 %)", memory(0.5, 0.0, 6.0), Nothing),
        ("autocorrelation 0.7 (6 %)", memory(0.7, 0.0, 6.0), Nothing),
        ("autocorrelation 0.3 within both environments (6 %)", own([0.3, 0.3]), Nothing),
        ("autocorrelation 0.5 within both environments (6 %)", own([0.5, 0.5]), Nothing),
        ("autocorrelation 0.7 within both environments (6 %)", own([0.7, 0.7]), Nothing),
        ("autocorrelation 0.3 within B alone (6 %)", own([0.0, 0.3]), Nothing),
        ("autocorrelation 0.5 within B alone (6 %)", own([0.0, 0.5]), Nothing),
        ("autocorrelation 0.7 within B alone (6 %)", own([0.0, 0.7]), Nothing),
        ("5 % more after each run of B (1 %)", Truth { carry_over: 5.0, ..of(0.0, 1.0) }, Nothing),
        ("effect 5 % (1 %)", of(5.0, 1.0), AsThePairedTest),
        ("effect 5 % (4 %)", of(5.0, 4.0), AsThePairedTest),
        ("effect 5 % (6 %)", of(5.0, 6.0), AsThePairedTest),
        ("effect 5 % (8 %)", of(5.0, 8.0), AsThePairedTest),
        ("effect 5 % (10 %)", of(5.0, 10.0), AsThePairedTest),
        ("effect 5 %, 10 rounds (4 %)", few(10, 5.0, 4.0), AsThePairedTest),
        ("effect 3 % (1 %)", of(3.0, 1.0), AsThePairedTest),
        ("effect 5 %, wild values (4 %)", heavy(5.0), AsThePairedTest),
        ("effect 5 %, skewed values (4 %)", skewed(5.0), AsThePairedTest),
        ("drift of 2 %, effect 30 % (1 %)", drift(30.0, 2.0), Found(0.98)),
        ("drift of 10 %, effect 5 % (1 %)", drift(5.0, 10.0), Found(0.98)),
        ("warm-up of 20 % that decays in one run, effect 5 % (1 %)", Truth { warm_up: (20.0, 1.0), ..of(5.0, 1.0) }, Found(0.98)),
        ("autocorrelation 0.5, effect 5 % (1 %)", memory(0.5, 5.0, 1.0), Found(0.98)),
    ]
}

#[test]
fn a_verdict_is_by_what_the_order_lets_a_disturbance_do() {
    let studies = studies(50);
    // Three standard errors above.
    let nominal = 0.05 + 3.0 * (0.05_f64 * 0.95 / f64::from(studies)).sqrt();
    // What allowing for dependence costs where there is none, and three standard errors of that share.
    let cost = nominal;
    for (name, truth, wanted) in interleaved() {
        let all: Vec<Comparison> = (1..=u64::from(studies)).map(|seed| judged(truth, seed)).collect();
        let share = |which: &dyn Fn(&Comparison) -> bool| {
            all.iter().filter(|study| which(study)).count() as f64 / f64::from(studies)
        };
        let of = |wanted: Verdict| share(&|study| study.verdict == wanted);
        let (different, confounded) = (of(Verdict::Different), of(Verdict::Confounded));
        let paired = share(&|study| study.paired.as_ref().is_some_and(|test| test.p < 0.05));
        let wrong = share(&|study| study.verdict == Verdict::Different && study.difference < 0.0);
        println!(
            "| {name} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} |",
            100.0 * different,
            100.0 * of(Verdict::Equivalent),
            100.0 * of(Verdict::Undecided),
            100.0 * confounded,
            100.0 * paired
        );
        assert!(confounded <= 0.02, "{name}: confounded {confounded}");
        let fine = match wanted {
            Wanted::Nothing => different <= nominal,
            Wanted::Found(least) => different >= least && wrong == 0.0,
            Wanted::AsThePairedTest => different >= paired - cost && wrong == 0.0,
        };
        assert!(
            fine,
            "{name}: different {different}, by the paired test {paired}, with the wrong sign {wrong}"
        );
    }
}

#[test]
fn what_confounds_is_confounded() {
    let studies = studies(50) / 2;
    let blocks = |blocks: u32, truth: Truth| Truth { blocks, ..truth };
    #[rustfmt::skip]
    let confounding = [
        ("one block of each environment, effect 30 % (1 %)", blocks(2, of(30.0, 1.0)), Verdict::Confounded),
        ("3 blocks that differ by 2 % (1 %)", blocks(3, Truth { block_sd: 2.0, ..of(0.0, 1.0) }), Verdict::Confounded),
        ("6 blocks that differ by 2 % (1 %)", blocks(6, Truth { block_sd: 2.0, ..of(0.0, 1.0) }), Verdict::Confounded),
        ("4 blocks, drift of 10 % (1 %)", blocks(4, drift(0.0, 10.0)), Verdict::Confounded),
        ("the GPU 2 degrees warmer in B, 1 % slower for each degree (0.5 %)", Truth { warmer: 2.0, ..of(0.0, 0.5) }, Verdict::NotComparable),
    ];
    for (name, truth, verdict) in confounding {
        let found = share(truth, u64::from(studies), verdict);
        println!("| {name} | {} {:.1} |", verdict.as_str(), 100.0 * found);
        assert!(found >= 0.98, "{name}: {found}");
    }
}
