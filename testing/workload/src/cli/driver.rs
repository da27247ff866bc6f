//! Options of the workload that goes through the stand-in for NVIDIA's kernel modules.

use clap::{ArgGroup, Args};

use super::{CourseArgs, count};
use crate::size::parse_size;

pub const EXAMPLES: &str = "\
The stand-in takes and gives back pages as NVIDIA's modules do: no GPU and no driver of NVIDIA's takes part (testing/stand-in/\
README.md). Each call is timed, so that runs with and without a tracer can be compared (sources[].detail.calls).

Examples:
  spark-trace-workload driver-alloc --bytes 512M --page-size 4K --calls 8 --hold 2s
  spark-trace-workload driver-alloc --bytes 64M --calls 32 --contiguous --jsonl
  spark-trace-workload driver-alloc --bytes 128M --page-size 64K --uvm --no-release";

const MEMORY: &str = "Memory";

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(true))]
pub struct DriverAllocArgs {
    /// Bytes that the driver takes, in all of the calls
    #[arg(long, value_name = "SIZE", value_parser = parse_size, group = "what", help_heading = MEMORY)]
    pub bytes: Option<u64>,
    /// Size of the requested pages; at least the kernel's own are given
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "4K", help_heading = MEMORY)]
    pub page_size: u64,
    /// How many calls request them
    #[arg(long, value_name = "N", value_parser = count(), default_value_t = 1, help_heading = MEMORY)]
    pub calls: u32,
    /// Each call's bytes in one run of pages
    #[arg(long, conflicts_with = "uvm", help_heading = MEMORY)]
    pub contiguous: bool,
    /// As managed memory: chunks of nvidia-uvm, charged to the cgroup
    #[arg(long, help_heading = MEMORY)]
    pub uvm: bool,
    /// Pages as they come, not zeroed: such pages never come from a pool nor go to one
    #[arg(long, conflicts_with = "uvm", help_heading = MEMORY)]
    pub not_zeroed: bool,
    /// Anonymous memory that the driver locks, as for cudaHostRegister
    #[arg(long, value_name = "SIZE", value_parser = parse_size, group = "what", help_heading = MEMORY)]
    pub lock: Option<u64>,

    #[command(flatten)]
    pub course: CourseArgs,
}
