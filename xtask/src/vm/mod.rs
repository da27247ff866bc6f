//! `cargo xtask vm`: the kernel tests on kernels and architectures that this machine does not have.
//!
//! Debian's kernels are downloaded as packages and started in QEMU, without hardware virtualisation, so that
//! every machine can do it. The guest runs each test as root on cgroup v2 and says on its console how it ended.
//! Everything is emulated: what runs there shows that it works, not how fast.

mod disk;
mod kernel;
mod kernels;
mod module;
mod outcome;
mod packages;
mod programs;
mod qemu;
mod report;
mod skips;
mod userland;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::arch::Arch;
use crate::docker::TEST_IMAGE;
use crate::{setup, signals, workspace};
use disk::Base;
use kernels::{KERNELS, Kernel};
use outcome::Console;
use programs::Programs;
use qemu::{Machine, Qemu};
use userland::Userland;

/// Runs the kernel tests in virtual machines with other kernels
///
/// Downloads Debian's kernels, starts them in QEMU and runs the tests called kernel_* there as root, one by one.
/// A test may be skipped only where the kernel lacks what it needs; what may is a table in xtask/src/vm/skips.rs.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask vm                                  # one kernel per architecture, as in `cargo xtask test`
  cargo xtask vm --all --output results/kernels   # every kernel; keeps what each has said
  cargo xtask vm --arch arm64 --filter kernel_record
  cargo xtask vm --kernel 6.1-amd64 --shell       # look around; `exit` ends it
  cargo xtask vm --all --command 'cat /proc/version; /guest/spark-trace doctor'
  cargo xtask vm --list")]
pub struct Args {
    /// Run on this kernel (may be given again); see --list
    #[arg(long, value_name = "NAME")]
    kernel: Vec<String>,
    /// Run on every kernel
    #[arg(long, conflicts_with = "kernel")]
    all: bool,
    /// Only kernels of this architecture
    #[arg(long, value_enum, value_name = "ARCH")]
    arch: Option<Arch>,
    /// Only tests with this in their name, as SUITE::TEST (may be given again: with any of them)
    #[arg(long, value_name = "TEXT", value_parser = part_of_a_name)]
    filter: Vec<String>,
    /// Start a shell instead of the tests
    #[arg(long)]
    shell: bool,
    /// Run this line in a shell instead of the tests; --output keeps what it leaves in /results
    #[arg(long, value_name = "LINE", conflicts_with = "shell")]
    command: Option<String>,
    /// Keep reports in this folder: a folder per kernel, and a table
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Bring the Debian packages in this folder along, as `cargo xtask dist` makes them, and test them
    #[arg(long, value_name = "DIR")]
    packages: Option<PathBuf>,
    /// Let the machine's clock count instructions, one nanosecond each: costs as tests print them are then numbers of
    /// instructions, the same on a busy machine
    #[arg(long)]
    count_instructions: bool,
    /// Run so many machines at once [default: as many as there are CPUs and memory for, four at most]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST_AT_ONCE))]
    at_once: Option<u32>,
    /// Memory of a machine
    #[arg(long, value_name = "MIB", default_value_t = MEMORY_MIB)]
    memory: u32,
    /// List the kernels
    #[arg(long)]
    list: bool,
}

/// Memory of a machine, unless told otherwise.
const MEMORY_MIB: u32 = 3072;
/// Machines at once, unless told otherwise. Each has two CPUs, but a test waits most of its time.
const AT_ONCE: u64 = 4;
/// And when told.
const MOST_AT_ONCE: i64 = 8;
const _: () = assert!(MOST_AT_ONCE as usize <= signals::CHILDREN_AT_ONCE);
/// No test takes longer in a machine.
const TEST_LIMIT: Duration = Duration::from_mins(5);
/// For what tests leave in /results.
const RESULTS_SIZE: u64 = 256 << 20;

pub fn run(args: &Args) -> Result<()> {
    let kernels = chosen(args)?;
    if args.list {
        for kernel in kernels {
            let always = if kernel.always { "  part of `cargo xtask test`" } else { "" };
            println!("{:<16} Debian {}{always}", kernel.name, kernel.suite);
        }
        return Ok(());
    }
    ensure!(!args.shell || kernels.len() == 1, "--shell starts one machine: choose it with --kernel");
    setup::ensure(setup::Scope::Machines)?;
    let plan = Plan {
        kernels,
        filter: args.filter.clone(),
        mode: match &args.command {
            _ if args.shell => Mode::Shell,
            Some(line) => Mode::Command(line.clone()),
            None => Mode::Tests,
        },
        output: args.output.clone(),
        packages: args.packages.clone(),
        memory_mib: args.memory,
        at_once: args.at_once.map_or_else(|| at_once(args.memory), |at_once| at_once as usize),
        instructions: args.count_instructions,
    };
    plan.run()
}

