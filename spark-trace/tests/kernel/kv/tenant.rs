//! Another tenant of the machine, which is nobody's of the target: `kv` names it beside the reading that it lowered.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::causes;
use super::rows::{CACHE, part};
use super::staged::{ACTIVATIONS, Run, Staged, WEIGHTS, run, run_while};
use crate::support::{self, MIB, array, int, oracle, text, wait_for};

const TENANT: i64 = 300 * MIB;
const SCRIPT: &str =
    "import time; held = bytearray(b'x') * (300 << 20); print('there', flush=True); time.sleep(600)";
const ENGINE: Staged =
    Staged { name: "vllm", known_as: "vllm", signal: "MemAvailable", needs_log: false, step: 0 };
/// How often two runs are compared where other programs move much memory meanwhile.
const NOISY: usize = 3;

/// A program that ends with the test.
struct Tenant(Child);

impl Tenant {
    /// Returns when it has its memory.
    fn start() -> Self {
        let mut child =
            Command::new("python3").args(["-c", SCRIPT]).stdout(Stdio::piped()).spawn().expect("python3");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "there");
        Self(child)
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// RssAnon and RssShmem of a process, as the kernel has them.
fn resident(pid: u32) -> Option<i64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse::<i64>().ok()
    };
    Some((kib("RssAnon")? + kib("RssShmem")?) << 10)
}

/// The engine that waits for a file of this name in the middle of its dummy run, where it has its weights.
fn waiting(file: &str) -> Option<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        read("comm").starts_with("spark-trace-wor")
            && read("cmdline").contains(file)
            && resident(*pid).is_some_and(|bytes| bytes >= WEIGHTS + ACTIVATIONS)
    })
}

fn options(file: &str) -> String {
    format!("--gpu-memory-utilization {:.4} --resume {file}", part(CACHE + WEIGHTS + ACTIVATIONS, "MemTotal"))
}

fn fall(run: &Run) -> i64 {
    run.read("baseline") - run.read("after")
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_tenant_that_comes_between_the_readings_is_named_with_its_bytes() {
    let dir = support::disk_dir();
    for turn in 0..NOISY {
        causes::make_room();
        let file = support::path(&dir, &format!("resume{turn}"));
        let mut tenant = None;
        let mut come = || {
            let _ = std::fs::remove_file(&file);
            tenant = None;
            wait_for("the engine in its dummy run", || waiting(&file));
            let new = Tenant::start();
            let truth = resident(new.0.id()).unwrap();
            assert!(truth >= TENANT, "{truth}");
            tenant = Some((new, truth));
            std::fs::write(&file, "").unwrap();
        };
        let Some(with) = run_while(&dir, "tenant", ENGINE, &options(&file), "", &mut come) else { return };
        let (tenant, truth) = tenant.unwrap();
        let pid = i64::from(tenant.0.id());
        with.agrees();
        let rows = array(&with.budget()["processes"]);
        let found: Vec<_> = rows.iter().filter(|row| row["pid"] == pid).collect();
        let [row] = found.as_slice() else { panic!("{pid} of {rows:?}") };
        assert_eq!((text(&row["role"]), text(&row["comm"])), ("outside", "python3"));
        assert_eq!(int(&row["before"]), 0, "{row}");
        assert!(int(&row["at"]).abs_diff(truth) <= MIB as u64, "{row}, {truth}");
        let all = rows.iter().find(|row| row["role"] == "outside" && row["pid"].is_null()).unwrap();
        assert!(int(&all["at"]) >= truth, "{all}");
        let subject = format!("python3 ({pid})");
        let what_if = with.what_if("outside-process");
        let found = what_if.iter().find(|row| text(&row["subject"]) == subject);
        let found = found.unwrap_or_else(|| panic!("{what_if:?}"));
        assert_eq!(int(&found["delta"]), int(&row["at"]), "all of it costs vLLM its cache: {found}");
        let advice = with.advice("end-others", &subject);
        assert_eq!(advice.map(|advice| int(&advice["gains_bytes"])), Some(int(&found["delta"])));
        drop(tenant);

        // The advice followed.
        let Some(without) = run(&dir, "alone", ENGINE, &options(&file), "") else { return };
        without.agrees();
        let noise = fall(&with) - fall(&without) - truth;
        if noise.abs() > TENANT / 3 {
            println!("other programs moved the cache by {noise} from one run to the other");
            continue;
        }
        let predicted = int(&found["kv"]) + noise;
        println!(
            "{} with {truth} of a tenant, others {noise}; without {}",
            with.measured(),
            without.measured()
        );
        assert!(predicted.abs_diff(without.measured()) <= without.tolerance(), "{predicted}");
        assert!(array(&without.budget()["processes"]).iter().all(|row| row["pid"] != pid));
        return;
    }
    oracle::skip("memory", "other programs move more memory than is staged");
}
