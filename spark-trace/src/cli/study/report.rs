use crate::cli::error::Exit;
#[derive(Debug, clap::Args)]
pub struct Args {
    dir: std::path::PathBuf,
}
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let report = crate::study::analysis::report(&crate::study::load(&args.dir)?, Default::default());
    crate::cli::output::print(&crate::render::json::render(&report)?)
}
