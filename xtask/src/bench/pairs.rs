//! Traced and untraced windows in turn, and the ratio of each pair.

use std::{path::Path, thread, time::Duration};

use anyhow::{Result, ensure};

use super::{
    cuda::Cuda,
    storm::{Round, Storm},
    tracer::{Tracer, Window, now_ns},
};

/// Left out on both sides of a window: caches settle.
const SETTLE_NS: u64 = 50_000_000;

/// One pair: medians of its rounds, and how many rounds they stand on.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    pub traced: f64,
    pub untraced: f64,
    pub rounds: (usize, usize),
}

impl Pair {
    pub fn ratio(&self) -> f64 {
        self.traced / self.untraced
    }
}

/// Runs `storm` and traces it `count` times.
pub fn measure(
    storm: &'static Storm,
    tracer: &Tracer,
    workload: &Path,
    cuda: Option<&Cuda>,
    scratch: &Path,
    count: u32,
) -> Result<Vec<Pair>> {
    let running = storm.start(workload, cuda, scratch)?;
    thread::sleep(Duration::from_millis(1000));
    let mut untraced_from = now_ns();
    let mut windows: Vec<((u64, u64), Window)> = Vec::new();
    for _ in 0..count {
        thread::sleep(storm.window);
        let untraced = (untraced_from, now_ns());
        windows.push((untraced, tracer.trace(running.pid(), storm.window)?));
        untraced_from = now_ns();
    }
    // The untraced time after a window counts to it as well: drift then cancels.
    thread::sleep(storm.window);
    let end = now_ns();
    let rounds = running.finish()?;
    let after: Vec<_> =
        windows.iter().skip(1).map(|(untraced, _)| *untraced).chain([(untraced_from, end)]).collect();
    windows
        .iter()
        .zip(after)
        .map(|((before, window), after)| {
            let traced = within(&rounds, &[*window]);
            let untraced = within(&rounds, &[*before, after]);
            ensure!(
                !traced.is_empty() && !untraced.is_empty(),
                "a window of {} ms had no complete round of storm {}: the machine is too slow or too busy",
                storm.window.as_millis(),
                storm.name
            );
            Ok(Pair {
                rounds: (traced.len(), untraced.len()),
                traced: median(traced),
                untraced: median(untraced),
            })
        })
        .collect()
}

fn within(rounds: &[Round], windows: &[(u64, u64)]) -> Vec<f64> {
    let inside = |round: &&Round| {
        windows
            .iter()
            .any(|(begin, end)| round.begin_ns >= begin + SETTLE_NS && round.end_ns + SETTLE_NS <= *end)
    };
    rounds.iter().filter(inside).map(|r| r.per_operation).collect()
}

/// Middle value; the mean of the two middle ones where there is none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn only_whole_rounds_inside_a_window_count() {
        let round = |begin_ns: u64, end_ns| Round { begin_ns, end_ns, per_operation: begin_ns as f64 };
        let ms = 1_000_000;
        let rounds = [round(0, 60 * ms), round(60 * ms, 100 * ms), round(140 * ms, 170 * ms)];
        assert_eq!(within(&rounds, &[(0, 200 * ms)]), [60e6]);
        assert!(within(&rounds, &[(200 * ms, 900 * ms)]).is_empty());
    }
}
