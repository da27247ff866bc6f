//! What to do about a KV cache that is smaller than it could be: one row of [`ADVICE`] each.

use crate::kv::{Advice, Budget};
use crate::paths;
use spark_trace_recording::units;

/// Less than this is not worth anybody's trouble.
const WORTH_BYTES: u64 = 64 << 20;
/// Files that have a command of their own.
const FILES: usize = 3;

type Rule = fn(&Budget) -> Vec<Advice>;

/// The most telling first.
const ADVICE: &[Rule] = &[drop_caches, drop_files, one_workspace, clear_shared, fraction];

pub fn of(budget: &Budget) -> Vec<Advice> {
    ADVICE.iter().flat_map(|rule| rule(budget)).collect()
}

/// Bytes of a source at the reading.
fn held(budget: &Budget, slugs: &[&str]) -> u64 {
    budget.used.iter().filter(|row| slugs.contains(&row.source)).map(|row| row.bytes).sum()
}

/// What the cache would grow by.
fn part(budget: &Budget, bytes: u64) -> Option<u64> {
    Some((bytes as f64 * budget.figures.fraction) as u64)
}

fn shares_memory(budget: &Budget) -> bool {
    budget.reclaimable > 0
}

fn drop_caches(budget: &Budget) -> Vec<Advice> {
    let cached = held(budget, &["file-clean", "file-dirty"]);
    if !shares_memory(budget) || cached < WORTH_BYTES {
        return vec![];
    }
    vec![Advice {
        what: format!(
            "Drop the page cache ({}) right before the framework reads free memory: after the weights are loaded it \
             counts as used, although it is reclaimable",
            units::unsigned(cached)
        ),
        command: Some("sync; echo 3 | sudo tee /proc/sys/vm/drop_caches".to_owned()),
        risk: "every program on the machine reads its files from disk again; harmless otherwise",
        gains_bytes: part(budget, cached),
    }]
}

fn drop_files(budget: &Budget) -> Vec<Advice> {
    if !shares_memory(budget) {
        return vec![];
    }
    let large = budget.files.iter().filter(|file| u64::try_from(file.bytes).unwrap_or(0) >= WORTH_BYTES);
    let advice = large.take(FILES).map(|file| Advice {
        what: format!(
            "Drop only {} ({}) from the page cache: posix_fadvise(POSIX_FADV_DONTNEED) after reading it does the same in a \
             program",
            file.path,
            units::size(file.bytes)
        ),
        command: file.opens_at.as_deref().and_then(quoted).map(|path| format!("sync {path}; dd if={path} iflag=nocache count=0 status=none")),
        risk: "the next start reads the file from disk; pages that a process has mapped stay",
        gains_bytes: part(budget, u64::try_from(file.bytes).unwrap_or(0)),
    });
    advice.collect()
}

/// A path as one word of a shell; nothing for one that could not be typed.
fn quoted(path: &str) -> Option<String> {
    let typed = path.starts_with('/') && !path.chars().any(|c| c.is_control() || c == '\u{fffd}');
    typed.then(|| format!("'{}'", path.replace('\'', "'\\''")))
}

fn one_workspace(budget: &Budget) -> Vec<Advice> {
    // Below a container engine's storage: the file dies with the container, and its pages with it.
    let inside = budget
        .files
        .iter()
        .filter(|file| file.opens_at.as_deref().is_some_and(|path| paths::inner(path) != path));
    let bytes: u64 = inside.filter_map(|file| u64::try_from(file.bytes).ok()).sum();
    if !shares_memory(budget) || bytes < WORTH_BYTES {
        return vec![];
    }
    vec![Advice {
        what: format!(
            "Put the workspace (engines, caches; {} of page cache are files of the container's own layer) on one directory of the host \
             for native and container runs alike, so that both find the same files",
            units::unsigned(bytes)
        ),
        command: Some("docker run -v \"$PWD/workspace:/tmp/trtllm_workspace\" ...".to_owned()),
        risk: "files stay on the host after the container is gone, owned by the container's user",
        gains_bytes: None,
    }]
}

fn clear_shared(budget: &Budget) -> Vec<Advice> {
    let shared = held(budget, &["shmem"]);
    if !shares_memory(budget) || shared < WORTH_BYTES {
        return vec![];
    }
    vec![Advice {
        what: format!(
            "Check whether earlier processes left shared memory behind ({} in use)",
            units::unsigned(shared)
        ),
        command: Some("ls -la /dev/shm; ipcs -m".to_owned()),
        risk: "looking is harmless; removing a segment that is in use breaks its program",
        gains_bytes: None,
    }]
}

fn fraction(budget: &Budget) -> Vec<Advice> {
    let better = budget.what_if.iter().filter(|row| row.what.starts_with("fraction") && row.delta > 0);
    let Some(row) = better.max_by_key(|row| row.delta) else { return vec![] };
    let fraction = row.what.trim_start_matches("fraction ");
    vec![Advice {
        what: format!("Let the cache take more of the free memory: free_gpu_memory_fraction {fraction}"),
        command: Some(format!("trtllm-bench ... --kv_cache_free_gpu_mem_fraction {fraction}")),
        risk: "less memory for activations of longer prompts and for other programs: the run may end out of memory",
        gains_bytes: u64::try_from(row.delta).ok(),
    }]
}
