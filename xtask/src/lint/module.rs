//! One module: what it defines, imports and names.

use std::collections::HashMap;

/// What a name in a module stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// An item that the module defines.
    Here,
    Module(usize),
    /// An import, by its path; perhaps of another crate.
    Import(Vec<String>),
}

/// A path that the code names, and where.
#[derive(Debug)]
pub struct Mention {
    pub path: Vec<String>,
    pub line: usize,
}

#[derive(Debug)]
pub struct Module {
    pub parent: Option<usize>,
    pub node: usize,
    pub names: HashMap<String, Vec<Name>>,
    /// Paths of `use path::*`.
    pub globs: Vec<Vec<String>>,
    pub mentions: Vec<Mention>,
}
