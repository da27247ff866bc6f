//! `storm`: one memory operation over and over, for measuring what tracing it costs.

use std::fs::File;
use std::hint::black_box;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::{Value, json};

use crate::alloc::file::read_file;
use crate::alloc::map::Mapping;
use crate::child;
use crate::cli::{Storm, SystemCall};
use crate::files;
use crate::output::{SCHEMA_VERSION, print_line};
use crate::rounds::{Round, batch_sizes, time, until_stopped};
use crate::sys::{self, Machine};

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Summary {
    median_ns: u64,
    min_ns: u64,
}

#[derive(Debug, Serialize)]
struct StormReport {
    schema: &'static str,
    schema_version: u32,
    storm: &'static str,
    pid: u32,
    page_size: usize,
    options: Value,
    /// What one operation is.
    operation: &'static str,
    operations: u64,
    /// The driver; of CUDA storms.
    #[serde(skip_serializing_if = "Option::is_none")]
    cuda: Option<Value>,
    wall: Summary,
    cpu: Summary,
    rounds: Vec<Round>,
}

pub fn run(storm: &Storm) -> Result<()> {
    let machine = Machine::read()?;
    // A storm that is stopped reports the rounds it has done.
    sys::install_stop_handler()?;
    let mut cuda = None;
    let (name, operation, options, rounds) = match storm {
        Storm::Fault { size, rounds } => {
            let len = machine.pages_up(*size)?;
            let list = until_stopped(0..*rounds)
                .map(|_| time(|| fault_round(len, machine.page)))
                .collect::<Result<Vec<_>>>()?;
            ("fault", "page touched", json!({ "size": size, "rounds": rounds }), list)
        }
        Storm::Read { file, rounds } => {
            let list =
                until_stopped(0..*rounds).map(|_| read_round(file, machine)).collect::<Result<Vec<_>>>()?;
            ("read", "page read", json!({ "file": file.display().to_string(), "rounds": rounds }), list)
        }
        Storm::Mmap { size, rounds, touch, batches } => {
            let len = machine.pages_up(*size)?;
            let list = until_stopped(batch_sizes(*rounds, *batches))
                .map(|count| time(|| mmap_batch(len, count, touch.then_some(machine.page))))
                .collect::<Result<Vec<_>>>()?;
            let options = json!({ "size": size, "rounds": rounds, "touch": touch, "batches": batches });
            ("mmap", "mmap and munmap", options, list)
        }
        Storm::Pipe { size, rounds } => {
            let len = machine.pages_up(*size)?;
            let mut pipe = Pipe::new()?;
            let list = until_stopped(0..*rounds)
                .map(|_| time(|| pipe.round(len, machine.page)))
                .collect::<Result<Vec<_>>>()?;
            ("pipe", "page written and read", json!({ "size": size, "rounds": rounds }), list)
        }
        Storm::Fork { rounds } => {
            let list = until_stopped(0..*rounds).map(|_| time(fork_round)).collect::<Result<Vec<_>>>()?;
            ("fork", "fork, exit and wait", json!({ "rounds": rounds }), list)
        }
        Storm::Call { call, rounds, batches } => {
            let zero = File::open("/dev/zero").context("/dev/zero")?;
            let list = until_stopped(batch_sizes(*rounds, *batches))
                .map(|count| time(|| call_batch(*call, &zero, count)))
                .collect::<Result<Vec<_>>>()?;
            let name = match call {
                SystemCall::Getppid => "getppid",
                SystemCall::Read => "read of a byte",
            };
            ("call", name, json!({ "rounds": rounds, "batches": batches }), list)
        }
        Storm::Cuda(storm) => {
            let (name, operation, options, list, driver) = crate::cuda::storm(storm, machine)?;
            cuda = Some(driver);
            (name, operation, options, list)
        }
    };
    print_line(&StormReport {
        schema: "spark-trace/workload-storm",
        schema_version: SCHEMA_VERSION,
        storm: name,
        pid: std::process::id(),
        page_size: machine.page,
        options,
        operation,
        operations: rounds.iter().map(|round| round.operations).sum(),
        cuda,
        wall: summary(rounds.iter().map(|round| round.wall_ns)),
        cpu: summary(rounds.iter().map(|round| round.cpu_ns)),
        rounds,
    })
}

