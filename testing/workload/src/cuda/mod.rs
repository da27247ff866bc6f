//! Workloads that take memory through the CUDA driver.

pub mod select;

#[cfg(all(feature = "cuda", not(target_feature = "crt-static")))]
mod with;
#[cfg(all(feature = "cuda", not(target_feature = "crt-static")))]
pub use with::*;

#[cfg(not(all(feature = "cuda", not(target_feature = "crt-static"))))]
mod without;
#[cfg(not(all(feature = "cuda", not(target_feature = "crt-static"))))]
pub use without::*;
