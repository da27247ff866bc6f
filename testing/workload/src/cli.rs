//! The command line.

#[cfg_attr(
    not(all(feature = "cuda", not(target_feature = "crt-static"))),
    allow(dead_code, reason = "without CUDA, options are taken and refused")
)]
pub mod cuda;
pub mod driver;
#[cfg_attr(
    not(all(feature = "cuda", not(target_feature = "crt-static"))),
    allow(dead_code, reason = "without CUDA, options are taken and refused")
)]
pub mod engine;
pub mod phases;

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

pub use phases::{CourseArgs, HoldArgs};

use crate::size::parse_size;

/// Takes memory of known kinds and amounts: the ground truth for spark-trace.
#[derive(Debug, Parser)]
#[command(name = "spark-trace-workload", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Take memory of each requested kind in turn, hold all of it, give it back in reverse, and say what was
    /// taken
    #[command(after_help = ALLOC_EXAMPLES)]
    Alloc(Box<AllocArgs>),
    /// Take memory through the CUDA driver, hold it, give it back, and say what was taken
    #[command(after_help = cuda::ALLOC_EXAMPLES)]
    CudaAlloc(Box<cuda::CudaAllocArgs>),
    /// Takes memory of several GPUs through the CUDA driver
    CudaGpus(cuda::CudaGpusArgs),
    /// Take memory as a program's calls make NVIDIA's kernel modules take it, from their stand-in
    #[command(after_help = driver::EXAMPLES)]
    DriverAlloc(Box<driver::DriverAllocArgs>),
    /// Multiply matrices on the GPU, and check the result on the CPU
    #[command(after_help = cuda::MATMUL_EXAMPLES)]
    Matmul(Box<cuda::MatmulArgs>),
    /// What inference with a language model does to memory: weights from a file, KV cache, requests
    #[command(after_help = cuda::LLM_EXAMPLES)]
    Llm(Box<cuda::LlmArgs>),
    /// What an inference engine does to size its KV cache: readings, weights, a dummy run, the cache, its log
    #[command(after_help = engine::EXAMPLES)]
    Engine(Box<engine::EngineArgs>),
    /// Do one memory operation over and over, and say what each round cost
    Storm(StormArgs),
    /// Prepare files for `alloc`: make one, drop one from the page cache, count how much of one is in it
    File(FileArgs),
}

const EXAMPLES: &str = "Sizes are binary: 4096, 64K, 64M, 1G, 128MiB. Durations: 500ms, 2s, 1min.

Exit status: 0 as requested, 1 when something could not be had, 2 for a command line that makes no sense, \
128+N when stopped by signal N.

Examples:
  spark-trace-workload alloc --anon 256M --shmem 128M --hold 5s
  spark-trace-workload file --create /data/weights --size 1G
  spark-trace-workload alloc --file-mmap 1G --mmap-file /data/weights --cold --jsonl
  spark-trace-workload storm fault --size 1G --rounds 5
  spark-trace-workload cuda-alloc --device 256M --pinned 64M --query
  spark-trace-workload llm --model-dir /tmp/m --weights-size 64M --kv-limit 256M --driver simulated

The CUDA workloads (cuda-alloc, matmul, llm, engine, storm cuda-alloc, storm cuda-managed) need the dynamically linked \
program: cargo build -p spark-trace-workload -p spark-trace-simulated-cuda.";

const ALLOC_EXAMPLES: &str =
    "The phases are start, one for each requested kind in the order shown here, hold, and release. \
With --jsonl a line goes out as soon as a phase is ready and its holding begins.

Examples:
  # 256 MiB anonymous and 128 MiB shared, all of it kept for 5 s
  spark-trace-workload alloc --anon 256M --shmem 128M --hold 5s

  # a cold read of a file, made first if missing
  spark-trace-workload alloc --file-read 512M --file /data/in --create-files --hold 2s

  # dirty pages, then pages of page tables, half a second apart
  spark-trace-workload alloc --file-write 64M --write-file /data/out --small-mappings 1000 --hold-each 500ms

  # four children of 32 MiB each, for a tracer to be attached to before it starts
  spark-trace-workload alloc --children 4 --child-anon 32M --wait-go /tmp/go --jsonl";

const ANON: &str = "Anonymous memory";
const SHARED: &str = "Shared memory";
const FILES: &str = "File pages";
const SPECIAL: &str = "Huge pages and page tables";
const TASKS: &str = "Other tasks";
const BUFFERS: &str = "Buffers in the kernel";

