//! Names of result codes.

use crate::cuda::Library;

/// `CUresult` (cuda.h), those that memory and context calls return.
const CUDA: &[(i32, &str)] = &[
    (1, "CUDA_ERROR_INVALID_VALUE"),
    (2, "CUDA_ERROR_OUT_OF_MEMORY"),
    (3, "CUDA_ERROR_NOT_INITIALIZED"),
    (4, "CUDA_ERROR_DEINITIALIZED"),
    (46, "CUDA_ERROR_DEVICE_UNAVAILABLE"),
    (100, "CUDA_ERROR_NO_DEVICE"),
    (101, "CUDA_ERROR_INVALID_DEVICE"),
    (200, "CUDA_ERROR_INVALID_IMAGE"),
    (201, "CUDA_ERROR_INVALID_CONTEXT"),
    (209, "CUDA_ERROR_NO_BINARY_FOR_GPU"),
    (216, "CUDA_ERROR_CONTEXT_ALREADY_IN_USE"),
    (218, "CUDA_ERROR_INVALID_PTX"),
    (222, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"),
    (301, "CUDA_ERROR_FILE_NOT_FOUND"),
    (304, "CUDA_ERROR_OPERATING_SYSTEM"),
    (400, "CUDA_ERROR_INVALID_HANDLE"),
    (500, "CUDA_ERROR_NOT_FOUND"),
    (600, "CUDA_ERROR_NOT_READY"),
    (700, "CUDA_ERROR_ILLEGAL_ADDRESS"),
    (708, "CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE"),
    (709, "CUDA_ERROR_CONTEXT_IS_DESTROYED"),
    (712, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED"),
    (713, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED"),
    (719, "CUDA_ERROR_LAUNCH_FAILED"),
    (800, "CUDA_ERROR_NOT_PERMITTED"),
    (801, "CUDA_ERROR_NOT_SUPPORTED"),
    (802, "CUDA_ERROR_SYSTEM_NOT_READY"),
    (999, "CUDA_ERROR_UNKNOWN"),
];

/// `nvmlReturn_t` (nvml.h).
const NVML: &[(i32, &str)] = &[
    (1, "NVML_ERROR_UNINITIALIZED"),
    (2, "NVML_ERROR_INVALID_ARGUMENT"),
    (3, "NVML_ERROR_NOT_SUPPORTED"),
    (4, "NVML_ERROR_NO_PERMISSION"),
    (7, "NVML_ERROR_INSUFFICIENT_SIZE"),
    (15, "NVML_ERROR_GPU_IS_LOST"),
    (999, "NVML_ERROR_UNKNOWN"),
];

/// The name that the library's header gives a result; `None` for success and for those not listed here.
pub fn result_name(library: Library, result: i32) -> Option<&'static str> {
    let table = match library {
        Library::Cuda => CUDA,
        Library::Nvml => NVML,
    };
    table.iter().find(|(code, _)| *code == result).map(|&(_, name)| name)
}
