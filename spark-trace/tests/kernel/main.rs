//! What loads programs into the running kernel: as root, one test at a time.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop")]

#[path = "../support/mod.rs"]
mod support;

mod attach;
mod beside;
mod buffers;
mod calls;
mod charge;
mod command;
mod context;
mod cuda;
mod diff;
mod doctor;
mod faults;
mod field;
mod findings;
mod gpus;
mod hostile;
mod instant;
mod kv;
mod lists;
mod log;
mod logging;
mod loss;
mod multi;
mod nvml;
mod on_time;
mod oracle;
mod oracle_limits;
mod oracle_pages;
mod oracle_tasks;
mod outside;
mod package;
mod pause;
mod progress;
mod python;
mod reclaim;
mod record;
mod recover;
mod rights;
mod serve;
mod show;
mod snapshot;
mod stand_in;
mod stand_in_cuda;
mod statistics;
mod stream;
mod system_calls;
mod top;
mod unwind;
