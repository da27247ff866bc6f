//! `cargo xtask bench`: what tracing costs, and how other tools compare.

use anyhow::{Result, bail};

use crate::setup;

/// Measures what tracing costs
#[derive(clap::Args)]
#[command(hide = true)]
pub struct Args {}

pub fn run(_args: &Args) -> Result<()> {
    setup::ensure(setup::Scope::Comparisons)?;
    bail!("no benchmark is defined yet: xtask/src/bench.rs is the place for it")
}