fn chosen(args: &Args) -> Result<Vec<&'static Kernel>> {
    for name in &args.kernel {
        ensure!(
            KERNELS.iter().any(|kernel| kernel.name == name),
            "there is no kernel {name}; `cargo xtask vm --list` shows them"
        );
    }
    let wanted = |kernel: &&Kernel| {
        let named = args.kernel.iter().any(|name| name == kernel.name);
        let kind = named || args.all || (args.kernel.is_empty() && (args.list || kernel.always));
        kind && args.arch.is_none_or(|arch| arch == kernel.arch)
    };
    let kernels: Vec<_> = KERNELS.iter().filter(wanted).collect();
    ensure!(!kernels.is_empty(), "no kernel is left: `cargo xtask vm --list` shows them");
    Ok(kernels)
}

/// What a machine is started for.
enum Mode {
    Tests,
    Shell,
    /// A line for a shell.
    Command(String),
}

/// What all machines of an architecture start with.
struct Side<'a> {
    qemu: Qemu<'a>,
    base: Base,
    image: PathBuf,
}

/// What was being done when a thread panicked is told elsewhere.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What to run where.
pub struct Plan {
    kernels: Vec<&'static Kernel>,
    /// Parts of tests' names; all tests where there are none.
    filter: Vec<String>,
    mode: Mode,
    output: Option<PathBuf>,
    packages: Option<PathBuf>,
    memory_mib: u32,
    at_once: usize,
    instructions: bool,
}

/// A shell in the machine splits them at blanks.
fn part_of_a_name(text: &str) -> Result<String> {
    let fits = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
    ensure!(fits, "names of tests are of letters, digits, _ and ::");
    Ok(text.to_owned())
}

/// How many machines of so much memory this one can run side by side.
fn at_once(memory_mib: u32) -> usize {
    let cpus = thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = available.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    // QEMU itself takes some, and what tests write lies in its memory too.
    let room = kib.unwrap_or(0) / 1024 / (2 * u64::from(memory_mib));
    cpus.min(room).clamp(1, AT_ONCE) as usize
}

impl Plan {
    /// One kernel per architecture.
    pub fn one_per_architecture() -> Self {
        Self::of(|kernel| kernel.always)
    }

    pub fn all() -> Self {
        Self::of(|_| true)
    }

    fn of(wanted: impl Fn(&Kernel) -> bool) -> Self {
        Self {
            kernels: KERNELS.iter().filter(|kernel| wanted(kernel)).collect(),
            filter: Vec::new(),
            mode: Mode::Tests,
            output: None,
            packages: None,
            memory_mib: MEMORY_MIB,
            at_once: at_once(MEMORY_MIB),
            instructions: false,
        }
    }

    /// Only tests with this in their name.
    pub fn filtered(self, filter: Option<&str>) -> Result<Self> {
        Ok(Self { filter: filter.map(part_of_a_name).transpose()?.into_iter().collect(), ..self })
    }

    pub fn run(&self) -> Result<()> {
        let start = Instant::now();
        // Before anything is built of it.
        let commit = workspace::commit();
        let cache = workspace::target_dir()?.join("vm");
        let work = cache.join(format!("run-{}", std::process::id()));
        fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
        let result = self.run_in(start, &cache, &work, &commit);
        let _ = fs::remove_dir_all(&work);
        let ran = result?;
        if !matches!(self.mode, Mode::Tests) {
            return Ok(());
        }
        let summaries: Vec<_> = ran.iter().map(|ran| report::summary(ran, &commit)).collect();
        for (suite, why) in programs::LEFT_OUT {
            println!("left out: {suite}: {why}");
        }
        println!("\n{}", report::table(&summaries, start.elapsed()));
        if let Some(output) = &self.output {
            println!("kept in {}", output.display());
        }
        let bad: Vec<_> =
            ran.iter().filter(|ran| !ran.console.is_good()).map(|ran| ran.kernel.name).collect();
        if !bad.is_empty() {
            bail!("failed on {} of {} kernels: {}", bad.len(), ran.len(), bad.join(", "));
        }
        Ok(())
    }

