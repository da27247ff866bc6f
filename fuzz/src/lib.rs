//! What reads bytes that others wrote, each with a function that must come back whatever the bytes are.
//!
//! A target fails by a panic, by an overflow, by more than 10 s or more than 1 GiB. The test below gives each its seeds
//! and is part of the usual tests; `cargo xtask fuzz` makes new inputs from these, guided by what of the code they reach.

mod edits;
mod live;
mod recordings;
mod text;

/// Which target the program runs.
pub const VARIABLE: &str = "SPARK_TRACE_FUZZ_TARGET";

/// What to set it to, to have all targets printed instead.
pub const LIST: &str = "list";

/// Something that reads what others wrote.
pub struct Target {
    pub name: &'static str,
    /// Whose bytes these are.
    pub about: &'static str,
    /// Longest input, bytes: what is longer reaches nothing more and takes time.
    pub longest: usize,
    pub run: fn(&[u8]),
}

/// Every target; its seeds are in `fuzz/seeds/NAME`.
pub const TARGETS: &[Target] = &[
    Target { name: "wire", about: "records of the kernel side", longest: 1024, run: live::wire },
    Target { name: "btf", about: "types of a kernel", longest: 8192, run: live::btf },
    Target { name: "kallsyms", about: "symbols of a kernel", longest: 4096, run: live::kallsyms },
    Target { name: "mounts", about: "mount tables, cgroup paths", longest: 4096, run: live::mounts },
    Target { name: "elf", about: "programs and libraries of processes", longest: 8192, run: live::elf },
    Target { name: "unwind", about: "tables by which code is unwound", longest: 8192, run: live::unwind },
    Target {
        name: "process",
        about: "mappings and arguments of processes",
        longest: 8192,
        run: live::process,
    },
    Target { name: "engine", about: "command lines of container engines", longest: 2048, run: live::engine },
    Target { name: "events", about: "what container engines answer", longest: 4096, run: live::events },
    Target { name: "http", about: "requests to serve", longest: 2048, run: live::http },
    Target { name: "recording", about: "recordings", longest: 65_536, run: recordings::recording },
    Target {
        name: "edited",
        about: "recordings with a few values changed",
        longest: 256,
        run: recordings::edited,
    },
    Target { name: "journal", about: "journals of recordings", longest: 16_384, run: recordings::journal },
    Target {
        name: "packed",
        about: "journals as they are written",
        longest: 16_384,
        run: recordings::packed,
    },
    Target { name: "plan", about: "plans of studies", longest: 4096, run: text::plan },
    Target { name: "study", about: "journals and results of studies", longest: 16_384, run: text::study },
    Target { name: "import", about: "results of other tools", longest: 16_384, run: text::import },
    Target { name: "log", about: "log lines of programs", longest: 4096, run: text::log },
    Target { name: "benchmarks", about: "reports of benchmarks", longest: 8192, run: text::benchmarks },
    Target { name: "options", about: "values of options", longest: 128, run: text::options },
];

#[cfg(test)]
mod tests;
