//! What the target holds through the CUDA driver: calls in, live bytes by kind, function and caller out. Pure.
//!
//! A call is known by what it returned: pointers and handles are followed from the call that made them to the one
//! that frees them, to the end of their context or to that of their process.

mod holdings;
mod largest;
mod object;
mod places;
mod totals;

pub use holdings::{Effect, Holdings, Moment};
pub use totals::ByGpu;
