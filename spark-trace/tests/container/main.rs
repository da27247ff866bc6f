//! What runs containers and traces them: as root, with a Docker daemon, one test at a time.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop")]

#[allow(dead_code, unused_imports, reason = "kernel tests use the rest; what nobody uses is found there")]
#[path = "../support/mod.rs"]
mod support;

mod context;
mod demo;
mod engine;
mod faults;
mod field;
mod lists;
mod record;
mod spark_report;
mod stand_in;
mod stand_in_cuda;
mod study;
mod target;
mod ways;
