//! The programs, one file for each family. Their rows are in [`spark_trace_common::hook::HOOKS`].

mod burst;
mod call;
mod cgroup;
mod charge;
mod counter;
mod figures;
mod filemap;
mod mapping;
mod nvidia;
mod page;
mod page_rows;
mod process;
mod sweep;
