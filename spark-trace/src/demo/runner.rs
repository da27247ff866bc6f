//! Running the demo's commands one after the other; Ctrl-C ends them, and then us.

use std::{io::IsTerminal, process::Stdio};

use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
    signal::unix::{Signal, SignalKind, signal},
};

use super::{DemoError, Event};

pub struct Runner {
    interrupts: Signal,
    terminations: Signal,
}

impl Runner {
    /// From here on signals no longer end this process: what was made is taken away first.
    pub fn new() -> Result<Self, DemoError> {
        Ok(Self {
            interrupts: signal(SignalKind::interrupt()).map_err(DemoError::Runtime)?,
            terminations: signal(SignalKind::terminate()).map_err(DemoError::Runtime)?,
        })
    }

    /// Shows and runs a command whose output nobody needs; what goes wrong it says on standard error.
    pub async fn run(&mut self, argv: &[String], report: &mut dyn FnMut(Event<'_>)) -> Result<(), DemoError> {
        report(Event::Command { argv, redirection: "> /dev/null" });
        self.finish(argv, None).await
    }

    /// The same with `input` on standard input, which the user sees described as `origin`.
    pub async fn feed(
        &mut self,
        argv: &[String],
        input: &[u8],
        origin: &str,
        report: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), DemoError> {
        report(Event::Command { argv, redirection: origin });
        self.finish(argv, Some(input)).await
    }

    async fn finish(&mut self, argv: &[String], input: Option<&[u8]>) -> Result<(), DemoError> {
        let (program, args) = argv.split_first().ok_or(DemoError::Interrupted)?;
        let start_error = |source| DemoError::Start { program: program.clone(), source };
        let mut child = Command::new(program)
            .args(args)
            .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::null())
            .spawn()
            .map_err(start_error)?;
        if let (Some(input), Some(mut pipe)) = (input, child.stdin.take()) {
            // A reader that gives up early says why in its status.
            let _ = pipe.write_all(input).await;
        }
        let mut interrupted = false;
        let status = loop {
            tokio::select! {
                status = child.wait() => break status.map_err(start_error)?,
                _ = self.interrupts.recv() => {
                    interrupted = true;
                    // A terminal has sent it to the command as well.
                    if !std::io::stdin().is_terminal() {
                        pass_on(&child, libc::SIGINT);
                    }
                }
                _ = self.terminations.recv() => {
                    interrupted = true;
                    pass_on(&child, libc::SIGTERM);
                }
            }
        };
        if interrupted {
            return Err(DemoError::Interrupted);
        }
        if !status.success() {
            return Err(DemoError::Failed { program: argv.join(" "), status });
        }
        Ok(())
    }
}

fn pass_on(child: &Child, signal: i32) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // SAFETY: no pointers; the child has not been waited for, so the pid is still its own.
        unsafe { libc::kill(pid, signal) };
    }
}