    fn run_in(&self, start: Instant, cache: &Path, work: &Path, commit: &str) -> Result<Vec<Ran>> {
        let userland = Userland::unpack(cache)?;
        let mut sides = Vec::new();
        for names in crate::arch::ARCHES {
            if self.kernels.iter().any(|kernel| kernel.arch == names.arch) {
                sides.push(self.side(names.arch, &userland, cache, work)?);
            }
        }
        // Those with the container tests take longest, and begin.
        let mut queue: Vec<_> = self.kernels.iter().enumerate().collect();
        queue.sort_by_key(|(_, kernel)| !kernel.always);
        let queue = Mutex::new(queue.into_iter());
        let preparing = Mutex::new(());
        let ran = Mutex::new(Vec::new());
        let work_off = || -> Result<()> {
            loop {
                signals::check()?;
                let Some((at, kernel)) = locked(&queue).next() else { return Ok(()) };
                let side = sides.iter().find(|side| side.qemu.arch == kernel.arch);
                let booted = side
                    .context("no disk was made for its architecture")
                    .and_then(|side| self.boot(kernel, side, &preparing, cache, work));
                signals::check()?;
                // One that cannot be had or started does not keep the next from running.
                let one = booted.unwrap_or_else(|error| {
                    println!("{}: {error:#}", kernel.name);
                    Some(Ran::broken(kernel, format!("{error:#}")))
                });
                let mut ran = locked(&ran);
                if let (Some(output), Some(one)) = (&self.output, &one) {
                    report::keep(output, one, commit)?;
                    // As far as it is: who interrupts a long run has what came before.
                    report::keep_table(output, start.elapsed())?;
                }
                ran.extend(one.map(|one| (at, one)));
            }
        };
        // A shell has the terminal for itself; there is one machine then.
        thread::scope(|scope| {
            let workers: Vec<_> = (0..self.at_once).map(|_| scope.spawn(work_off)).collect();
            let ends = workers.into_iter().map(|worker| {
                worker.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the thread of a machine panicked")))
            });
            ends.collect::<Result<Vec<()>>>()
        })?;
        let mut ran = ran.into_inner().unwrap_or_else(PoisonError::into_inner);
        ran.sort_by_key(|(at, _)| *at);
        Ok(ran.into_iter().map(|(_, one)| one).collect())
    }

