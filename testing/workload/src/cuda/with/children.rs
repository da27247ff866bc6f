//! Further processes that take the same. A driver does not survive a fork, so they are started anew.

use std::io::{self, BufRead, BufReader, Lines};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

/// One that holds what it has taken, until a signal stops it.
pub struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

/// Starts one with our command line but for these options, and returns when it holds everything.
pub fn start() -> Result<Running> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    command.args(arguments(std::env::args().skip(1)));
    command.args(["--jsonl", "--hold", "24h"]).stdin(Stdio::null()).stdout(Stdio::piped());
    // SAFETY: prctl is a plain system call; with it, no child outlives us.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    let mut child = command.spawn().context("cannot start a child")?;
    let stdout = child.stdout.take().context("a child without stdout")?;
    let mut running = Running { child, lines: BufReader::new(stdout).lines() };
    loop {
        let Some(line) = running.lines.next() else {
            let status = running.child.wait().context("waiting for a child")?;
            bail!("child {} ended before it held its memory ({status})", running.child.id());
        };
        let line: Value = serde_json::from_str(&line.context("reading from a child")?)?;
        if line["phase"] == "hold" {
            return Ok(running);
        }
    }
}

/// Ours, without what makes children or is set for them.
fn arguments(ours: impl Iterator<Item = String>) -> Vec<String> {
    const WITH_VALUE: [&str; 5] = ["--children", "--hold", "--output", "--wait-go", "--hold-start"];
    let mut kept = Vec::new();
    let mut ours = ours;
    while let Some(argument) = ours.next() {
        let name = argument.split('=').next().unwrap_or_default();
        if WITH_VALUE.contains(&name) {
            if !argument.contains('=') {
                ours.next();
            }
        } else if name != "--jsonl" {
            kept.push(argument);
        }
    }
    kept
}

impl Running {
    /// Tells it to stop, waits, and returns what it had taken.
    pub fn stop(mut self) -> Result<Value> {
        let pid = self.child.id();
        let number = libc::pid_t::try_from(pid).context("number of a process")?;
        // SAFETY: our child, not waited for yet, so the number is still its.
        unsafe { libc::kill(number, libc::SIGTERM) };
        let mut last = None;
        for line in self.lines.by_ref() {
            last = Some(line.with_context(|| format!("reading from child {pid}"))?);
        }
        let status = self.child.wait().with_context(|| format!("waiting for child {pid}"))?;
        // A terminal's Ctrl-C comes to it as well, and earlier.
        let stopped = [libc::SIGTERM, libc::SIGINT].map(|signal| Some(128 + signal));
        ensure!(stopped.contains(&status.code()), "child {pid} ended otherwise: {status}");
        let report: Value = serde_json::from_str(&last.unwrap_or_default())?;
        Ok(json!({ "pid": pid, "sources": report["sources"], "calls": report["cuda"]["calls"] }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_have_no_children() {
        let ours = "cuda-alloc --device 1M --children 2 --jsonl --hold=5s --output x --driver simulated";
        let kept = arguments(ours.split(' ').map(str::to_owned));
        assert_eq!(kept.join(" "), "cuda-alloc --device 1M --driver simulated");
    }
}
