//! Kernel side of spark-trace: small programs that count into maps, and send rare events to user space.
//!
//! One file of `hooks/` is one family of programs. A program does the least it can on its hot path:
//! look at the arguments, leave if the event is not of interest, add to a counter. What it cannot
//! record it counts as a loss.
#![no_std]
#![no_main]
// For the atomic instructions in maps.rs; the toolchain of the kernel side allows unstable features.
#![feature(asm_experimental_arch)]

mod config;
mod hooks;
mod loss;
mod maps;
mod memory_state;
mod page_frames;
mod rate;
mod read;
mod stack;
mod stack_copy;
mod target;
mod wake;

/// BPF programs cannot unwind and the verifier rejects what could panic, so this is never reached.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Helpers that read kernel memory are for GPL-compatible programs; the user side stays MIT OR Apache-2.0.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
