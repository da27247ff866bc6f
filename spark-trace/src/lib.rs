//! spark-trace: who is using the memory?
//!
//! Counters give the level of every source of memory use; hooks give its provenance. The agent (`crates/agent`) traces a
//! run and writes a recording (`crates/recording`), which holds what was read and nothing else. `crates/analysis` turns
//! recordings into reports, and `crates/render` turns reports into bytes: the same recording gives the same output,
//! anywhere. This crate wires them into commands.

pub mod cli;
pub mod demo;
pub mod reclaim;
pub mod serve;
pub mod spark_report;
pub mod top;
