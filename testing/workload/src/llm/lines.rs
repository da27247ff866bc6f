//! Lines as TensorRT-LLM logs them, so that one parser reads both. They begin with our name: nobody should take them
//! for the real thing.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::kv::{Budget, Profile};

const GIB: f64 = (1_u64 << 30) as f64;

fn gib(bytes: u64) -> f64 {
    bytes as f64 / GIB
}

pub fn print(line: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "[spark-trace-workload] [I] {line}")
        .and_then(|()| stdout.flush())
        .context("cannot write to stdout: has its reader gone?")
}

/// After the weights are on the device.
pub fn loaded(inside: u64, outside: u64) -> [String; 2] {
    [("inside", inside), ("outside", outside)].map(|(place, bytes)| {
        format!(
            "Memory used after loading model weights ({place} torch) in memory usage profiling: {:.2} GiB",
            gib(bytes)
        )
    })
}

/// After the dummy run.
pub fn profiled(
    profile: &Profile,
    budget: &Budget,
    fraction: f64,
    per_token: u64,
    weights: u64,
) -> Vec<String> {
    vec![
        format!(
            "Memory dynamically allocated during inference (inside torch) in memory usage profiling: {:.2} GiB",
            gib(profile.allocated_peak.saturating_sub(weights))
        ),
        format!(
            "Memory used outside torch (e.g., NCCL and CUDA graphs) in memory usage profiling: {:.2} GiB",
            gib(budget.outside)
        ),
        format!(
            "Peak memory during memory usage profiling (torch + non-torch): {:.2} GiB, available KV cache memory \
             when calculating max tokens: {:.2} GiB, fraction is set {fraction}, kv size is {per_token}. device \
             total memory {:.2} GiB, , tmp kv_mem {:.2} GiB",
            gib(budget.peak),
            gib(budget.available),
            gib(profile.total),
            gib(profile.temporary_kv)
        ),
        format!("Estimated max memory in KV cache : {:.4} GiB", gib(budget.available)),
    ]
}

pub fn allocated(bytes: u64, tokens: u64) -> String {
    format!("[MemUsageChange] Allocated {:.2} GiB for max tokens in paged KV cache ({tokens}).", gib(bytes))
}

/// What was timed: the latencies of batches, every request of which is answered at the same time.
#[derive(Debug, Clone)]
pub struct Timing {
    pub batch: u64,
    pub prompt: u64,
    pub output: u64,
    pub latencies: Vec<Duration>,
}

/// The value below which a part of the sorted values lies: the nearest one that was measured.
pub fn percentile(sorted: &[f64], part: f64) -> Option<f64> {
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}

impl Timing {
    /// In milliseconds, one value a request.
    pub fn sorted_ms(&self) -> Vec<f64> {
        let mut values: Vec<f64> = self
            .latencies
            .iter()
            .flat_map(|latency| (0..self.batch).map(|_| latency.as_secs_f64() * 1e3))
            .collect();
        values.sort_by(f64::total_cmp);
        values
    }

    pub fn seconds(&self) -> f64 {
        self.latencies.iter().map(Duration::as_secs_f64).sum()
    }

    pub fn requests(&self) -> u64 {
        self.batch * self.latencies.len() as u64
    }

    pub fn output_tokens_per_second(&self) -> Option<f64> {
        let tokens = self.requests() * self.output;
        (self.seconds() > 0.0).then(|| tokens as f64 / self.seconds())
    }

    /// The report; nothing where nothing was timed.
    pub fn lines(&self) -> Vec<String> {
        let (seconds, values) = (self.seconds(), self.sorted_ms());
        let (Some(first), Some(last), Some(rate)) =
            (values.first(), values.last(), self.output_tokens_per_second())
        else {
            return Vec::new();
        };
        let average = values.iter().sum::<f64>() / values.len() as f64;
        let all = self.requests() * (self.prompt + self.output);
        let mut lines = vec![
            format!(
                "Request Throughput (req/sec):                     {:.4}",
                self.requests() as f64 / seconds
            ),
            format!("Total Output Throughput (tokens/sec):             {rate:.4}"),
            format!("Total Token Throughput (tokens/sec):              {:.4}", all as f64 / seconds),
            format!("Total Latency (ms):                               {:.4}", seconds * 1e3),
            format!("Average request latency (ms):                     {average:.4}"),
        ];
        for (name, part) in [("P50", 0.50), ("P90", 0.90), ("P95", 0.95), ("P99", 0.99)] {
            let value = percentile(&values, part).unwrap_or(*last);
            lines.push(format!("[Latency] {name}    : {value:.4}"));
        }
        for (name, value) in [("MINIMUM", *first), ("MAXIMUM", *last), ("AVERAGE", average)] {
            lines.push(format!("[Latency] {name}: {value:.4}"));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_values() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        let of = |part| percentile(&values, part).unwrap();
        assert_eq!((of(0.5), of(0.95), of(0.99), of(1.0)), (50.0, 95.0, 99.0, 100.0));
        assert_eq!((percentile(&[7.0], 0.5), percentile(&[], 0.5)), (Some(7.0), None));
    }

    #[test]
    fn rates() {
        let latencies = vec![Duration::from_secs(1), Duration::from_secs(3)];
        let timing = Timing { batch: 2, prompt: 100, output: 10, latencies };
        assert_eq!(timing.requests(), 4);
        assert_eq!(timing.output_tokens_per_second(), Some(10.0));
        assert_eq!(timing.sorted_ms(), [1000.0, 1000.0, 3000.0, 3000.0]);
        assert!(Timing { latencies: Vec::new(), ..timing }.lines().is_empty());
    }
}
