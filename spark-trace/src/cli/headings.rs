//! Sections of --help. A command whose help is longer than a screen has several.

/// What `record` attaches to.
#[cfg(feature = "live")]
pub const ATTACH: &str = "Instead of COMMAND";
#[cfg(feature = "live")]
pub const COMMAND: &str = "How COMMAND runs";
#[cfg(feature = "live")]
pub const DETAIL: &str = "Detail and cost";
#[cfg(feature = "live")]
pub const HOOKS: &str = "Hooks and libraries";
/// What is read, and what of it is listed.
pub const CONTENT: &str = "Content";
pub const OUTPUT: &str = "Output";
pub const STATISTICS: &str = "Statistics";
#[cfg(feature = "live")]
pub const SERVICE: &str = "Service";
