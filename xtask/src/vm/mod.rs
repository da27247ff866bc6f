//! `cargo xtask vm`: the kernel tests on kernels and architectures that this machine does not have.
//!
//! Debian's kernels are downloaded as packages and started in QEMU, without hardware virtualisation, so that
//! every machine can do it. The guest runs each test as root on cgroup v2 and says on its console how it ended.
//! Everything is emulated: what runs there shows that it works, not how fast.

mod disk;
mod job;
mod kernel;
mod kernels;
mod machine;
mod module;
mod outcome;
mod packages;
mod plan;
mod programs;
mod qemu;
mod report;
mod side;
mod skips;
mod userland;

use std::path::PathBuf;
use std::{fs, thread};

use anyhow::{Result, ensure};

use crate::arch::Arch;
use crate::{setup, signals};
use job::Mode;
pub use job::Plan;
use kernels::{KERNELS, Kernel};
#[cfg(test)]
pub use programs::LEFT_OUT;
#[cfg(test)]
pub use skips::MAY_SKIP;

/// Runs the kernel tests in virtual machines with other kernels
///
/// Downloads Debian's kernels, starts them in QEMU and runs the tests in `kernel` there as root, one by one.
/// A test may be skipped only where the kernel lacks what it needs; what may is a table in xtask/src/vm/skips.rs.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask vm                                  # one kernel per architecture, as in `cargo xtask test`
  cargo xtask vm --all --output results/kernels   # every kernel, for hours; keeps the results
  cargo xtask vm --all --output results/kernels --continue    # goes on where that was interrupted
  cargo xtask vm --arch arm64 --filter kernel::record::
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
    /// Only tests with this in their name, as PROGRAM::MODULE::TEST (may be given again: with any of them)
    #[arg(long, value_name = "TEXT", value_parser = part_of_a_name)]
    filter: Vec<String>,
    /// Start a shell instead of the tests
    #[arg(long)]
    shell: bool,
    /// Run this line in a shell instead of the tests; --output keeps what it leaves in /results
    #[arg(long, value_name = "LINE", conflicts_with = "shell")]
    command: Option<String>,
    /// Only fetch and build what the machines start with, but for what is in target/debug
    #[arg(long, conflicts_with_all = ["shell", "command", "output", "filter"])]
    build: bool,
    /// Keep reports in this folder: a folder per kernel, and a table
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Leave out kernels on which all went well with the same programs and tests, by --output's folder
    #[arg(long = "continue", requires = "output", conflicts_with_all = ["shell", "command"])]
    goes_on: bool,
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

/// Memory of a machine by default.
const MEMORY_MIB: u32 = 3072;
/// Machines at once by default. Each has two CPUs, but a test waits most of its time.
const AT_ONCE: u64 = 4;
/// The most that --at-once takes.
const MOST_AT_ONCE: i64 = 8;
const _: () = assert!(MOST_AT_ONCE as usize <= signals::CHILDREN_AT_ONCE);

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
        goes_on: args.goes_on,
        packages: args.packages.clone(),
        memory_mib: args.memory,
        at_once: args.at_once.map_or_else(|| at_once(args.memory), |at_once| at_once as usize),
        instructions: args.count_instructions,
    };
    if args.build { plan.build() } else { plan.run() }
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
