//! `cuda-alloc`: takes memory of each requested kind in turn, holds all of it, and gives it back.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use cudarc::driver::sys::CUresult;
use serde_json::{Value, json};

use super::children::{self, Running};
use super::driver::{Buffer, Driver};
use super::memory::{Env, Piece, STEPS, Step};
use super::phases::Phases;
use crate::cli::cuda::{CudaAllocArgs, Free};
use crate::output::SourceRecord;
use crate::sys;

pub fn run(args: &CudaAllocArgs) -> Result<ExitCode> {
    let driver = Driver::load(&args.driver)?;
    let mut course = Phases::new(&args.output, &driver)?;
    course.start(args.holds.hold_start)?;
    let context = course.phase("context", Duration::ZERO, |course| {
        let context = driver.context()?;
        course.context_begins();
        Ok(context)
    })?;

    let env = Env { machine: course.machine, driver: &driver, args };
    let mut pieces = Vec::new();
    for step in STEPS.iter().filter(|step| !(step.amounts)(args).is_empty()) {
        if sys::stop_signal().is_some() {
            break;
        }
        pieces.extend(course.phase(step.phase, args.holds.hold_each, |course| take(course, step, &env))?);
    }
    let mut children = Vec::new();
    if args.children > 0 {
        children = course.phase("children", args.holds.hold_each, |_| {
            (0..args.children).map(|_| children::start()).collect::<Result<Vec<_>>>()
        })?;
    }
    let mut refused = Value::Null;
    if args.oom {
        refused = course.phase("oom", args.holds.hold_each, |_| request_too_much(&driver))?;
    }
    course.hold(args.holds.hold)?;
    // The last to come go first, and at the end of all that is allocated.
    let children = children.into_iter().rev().map(Running::stop).collect::<Result<Vec<_>>>()?;

    match args.free {
        Free::All => {
            course.phase("release", args.holds.hold_release, |_| {
                pieces.into_iter().rev().try_for_each(|piece| (piece.free)())
            })?;
            context.end()?;
        }
        Free::Context => {
            // What the pieces would free goes with the context; what they own of the host stays until the exit.
            std::mem::forget(pieces);
            course.context_ends();
            course.phase("release", args.holds.hold_release, |_| context.end())?;
        }
        Free::None => std::mem::forget(pieces),
    }
    course.report(json!({ "out_of_memory": refused, "children": children }))
}

fn take(course: &mut Phases<'_>, step: &Step, env: &Env<'_>) -> Result<Vec<Piece>> {
    let mut all = Vec::new();
    for amount in (step.amounts)(env.args) {
        let pieces = (0..amount.count)
            .map(|index| {
                (step.take)(env, amount.each)
                    .with_context(|| format!("allocation {} of {}", index + 1, amount.count))
            })
            .collect::<Result<Vec<_>>>()?;
        let bytes = pieces.iter().map(|piece| piece.bytes).sum();
        let detail = json!({
            "asked_each": amount.each,
            "count": amount.count,
            "addresses": pieces.iter().take(16).map(|piece| piece.address).collect::<Vec<_>>(),
        });
        let mut source = SourceRecord::new((step.source)(env.driver), step.phase, bytes, detail);
        source.address = pieces.first().map(|piece| piece.address);
        course.sources.push(source);
        all.extend(pieces);
    }
    Ok(all)
}

/// Half as much again as the device has in all.
fn request_too_much(driver: &Driver) -> Result<Value> {
    let bytes = driver.info.total_bytes / 2 * 3;
    match Buffer::new(bytes) {
        Err(error) if error.result == CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
            Ok(json!({ "asked": bytes, "call": error.call, "result": error.name() }))
        }
        Err(error) => Err(error).context("--oom: another error than CUDA_ERROR_OUT_OF_MEMORY"),
        Ok(buffer) => {
            buffer.free()?;
            bail!("--oom: the driver gave {bytes} bytes, more than the device has")
        }
    }
}
