//! `alloc`: takes memory of each requested kind in turn, holds all of it, and gives it back in reverse.

mod anon;
mod children;
pub mod file;
mod kernel;
pub mod map;
mod plan;
mod run;
mod shmem;

use anyhow::Result;
use serde_json::Value;

use crate::output::SourceRecord;
use crate::sys::Machine;

#[cfg_attr(not(all(feature = "cuda", not(target_feature = "crt-static"))), allow(unused_imports))]
pub use run::{Step, run, run_steps, wait_for};

/// What a step needs besides its options.
pub struct Env {
    pub machine: Machine,
    pub cycle: u32,
}

/// Memory that a step has taken, until it is released.
pub trait Holding {
    /// What the kernel may have changed about it meanwhile (written out, collapsed, ...), for the first
    /// source's details.
    fn measure(&self) -> Option<Value> {
        None
    }

    fn release(self: Box<Self>) -> Result<()>;
}

/// What comes of a step: what it should be seen as, and the memory itself.
pub struct Taken {
    pub sources: Vec<SourceRecord>,
    pub holding: Box<dyn Holding>,
}

impl Taken {
    pub fn new(source: SourceRecord, holding: impl Holding + 'static) -> Self {
        Self { sources: vec![source], holding: Box::new(holding) }
    }
}