    /// What all machines of an architecture start with.
    fn side<'a>(&self, arch: Arch, userland: &'a Userland, cache: &Path, work: &Path) -> Result<Side<'a>> {
        let base = Base::make(cache, arch)?;
        let image = work.join(format!("{}.img", arch.names().debian));
        let programs = Programs::build(arch)?;
        base.disk(&image, |guest| self.fill(guest, &programs))?;
        Ok(Side { qemu: Qemu { userland, arch }, base, image })
    }

    /// Puts programs, tests and what to do with them on a disk.
    fn fill(&self, guest: &Path, programs: &Programs) -> Result<()> {
        programs.copy_to(guest)?;
        if let Some(from) = &self.packages {
            bring_packages(from, programs.arch, &guest.join("packages"))?;
        }
        let mode = match &self.mode {
            Mode::Tests => "tests",
            Mode::Shell => "shell",
            Mode::Command(line) => {
                let path = guest.join("command");
                fs::write(&path, line).with_context(|| format!("cannot write {}", path.display()))?;
                "command"
            }
        };
        let environment = format!(
            "MODE={mode}\nFILTER='{}'\nLIMIT={}\nIMAGE={TEST_IMAGE}\n\
             export SPARK_TRACE_MACHINE=1\n\
             export SPARK_TRACE_BIN=/guest/spark-trace SPARK_TRACE_WORKLOAD=/guest/workload-static\n\
             export SPARK_TRACE_CUDA_WORKLOAD=/guest/spark-trace-workload SPARK_TRACE_TEST_DIR=/var/tmp/tests\n\
             export SPARK_TRACE_PACKAGES=/guest/packages SPARK_TRACE_STAND_IN=/run/modules\n{}",
            self.filter.join(" "),
            TEST_LIMIT.as_secs(),
            if self.instructions { "export SPARK_TRACE_COUNTS_INSTRUCTIONS=1\n" } else { "" },
        );
        let path = guest.join("environment");
        fs::write(&path, environment).with_context(|| format!("cannot write {}", path.display()))
    }

    /// `preparing`: what is downloaded and unpacked is the same for several of them.
    fn boot(
        &self,
        kernel: &'static Kernel,
        side: &Side,
        preparing: &Mutex<()>,
        cache: &Path,
        work: &Path,
    ) -> Result<Option<Ran>> {
        let Side { qemu, base, image } = side;
        let prepared = locked(preparing);
        signals::check()?;
        let unpacked = kernel::unpack(kernel, cache)?;
        let initramfs = work.join(format!("{}.initramfs", kernel.name));
        let stand_in = match kernel.headers {
            true => module::build(kernel, &unpacked, qemu.userland, cache)?,
            false => Vec::new(),
        };
        base.initramfs(&unpacked, &stand_in, &initramfs)?;
        drop(prepared);
        let results = work.join(format!("{}.results", kernel.name));
        qemu::empty_disk(&results, RESULTS_SIZE)?;
        let machine = Machine {
            image: &unpacked.image,
            initramfs: &initramfs,
            disk: image,
            results: (!matches!(self.mode, Mode::Shell)).then_some(&results),
            memory_mib: self.memory_mib,
            whole_cpu: kernel.always,
            instructions: self.instructions,
            environment: if kernel.always { "CONTAINERS=yes" } else { "" },
        };
        println!("== {}: {}", kernel.name, unpacked.package);
        // Whose line it is, where machines speak in turns.
        let whose = if self.at_once > 1 && self.kernels.len() > 1 {
            format!("{}   ", kernel.name)
        } else {
            String::new()
        };
        match self.mode {
            Mode::Shell => return qemu.shell(&machine).map(|()| None),
            Mode::Command(_) => {
                qemu.run(&machine, |line| println!("{whose}{line}"))?;
                if let Some(output) = &self.output {
                    report::unpack(&results, &output.join(kernel.name))?;
                }
                return Ok(None);
            }
            Mode::Tests => {}
        }
        let start = Instant::now();
        let mut console = Console::new(kernel.name);
        let mut log = String::new();
        let ended = qemu.run(&machine, |line| {
            log.push_str(line);
            log.push('\n');
            let before = console.tries;
            if console.line(line) && !line.is_empty() && !is_noise(line) {
                println!("{whose}   {line}");
            }
            if let Some(test) = console.tests.last().filter(|_| console.tries > before) {
                println!("{}", report::line(kernel.name, test));
            }
        });
        signals::check()?;
        console.ended(ended.err().map(|error| format!("{error:#}")));
        let dir = work.join(kernel.name);
        let doctor = report::take(&results, &dir).unwrap_or_else(|error| {
            console.broken.push(format!("{error:#}"));
            serde_json::Value::Null
        });
        console.check_skips(&doctor);
        for broken in &console.broken {
            println!("{}: {broken}", kernel.name);
        }
        Ok(Some(Ran { kernel, package: unpacked.package, console, doctor, log, took: start.elapsed() }))
    }
}

fn bring_packages(from: &Path, arch: Arch, to: &Path) -> Result<()> {
    let end = format!("_{}.deb", arch.names().debian);
    let entries = fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))?;
    let entries = entries.flatten().map(|entry| entry.path());
    let packages: Vec<_> = entries.filter(|path| path.to_string_lossy().ends_with(&end)).collect();
    ensure!(!packages.is_empty(), "{} has no *{end}: `cargo xtask dist` makes them", from.display());
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    for package in packages {
        let to = to.join(package.file_name().unwrap_or_default());
        fs::copy(&package, &to).with_context(|| format!("cannot copy {}", package.display()))?;
    }
    Ok(())
}

/// What libtest says around each single test.
fn is_noise(line: &str) -> bool {
    let begins = ["running 1 test", "test result: ok", "successes:", "    "];
    begins.iter().any(|begin| line.starts_with(begin)) || (line.starts_with("test ") && line.ends_with("ok"))
}

/// A machine that has run.
pub struct Ran {
    kernel: &'static Kernel,
    package: String,
    console: Console,
    /// What `spark-trace doctor` said there.
    doctor: serde_json::Value,
    /// All that the console has said.
    log: String,
    took: Duration,
}

impl Ran {
    fn broken(kernel: &'static Kernel, why: String) -> Self {
        let mut console = Console::new(kernel.name);
        console.ended(Some(why));
        let (package, log) = (String::new(), String::new());
        Self { kernel, package, console, doctor: serde_json::Value::Null, log, took: Duration::ZERO }
    }
}
