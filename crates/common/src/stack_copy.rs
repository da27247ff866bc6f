//! Copies of user stacks, from which user space finds the callers in code that keeps no frame pointers.

use crate::capacities::STACK_COPY_BYTES;

/// Registers that a copy has room for: as many as DWARF numbers on arm64.
pub const REGISTERS: usize = 32;

/// The user stack of a thread from its stack pointer on, and the registers that a function leaves as they were. The others have no
/// bearing on where its callers go on.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct StackCopy {
    /// Events name it; never 0.
    pub number: u64,
    /// Where the thread goes on.
    pub instruction: u64,
    /// By the numbers that DWARF gives them; see [`KEPT_X86_64`] and [`KEPT_ARM64`] for those that are filled in.
    pub registers: [u64; REGISTERS],
    /// Address of `bytes`: at the stack pointer or a little below it.
    pub start: u64,
    /// Bytes that could be read. What lies behind them here is of another copy.
    pub length: u64,
    pub bytes: [u8; STACK_COPY_BYTES],
}

/// Registers of x86-64 that are copied: rbx, rbp, rsp, r12 to r15 (System V ABI, AMD64 supplement, figures 3.4 and 3.36).
pub const KEPT_X86_64: &[usize] = &[3, 6, 7, 12, 13, 14, 15];
/// Registers of arm64 that are copied: x19 to x30 and the stack pointer (AAPCS64, and DWARF for the Arm 64-bit Architecture).
pub const KEPT_ARM64: &[usize] = &[19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31];

wire! {
    StackCopy = 32 + 8 * REGISTERS + STACK_COPY_BYTES,
}
