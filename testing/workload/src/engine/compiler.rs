//! A compiler that the engine runs: a child whose heap is alive while the engine reads what is free.

use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

pub struct Running(Child);

/// Starts one, and returns when all of its heap is there.
pub fn start(heap: u64) -> Result<Running> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    let heap = heap.to_string();
    command.args(["alloc", "--anon", &heap, "--hold", "24h", "--jsonl"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    // SAFETY: prctl is a plain system call; with it, no child outlives us.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    let mut child = command.spawn().context("cannot start a compiler")?;
    let lines = BufReader::new(child.stdout.take().context("a compiler without stdout")?).lines();
    for line in lines {
        let line: Value = serde_json::from_str(&line?)?;
        if line["phase"] == "hold" {
            return Ok(Running(child));
        }
    }
    bail!("the compiler ended before it had its heap: {}", child.wait()?);
}

impl Running {
    /// Ends it, and gives its number.
    pub fn stop(mut self) -> Result<u32> {
        let pid = self.0.id();
        self.0.kill().context("cannot end the compiler")?;
        self.0.wait().context("waiting for the compiler")?;
        Ok(pid)
    }
}
