//! `matmul`: is there a GPU that computes, and how fast?

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::json;

use super::driver::{Buffer, Driver, synchronize};
use super::gemm::{Gemm, operations};
use super::memory::device_source;
use super::phases::Phases;
use crate::cli::cuda::MatmulArgs;
use crate::files::Noise;
use crate::output::SourceRecord;
use crate::sys;

/// Pseudo-random numbers from -1 to 1.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut bytes = vec![0; count * 2];
    Noise::new(seed).fill(&mut bytes);
    let number = |pair: &[u8]| f32::from(i16::from_le_bytes([pair[0], pair[1]])) / 32_768.0;
    bytes.chunks_exact(2).map(number).collect()
}

pub fn run(args: &MatmulArgs) -> Result<ExitCode> {
    let driver = Driver::load(&args.driver)?;
    let mut course = Phases::new(&args.output, &driver)?;
    course.start(Duration::ZERO)?;
    let (context, gemm) = course.phase("context", Duration::ZERO, |course| {
        let context = driver.context()?;
        course.context_begins();
        Ok((context, Gemm::load()?))
    })?;
    let n = args.n as usize;
    let bytes = n * n * 4;
    let (host_a, host_b) = (numbers(n * n, 1), numbers(n * n, 2));
    let [a, b, c] = course.phase("device", Duration::ZERO, |course| {
        let buffers = [Buffer::new(bytes)?, Buffer::new(bytes)?, Buffer::new(bytes)?];
        buffers[0].fill_f32(&host_a)?;
        buffers[1].fill_f32(&host_b)?;
        let detail = json!({ "asked_each": bytes, "count": 3 });
        let source = SourceRecord::new(device_source(&driver), "device", 3 * bytes as u64, detail);
        course.sources.push(source);
        Ok(buffers)
    })?;
    let (places, shape) = ([a.address, b.address, c.address], [args.n; 3]);
    let product = || -> Result<Duration> {
        let begin = Instant::now();
        gemm.run(places, shape)?;
        synchronize()?;
        Ok(begin.elapsed())
    };
    course.phase("warm-up", Duration::ZERO, |_| (0..args.warmup).try_for_each(|_| product().map(drop)))?;
    let times = course.phase("iterate", Duration::ZERO, |_| {
        let running = (0..args.iterations).take_while(|_| sys::stop_signal().is_none());
        running.map(|_| product()).collect::<Result<Vec<_>>>()
    })?;
    let worst = course.phase("check", Duration::ZERO, |_| {
        let result = c.read_f32(n * n)?;
        let worst = largest_error(&host_a, &host_b, &result, n, args.samples as usize);
        // Sums of n products up to 1 in f32, in another order than here.
        let allowed = f64::from(f32::EPSILON) * (n as f64) * 4.0;
        if worst.is_nan() || worst > allowed {
            bail!("the result is wrong: it differs by {worst} from the CPU's, and {allowed} are allowed");
        }
        Ok(worst)
    })?;
    course.hold(args.hold)?;
    course.phase("release", Duration::ZERO, |_| Ok([c, b, a].into_iter().try_for_each(Buffer::free)?))?;
    context.end()?;

    let total: f64 = times.iter().map(Duration::as_secs_f64).sum();
    let rate = |seconds: f64, count: usize| {
        (seconds > 0.0).then(|| operations(shape) * count as f64 / seconds / 1e9)
    };
    let best = times.iter().min().map(Duration::as_secs_f64);
    course.report(json!({ "matmul": {
        "n": args.n,
        "iterations": times.len(),
        "times_ns": times.iter().map(Duration::as_nanos).collect::<Vec<_>>(),
        "gflops": rate(total, times.len()),
        "gflops_best": best.and_then(|best| rate(best, 1)),
        "samples": args.samples,
        "largest_error": worst,
    }}))
}

/// Of some elements spread over the matrix, against sums in f64.
fn largest_error(a: &[f32], b: &[f32], c: &[f32], n: usize, samples: usize) -> f64 {
    let total = n * n;
    let places = (0..samples.min(total))
        .map(|sample| sample * (total - 1) / samples.min(total).max(2).saturating_sub(1));
    let errors = places.map(|place| {
        let (row, column) = (place / n, place % n);
        let exact: f64 = (0..n).map(|k| f64::from(a[row * n + k]) * f64::from(b[k * n + column])).sum();
        (exact - f64::from(c[place])).abs()
    });
    // A NaN must not get lost, as it would by f64::max.
    errors.fold(0.0, |worst, error| if error > worst || error.is_nan() { error } else { worst })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_found() {
        let (a, b) = (numbers(9, 3), numbers(9, 4));
        let mut c: Vec<f32> =
            (0..9).map(|i| (0..3).map(|k| a[i / 3 * 3 + k] * b[k * 3 + i % 3]).sum()).collect();
        assert!(largest_error(&a, &b, &c, 3, 9) < 1e-6);
        c[8] += 1.0;
        assert!(largest_error(&a, &b, &c, 3, 2) > 0.9, "the last element is always looked at");
        c[0] = f32::NAN;
        assert!(largest_error(&a, &b, &c, 3, 9).is_nan() || largest_error(&a, &b, &c, 3, 9) > 0.9);
    }
}
