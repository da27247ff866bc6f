//! The demo's third run: inference through the CUDA driver, to show which answer a framework gets and what it takes.
//! Where there is no GPU the simulated driver plays its part, and everything says so.

use std::path::{Path, PathBuf};

use super::DemoError;
use spark_trace_recording::units::unsigned;
use spark_trace_recording::{MemoryQuery, Recording};

const VARIABLE: &str = "SPARK_TRACE_CUDA_WORKLOAD";
const SIMULATED: &str = "libspark_trace_simulated_cuda.so";
/// Where a GPU is, its device file is.
const GPU: &str = "/dev/nvidia0";

/// Small enough for the simulated driver, whose matrix products the CPU makes.
const ARGUMENTS: &[&str] = &[
    "--weights-size",
    "64M",
    "--kv-limit",
    "128M",
    "--batch",
    "1",
    "--prompt",
    "128",
    "--output-length",
    "4",
    "--warmup",
    "0",
    "--iterations",
    "2",
    "--hold",
    "1s",
];

#[derive(Debug)]
pub struct Inference {
    workload: PathBuf,
    /// The simulated driver; absent where a GPU's own is used.
    pub simulated: Option<PathBuf>,
}

/// The workload that was named, else the one of the environment; none where neither is.
pub fn find(named: Option<PathBuf>) -> Result<Option<Inference>, DemoError> {
    let variable = || std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
    let Some(workload) = named.or_else(variable) else { return Ok(None) };
    let workload = workload.canonicalize().map_err(DemoError::io(&workload))?;
    let simulated = if Path::new(GPU).exists() {
        None
    } else {
        let library = workload.with_file_name(SIMULATED);
        Some(library.canonicalize().map_err(DemoError::io(&library))?)
    };
    Ok(Some(Inference { workload, simulated }))
}

impl Inference {
    /// Options of `record`: the log has the KV-cache budget, and the simulated driver is watched from the first call on.
    pub fn options(&self) -> Vec<String> {
        let library = self.simulated.iter().map(|library| library.to_string_lossy().into_owned());
        let library = library.flat_map(|library| ["--cuda-library".to_owned(), library]);
        std::iter::once("--log".to_owned()).chain(library).collect()
    }

    pub fn command(&self, model: &Path) -> Vec<String> {
        let driver = if self.simulated.is_some() { "simulated" } else { "system" };
        let words = [&self.workload.to_string_lossy(), "llm", "--model-dir", &model.to_string_lossy()];
        let words = words.into_iter().chain(ARGUMENTS.iter().copied()).chain(["--driver", driver]);
        words.map(ToOwned::to_owned).collect()
    }
}

/// What the run shows, in words: the answer that sizes a KV cache, and what was free besides.
pub fn paragraphs(recording: &Recording) -> Vec<String> {
    let answers =
        recording.provenance.queries.iter().rev().filter(|query| query.interface == "cuMemGetInfo_v2");
    let last = { answers }.find_map(|query| Some((query, *query.values.get("free")?)));
    let Some((query, free)) = last else {
        return vec!["The run never queried the driver for free memory.".to_owned()];
    };
    let mut lines = vec![format!(
        "cuMemGetInfo returned {} free. A framework that takes 90 % of free memory sizes its KV cache by that number.",
        unsigned(free)
    )];
    lines.extend(beside(query));
    if recording.health.libraries.iter().any(|library| library.simulated && library.attached > 0) {
        lines.push(
            "The driver was simulated: there was no GPU, device memory was memory of the process, and memory queries returned MemFree as on a GPU that shares the system's memory."
                .to_owned(),
        );
    }
    lines
}

fn beside(query: &MemoryQuery) -> Option<String> {
    let state = query.state.as_ref()?;
    let available = state.later.as_ref()?.mem_available?;
    Some(format!(
        "At that moment MemFree was {} and MemAvailable was {}: the page cache used {}, which is reclaimable. \
         On unified memory a framework does not count that difference as free.",
        unsigned(state.mem_free.unwrap_or(state.free)),
        unsigned(available),
        unsigned(state.file.saturating_sub(state.shmem)),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_testing as testing;

    #[test]
    fn the_answer_and_available_memory_are_named() {
        let lines = paragraphs(&testing::cuda());
        assert!(lines[0].starts_with("cuMemGetInfo returned "), "{lines:?}");
        assert!(lines[1].contains("MemFree was") && lines[1].contains("reclaimable"), "{lines:?}");
    }

    #[test]
    fn a_run_without_a_query_says_so() {
        assert_eq!(paragraphs(&testing::native()).len(), 1);
    }

    #[test]
    fn the_simulated_driver_is_watched_and_named() {
        let inference = Inference { workload: "/w".into(), simulated: Some("/lib.so".into()) };
        assert_eq!(inference.options(), ["--log", "--cuda-library", "/lib.so"]);
        let command = inference.command(Path::new("/m"));
        assert_eq!(command[..4], ["/w", "llm", "--model-dir", "/m"]);
        assert_eq!(command[command.len() - 2..], ["--driver", "simulated"]);
    }
}
