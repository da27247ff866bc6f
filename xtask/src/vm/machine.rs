//! One machine: what it starts with, what its console says, what it leaves.

use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::Result;

use super::job::{Mode, Plan, Ran, locked};
use super::kernel;
use super::kernels::Kernel;
use super::outcome::Console;
use super::qemu::{self, Machine};
use super::side::Side;
use super::{module, report};
use crate::signals;

/// For what tests leave in /results.
const RESULTS_SIZE: u64 = 256 << 20;

/// Runs one machine to its end. `preparing`: what is downloaded and unpacked is the same for several of them.
pub fn run(
    plan: &Plan,
    kernel: &'static Kernel,
    side: &Side,
    preparing: &Mutex<()>,
    cache: &Path,
    work: &Path,
) -> Result<Option<Ran>> {
    let Side { qemu, base, image, of } = side;
    let prepared = locked(preparing);
    signals::check()?;
    let unpacked = kernel::unpack(kernel, cache)?;
    let initramfs = work.join(format!("{}.initramfs", kernel.name));
    let stand_in = match kernel.headers {
        true => module::build(kernel, &unpacked, qemu.userland, cache)?,
        false => Vec::new(),
    };
    base.initramfs(&unpacked, &stand_in, &initramfs)?;
    drop(prepared);
    let results = work.join(format!("{}.results", kernel.name));
    qemu::empty_disk(&results, RESULTS_SIZE)?;
    let machine = Machine {
        image: &unpacked.image,
        initramfs: &initramfs,
        disk: image,
        results: (!matches!(plan.mode, Mode::Shell)).then_some(&results),
        memory_mib: plan.memory_mib,
        whole_cpu: kernel.always,
        instructions: plan.instructions,
        environment: if kernel.always { "CONTAINERS=yes" } else { "" },
    };
    println!("== {}: {}", kernel.name, unpacked.package);
    // Whose line it is, where machines speak in turns.
    let whose = if plan.at_once > 1 && plan.kernels.len() > 1 {
        format!("{}   ", kernel.name)
    } else {
        String::new()
    };
    match plan.mode {
        Mode::Shell => return qemu.shell(&machine).map(|()| None),
        Mode::Command(_) => {
            qemu.run(&machine, |line| println!("{whose}{line}"))?;
            if let Some(output) = &plan.output {
                report::unpack(&results, &output.join(kernel.name))?;
            }
            return Ok(None);
        }
        Mode::Tests => {}
    }
    let start = Instant::now();
    let mut console = Console::new(kernel.name);
    let mut log = String::new();
    let ended = qemu.run(&machine, |line| {
        log.push_str(line);
        log.push('\n');
        let before = console.tries;
        if console.line(line) && !line.is_empty() && !is_noise(line) {
            println!("{whose}   {line}");
        }
        if let Some(test) = console.tests.last().filter(|_| console.tries > before) {
            println!("{}", report::line(kernel.name, test));
        }
    });
    signals::check()?;
    console.ended(ended.err().map(|error| format!("{error:#}")));
    let dir = work.join(kernel.name);
    let doctor = report::take(&results, &dir).unwrap_or_else(|error| {
        console.broken.push(format!("{error:#}"));
        serde_json::Value::Null
    });
    console.check_skips(&doctor);
    for broken in &console.broken {
        println!("{}: {broken}", kernel.name);
    }
    Ok(Some(Ran {
        kernel,
        of: of.clone(),
        package: unpacked.package,
        console,
        doctor,
        log,
        took: start.elapsed(),
    }))
}

/// What libtest says around each single test.
fn is_noise(line: &str) -> bool {
    let begins = ["running 1 test", "test result: ok", "successes:", "    "];
    begins.iter().any(|begin| line.starts_with(begin)) || (line.starts_with("test ") && line.ends_with("ok"))
}
