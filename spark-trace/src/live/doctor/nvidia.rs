//! NVIDIA's driver: only whether it is there. Its memory is for the hooks that follow it.

use std::{fs, path::PathBuf};

use super::Finding;

const LIBRARY: &str = "libcuda.so.1";

/// Where distributions, containers and the driver's own installer put it.
const DIRECTORIES: &[&str] = &[
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib",
    "/usr/local/nvidia/lib64",
    "/usr/local/nvidia/lib",
    "/usr/local/cuda/compat",
    "/usr/lib/wsl/lib",
];

pub fn driver() -> Finding {
    match fs::read_to_string("/proc/driver/nvidia/version") {
        Ok(text) => Finding::ok(text.lines().next().unwrap_or_default().trim().to_owned()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Finding::not_applicable("not loaded"),
        Err(e) => Finding::warning(format!("/proc/driver/nvidia/version: {e}")),
    }
}

/// It is not opened: that would run its code.
pub fn library() -> Finding {
    let linker = fs::read("/etc/ld.so.cache").ok().and_then(|cache| in_linker_cache(&cache));
    let usual = || DIRECTORIES.iter().map(|dir| PathBuf::from(dir).join(LIBRARY)).find(|path| path.exists());
    let found = linker.filter(|path| path.exists()).or_else(usual);
    match (found, driver().status) {
        (Some(path), _) => Finding::ok(path.display().to_string()),
        (None, super::Status::NotApplicable) => Finding::not_applicable("not found, and there is no driver"),
        (None, _) => Finding::missing("not found"),
    }
}

/// The first path of the library among the cache's strings, which end in zero bytes.
fn in_linker_cache(cache: &[u8]) -> Option<PathBuf> {
    let strings = cache.split(|byte| *byte == 0).filter_map(|bytes| std::str::from_utf8(bytes).ok());
    let mut paths = strings.filter(|text| text.starts_with('/'));
    paths.find(|text| text.rsplit('/').next() == Some(LIBRARY)).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_found_in_the_linkers_cache() {
        let cache = b"glibc-ld.so.cache1.1\xff\0libc.so.6\0/lib/libc.so.6\0/opt/nv/libcuda.so.1\0";
        assert_eq!(in_linker_cache(cache), Some(PathBuf::from("/opt/nv/libcuda.so.1")));
        assert_eq!(in_linker_cache(&cache[..30]), None);
    }
}
