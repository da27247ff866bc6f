//! The storms: what is made slower by tracing, if anything is.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::cuda::Cuda;

/// Which clock judges: time of the thread, or of the wall where waiting is part of the matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    Cpu,
    Wall,
}

/// One storm.
#[derive(Debug)]
pub struct Storm {
    pub name: &'static str,
    pub what: &'static str,
    args: &'static [&'static str],
    /// Bytes of the file it reads, if it reads one.
    file: Option<&'static str>,
    /// Run by the workload that can load a CUDA driver.
    pub cuda: bool,
    pub clock: Clock,
    /// Long enough for several rounds.
    pub window: Duration,
    /// Also measured while another process, or the whole machine, is recorded.
    pub of_bystanders: bool,
    /// Highest ratio that is acceptable in the default profile; none where the figure only informs.
    pub bound: Option<f64>,
}

pub const STORMS: &[Storm] = &[
    Storm {
        name: "fault",
        what: "touch 1 GiB by 4 KiB pages, unmap",
        // Smaller rounds of the same: a window must hold several.
        args: &["fault", "--size", "1G", "--rounds", "1000000"],
        file: None,
        cuda: false,
        clock: Clock::Cpu,
        window: Duration::from_millis(3000),
        of_bystanders: false,
        bound: Some(1.05),
    },
    Storm {
        name: "read",
        what: "read a file of 1 GiB cold",
        args: &["read", "--rounds", "1000000"],
        file: Some("1G"),
        cuda: false,
        clock: Clock::Wall,
        window: Duration::from_millis(4000),
        of_bystanders: false,
        bound: Some(1.05),
    },
    Storm {
        name: "mmap",
        what: "mmap and munmap of 64 KiB",
        args: &["mmap", "--size", "64K", "--rounds", "2000000000", "--batches", "1000000"],
        file: None,
        cuda: false,
        clock: Clock::Cpu,
        window: Duration::from_millis(1500),
        of_bystanders: false,
        bound: Some(1.15),
    },
    Storm {
        name: "mmap-touch",
        what: "mmap of 64 KiB, touch, munmap",
        args: &["mmap", "--size", "64K", "--rounds", "2000000000", "--batches", "1000000", "--touch"],
        file: None,
        cuda: false,
        clock: Clock::Cpu,
        window: Duration::from_millis(1500),
        of_bystanders: false,
        bound: None,
    },
    Storm {
        name: "pipe",
        what: "64 MiB through a pipe: a page of the kernel's for each page",
        args: &["pipe", "--size", "64M", "--rounds", "1000000"],
        file: None,
        cuda: false,
        clock: Clock::Cpu,
        window: Duration::from_millis(1500),
        of_bystanders: false,
        bound: None,
    },
    Storm {
        name: "fork",
        what: "fork, exit, wait",
        args: &["fork", "--rounds", "1000000000"],
        file: None,
        cuda: false,
        clock: Clock::Wall,
        window: Duration::from_millis(1500),
        of_bystanders: false,
        bound: None,
    },
    Storm {
        name: "getppid",
        what: "the cheapest system call",
        args: &["call", "--call", "getppid", "--rounds", "4000000000", "--batches", "40000"],
        file: None,
        cuda: false,
        clock: Clock::Cpu,
        window: Duration::from_millis(800),
        of_bystanders: true,
        bound: None,
    },
    Storm {
        name: "read-byte",
        what: "read of one byte of /dev/zero",
        args: &["call", "--call", "read", "--rounds", "4000000000", "--batches", "40000"],
        file: None,
        cuda: false,
        clock: Clock::Cpu,
        window: Duration::from_millis(800),
        of_bystanders: true,
        bound: None,
    },
    Storm {
        name: "cuda-alloc",
        what: "cuMemAlloc and cuMemFree of 1 MiB",
        // Batches of 500: some 25 ms each.
        args: &["cuda-alloc", "--size", "1M", "--rounds", "2000000000", "--batches", "4000000"],
        file: None,
        cuda: true,
        clock: Clock::Wall,
        window: Duration::from_millis(800),
        of_bystanders: false,
        bound: Some(1.15),
    },
    Storm {
        name: "cuda-managed",
        what: "512 MiB of managed memory, touched on the CPU",
        // Half a GiB takes some 0.2 s: a window must hold several.
        args: &["cuda-managed", "--size", "512M", "--rounds", "1000000"],
        file: None,
        cuda: true,
        clock: Clock::Wall,
        window: Duration::from_millis(1200),
        of_bystanders: false,
        bound: Some(1.05),
    },
];

impl Clock {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "thread CPU",
            Self::Wall => "wall",
        }
    }
}

/// One timed round.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    pub begin_ns: u64,
    pub end_ns: u64,
    /// Nanoseconds an operation took, by the storm's clock.
    pub per_operation: f64,
}

/// A storm under way.
pub struct Running {
    child: Child,
    storm: &'static Storm,
    /// Its file, removed with it.
    file: Option<PathBuf>,
}

impl Storm {
    pub fn start(&'static self, workload: &Path, cuda: Option<&Cuda>, scratch: &Path) -> Result<Running> {
        let mut command = Command::new(cuda.map_or(workload, |cuda| &cuda.workload));
        command.arg("storm").args(self.args);
        if let Some(cuda) = cuda {
            command.args(["--driver", &cuda.driver]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let file = self.file.map(|size| (scratch.join("storm-file"), size));
        if let Some((path, size)) = &file {
            let made = Command::new(workload)
                .args(["file", "--size", size, "--create"])
                .arg(path)
                .stdout(Stdio::null())
                .status()
                .context("cannot run the workload")?;
            ensure!(made.success(), "the workload could not create {}", path.display());
            command.arg("--file").arg(path);
        }
        let child = command.spawn().with_context(|| format!("cannot run {}", workload.display()))?;
        Ok(Running { child, storm: self, file: file.map(|(path, _)| path) })
    }
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops it and reads its rounds.
    pub fn finish(mut self) -> Result<Vec<Round>> {
        let pid = i32::try_from(self.child.id()).context("pid out of range")?;
        // SAFETY: no pointers involved; the child has not been waited for, so the pid is its own.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let mut text = String::new();
        if let Some(mut out) = self.child.stdout.take() {
            std::io::Read::read_to_string(&mut out, &mut text).context("cannot read the storm's report")?;
        }
        let status = self.child.wait().context("cannot wait for the storm")?;
        let report: Value = text
            .lines()
            .last()
            .and_then(|l| serde_json::from_str(l).ok())
            .with_context(|| format!("the storm ended with {status} and no report"))?;
        let rounds = report["rounds"].as_array().context("the report has no rounds")?;
        rounds.iter().map(|r| self.round(r).context("a round lacks a field")).collect()
    }

    fn round(&self, round: &Value) -> Option<Round> {
        let field = |name: &str| round[name].as_u64();
        let time = field(if self.storm.clock == Clock::Cpu { "cpu_ns" } else { "wall_ns" })?;
        let begin_ns = field("begin_ns")?;
        Some(Round {
            begin_ns,
            end_ns: begin_ns + field("wall_ns")?,
            per_operation: time as f64 / field("operations")?.max(1) as f64,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already where `finish` was reached.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(file) = &self.file {
            let _ = std::fs::remove_file(file);
        }
    }
}
