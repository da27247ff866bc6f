//! What surrounds a process: the part of its environment that libraries read, its rights and its limits.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
};

use crate::now_ns;
use spark_trace_recording::ProcessContext;

/// Variables that are taken; those that end in `*` by what they begin with. Whatever is not here stays where it is: an
/// environment is full of secrets.
const TAKEN: &[&str] = &[
    // The driver, its libraries and the container toolkit.
    "CUDA_*",
    "CUBLAS_*",
    "CUBLASLT_*",
    "CUDNN_*",
    "NVIDIA_*",
    "NCCL_*",
    "NVSHMEM_*",
    // The loader: which files of a name are mapped.
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    // Frameworks.
    "PYTORCH_*",
    "TORCH_*",
    "TORCHINDUCTOR_*",
    "TRITON_*",
    "TLLM_*",
    "TRTLLM_*",
    "VLLM_*",
    "SGLANG_*",
    "GGML_*",
    "LLAMA_ARG_*",
    "OLLAMA_*",
    // Where they keep files, and so in which cache those are.
    "HF_HOME",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "TRANSFORMERS_CACHE",
    "XDG_CACHE_HOME",
    "TMPDIR",
    // Allocators.
    "GLIBC_TUNABLES",
    "MALLOC_*",
    "MIMALLOC_*",
    "TCMALLOC_*",
    "PYTHONMALLOC",
    // Threads and processes, each with buffers of its own.
    "MKL_*",
    "OMP_*",
    "OMPI_MCA_*",
    "OPENBLAS_NUM_THREADS",
    "UCX_*",
];

/// What has one of these in its name is not taken in any case.
/// An address may have a password in it.
const SECRET: &[&str] = &["URL", "PROXY", "TOKEN", "KEY", "SECRET", "PASSW", "CREDENTIAL", "AUTH"];

/// Lines of /proc/PID/limits that bound memory, or what takes it.
const LIMITS: &[&str] = &[
    "Max data size",
    "Max stack size",
    "Max processes",
    "Max open files",
    "Max locked memory",
    "Max address space",
];

/// Read of an environment, at most; kept of one value, and of all of them.
const LONGEST_ENVIRONMENT: u64 = 4 << 20;
const LONGEST_VALUE: usize = 4 << 10;
const MOST_KEPT: usize = 64 << 10;
/// No library reads a variable with a longer name.
const LONGEST_NAME: usize = 128;

/// `None` where the process is gone, or as good as gone.
pub fn read(pid: u32) -> Option<ProcessContext> {
    (0..TRIES).find_map(|_| read_once(pid))
}

/// Readings of a process that becomes another program meanwhile.
const TRIES: u32 = 3;

/// Nothing where it became another program between the first file and the last: parts of two would be shown as one.
fn read_once(pid: u32) -> Option<ProcessContext> {
    let at_ns = now_ns();
    let variables = variables(pid)?;
    // In the midst of exec(2) the new address space has neither yet (fs/exec.c: exec_mmap, then create_elf_tables), and
    // the name is the new program's. No program is without arguments: the kernel gives it an empty one.
    // A byte suffices: there may be megabytes.
    let has_arguments = || File::open(format!("/proc/{pid}/cmdline"))?.read(&mut [0]).map(|read| read > 0);
    if variables.is_empty() && !has_arguments().ok()? {
        return None;
    }
    let limits = limits(&fs::read_to_string(format!("/proc/{pid}/limits")).ok()?);
    // The name in it is bytes that the process may have chosen. One that still has an address space had one when the
    // rest was read.
    let status = fs::read(format!("/proc/{pid}/status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    field(&status, "VmSize")?;
    if self::variables(pid)? != variables {
        return None;
    }
    let (environment, left_out) = environment(&variables);
    Some(ProcessContext {
        at_ns,
        pid,
        // It may have become another program since whatever was the reason to look.
        comm: field(&status, "Name").unwrap_or_default().to_owned(),
        environment,
        left_out,
        capabilities: field(&status, "CapEff").and_then(|text| u64::from_str_radix(text, 16).ok()),
        seccomp: field(&status, "Seccomp").and_then(|text| text.parse().ok()),
        limits,
    })
}

/// The environment as it lies in the process's memory, as much of it as is looked at.
fn variables(pid: u32) -> Option<Vec<u8>> {
    let mut variables = Vec::new();
    let environ = File::open(format!("/proc/{pid}/environ")).ok()?;
    environ.take(LONGEST_ENVIRONMENT).read_to_end(&mut variables).ok()?;
    Some(variables)
}

/// Whether a variable of this name is taken.
pub fn is_taken(name: &str) -> bool {
    let known = TAKEN.iter().any(|taken| match taken.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == *taken,
    });
    let upper = name.to_ascii_uppercase();
    known && name.len() <= LONGEST_NAME && !SECRET.iter().any(|secret| upper.contains(secret))
}

/// The variables that are taken, and the number of those that there was no room for.
fn environment(bytes: &[u8]) -> (BTreeMap<String, String>, u64) {
    let mut taken = BTreeMap::new();
    let (mut kept, mut left_out) = (0, 0);
    for variable in bytes.split(|byte| *byte == 0) {
        let Some(end) = variable.iter().position(|byte| *byte == b'=') else { continue };
        let (name, value) = (&variable[..end], &variable[end + 1..]);
        let Some(name) = std::str::from_utf8(name).ok().filter(|name| is_taken(name)) else { continue };
        let value = cut(value);
        if kept + name.len() + value.len() > MOST_KEPT {
            left_out += 1;
            continue;
        }
        kept += name.len() + value.len();
        // Of two that have one name getenv(3) finds the first.
        taken.entry(name.to_owned()).or_insert(value);
    }
    (taken, left_out)
}

/// The beginning of a value, as text.
fn cut(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value.get(..LONGEST_VALUE).unwrap_or(value));
    text.into_owned()
}

