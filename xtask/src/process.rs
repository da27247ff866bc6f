//! Child processes: argument lists, never shell strings; errors say what was run and what for.

use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::signals;

/// The cargo that runs this task, so that all tasks use one toolchain.
pub fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The compiler that this cargo uses.
pub fn rustc() -> Command {
    Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

/// Shows the command line, runs it with our own input and output, and fails if it fails.
pub fn run(command: &mut Command, purpose: &str) -> Result<()> {
    let line = command_line(command);
    eprintln!("$ {line}");
    let (mut child, forwarding) =
        signals::spawn(command).with_context(|| format!("{purpose}: cannot run {line}"))?;
    let status = child.wait().with_context(|| format!("{purpose}: cannot wait for {line}"))?;
    drop(forwarding);
    signals::check()?;
    if !status.success() {
        bail!("{purpose} failed ({status}): {line}");
    }
    Ok(())
}

/// Shows the command line and runs it, with `read` on its standard output; fails if either fails.
pub fn run_read(
    command: &mut Command,
    purpose: &str,
    read: impl FnOnce(Output<'_>) -> std::io::Result<()>,
) -> Result<()> {
    let line = command_line(command);
    eprintln!("$ {line}");
    let (mut child, forwarding) = signals::spawn(command.stdout(Stdio::piped()))
        .with_context(|| format!("{purpose}: cannot run {line}"))?;
    let pipe = child.stdout.take().context("a child without its pipe")?;
    let all_read = read(Output { pipe, child: &mut child });
    let status = child.wait().with_context(|| format!("{purpose}: cannot wait for {line}"))?;
    drop(forwarding);
    signals::check()?;
    all_read.with_context(|| format!("{purpose}: cannot read what it prints"))?;
    if !status.success() {
        bail!("{purpose} failed ({status}): {line}");
    }
    Ok(())
}

/// What a child prints until it has ended. What it leaves running may keep the pipe open for longer.
pub struct Output<'a> {
    pipe: ChildStdout,
    child: &'a mut Child,
}

impl Read for Output<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut ended = false;
        loop {
            let mut pipe = libc::pollfd { fd: self.pipe.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: poll gets one initialised structure, and its descriptor is ours.
            if unsafe { libc::poll(&raw mut pipe, 1, 100) } > 0 {
                return self.pipe.read(buffer);
            }
            // What it wrote at its end is read in one more look.
            if ended {
                return Ok(0);
            }
            ended = self.child.try_wait()?.is_some();
        }
    }
}

/// Shows the command line and runs it; returns what it prints, while its stderr is shown.
pub fn run_for_output(command: &mut Command, purpose: &str) -> Result<String> {
    eprintln!("$ {}", command_line(command));
    collect(command.stderr(Stdio::inherit()), purpose)
}

/// Runs the command without showing it and returns what it prints; its stderr goes into the error.
pub fn output(command: &mut Command, purpose: &str) -> Result<String> {
    collect(command.stderr(Stdio::piped()), purpose)
}

fn collect(command: &mut Command, purpose: &str) -> Result<String> {
    let line = command_line(command);
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
    let (child, forwarding) =
        signals::spawn(command).with_context(|| format!("{purpose}: cannot run {line}"))?;
    let output = child.wait_with_output().with_context(|| format!("{purpose}: cannot wait for {line}"))?;
    drop(forwarding);
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{purpose} failed ({}): {line}\n{}", output.status, stderr.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{purpose}: {line} printed no UTF-8"))
}

/// Whether the command can be run and succeeds; says nothing.
pub fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// For people to read, with what we add to the environment; not meant to be parsed.
pub fn command_line(command: &Command) -> String {
    // What is unset or emptied is noise here.
    let set = command.get_envs().filter_map(|(name, value)| Some((name, value.filter(|v| !v.is_empty())?)));
    let assignments = set.map(|(name, value)| format!("{}={}", name.display(), quoted(value)));
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(quoted);
    assignments.chain(words).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &OsStr) -> String {
    // Flags in CARGO_ENCODED_RUSTFLAGS are separated by it.
    let word = word.to_string_lossy().replace('\x1f', " ");
    if word.is_empty() || word.contains([' ', '\'', '"', '$']) { format!("{word:?}") } else { word }
}

/// Whether we are root: the kernel side, cgroups and dockerd all need it.
pub fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_name_purpose_status_and_command() {
        let error = run(Command::new("false").arg("two words"), "trying").unwrap_err().to_string();
        assert!(error.starts_with("trying failed (exit status: 1)"), "{error}");
        assert!(error.contains("false \"two words\""), "{error}");
        let error = output(&mut Command::new("/does/not/exist"), "trying").unwrap_err().to_string();
        assert_eq!(error, "trying: cannot run /does/not/exist");
    }

    #[test]
    fn output_ends_with_the_child_though_another_holds_the_pipe() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & echo $!; exit 3"]);
        let mut printed = String::new();
        let error =
            run_read(&mut command, "trying", |mut output| output.read_to_string(&mut printed).map(drop));
        assert!(error.unwrap_err().to_string().starts_with("trying failed (exit status: 3)"));
        let left: i32 = printed.trim().parse().unwrap();
        // SAFETY: kill takes plain numbers; the process is the one that the shell left.
        assert_eq!(unsafe { libc::kill(left, libc::SIGKILL) }, 0, "it had ended already");
    }

    #[test]
    fn command_lines_show_what_is_set() {
        let mut command = Command::new("cargo");
        command.arg("build").env("RUSTFLAGS", "-C x").env("RUSTC_WRAPPER", "").env_remove("RUSTC");
        assert_eq!(command_line(&command), "RUSTFLAGS=\"-C x\" cargo build");
    }
}
