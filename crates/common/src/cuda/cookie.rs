//! What a probe's cookie says: what the kernel side does at a call, in 64 bits.

use super::{ARGS, FUNCTIONS, OUTS, Op};

/// What a probe's cookie passes to the kernel side: which row, what to read, whether to take the stack.
pub const fn cookie(function: usize) -> u64 {
    let row = &FUNCTIONS[function];
    let mut cookie = function as u64 & 0xffff;
    let mut i = 0;
    while i < OUTS {
        let out = row.outs[i];
        let bits = if out.is_some() { (out.arg as u64 + 1) | (out.offset as u64) << 4 } else { 0 };
        cookie |= bits << (16 + 12 * i);
        i += 1;
    }
    cookie |= row.frames_by() << COOKIE_SIZE;
    cookie |= row.current() << COOKIE_CURRENT;
    cookie |= (matches!(row.op, Op::Current(_)) as u64) << COOKIE_SILENT;
    cookie |= (row.wants_stack() as u64) << COOKIE_STACK;
    cookie |= (row.is_urgent() as u64) << COOKIE_URGENT;
    cookie | (matches!(row.op, Op::Query) as u64) << COOKIE_STATE
}

/// Bits of a cookie: three for the change of the thread's current context; send nothing.
pub const COOKIE_CURRENT: u32 = 52;
pub const COOKIE_SILENT: u32 = 55;
/// Where a cookie says whose frames of Python are wanted: 4 bits, none for those of nobody.
pub const COOKIE_SIZE: u32 = 56;
/// Those of every call; smaller values are an argument, from 1, that is large enough.
pub const ANY_SIZE: u64 = 0xf;
/// Bits of a cookie: take the user stack; take the state of memory; wake the tracer.
pub const COOKIE_STACK: u32 = 60;
pub const COOKIE_STATE: u32 = 61;
pub const COOKIE_URGENT: u32 = 62;

/// Row of a cookie.
pub const fn cookie_function(cookie: u64) -> u32 {
    cookie as u32 & 0xffff
}

/// What a cookie says of whose frames of Python are wanted.
pub const fn cookie_size(cookie: u64) -> u64 {
    cookie >> COOKIE_SIZE & 0xf
}

/// A [`Current`], or 0.
pub const fn cookie_current(cookie: u64) -> u64 {
    cookie >> COOKIE_CURRENT & 7
}

/// What a cookie says of value `i` behind a pointer: argument (from 1, 0 for none) and offset.
pub const fn cookie_out(cookie: u64, i: usize) -> (u64, u64) {
    let bits = cookie >> (16 + 12 * i) & 0xfff;
    (bits & 0xf, bits >> 4)
}

const _: () = {
    let mut i = 0;
    while i < FUNCTIONS.len() {
        let mut j = 0;
        while j < OUTS {
            let out = FUNCTIONS[i].outs[j];
            assert!(!out.is_some() || (out.arg as usize) < ARGS, "no such argument is kept");
            let (arg, offset) = cookie_out(cookie(i), j);
            assert!(arg == if out.is_some() { out.arg as u64 + 1 } else { 0 }, "a cookie lost an argument");
            assert!(!out.is_some() || offset == out.offset as u64, "a cookie lost an offset");
            j += 1;
        }
        assert!(cookie_function(cookie(i)) as usize == i, "a cookie lost its row");
        assert!(cookie_size(cookie(i)) == FUNCTIONS[i].frames_by(), "a cookie lost its size");
        assert!(cookie_current(cookie(i)) == FUNCTIONS[i].current(), "a cookie lost what becomes current");
        i += 1;
    }
};
