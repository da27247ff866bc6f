//! What needs a machine with an NVIDIA GPU: `cargo xtask gpu` takes it there.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop")]

#[allow(dead_code, unused_imports, reason = "kernel tests use the rest; what nobody uses is found there")]
#[path = "../support/mod.rs"]
mod support;

mod cuda;
