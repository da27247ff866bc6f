//! Recordings: what they hold, and how they are read and written.

pub mod bounds;
mod budget;
mod builder;
pub mod cgroup_path;
mod check;
pub mod claim;
pub mod column;
pub mod context;
pub mod cuda;
mod entry;
pub mod journal;
mod leave_out;
pub mod provenance;
pub mod read;
pub mod redact;
pub mod schema;
pub mod secrets;
mod series;
pub mod upgrade;
pub mod window;
pub mod write;

#[cfg(test)]
pub(crate) mod testing;

pub use column::Column;
pub use context::*;
pub use cuda::*;
pub use provenance::*;
pub use read::{ReadError, read, read_both};
pub use schema::*;
pub use write::{WriteError, WriteOptions, write};
