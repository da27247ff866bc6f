//! What spark-trace takes from the machine under it without tracing: files it may write, the user who called sudo, clients
//! of container engines, NVIDIA's management library.

pub mod archive;
pub mod engine;
pub mod invoker;
pub mod meminfo;
pub mod nvml;
pub mod output_file;
