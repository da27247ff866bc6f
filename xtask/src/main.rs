//! Development tasks. One file per subcommand: its arguments and its `run`.
//!
//! What a user of spark-trace needs is in spark-trace itself; what someone who builds, tests or
//! shows it from a checkout needs is here.

mod ahead;
mod arch;
mod bench;
mod bench_reading;
mod bench_top;
mod build;
mod cgroups;
mod demo;
mod dist;
mod docker;
mod docs;
mod failures;
mod fuzz;
mod gpu;
mod lint;
mod process;
mod setup;
mod signals;
mod suites;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Development tasks of spark-trace
#[derive(Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    Setup(setup::Args),
    Build(build::Args),
    Test(test::Args),
    Demo(demo::Args),
    Docs(docs::Args),
    Bench(bench::Args),
    BenchReading(bench_reading::Args),
    BenchTop(bench_top::Args),
    Fuzz(fuzz::Args),
    Gpu(gpu::Args),
    Lint(lint::Args),
    Dist(dist::Args),
    Vm(vm::Args),
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    signals::forward_to_children()?;
    match task {
        Task::Setup(args) => setup::run(&args),
        Task::Build(args) => build::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Demo(args) => demo::run(&args),
        Task::Docs(args) => docs::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::BenchReading(args) => bench_reading::run(&args),
        Task::BenchTop(args) => bench_top::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Gpu(args) => gpu::run(&args),
        Task::Lint(args) => lint::run(&args),
        Task::Dist(args) => dist::run(&args),
        Task::Vm(args) => vm::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
