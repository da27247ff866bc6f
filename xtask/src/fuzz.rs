//! `cargo xtask fuzz`: inputs without end for what reads what others wrote.
//!
//! libFuzzer guides itself by what of the code an input reaches. The compiler's pass that counts this
//! (`sancov-module`) is in stable toolchains; what is not are sanitizers, which find faults in unsafe code: there is
//! none in the targets.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::{fs, thread};

use anyhow::{Context, Result, bail, ensure};

use crate::arch::Arch;
use crate::{process, setup, signals, workspace};

/// As in the package `spark-trace-fuzz`.
const VARIABLE: &str = "SPARK_TRACE_FUZZ_TARGET";
const LIST: &str = "list";

const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// An input may take so long, seconds, and the whole process so much memory, MiB.
const LONGEST_S: u64 = 10;
const LARGEST_MIB: u64 = 1024;

/// Gives each reader of foreign bytes inputs that were made to break it
///
/// Inputs that reach new code are kept in target/fuzz/corpus and used again. What breaks a target is kept in
/// target/fuzz/crashes.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask fuzz                       # 7,000 inputs for each target, some two minutes
  cargo xtask fuzz --minutes 60          # as many as there is time for
  cargo xtask fuzz --minutes 5 btf http
  cargo xtask fuzz --input target/fuzz/crashes/btf-1234 btf

Targets: fuzz/src/lib.rs. Seeds: fuzz/seeds.")]
pub struct Args {
    /// Inputs for each target
    #[arg(long, default_value_t = 7000, value_name = "N")]
    inputs: u64,
    /// Time for all targets together, in place of a number of inputs
    #[arg(long, value_name = "N", conflicts_with = "inputs")]
    minutes: Option<u64>,
    /// Only build the targets
    #[arg(long, conflicts_with_all = ["inputs", "minutes", "input", "targets"])]
    build: bool,
    /// Only give a target this input once more
    #[arg(long, value_name = "FILE", conflicts_with_all = ["inputs", "minutes"])]
    input: Option<PathBuf>,
    /// Targets; all where none is named
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

/// A target as the program lists it.
struct Target {
    name: String,
    longest: u64,
}

/// What came of one.
struct Outcome {
    inputs: u64,
    seconds: u64,
    /// Inputs that each reach something of their own.
    corpus: usize,
    broken: Option<String>,
}

pub fn run(args: &Args) -> Result<()> {
    setup::ensure(setup::Scope::Building)?;
    let program = build()?;
    if args.build {
        return Ok(());
    }
    let known = targets(&program)?;
    if let Some(name) = args.targets.iter().find(|name| known.iter().all(|target| target.name != **name)) {
        let names: Vec<_> = known.iter().map(|target| target.name.as_str()).collect();
        bail!("there is no target {name}; there are {}", names.join(", "));
    }
    if let Some(input) = &args.input {
        ensure!(args.targets.len() == 1, "name the one target that is to have the input");
        let mut command = Command::new(&program);
        command.env(VARIABLE, &args.targets[0]).arg(input);
        return process::run(&mut command, "giving the input");
    }
    let wanted = |target: &&Target| args.targets.is_empty() || args.targets.contains(&target.name);
    let targets: Vec<_> = known.iter().filter(wanted).collect();
    let at_once = thread::available_parallelism().map_or(1, usize::from).min(targets.len());
    // Time is for all: each has its part of what all processors have.
    let seconds = args.minutes.map(|minutes| (minutes * 60 * at_once as u64 / targets.len() as u64).max(1));
    let next = Mutex::new(targets.iter());
    let outcomes = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(target) = take(&next) {
                    let outcome = fuzz(&program, target, args.inputs, seconds);
                    lock(&outcomes).insert(target.name.clone(), outcome);
                }
            });
        }
    });
    signals::check()?;
    report(&outcomes.into_inner().unwrap_or_default())
}

