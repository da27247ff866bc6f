//! Workloads whose memory is known exactly: what spark-trace should find, said by who took it.

mod alloc;
mod child;
mod cli;
mod cuda;
mod driver;
#[cfg(all(feature = "cuda", not(target_feature = "crt-static")))]
mod engine;
mod files;
#[cfg(all(feature = "cuda", not(target_feature = "crt-static")))]
mod llm;
mod output;
mod rounds;
mod size;
mod storm;
mod sys;

use std::fs::File;
use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use serde_json::json;

use cli::{Cli, Command, FileArgs};
use sys::Machine;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Alloc(args) => {
            refuse_unless(args.check());
            alloc::run(&args)
        }
        Command::DriverAlloc(args) => {
            refuse_unless(args.course.check());
            driver::run(&args)
        }
        Command::CudaAlloc(args) => cuda::alloc(&args),
        Command::CudaGpus(args) => cuda::gpus(&args),
        Command::Matmul(args) => cuda::matmul(&args),
        Command::Llm(args) => cuda::llm(&args),
        Command::Engine(args) => cuda::engine(&args),
        Command::Storm(args) => storm::run(&args.storm).map(|()| ExitCode::SUCCESS),
        Command::File(args) => file(&args).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        // Nobody is left to hear of it when stderr has gone, too (`eprintln!` would panic).
        let _ = writeln!(std::io::stderr(), "spark-trace-workload: {error:#}");
        ExitCode::FAILURE
    })
}

/// Leaves with status 2 where options contradict each other, as for any command line that clap refuses.
fn refuse_unless(checked: Result<(), String>) {
    if let Err(message) = checked {
        Cli::command().error(ErrorKind::ArgumentConflict, message).exit();
    }
}

/// Clap sees to it that there is exactly one of the three.
fn file(args: &FileArgs) -> Result<()> {
    if let (Some(path), Some(size)) = (&args.create, args.size) {
        return files::create(path, size);
    }
    if let Some(path) = &args.drop {
        return files::drop_path(path);
    }
    let Some(path) = &args.resident else { return Ok(()) };
    let machine = Machine::read()?;
    let what = || path.display().to_string();
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let size = file.metadata().with_context(what)?.len();
    let residency = files::residency(&file, machine).with_context(what)?;
    let mut line = json!(residency);
    line["path"] = json!(what());
    line["size"] = json!(size);
    line["page_size"] = json!(machine.page);
    output::print_line(&line)
}
