//! QEMU: how it is called, and what the machine's console says.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::job::TEST_LIMIT;
use super::userland::Userland;
use crate::{arch::Arch, process, signals};

/// A machine that says nothing for so long hangs: it would have ended a test that takes too long itself.
const SILENCE: Duration = Duration::from_secs(TEST_LIMIT.as_secs() + 60);

/// QEMU for one architecture.
pub struct Qemu<'a> {
    pub userland: &'a Userland,
    pub arch: Arch,
}

/// One machine.
pub struct Machine<'a> {
    pub image: &'a Path,
    pub initramfs: &'a Path,
    pub disk: &'a Path,
    /// Taken as it is by the guest; absent for a shell.
    pub results: Option<&'a Path>,
    pub memory_mib: u32,
    /// Its CPU has all that QEMU knows. Without the rest an arm64 machine takes two thirds of the time.
    pub whole_cpu: bool,
    /// Its clock goes by instructions, one nanosecond each, and not by time: how many instructions
    /// something takes shows on a busy machine too. It has one CPU then.
    pub instructions: bool,
    /// NAME=VALUE: what the guest's first program has in its environment.
    pub environment: &'a str,
}

impl Qemu<'_> {
    fn command(&self, machine: &Machine) -> Command {
        let mut command = self.userland.qemu(self.arch);
        let (kind, console): (&[&str], _) = match (self.arch, machine.whole_cpu) {
            (Arch::Amd64, _) => (&["-cpu", "max"], "ttyS0"),
            // The real pointer authentication is slow to emulate.
            (Arch::Arm64, true) => (&["-M", "virt", "-cpu", "max,pauth-impdef=on"], "ttyAMA0"),
            (Arch::Arm64, false) => (&["-M", "virt", "-cpu", "max,pauth=off,sve=off,sme=off"], "ttyAMA0"),
        };
        let clock: &[&str] = match machine.instructions {
            true => &["-smp", "1", "-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"],
            false => &["-smp", "2", "-accel", "tcg,thread=multi"],
        };
        command.args(kind).args(clock);
        command.arg("-m").arg(machine.memory_mib.to_string());
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        command.arg("-kernel").arg(machine.image).arg("-initrd").arg(machine.initramfs);
        // With AppArmor, Docker wants a compiler for profiles.
        command
            .arg("-append")
            .arg(format!("console={console} quiet panic=-1 apparmor=0 {}", machine.environment));
        let disk = |file: &Path, name: &str, options: &str| {
            let drive = format!("file={},if=none,id={name},format=raw,cache=unsafe{options}", file.display());
            ["-drive".to_owned(), drive, "-device".to_owned(), format!("nvme,drive={name},serial={name}")]
        };
        command.args(disk(machine.disk, "disk", ",snapshot=on"));
        if let Some(results) = machine.results {
            command.args(disk(results, "results", ""));
        }
        command
    }

    /// Runs a machine to its end and passes on each line of its console.
    pub fn run(&self, machine: &Machine, mut line: impl FnMut(&str)) -> Result<()> {
        let mut command = self.command(machine);
        command.args(["-serial", "stdio"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (mut child, forwarding) = signals::spawn(&mut command).context("cannot run QEMU")?;
        let stdout = child.stdout.take().context("no console")?;
        let stderr = child.stderr.take().context("no messages")?;
        let messages = std::thread::spawn(move || {
            let mut text = String::new();
            // Of a program that is killed, what has come is good enough.
            let _ = BufReader::new(stderr).read_to_string(&mut text);
            text
        });
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stdout);
            let mut bytes = Vec::new();
            while reader.read_until(b'\n', &mut bytes).is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
                if sender.send(text).is_err() {
                    break;
                }
                bytes.clear();
            }
        });
        // Its time is not ours where it counts instructions.
        let silence = if machine.instructions { 5 * SILENCE } else { SILENCE };
        let silent = loop {
            match lines.recv_timeout(silence) {
                Ok(text) => line(&text),
                Err(RecvTimeoutError::Disconnected) => break false,
                Err(RecvTimeoutError::Timeout) => {
                    // It may have ended meanwhile.
                    let _ = child.kill();
                    break true;
                }
            }
        };
        let status = child.wait().context("cannot wait for QEMU")?;
        drop(forwarding);
        signals::check()?;
        let messages = messages.join().unwrap_or_default();
        if silent {
            bail!("the machine said nothing for {} s and was stopped", silence.as_secs());
        }
        ensure!(status.success(), "QEMU failed ({status}): {}", messages.trim());
        Ok(())
    }

    /// Runs a machine with its console on ours.
    pub fn shell(&self, machine: &Machine) -> Result<()> {
        let mut command = self.command(machine);
        command.args(["-serial", "mon:stdio"]);
        process::run(&mut command, "a machine with a shell")
    }
}

/// An empty disk for results.
pub fn empty_disk(path: &Path, bytes: u64) -> Result<()> {
    let _ = fs::remove_file(path);
    fs::File::create(path)
        .and_then(|file| file.set_len(bytes))
        .with_context(|| format!("cannot create {}", path.display()))
}