fn summary(values: impl Iterator<Item = u64>) -> Summary {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    let (Some(&min_ns), Some(&high)) = (values.first(), values.get(values.len() / 2)) else {
        return Summary { median_ns: 0, min_ns: 0 };
    };
    let low = if values.len().is_multiple_of(2) { values[values.len() / 2 - 1] } else { high };
    Summary { median_ns: low + (high - low) / 2, min_ns }
}

#[inline(never)]
fn fault_round(len: usize, page: usize) -> Result<u64> {
    let mut mapping = Mapping::base_pages(len)?;
    storm_touch(&mut mapping, page);
    drop(mapping);
    Ok((len / page) as u64)
}

#[inline(never)]
fn storm_touch(mapping: &mut Mapping, page: usize) {
    mapping.write_each::<0x7374_6f72>(page);
    black_box(mapping);
}

fn read_round(path: &Path, machine: Machine) -> Result<Round> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let len = file.metadata().with_context(|| path.display().to_string())?.len();
    if files::is_in_memory(&file).with_context(|| path.display().to_string())? {
        bail!("{} is in a tmpfs, where no read is cold: name a file on a disk", path.display());
    }
    files::drop_cache(&file)
        .with_context(|| format!("cannot drop {} from the page cache", path.display()))?;
    time(|| {
        read_file(&mut file, len).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(len.div_ceil(machine.page as u64))
    })
}

#[inline(never)]
fn mmap_batch(len: usize, count: u32, touch: Option<usize>) -> Result<u64> {
    for _ in 0..count {
        let mut mapping = Mapping::anonymous(len)?;
        if let Some(page) = touch {
            storm_touch(&mut mapping, page);
        }
        black_box(&mapping);
    }
    Ok(u64::from(count))
}

#[inline(never)]
fn call_batch(call: SystemCall, zero: &File, count: u32) -> Result<u64> {
    let mut byte = 0u8;
    for _ in 0..count {
        // SAFETY: a plain number, or a descriptor of ours and a byte that lives.
        let result = unsafe {
            match call {
                SystemCall::Getppid => libc::syscall(libc::SYS_getppid),
                SystemCall::Read => libc::syscall(libc::SYS_read, zero.as_raw_fd(), &raw mut byte, 1usize),
            }
        };
        if result < 0 {
            return Err(io::Error::last_os_error()).context("the system call");
        }
    }
    Ok(u64::from(count))
}

/// A pipe that holds as much as its buffer.
struct Pipe {
    from: PipeReader,
    to: PipeWriter,
    data: Vec<u8>,
}

impl Pipe {
    /// What a pipe may hold without privileges (fs/pipe.c pipe_max_size).
    const BYTES: i32 = 1 << 20;

    fn new() -> Result<Self> {
        let (from, to) = io::pipe().context("pipe")?;
        // SAFETY: a descriptor of ours, and a plain number.
        let given = unsafe { libc::fcntl(to.as_raw_fd(), libc::F_SETPIPE_SZ, Self::BYTES) };
        let given = usize::try_from(given).map_err(|_| io::Error::last_os_error());
        let given = given.context("cannot make a pipe of 1 MiB (/proc/sys/fs/pipe-max-size?)")?;
        Ok(Self { from, to, data: vec![0x70; given] })
    }

    #[inline(never)]
    fn round(&mut self, len: usize, page: usize) -> Result<u64> {
        let mut left = len;
        while left > 0 {
            let now = left.min(self.data.len());
            self.to.write_all(&self.data[..now]).context("cannot fill the pipe")?;
            self.from.read_exact(&mut self.data[..now]).context("cannot empty the pipe")?;
            left -= now;
        }
        Ok((len / page) as u64)
    }
}

#[inline(never)]
fn fork_round() -> Result<u64> {
    // SAFETY: this process has one thread; and the child does nothing but leave.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: leaves at once, flushing nothing that is the parent's.
        unsafe { libc::_exit(0) };
    }
    if pid < 0 {
        return Err(io::Error::last_os_error()).context("fork (ulimit -u? pids.max?)");
    }
    child::reap(pid)?;
    Ok(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(summary([3, 1, 2].into_iter()), Summary { median_ns: 2, min_ns: 1 });
        assert_eq!(summary([4, 1, 2, 3].into_iter()), Summary { median_ns: 2, min_ns: 1 });
        assert_eq!(summary([].into_iter()), Summary { median_ns: 0, min_ns: 0 });
    }
}
