//! The answers, from the file that `SPARK_TRACE_SIMULATED_NVML` names. One line each, later ones add to or replace
//! earlier ones, what is not understood is passed over:
//!
//! ```text
//! gpus N                          so many GPUs, all alike; one where it is not said
//! no-driver                       nothing starts
//! unified GPU                     this one has no memory of its own
//! busy GPU PERCENT                how busy it is
//! delay GPU MILLISECONDS          its memory is slow to read
//! process GPU PID BYTES [graphics]
//!                                 what a process holds; `-` where it is unknown, 0 for a process that is gone
//! ```text

use std::{str::FromStr, time::Duration};

const MIB: u64 = 1 << 20;
/// Each GPU's own memory.
const MEMORY: u64 = 8192 * MIB;
/// Set aside by driver and firmware.
pub(crate) const RESERVED: u64 = 100 * MIB;
/// Used by nobody who is listed.
const UNLISTED: u64 = 16 * MIB;

pub(crate) struct State {
    pub(crate) driver: bool,
    pub(crate) gpus: Vec<Gpu>,
}

#[derive(Clone)]
pub(crate) struct Gpu {
    /// Absent where it has none of its own.
    pub(crate) memory: Option<u64>,
    pub(crate) busy: u32,
    pub(crate) delay: Duration,
    pub(crate) processes: Vec<Process>,
}

#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) bytes: Option<u64>,
    pub(crate) list: List,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum List {
    Compute,
    Graphics,
}

impl Gpu {
    /// Without what is reserved, as version 2 of the call has it.
    pub(crate) fn used(&self) -> u64 {
        UNLISTED + self.processes.iter().filter_map(|process| process.bytes).sum::<u64>()
    }
}

impl State {
    pub(crate) fn read() -> Self {
        let file = std::env::var_os("SPARK_TRACE_SIMULATED_NVML");
        let text = file.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
        let gpu = Gpu { memory: Some(MEMORY), busy: 0, delay: Duration::ZERO, processes: Vec::new() };
        let mut state = Self { driver: true, gpus: vec![gpu.clone()] };
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["gpus", count] = words[..] {
                state.gpus.resize(number(count).unwrap_or(1), gpu.clone());
            }
            state.driver &= words != ["no-driver"];
            let _ = state.line(&words);
        }
        state
    }

    fn line(&mut self, words: &[&str]) -> Option<()> {
        let (what, gpu) = (words.first()?, self.gpus.get_mut(number::<usize>(words.get(1)?)?)?);
        match (*what, &words[2..]) {
            ("unified", []) => gpu.memory = None,
            ("busy", [percent]) => gpu.busy = number(percent)?,
            ("delay", [milliseconds]) => gpu.delay = Duration::from_millis(number(milliseconds)?),
            ("process", [pid, bytes, kind @ ..]) => {
                let (pid, bytes) = (number(pid)?, number(bytes));
                let list = if *kind == ["graphics"] { List::Graphics } else { List::Compute };
                gpu.processes.retain(|process| (process.pid, process.list) != (pid, list));
                if bytes != Some(0) {
                    gpu.processes.push(Process { pid, bytes, list });
                }
            }
            _ => {}
        }
        Some(())
    }
}

fn number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}
