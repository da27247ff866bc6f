//! spark-trace: who is using the memory?
//!
//! Counters give the level of every source of memory use; hooks give its provenance. A run is
//! written as a [`recording`], which holds what was read and nothing else. The [`ledger`] turns
//! readings into balances, [`analysis`] turns recordings into reports, and [`render`] turns reports
//! into bytes. All three are pure: the same recording gives the same output, anywhere. `live`
//! (feature of that name) is the only part that needs a kernel to talk to.
//!
//! Modules depend on each other in one direction: `recording` <- `ledger` <- `analysis` <-
//! `render` <- `cli`. The table of all is `xtask/src/lint/direction.rs`.

pub mod analysis;
#[cfg(feature = "live")]
pub mod archive;
pub mod classify;
pub mod cli;
pub mod cuda;
pub mod decode;
#[cfg(feature = "live")]
pub mod demo;
pub mod elf;
pub mod engine;
pub mod figures;
pub mod framework_log;
pub mod health;
pub mod invoker;
pub mod ledger;
#[cfg(feature = "live")]
pub mod live;
#[cfg(feature = "live")]
pub mod nvml;
pub mod parse;
pub mod place;
pub mod plan;
pub mod recording;
pub mod render;
#[cfg(feature = "live")]
pub mod serve;
pub mod study;
pub mod tui;
pub mod units;
