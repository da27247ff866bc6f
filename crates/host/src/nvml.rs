//! NVIDIA's management library: where it lies, and why it or one of its functions gives no answer.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use nvml_wrapper::{Nvml, error::NvmlError};

const LIBRARY: &str = "libnvidia-ml.so.1";

/// Directories where the driver's libraries are on the systems we know: distributions, containers prepared by
/// NVIDIA's toolkit, compatibility packages, WSL.
pub const DIRECTORIES: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu/nvidia/current",
    "/usr/lib64",
    "/usr/lib64/nvidia",
    "/usr/lib",
    "/usr/local/nvidia/lib64",
    "/usr/local/nvidia/lib",
    "/usr/local/cuda/compat",
    "/usr/local/cuda/compat/lib.real",
    "/usr/lib/wsl/lib",
    "/run/opengl-driver/lib",
];

/// Why the library gives no answers, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is nothing for it to see: no library, or no driver.
    Absent(String),
    /// It is there and does not start.
    Broken(String),
}

/// The library that is found; why there is none, where none is.
pub fn open() -> Result<Nvml, String> {
    load(None).map_err(|(Refusal::Absent(reason) | Refusal::Broken(reason))| reason)
}

/// The library at `path`, or where the loader and the usual directories have it.
pub fn load(path: Option<&Path>) -> Result<Nvml, Refusal> {
    let open = |path: &OsStr| Nvml::builder().lib_path(path).init();
    if let Some(path) = path {
        return open(path.as_os_str()).map_err(|e| refused(&path.display().to_string(), &e, true));
    }
    let by_loader = match open(LIBRARY.as_ref()) {
        Ok(nvml) => return Ok(nvml),
        Err(error) => error,
    };
    // Anything but a library that could not be opened is the answer of the one that was.
    if !matches!(by_loader, NvmlError::LibloadingError(_)) {
        return Err(refused(LIBRARY, &by_loader, false));
    }
    let usual = DIRECTORIES.iter().map(|dir| PathBuf::from(dir).join(LIBRARY)).find(|path| path.exists());
    let Some(path) = usual else {
        let places = DIRECTORIES.join(", ");
        let reason = format!("no {LIBRARY} in the loader's path or in {places}");
        return Err(Refusal::Absent(reason));
    };
    open(path.as_os_str()).map_err(|e| refused(&path.display().to_string(), &e, false))
}

/// A library that is there and does not start. Without a driver it has nothing to report: packages bring the library
/// to machines without a GPU too.
fn refused(library: &str, error: &NvmlError, is_required: bool) -> Refusal {
    let idle = matches!(error, NvmlError::DriverNotLoaded | NvmlError::LibraryNotFound) && !is_required;
    let reason = format!("{library}: {}", failed(error, "nvmlInit_v2"));
    if idle { Refusal::Absent(reason) } else { Refusal::Broken(reason) }
}

/// What failed, with the function that did.
pub fn failed(error: &NvmlError, function: &str) -> String {
    format!("NVML: {error} ({function})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_name_the_function() {
        let reason = failed(&NvmlError::GpuLost, "f");
        assert!(reason.starts_with("NVML: ") && reason.ends_with(" (f)"), "{reason}");
    }
}