/// The next target; none once we are to end.
fn take<'a>(next: &Mutex<impl Iterator<Item = &'a &'a Target>>) -> Option<&'a Target> {
    if signals::check().is_err() {
        return None;
    }
    lock(next).next().copied()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn build() -> Result<PathBuf> {
    let triple = Arch::host()?.names().triple;
    let target_dir = dir()?;
    let mut command = process::cargo();
    // With a target named, the flags are not for what runs during the build.
    command
        .args(["build", "--package", "spark-trace-fuzz", "--features", "runtime", "--profile", "fuzz"])
        .args(["--target", triple, "--target-dir"])
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"))
        .current_dir(workspace::root());
    process::run(&mut command, "building the targets")?;
    Ok(target_dir.join(triple).join("fuzz/fuzz"))
}

fn dir() -> Result<PathBuf> {
    Ok(workspace::target_dir()?.join("fuzz"))
}

/// A line each: name, longest input.
fn targets(program: &Path) -> Result<Vec<Target>> {
    let text = process::output(Command::new(program).env(VARIABLE, LIST), "listing the targets")?;
    let target = |line: &str| {
        let (name, longest) = line.split_once(' ')?;
        Some(Target { name: name.to_owned(), longest: longest.parse().ok()? })
    };
    text.lines().map(|line| target(line).with_context(|| format!("no target: {line}"))).collect()
}

fn fuzz(program: &Path, target: &Target, inputs: u64, seconds: Option<u64>) -> Result<Outcome> {
    let (name, dir) = (&target.name, dir()?);
    let (corpus, crashes) = (dir.join("corpus").join(name), dir.join("crashes"));
    for dir in [&corpus, &crashes] {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    let mut command = Command::new(program);
    command
        .env(VARIABLE, name)
        .arg(&corpus)
        .arg(workspace::root().join("fuzz/seeds").join(name))
        .arg(format!("-artifact_prefix={}/{name}-", crashes.display()))
        .arg(format!("-max_len={}", target.longest))
        .arg(format!("-timeout={LONGEST_S}"))
        .arg(format!("-rss_limit_mb={LARGEST_MIB}"))
        .arg("-print_final_stats=1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    match seconds {
        Some(seconds) => command.arg(format!("-max_total_time={seconds}")),
        // The same inputs each time: a change that has nothing to do with it must not fail by chance.
        None => command.args([format!("-runs={inputs}"), "-seed=1".to_owned()]),
    };
    let start = std::time::Instant::now();
    let (child, forwarding) = signals::spawn(&mut command).context("starting the fuzzer")?;
    let output = child.wait_with_output().context("waiting for the fuzzer")?;
    drop(forwarding);
    let output_text = String::from_utf8_lossy(&output.stderr);
    let figure = |name: &str| {
        let line = output_text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse().ok()
    };
    let inputs = figure("stat::number_of_executed_units:").unwrap_or(0);
    let broken = (!output.status.success()).then(|| {
        let lines: Vec<_> = output_text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    });
    ensure!(broken.is_some() || inputs > 0, "{name}: the fuzzer did nothing:\n{output_text}");
    let corpus = fs::read_dir(&corpus).map_or(0, Iterator::count);
    Ok(Outcome { inputs, seconds: start.elapsed().as_secs(), corpus, broken })
}

fn report(outcomes: &BTreeMap<String, Result<Outcome>>) -> Result<()> {
    let (mut inputs, mut broken) = (0, Vec::new());
    println!("{:<10} {:>12} {:>8} {:>8}", "TARGET", "INPUTS", "SECONDS", "CORPUS");
    for (name, outcome) in outcomes {
        match outcome {
            Ok(outcome) => {
                inputs += outcome.inputs;
                println!("{name:<10} {:>12} {:>8} {:>8}", outcome.inputs, outcome.seconds, outcome.corpus);
                if let Some(last_lines) = &outcome.broken {
                    eprintln!("{name} broke:\n{last_lines}\n");
                    broken.push(name.as_str());
                }
            }
            Err(error) => {
                eprintln!("{name}: {error:#}");
                broken.push(name.as_str());
            }
        }
    }
    println!("{inputs} inputs");
    ensure!(
        broken.is_empty(),
        "{} broke; the inputs are in target/fuzz/crashes: `cargo xtask fuzz --input FILE TARGET` gives one again",
        broken.join(", ")
    );
    Ok(())
}
