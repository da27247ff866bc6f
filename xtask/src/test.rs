//! `cargo xtask test`: all tests.

use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::docker::{PrivateDocker, TEST_IMAGE};
use crate::failures::Failures;
use crate::suites::{Kind, Suite};
use crate::{ahead, build, process, setup, signals, suites, vm, workspace};

/// Runs all tests: what needs no root, then kernel tests, then container tests, then kernel tests on other kernels
///
/// Integration tests in `kernel` load programs into the running kernel; those in `container` run
/// containers in a private Docker daemon. Both need root and run one at a time, ignored ones too.
/// Those in `gpu` are left out: `cargo xtask gpu` takes them to a machine with a GPU.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask test                      # as root
  cargo xtask test --no-root            # leaves kernel and container tests out, and says so
  cargo xtask test --machines none      # without virtual machines
  cargo xtask test -- ledger            # only tests with `ledger` in their name
  cargo xtask test -- oracle::          # only those of a module, without the name of the program

Tests find the static workload in $SPARK_TRACE_WORKLOAD and, beside the simulated CUDA driver, the one
that can load it in $SPARK_TRACE_CUDA_WORKLOAD; container tests also the image that
holds it as /workload in $SPARK_TRACE_IMAGE, and the daemon in $DOCKER_HOST.")]
pub struct Args {
    /// Only run what needs no root
    #[arg(long)]
    no_root: bool,
    /// Virtual machines with other kernels that run the kernel tests, too [default: one; none where tests are
    /// chosen by name]
    #[arg(long, value_enum, value_name = "WHICH")]
    machines: Option<Machines>,
    /// Beside the kernel and container tests, build what `cargo xtask fuzz` and `cargo xtask vm` run; tests that this
    /// would disturb run alone after it
    #[arg(long, conflicts_with_all = ["no_root", "args"])]
    ahead: bool,
    /// Passed on to the test programs
    #[arg(last = true)]
    args: Vec<String>,
}

/// See `cargo xtask vm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Machines {
    /// None
    None,
    /// One per architecture
    One,
    /// Every kernel
    All,
}

const ONE_BY_ONE: &[&str] = &["--include-ignored", "--test-threads=1"];

/// Tests in `kernel`, and modules of them, that compare the machine's memory at two times. A build beside them moves it.
pub const ALONE: &[&str] = &["kv::", "record::sources_agree_with_the_workload_over_ten_runs", "top::"];

pub fn run(args: &Args) -> Result<()> {
    if !args.no_root && !process::is_root() {
        bail!(
            "kernel and container tests need root: run `sudo env \"PATH=$PATH\" cargo xtask test`, \
             or `cargo xtask test --no-root` for the others"
        );
    }
    let start = Instant::now();
    setup::ensure_all(&scopes(args))?;
    let mut session = Session {
        environment: vec![("SPARK_TRACE_WORKLOAD", build::workload(true)?)],
        test_args: args.args.clone(),
        passed: 0,
        failed: Vec::new(),
        failures: Failures::default(),
    };
    let suites = suites::find()?;
    let of = |kind| suites.iter().filter(move |suite| suite.kind == kind);

    // Examples in doc comments are not run: there are none, and a test of xtask/src/suites.rs keeps it so.
    let programs = ["--lib", "--bins"];
    session.step("workspace", &[&programs, &selected(of(Kind::Plain))[..]].concat(), &[])?;
    let names = |kind| of(kind).map(|suite| &suite.name[..]).collect::<Vec<_>>();
    let need_gpu = ("need a GPU: cargo xtask gpu", names(Kind::Gpu));
    if args.no_root {
        let machines = vec!["virtual machines"];
        let need_root = ("need root", [names(Kind::Kernel), names(Kind::Container), machines].concat());
        return session.summary(start, &[need_root, need_gpu]);
    }
    session.environment.push(("SPARK_TRACE_CUDA_WORKLOAD", build::cuda(false)?.workload));
    let (kernel, container) = (selected(of(Kind::Kernel)), selected(of(Kind::Container)));
    if args.ahead {
        thread::scope(|scope| {
            scope.spawn(ahead::build);
            let disturbed: Vec<_> = ALONE.iter().flat_map(|name| ["--skip", name]).collect();
            session.kernel("kernel", &kernel, &disturbed)?;
            session.container(&container)
        })?;
        session.kernel("kernel, alone", &kernel, ALONE)?;
    } else {
        session.kernel("kernel", &kernel, &[])?;
        session.container(&container)?;
    }
    let plan = match args.machines() {
        Machines::None => None,
        Machines::One => Some(vm::Plan::one_per_architecture()),
        Machines::All => Some(vm::Plan::all()),
    };
    if let Some(plan) = plan {
        session.ended("machines", plan.filtered(args.name().as_deref()).and_then(|plan| plan.run()))?;
    }
    session.summary(start, &[need_gpu])
}

