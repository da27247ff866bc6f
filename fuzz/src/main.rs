//! One program for all targets, since each link of spark-trace takes long: $SPARK_TRACE_FUZZ_TARGET chooses.
//! `cargo xtask fuzz` builds and runs it.

#![no_main]

use std::sync::LazyLock;

use spark_trace_fuzz::{LIST, TARGETS, Target, VARIABLE};

static CHOSEN: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var(VARIABLE).unwrap_or_default();
    let target = TARGETS.iter().find(|target| target.name == name);
    target.unwrap_or_else(|| {
        eprintln!("error: ${VARIABLE} names no target: {name:?}");
        std::process::exit(2);
    })
});

libfuzzer_sys::fuzz_target!(init: list(), |data: &[u8]| (CHOSEN.run)(data));

/// For `cargo xtask fuzz`: each target with its longest input.
fn list() {
    if std::env::var(VARIABLE).is_ok_and(|name| name == LIST) {
        TARGETS.iter().for_each(|target| println!("{} {}", target.name, target.longest));
        std::process::exit(0);
    }
}
