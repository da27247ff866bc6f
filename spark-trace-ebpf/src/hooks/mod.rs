//! The programs, one file for each family. Their rows are in [`spark_trace_common::hook::HOOKS`].

mod call_return;
mod cgroup;
pub(crate) mod current_context;
mod driver_burst;
mod filemap;
mod library_call;
mod mapping;
mod memcg_stat;
mod memory_query;
mod nvidia;
mod page;
mod page_counter;
mod page_rows;
mod process;
mod python;
mod sweep;
mod sys_exit;