impl Args {
    fn machines(&self) -> Machines {
        let default = if self.name().is_some() { Machines::None } else { Machines::One };
        self.machines.unwrap_or(default)
    }

    /// What tests are chosen by; the harness's own options mean nothing in a machine.
    fn name(&self) -> Option<String> {
        self.args.iter().find(|word| !word.starts_with('-')).cloned()
    }
}

/// What the wanted tests take.
fn scopes(args: &Args) -> Vec<setup::Scope> {
    match (args.no_root, args.machines()) {
        (true, _) => vec![setup::Scope::Building],
        (false, Machines::None) => vec![setup::Scope::Containers],
        (false, _) => vec![setup::Scope::Containers, setup::Scope::Machines],
    }
}

/// Arguments that make cargo run these and no other integration tests.
fn selected<'a>(suites: impl Iterator<Item = &'a Suite>) -> Vec<&'a str> {
    suites.flat_map(|suite| ["--test", &suite.name]).collect()
}

/// The steps so far. One failing does not keep the next from running: a run shows all there is.
struct Session {
    environment: Vec<(&'static str, PathBuf)>,
    test_args: Vec<String>,
    passed: usize,
    failed: Vec<&'static str>,
    /// The run ends with them.
    failures: Failures,
}

impl Session {
    /// Runs one `cargo test`. Fails only after a signal to stop.
    fn step(&mut self, name: &'static str, cargo_args: &[&str], harness_args: &[&str]) -> Result<()> {
        let mut command = process::cargo();
        command.args(["test", "--no-fail-fast"]).args(cargo_args).current_dir(workspace::root());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        // A failed test's message says what failed. Frames would push it out of the part of a log that is looked at.
        command.env("RUST_BACKTRACE", "0");
        command.arg("--").args(harness_args).args(&self.test_args);
        let failures = &mut self.failures;
        let result = process::run_read(&mut command, &format!("{name} tests"), |output| {
            failures.copy(output, std::io::stdout())
        });
        self.ended(name, result)
    }

    /// Runs tests in `kernel`: all, or those that the harness chooses by `filter`.
    fn kernel(&mut self, name: &'static str, suites: &[&str], filter: &[&str]) -> Result<()> {
        if suites.is_empty() {
            return Ok(());
        }
        self.step(name, suites, &[ONE_BY_ONE, filter].concat())
    }

    /// Runs the tests in `container`, with a Docker daemon.
    fn container(&mut self, suites: &[&str]) -> Result<()> {
        if suites.is_empty() {
            return Ok(());
        }
        let docker = PrivateDocker::start()?;
        docker.import(&self.environment[0].1, TEST_IMAGE)?;
        self.environment.push(("DOCKER_HOST", docker.host().into()));
        self.environment.push(("SPARK_TRACE_IMAGE", TEST_IMAGE.into()));
        self.step("container", suites, ONE_BY_ONE)
    }

    /// Counts a step. Fails only after a signal to stop.
    fn ended(&mut self, name: &'static str, result: Result<()>) -> Result<()> {
        match result {
            Ok(()) => self.passed += 1,
            Err(error) => {
                signals::check()?;
                eprintln!("{error:#}");
                self.failed.push(name);
            }
        }
        Ok(())
    }

    /// `left_out`: why, and what.
    fn summary(&self, start: Instant, left_out: &[(&str, Vec<&str>)]) -> Result<()> {
        self.failures.print();
        for (why, names) in left_out.iter().filter(|(_, names)| !names.is_empty()) {
            println!("left out ({why}): {}", names.join(", "));
        }
        let steps = self.passed + self.failed.len();
        let seconds = start.elapsed().as_secs();
        if !self.failed.is_empty() {
            let failed = self.failed.join(", ");
            bail!("{} of {steps} test steps failed after {seconds} s: {failed}", self.failed.len());
        }
        println!("all {steps} test steps passed in {seconds} s");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_fails_where_a_step_failed() {
        let session = |failed| Session {
            environment: Vec::new(),
            test_args: Vec::new(),
            passed: 1,
            failed,
            failures: Failures::default(),
        };
        assert!(session(vec![]).summary(Instant::now(), &[("need root", vec!["kernel"])]).is_ok());
        let error = session(vec!["kernel"]).summary(Instant::now(), &[]).unwrap_err().to_string();
        assert!(error.starts_with("1 of 2 test steps failed") && error.ends_with(": kernel"), "{error}");
    }
}
