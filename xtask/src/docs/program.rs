//! What spark-trace itself prints: its schema and its help.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result};

use crate::build::{Build, Profile};
use crate::process;

/// One for all documents.
static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Takes this one, in place of building it.
pub fn take(program: &Path) -> Result<()> {
    let program = program.canonicalize().with_context(|| format!("no program {}", program.display()))?;
    PROGRAM.get_or_init(|| program);
    Ok(())
}

/// What the program prints with these arguments, at the same width on every machine.
pub fn output(arguments: &[&str]) -> Result<String> {
    let program = match PROGRAM.get() {
        Some(program) => program,
        None => {
            let program = Build { arch: None, profile: Profile::Debug }.spark_trace()?;
            PROGRAM.get_or_init(|| program)
        }
    };
    let mut command = Command::new(program);
    // clap takes the width of a terminal, of which there is none here, then COLUMNS; the other one forces colours.
    command.args(arguments).env_remove("COLUMNS").env_remove("CLICOLOR_FORCE");
    process::output(&mut command, "printing what a document is made of")
}
