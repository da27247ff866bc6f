//! What a call made, and what it is followed by.

use std::collections::HashMap;

use spark_trace_common::cuda::Kind;

use super::places::Place;

/// What a pointer or handle means: values of different meaning may be equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Space {
    Address,
    Handle,
    Range,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Object {
    pub row: usize,
    pub kind: Kind,
    pub place: Place,
    /// The context that it was allocated in, if that is known.
    pub context: Option<u64>,
    pub bytes: u64,
    /// When its allocation returned.
    pub since_ns: u64,
    /// Mappings of physical memory.
    pub mapped: u32,
    /// Its number among the largest; absent of what is never one of them.
    pub number: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Mapping {
    pub length: u64,
    pub of: Physical,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Physical {
    Handle(u64),
    Orphan(u64),
}

#[derive(Debug, Default)]
pub(super) struct Contexts {
    pub created: Vec<u64>,
    /// The primary context of each device, and how often it is retained.
    pub primary: HashMap<u64, (Option<u64>, u32)>,
}

pub(super) const fn space_of(kind: Kind) -> Space {
    match kind {
        Kind::Physical | Kind::PhysicalHost | Kind::Imported => Space::Handle,
        Kind::Reserved => Space::Range,
        _ => Space::Address,
    }
}