#[derive(Debug, Args)]
pub struct AllocArgs {
    /// Private anonymous memory in base pages, every page touched
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = ANON)]
    pub anon: Option<u64>,
    /// Private anonymous memory never touched
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = ANON)]
    pub anon_untouched: Option<u64>,
    /// Private anonymous memory in transparent huge pages, as far as the kernel gives them
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = ANON)]
    pub thp: Option<u64>,
    /// Memory as for --thp that is only read: the one huge zero page, mapped as often as it takes
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = ANON)]
    pub thp_zero: Option<u64>,

    /// A memfd, mapped shared, every page touched
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = SHARED)]
    pub shmem: Option<u64>,
    /// A file written in --tmpfs-dir and not mapped; --no-release leaves it behind
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = SHARED)]
    pub tmpfs: Option<u64>,
    /// A directory in a tmpfs
    #[arg(long, value_name = "DIR", default_value = "/dev/shm", help_heading = SHARED)]
    pub tmpfs_dir: PathBuf,

    /// Read this much of --file through the page cache
    #[arg(long, value_name = "SIZE", value_parser = parse_size, requires = "file", help_heading = FILES)]
    pub file_read: Option<u64>,
    /// The file for --file-read
    #[arg(long, value_name = "PATH", requires = "file_read", help_heading = FILES)]
    pub file: Option<PathBuf>,
    /// Map this much of --mmap-file shared and read-only, and read each page
    #[arg(long, value_name = "SIZE", value_parser = parse_size, requires = "mmap_file", help_heading = FILES)]
    pub file_mmap: Option<u64>,
    /// The file for --file-mmap
    #[arg(long, value_name = "PATH", requires = "file_mmap", help_heading = FILES)]
    pub mmap_file: Option<PathBuf>,
    /// Map this much of --private-file privately, and dirty each page: anonymous copies beside the page cache
    #[arg(long, value_name = "SIZE", value_parser = parse_size, requires = "private_file")]
    #[arg(help_heading = FILES)]
    pub file_private: Option<u64>,
    /// The file for --file-private
    #[arg(long, value_name = "PATH", requires = "file_private", help_heading = FILES)]
    pub private_file: Option<PathBuf>,
    /// Write this much to a new file --write-file through the page cache, where it stays dirty for now
    #[arg(long, value_name = "SIZE", value_parser = parse_size, requires = "write_file")]
    #[arg(help_heading = FILES)]
    pub file_write: Option<u64>,
    /// The file for --file-write: must not exist; removed on release, so that --no-release leaves it behind
    #[arg(long, value_name = "PATH", requires = "file_write", help_heading = FILES)]
    pub write_file: Option<PathBuf>,
    /// fsync what --file-write has written, so that its pages are clean
    #[arg(long, requires = "file_write", help_heading = FILES)]
    pub fsync: bool,
    /// Keep the file of --file-write on release
    #[arg(long, requires = "file_write", help_heading = FILES)]
    pub keep_files: bool,
    /// First make the input files that are missing, and drop all of them from the page cache
    #[arg(long, help_heading = FILES)]
    pub create_files: bool,
    /// First drop the input files from the page cache, in each cycle
    #[arg(long, help_heading = FILES)]
    pub cold: bool,
    /// Bring in no more of the input files than what is read or touched
    #[arg(long, help_heading = FILES)]
    pub no_readahead: bool,
    /// On release, drop the files from the page cache; else their pages stay there
    #[arg(long, help_heading = FILES)]
    pub drop_on_release: bool,

    /// Reserved huge pages (hugetlb) of the default size, every one touched
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = SPECIAL)]
    pub hugetlb: Option<u64>,
    /// One-page anonymous mappings, each so far from the next that it needs a page table of its own
    #[arg(long, value_name = "N", value_parser = count(), help_heading = SPECIAL)]
    pub small_mappings: Option<u32>,

    /// Forked children, each with --child-anon
    #[arg(long, value_name = "N", value_parser = count(), requires = "child_anon", help_heading = TASKS)]
    pub children: Option<u32>,
    /// Anonymous memory that each child touches
    #[arg(long, value_name = "SIZE", value_parser = parse_size, requires = "children", help_heading = TASKS)]
    pub child_anon: Option<u64>,
    /// Threads, each with --thread-anon
    #[arg(long, value_name = "N", value_parser = count(), requires = "thread_anon", help_heading = TASKS)]
    pub threads: Option<u32>,
    /// Anonymous memory that each thread maps and touches
    #[arg(long, value_name = "SIZE", value_parser = parse_size, requires = "threads", help_heading = TASKS)]
    pub thread_anon: Option<u64>,

    /// Pipes, filled to capacity
    #[arg(long, value_name = "N", value_parser = count(), help_heading = BUFFERS)]
    pub pipes: Option<u32>,
    /// Unix stream socket pairs, filled in both directions
    #[arg(long, value_name = "N", value_parser = count(), help_heading = BUFFERS)]
    pub sockets: Option<u32>,

    #[command(flatten)]
    pub course: CourseArgs,
}

fn count() -> impl clap::builder::TypedValueParser<Value = u32> {
    clap::value_parser!(u32).range(1..)
}

impl AllocArgs {
    /// The files that must be there before, with the size each needs.
    pub fn input_files(&self) -> impl Iterator<Item = (&Path, u64)> {
        [
            (&self.file, self.file_read),
            (&self.mmap_file, self.file_mmap),
            (&self.private_file, self.file_private),
        ]
        .into_iter()
        .filter_map(|(path, size)| Some((path.as_deref()?, size?)))
    }