/// A line of /proc/PID/status.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Name, soft limit, hard limit and unit are in columns; names hold blanks.
fn limits(text: &str) -> BTreeMap<String, Option<u64>> {
    let limit = |name: &&str| {
        let soft = text.lines().find_map(|line| line.strip_prefix(*name))?.split_whitespace().next()?;
        let soft = if soft == "unlimited" { None } else { Some(soft.parse().ok()?) };
        Some(((*name).to_owned(), soft))
    };
    LIMITS.iter().filter_map(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_listed_and_no_secret() {
        for name in ["CUDA_VISIBLE_DEVICES", "LD_PRELOAD", "PYTORCH_CUDA_ALLOC_CONF", "TRTLLM_X", "TMPDIR"] {
            assert!(is_taken(name), "{name}");
        }
        for name in [
            "HOME",
            "PATH",
            "LD_PRELOAD_X",
            "HF_TOKEN",
            "AWS_SECRET_ACCESS_KEY",
            "VLLM_API_KEY",
            "NVIDIA_API_KEY",
            "NVIDIA_Token",
            "TORCH_PASSWORD",
            "UCX_CREDENTIALS",
            "xCUDA_A",
            "",
        ] {
            assert!(!is_taken(name), "{name}");
        }
        assert!(!is_taken(&format!("CUDA_{}", "A".repeat(LONGEST_NAME))));
    }

    #[test]
    fn an_environment_is_bytes_from_outside() {
        let mut bytes =
            b"CUDA_A=1=2\0CUDA_A=second\0=x\0CUDA_NONE\0CUDA_EMPTY=\0HOME=/root\0\0CUDA_\xff=x\0".to_vec();
        bytes.extend(b"CUDA_BYTES=a\xffb\0CUDA_LONG=");
        bytes.extend(std::iter::repeat_n("ä", 4096).flat_map(str::bytes));
        let (found, left_out) = environment(&bytes);
        let names: Vec<_> = found.keys().map(String::as_str).collect();
        assert_eq!(names, ["CUDA_A", "CUDA_BYTES", "CUDA_EMPTY", "CUDA_LONG"]);
        assert_eq!((found["CUDA_A"].as_str(), found["CUDA_EMPTY"].as_str()), ("1=2", ""));
        assert_eq!(found["CUDA_BYTES"], "a\u{fffd}b");
        assert_eq!((found["CUDA_LONG"].chars().count(), left_out), (2048, 0));
    }

    #[test]
    fn a_large_environment_is_bounded_and_reported() {
        let many = |index| format!("CUDA_{index:02}={}\0", "x".repeat(4000));
        let (found, left_out) = environment((0..20).map(many).collect::<String>().as_bytes());
        assert_eq!(found.len() as u64 + left_out, 20);
        assert!(left_out > 0 && found.values().map(String::len).sum::<usize>() <= MOST_KEPT);
    }

    #[test]
    fn limits_are_found_by_name() {
        let text = "\
Limit                     Soft Limit           Hard Limit           Units     
Max data size             unlimited            unlimited            bytes     
Max stack size            8388608              unlimited            bytes     
Max locked memory         65536                65536                bytes     
Max address space         unlimited            unlimited            bytes     
Max open files            1024                 1048576              files     
Max nonsense              1                    1                    files     
Max processes             what                 ever
";
        let found = limits(text);
        let found: Vec<_> = found.iter().map(|(name, soft)| (name.as_str(), *soft)).collect();
        let wanted = [
            ("Max address space", None),
            ("Max data size", None),
            ("Max locked memory", Some(65536)),
            ("Max open files", Some(1024)),
            ("Max stack size", Some(8 << 20)),
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn own_context_and_none_of_the_dead() {
        let own = read(std::process::id()).unwrap();
        assert!(own.capabilities.is_some() && own.seccomp.is_some() && own.limits.len() == LIMITS.len());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        while !crate::source::process::has_ended(pid) {
            std::thread::yield_now();
        }
        assert_eq!(read(pid), None, "a zombie has no surroundings");
        child.wait().unwrap();
        assert_eq!(read(pid), None);
    }
}
