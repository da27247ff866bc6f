//! The figures, for people and for programs.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    pairs::{Pair, median},
    storm::{Clock, Storm},
};

/// One storm under one tracer.
pub struct Row {
    storm: &'static str,
    what: &'static str,
    tracer: &'static str,
    clock: &'static str,
    bound: Option<f64>,
    ratios: Vec<f64>,
    untraced_ns: f64,
    rounds: usize,
}

impl Row {
    pub fn new(storm: &'static Storm, tracer: &'static str, pairs: &[Pair]) -> Self {
        Self {
            storm: storm.name,
            what: storm.what,
            tracer,
            clock: if storm.clock == Clock::Cpu { "thread CPU" } else { "wall" },
            bound: storm.bound.filter(|_| tracer == "default"),
            ratios: pairs.iter().map(Pair::ratio).collect(),
            untraced_ns: median(pairs.iter().map(|p| p.untraced).collect()),
            rounds: pairs.iter().map(|p| p.rounds.0).sum(),
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
            "storm": self.storm, "what": self.what, "tracer": self.tracer, "clock": self.clock,
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
             {} interleaved pairs, with quartiles and extremes. `nothing` is the noise of the method.\n",
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
                "| {} ({}) | {} | {:.3} | {:.3} - {:.3} | {:.3} - {:.3} | {:.0} | {} |",
                row.storm,
                row.what,
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
