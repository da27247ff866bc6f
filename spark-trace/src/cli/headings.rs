//! Sections of --help. A command whose help is longer than a screen has several.

/// What `record` attaches to.
pub const ATTACH: &str = "Instead of COMMAND";
pub const COMMAND: &str = "How COMMAND runs";
pub const DETAIL: &str = "Detail and cost";
pub const HOOKS: &str = "Hooks and libraries";
/// What is read, and what of it is listed.
pub const CONTENT: &str = "Content";
pub const OUTPUT: &str = "Output";
/// What is looked at before anything runs.
pub const BEFORE: &str = "Before the first run";
pub const LOG: &str = "Log";
pub const STATISTICS: &str = "Statistics";
pub const SERVICE: &str = "Service";
