//! Load-time configuration, see [`spark_trace_common::config`].

use spark_trace_common::config::Config;

/// Set by user space before loading; read-only afterwards, so the verifier knows every value.
#[unsafe(no_mangle)]
pub(crate) static CONFIG: Config = Config::ZERO;

/// Reads a field of the configuration.
macro_rules! conf {
    ($field:ident) => {
        $crate::config::constant(core::ptr::addr_of!($crate::config::CONFIG.$field))
    };
}
pub(crate) use conf;

/// Only for [`conf!`]. Volatile because the compiler must not assume the zeroes it sees in the static.
#[inline(always)]
pub(crate) fn constant(field: *const u32) -> u32 {
    // SAFETY: a field of a live static.
    unsafe { core::ptr::read_volatile(field) }
}
