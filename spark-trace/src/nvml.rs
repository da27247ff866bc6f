//! NVIDIA's management library: where it lies, and why it or one of its functions gives no answer.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use nvml_wrapper::{Nvml, error::NvmlError};

use crate::health::{NVML_NOT_SUPPORTED, Verdict};

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

/// Why there is no library.
pub(crate) type Refusal = (Verdict, String);

/// The library that is found; why there is none, where none is.
pub fn open() -> Result<Nvml, String> {
    load(None).map_err(|(_, reason)| reason)
}

pub(crate) fn load(path: Option<&Path>) -> Result<Nvml, Refusal> {
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
        return Err((Verdict::NotApplicable, reason));
    };
    open(path.as_os_str()).map_err(|e| refused(&path.display().to_string(), &e, false))
}

/// A library that is there and does not start. Without a driver it has nothing to tell of: packages bring the library
/// to machines without a GPU too.
fn refused(library: &str, error: &NvmlError, asked_for: bool) -> Refusal {
    let idle = matches!(error, NvmlError::DriverNotLoaded | NvmlError::LibraryNotFound) && !asked_for;
    let verdict = if idle { Verdict::NotApplicable } else { Verdict::Broken };
    (verdict, format!("{library}: {}", reason(error, "nvmlInit_v2")))
}

/// Why a value is absent, with the function that did not give it.
pub(crate) fn reason(error: &NvmlError, function: &str) -> String {
    match error {
        NvmlError::NotSupported => format!("{NVML_NOT_SUPPORTED} ({function})"),
        error => format!("NVML: {error} ({function})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_name_the_function() {
        assert_eq!(reason(&NvmlError::NotSupported, "f"), "NVML: not supported (f)");
        assert!(reason(&NvmlError::GpuLost, "f").ends_with("(f)"));
    }
}
