//! `cargo xtask gpu`: what needs a GPU, taken to a machine that has one but no Rust, no network and no checkout.

mod folder;
mod machine;
mod pack;
mod recordings;
mod run;

use anyhow::Result;

/// Packs what needs a GPU for a machine that has one, and runs it there
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    Pack(pack::Args),
    Run(run::Args),
}

pub fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Pack(args) => pack::run(args),
        What::Run(args) => run::run(args),
    }
}
