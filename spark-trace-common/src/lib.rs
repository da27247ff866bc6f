//! What spark-trace's kernel side and user side share.
//!
//! No allocation, no std, no aya: tables ([`source::SOURCES`], [`hook::HOOKS`]), wire records
//! ([`event`]) and map capacities ([`map`]). Adding a source or a hook starts with its row here.
#![no_std]

pub mod config;
pub mod cuda;
pub mod event;
pub mod hook;
pub mod map;
pub mod source;
