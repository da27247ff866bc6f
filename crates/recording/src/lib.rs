//! Recordings: what they hold, and how they are read and written. With them what depends on nothing but a recording: the
//! [`ledger`] turns readings into balances, and [`classify`] says which source a stack belongs to.

pub mod bounds;
mod budget;
mod builder;
pub mod cgroup_path;
pub mod claim;
pub mod classify;
pub mod column;
pub mod cuda;
mod entry;
mod flat_series;
pub mod journal;
pub mod kinds;
mod leave_out;
pub mod ledger;
pub mod parse;
pub mod process_env;
pub mod provenance;
pub mod read;
pub mod redact;
pub mod retention;
pub mod schema;
pub mod secrets;
pub mod target;
pub mod units;
pub mod unlimited;
pub mod upgrade;
mod validate;
pub mod verdict;
pub mod word;
pub mod write;

// The recordings that tests are made of lie in a crate that uses this one. This crate's own tests take them as a module:
// of a crate that is built for its own tests there are two, and their types differ.
#[cfg(test)]
extern crate self as spark_trace_recording;
#[cfg(test)]
#[path = "../../testing/src/recordings/mod.rs"]
pub(crate) mod testing;

pub use column::Column;
pub use cuda::*;
pub use kinds::*;
pub use process_env::*;
pub use provenance::*;
pub use read::{ReadError, read, read_both};
pub use schema::*;
pub use target::*;
pub use write::{WriteError, WriteOptions, write};
