//! The modules that stand in for NVIDIA's (testing/stand-in/), for one test at a time.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::oracle::page_size;
use super::{array, int};

const VERSION: &str = "/sys/module/nvidia/version";
const POOLS: &str = "/sys/module/nvidia/parameters/pools";

/// The modules with or without pools, loaded for one test; where they cannot be had, says so as a test that skips.
///
/// The machine has free memory then: where all of it is page cache, what the module takes may wake kswapd, which frees
/// more than that, and the machine's peak is before the module has anything.
pub fn stand_in(pools: bool) -> Option<StandIn> {
    let modules = StandIn::load(pools);
    if modules.is_some() {
        super::cache::drop_unused();
    } else {
        println!(
            "SKIPPED: stand-in: {VERSION} does not read stand-in with pools={}, and $SPARK_TRACE_STAND_IN names no \
             folder with nvidia.ko",
            u8::from(pools)
        );
    }
    modules
}

/// The modules, loaded for one test.
#[must_use]
pub struct StandIn {
    /// The test has loaded them, and unloads them.
    ours: bool,
}

impl StandIn {
    /// Loads them from $SPARK_TRACE_STAND_IN, where a test machine has them; else they must be loaded as wanted.
    fn load(pools: bool) -> Option<Self> {
        let Some(dir) = std::env::var_os("SPARK_TRACE_STAND_IN").map(PathBuf::from) else {
            return Self::loaded(pools).then_some(Self { ours: false });
        };
        // Of a kernel whose headers nobody has there are none; that it may do without is written down with the machines.
        if !dir.join("nvidia.ko").exists() {
            return None;
        }
        unload();
        must("insmod", &[dir.join("nvidia.ko").to_str().unwrap(), &format!("pools={}", u8::from(pools))]);
        must("insmod", &[dir.join("nvidia-uvm.ko").to_str().unwrap()]);
        assert!(Self::loaded(pools), "insmod succeeded, and {VERSION} does not read stand-in");
        Some(Self { ours: true })
    }

    fn loaded(pools: bool) -> bool {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        read(VERSION) == "stand-in" && read(POOLS) == if pools { "Y" } else { "N" }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        // After a failure something may hold them still; the next test says so if it does.
        if self.ours && !std::thread::panicking() {
            unload();
        }
    }
}

/// Bytes in the module's pools, by the shrinkers that it registers for them (CONFIG_SHRINKER_DEBUG, or the module's own
/// files): a directory for each, `nv-sysmem-alloc-node-N-order-M`, with a file `count` in blocks (mm/shrinker_debug.c).
pub fn pooled() -> i64 {
    let shrinkers = fs::read_dir("/sys/kernel/debug/shrinker").unwrap().flatten();
    let bytes = shrinkers.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let order = name.strip_prefix("nv-sysmem-alloc-node-")?.split("-order-").nth(1)?;
        let order: u32 = order.split('-').next()?.parse().ok()?;
        let text = fs::read_to_string(entry.path().join("count")).ok()?;
        let blocks = text.lines().flat_map(|line| line.split_whitespace().skip(1));
        Some(blocks.map(|blocks| blocks.parse::<i64>().unwrap()).sum::<i64>() * (page_size() << order))
    });
    bytes.sum()
}

/// Bytes that programs hold by the modules' own counters: system memory, pinned user pages, managed memory.
pub fn held_by_modules() -> [i64; 3] {
    [
        "nvidia/parameters/sysmem_bytes",
        "nvidia/parameters/pinned_bytes",
        "nvidia_uvm/parameters/managed_bytes",
    ]
    .map(|path| {
        let path = format!("/sys/module/{path}");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        text.trim().parse().unwrap_or_else(|error| panic!("{path}: {error}"))
    })
}

fn unload() {
    for module in ["nvidia_uvm", "nvidia"] {
        if PathBuf::from(format!("/sys/module/{module}")).exists() {
            must("rmmod", &[module]);
        }
    }
}

fn must(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The middle of a phase of the workload, as `--at` takes it. It lasts from its beginning to that of the next.
pub fn during(truth: &Value, phase: &str) -> String {
    let phases = array(&truth["phases"]);
    let row = phases.iter().find(|row| row["phase"] == phase).expect("the workload had that phase");
    format!("@{}", (int(&row["ready_ns"]) + int(&row["end_ns"])) / 2)
}
