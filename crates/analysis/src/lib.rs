//! From recordings to reports: pure, and the same for the same recording everywhere.
//!
//! [`attribution`] answers "who holds the memory?", [`diff`] "who holds more in one run than in
//! another?". The other modules are what both are made of.

pub mod arrange;
pub mod asked;
pub mod attribution;
pub mod callers;
pub mod cgroups;
pub mod charges;
pub mod comparability;
pub mod context;
pub mod cuda;
pub mod delta;
pub mod details;
pub mod devices;
pub mod diff;
pub mod drill;
pub mod files;
pub mod findings;
pub mod flame;
pub mod frame;
pub mod held;
pub mod instant;
pub mod kv;
pub mod levels;
pub mod limits;
pub mod losses;
pub mod mappings;
pub mod moment;
pub mod names;
pub mod overview;
pub mod passing;
pub mod paths;
pub mod processes;
pub mod queries;
pub mod regions;
pub mod stacks;
pub mod timeline;
pub mod tmpfs;
pub mod view;
pub mod warning;
pub mod whose;
