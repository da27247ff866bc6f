//! What spark-trace's kernel side and user side share.
//!
//! No allocation, no std, no aya: tables ([`source::SOURCES`], [`hook::HOOKS`]), records in the ring buffer ([`event`])
//! and in maps ([`row`]), and map capacities ([`map`]). Adding a source or a hook starts with its row here.
#![no_std]

#[cfg(feature = "std")]
extern crate std;

/// Holds records that both sides read to their size.
macro_rules! wire {
    ($($record:ty = $size:expr),+ $(,)?) => {
        $(const _: () = {
            assert!(size_of::<$record>() == $size, "size of a wire record changed");
            assert!(size_of::<$record>() % 8 == 0, "a wire record must fill whole words");
            assert!(align_of::<$record>() <= 8, "a wire record must be at most 8-byte aligned");
        };)+
    };
}

pub mod capacities;
pub mod config;
pub mod cuda;
pub mod engine;
pub mod event;
pub mod hook;
pub mod map_records;
pub mod python;
#[cfg(feature = "std")]
pub mod quantity;
pub mod result;
pub mod source;
pub mod stack_copy;
pub mod task;
