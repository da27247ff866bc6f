//! The figures, for people and for programs.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    cuda::Cuda,
    pairs::{Pair, median},
    runs::{METRICS, Runs},
    storm::Storm,
    subject::Subject,
};

/// The CUDA driver that a row stands on.
struct Driver {
    name: String,
    device: String,
}

/// One storm, or one figure of whole runs, under one tracer.
pub struct Row {
    subject: Subject,
    tracer: &'static str,
    driver: Option<Driver>,
    bound: Option<f64>,
    ratios: Vec<f64>,
    untraced_ns: f64,
    rounds: usize,
}

impl Row {
    pub fn new(storm: &'static Storm, tracer: &'static str, cuda: Option<&Cuda>, pairs: &[Pair]) -> Self {
        let Storm { name, what, bound, .. } = *storm;
        let subject = Subject { name, what, clock: storm.clock.name(), bound };
        Self {
            ratios: pairs.iter().map(Pair::ratio).collect(),
            untraced_ns: median(pairs.iter().map(|p| p.untraced).collect()),
            rounds: pairs.iter().map(|p| p.rounds.0).sum(),
            ..Self::empty(subject, tracer, cuda)
        }
    }

    /// The figures of whole runs, each beside the noise of the method.
    pub fn of_runs(tracer: &'static str, cuda: &Cuda, runs: &Runs) -> Vec<Self> {
        let rows = METRICS.iter().enumerate().flat_map(|(index, metric)| {
            [("nothing", runs.noise(index)), (tracer, runs.ratios(index))].map(|(tracer, ratios)| Self {
                rounds: ratios.len(),
                ratios,
                untraced_ns: median(runs.alone(index)),
                ..Self::empty(metric.subject, tracer, Some(cuda))
            })
        });
        // A single pair has nothing to be its noise.
        rows.filter(|row| !row.ratios.is_empty()).collect()
    }

    fn empty(subject: Subject, tracer: &'static str, cuda: Option<&Cuda>) -> Self {
        let driver = cuda.map(|cuda| Driver { name: cuda.name.clone(), device: cuda.device.clone() });
        // What a simulated driver costs is no yardstick.
        let measured = cuda.is_none_or(|cuda| !cuda.is_simulated());
        let bound = subject.bound.filter(|_| tracer == "default" && measured);
        Self { subject, tracer, driver, bound, ratios: Vec::new(), untraced_ns: f64::NAN, rounds: 0 }
    }

    /// What the figure is of, and that it is simulated where it is.
    fn title(&self) -> String {
        let Subject { name, what, .. } = self.subject;
        match &self.driver {
            Some(driver) if driver.name == "simulated" => format!("{name} ({what}; simulated CUDA driver)"),
            Some(driver) => format!("{name} ({what}; {})", driver.device),
            None => format!("{name} ({what})"),
        }
    }

    /// Ratio below which a `share` of the pairs lies.
    fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.ratios.clone();
        sorted.sort_by(f64::total_cmp);
        let at = (share * (sorted.len().saturating_sub(1)) as f64).round() as usize;
        sorted.get(at).copied().unwrap_or(f64::NAN)
    }

    fn median(&self) -> f64 {
        median(self.ratios.clone())
    }

    fn verdict(&self) -> String {
        match self.bound {
            Some(bound) if self.median() <= bound => format!("within {bound:.2}"),
            Some(bound) => format!("OVER {bound:.2}"),
            None => String::new(),
        }
    }

    fn json(&self) -> Value {
        json!({
            "storm": self.subject.name, "what": self.subject.what, "tracer": self.tracer,
            "clock": self.subject.clock,
            "cuda": self.driver.as_ref().map(|d| json!({ "driver": d.name, "device": d.device })),
            "pairs": self.ratios.len(), "traced_rounds": self.rounds, "bound": self.bound,
            "ratio": { "median": self.median(), "q1": self.quantile(0.25), "q3": self.quantile(0.75),
                       "min": self.quantile(0.0), "max": self.quantile(1.0), "all": self.ratios },
            "untraced_ns_per_operation": self.untraced_ns,
        })
    }
}

pub struct Report {
    pairs: u32,
    rows: Vec<Row>,
    machine: Value,
}

impl Report {
    pub fn new(pairs: u32, rows: Vec<Row>) -> Self {
        Self { pairs, rows, machine: machine() }
    }

    pub fn markdown(&self) -> String {
        let mut text = String::from("# Cost of tracing\n\n");
        let word = |key: &str| self.machine[key].as_str().unwrap_or("unknown").to_owned();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "Measured on Linux {}, {}, {} CPUs ({}). Ratio of traced to untraced time per operation: median of \
             interleaved pairs ({} of storms), with quartiles and extremes. `nothing` is the noise of the method.\n",
            word("kernel"),
            word("arch"),
            self.machine["cpus"],
            word("cpu"),
            self.pairs
        );
        text.push_str("| storm | tracer | ratio | quartiles | min - max | untraced ns/op | |\n");
        text.push_str("|---|---|---|---|---|---|---|\n");
        for row in &self.rows {
            let _ = writeln!(
                text,
                "| {} | {} | {:.3} | {:.3} - {:.3} | {:.3} - {:.3} | {:.0} | {} |",
                row.title(),
                row.tracer,
                row.median(),
                row.quantile(0.25),
                row.quantile(0.75),
                row.quantile(0.0),
                row.quantile(1.0),
                row.untraced_ns,
                row.verdict()
            );
        }
        text
    }

    pub fn write(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let json = json!({
            "schema": "spark-trace/bench", "schema_version": 1, "machine": self.machine,
            "rows": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
        });
        let mut text = serde_json::to_string_pretty(&json).context("cannot write JSON")?;
        text.push('\n');
        for (name, text) in [("bench.md", self.markdown()), ("bench.json", text)] {
            let path = dir.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            eprintln!("wrote {}", path.display());
        }
        Ok(())
    }
}

fn machine() -> Value {
    let line = |path: &str| fs::read_to_string(path).map(|t| t.trim().to_owned()).unwrap_or_default();
    let cpuinfo = line("/proc/cpuinfo");
    let cpu =
        cpuinfo.lines().find_map(|l| l.strip_prefix("model name")?.split_once(':').map(|(_, v)| v.trim()));
    json!({
        "kernel": line("/proc/sys/kernel/osrelease"),
        "arch": std::env::consts::ARCH,
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "cpu": cpu,
        "spectre_v2": line("/sys/devices/system/cpu/vulnerabilities/spectre_v2"),
    })
}
