//! From recordings to reports: pure, and the same for the same recording everywhere.
//!
//! [`attribution`] answers "who holds the memory?", [`diff`] "who holds more in one run than in
//! another?". The other modules are what both are made of.

pub mod attribution;
pub mod belongs;
pub mod callers;
pub mod cgroups;
pub mod charges;
pub mod comparability;
pub mod containers;
pub mod cuda;
pub mod delta;
pub mod derived;
pub mod devices;
pub mod diff;
pub mod drilldown;
pub mod driver_allocs;
pub mod engine_evidence;
pub mod engine_now;
pub mod engine_run;
pub mod files;
pub mod findings;
pub mod flame;
pub mod instant_spec;
pub mod kv;
pub mod levels;
pub mod limits;
pub mod live_frame;
pub mod losses;
pub mod mappings;
pub mod memory_queries;
pub mod memory_use;
pub mod moment;
pub mod names;
pub mod nearest_instant;
pub mod overview;
pub mod passing;
pub mod paths;
pub mod process_env;
pub mod processes;
pub mod regions;
pub mod signed;
mod simulated;
pub mod sort;
pub mod stack_bytes;
pub mod stacks;
pub mod timeline;
pub mod tmpfs;
pub mod user_stacks;
pub mod view;
pub mod warning;
pub mod whose;