    /// What clap cannot say about combinations.
    pub fn check(&self) -> Result<(), String> {
        let mut paths: Vec<&Path> =
            self.input_files().map(|(path, _)| path).chain(self.write_file.as_deref()).collect();
        paths.sort_unstable();
        if let Some(twice) = paths.windows(2).find(|pair| pair[0] == pair[1]) {
            let path = twice[0].display();
            return Err(format!(
                "{path} is given twice, but the page cache would hold it once: use different files"
            ));
        }
        if (self.create_files || self.cold) && self.input_files().next().is_none() {
            return Err(
                "--create-files and --cold need --file-read, --file-mmap or --file-private".to_owned()
            );
        }
        self.course.check()?;
        if self.course.repeat > 1 && self.keep_files {
            return Err("--repeat needs the file of --file-write removed: not with --keep-files".to_owned());
        }
        Ok(())
    }
}

#[derive(Debug, Args)]
pub struct StormArgs {
    #[command(subcommand)]
    pub storm: Storm,
}

#[derive(Debug, Subcommand)]
pub enum Storm {
    /// Map, touch every page, unmap
    Fault {
        #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "1G")]
        size: u64,
        #[arg(long, value_name = "N", value_parser = count(), default_value_t = 5)]
        rounds: u32,
    },
    /// Drop a file from the page cache (not timed), then read all of it
    Read {
        #[arg(long, value_name = "PATH")]
        file: PathBuf,
        #[arg(long, value_name = "N", value_parser = count(), default_value_t = 5)]
        rounds: u32,
    },
    /// Map and unmap; timed in batches, since one round is shorter than reading the clocks
    Mmap {
        #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "64K")]
        size: u64,
        #[arg(long, value_name = "N", value_parser = count(), default_value_t = 200_000)]
        rounds: u32,
        /// Touch every page, too
        #[arg(long)]
        touch: bool,
        /// How many batches the rounds are timed in
        #[arg(long, value_name = "N", value_parser = count(), default_value_t = 20)]
        batches: u32,
    },
    /// Pass data through a pipe, by the MiB: the kernel takes a page of its own for each page of it
    Pipe {
        #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "64M")]
        size: u64,
        #[arg(long, value_name = "N", value_parser = count(), default_value_t = 50)]
        rounds: u32,
    },
    /// Fork a child that exits at once, and wait for it
    Fork {
        #[arg(long, value_name = "N", value_parser = count(), default_value_t = 200)]
        rounds: u32,
    },
    /// A system call that takes no memory; timed in batches
    Call {
        #[arg(long, value_name = "NAME", value_enum)]
        call: SystemCall,
        #[arg(long, value_name = "N", value_parser = count(), default_value_t = 1_000_000)]
        rounds: u32,
        /// How many batches the rounds are timed in
        #[arg(long, value_name = "N", value_parser = count(), default_value_t = 20)]
        batches: u32,
    },
    #[command(flatten)]
    Cuda(cuda::CudaStorm),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum SystemCall {
    /// The cheapest there is
    Getppid,
    /// One byte of /dev/zero
    Read,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true))]
pub struct FileArgs {
    /// Make a file of --size pseudo-random bytes, on disk and out of the page cache
    #[arg(long, value_name = "PATH", group = "what", requires = "size")]
    pub create: Option<PathBuf>,
    /// The size for --create
    #[arg(long, value_name = "SIZE", value_parser = parse_size, requires = "create")]
    pub size: Option<u64>,
    /// Drop a file from the page cache
    #[arg(long, value_name = "PATH", group = "what")]
    pub drop: Option<PathBuf>,
    /// Print how many bytes of a file are in the page cache, as JSON
    #[arg(long, value_name = "PATH", group = "what")]
    pub resident: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn check(line: &str) -> Result<(), String> {
        let cli = Cli::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())?;
        match cli.command {
            Command::Alloc(args) => args.check(),
            _ => Ok(()),
        }
    }

    #[test]
    fn clap_agrees_with_itself() {
        Cli::command().debug_assert();
    }

    #[test]
    fn impossible_lines() {
        for line in [
            "w alloc --file-read 1M",
            "w alloc --file /x",
            "w alloc --fsync",
            "w alloc --children 2",
            "w alloc --anon 0",
            "w alloc --pipes 0",
            "w alloc --exit-code 256",
            "w alloc --abort --exit-code 3",
            "w alloc --repeat 2 --no-release",
            "w alloc --repeat 2 --keep-files --file-write 1M --write-file /x",
            "w alloc --cold --anon 1M",
            "w alloc --file-read 1M --file /x --file-mmap 1M --mmap-file /x",
            "w file",
            "w file --create /x",
            "w file --drop /x --resident /x",
            "w storm read",
        ] {
            assert!(check(line).is_err(), "{line}");
        }
        for line in
            ["w alloc", "w alloc --anon 1M --repeat 3 --exit-code 255", "w file --create /x --size 1M"]
        {
            assert_eq!(check(line), Ok(()), "{line}");
        }
    }
}
