//! Where a command writes what it makes: a file, or standard output.

use std::io::{self, IsTerminal};
use std::path::Path;

use anyhow::Context;

use super::error::Exit;
use super::output;
use crate::invoker;
use crate::recording::write::{self, WriteError, WriteOptions, refuse_existing};
use crate::recording::{self, Recording};
use crate::render::escape;

/// Refuses what cannot be written before anything is read or made.
#[derive(Debug, Clone, Copy)]
pub struct Destination<'a> {
    /// Absent for standard output.
    file: Option<&'a Path>,
    options: WriteOptions,
}

impl<'a> Destination<'a> {
    /// `-`, and no name, is standard output.
    pub fn new(name: Option<&'a Path>, force: bool) -> Result<Self, WriteError> {
        let file = name.filter(|name| *name != Path::new("-"));
        // Under sudo what is written belongs to the user.
        let options = WriteOptions { force, owner: invoker::owner() };
        if let Some(file) = file {
            refuse_existing(file, options)?;
        }
        Ok(Self { file, options })
    }

    pub fn is_terminal(&self) -> bool {
        self.file.is_none() && io::stdout().is_terminal()
    }

    /// Writes, and says where.
    pub fn write(&self, bytes: &[u8], next: &str) -> anyhow::Result<Exit> {
        let Some(file) = self.file else { return output::print(bytes) };
        write::write_bytes(bytes, file, self.options)?;
        self.tell("wrote", next);
        Ok(Exit::Fine)
    }

    pub fn write_recording(&self, recording: &Recording) -> anyhow::Result<()> {
        match self.file {
            Some(file) => recording::write(recording, file, self.options)?,
            None => {
                let stdout = io::BufWriter::new(io::stdout().lock());
                write::write_text(recording, stdout).context("cannot write to standard output")?;
            }
        }
        Ok(())
    }

    /// Says what was written and what can be done with it; nothing of standard output. `FILE` in `next` stands for the
    /// name.
    pub fn tell(&self, done: &str, next: &str) {
        let Some(file) = self.file else { return };
        let name = file.display().to_string();
        let next = next.replace("FILE", &output::quoted(&name));
        let separator = if next.is_empty() { "" } else { "; " };
        eprintln!("spark-trace: {}", escape::line(&format!("{done} {name}{separator}{next}")));
    }
}
