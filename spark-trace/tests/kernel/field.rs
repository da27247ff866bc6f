//! Programs that nobody here wrote, recorded natively, against the kernel's files read by the test.

use crate::support::Faults;
use crate::support::field::{PROGRAMS, Place, Program, observe};
use crate::support::field_checks::{difference, levels, words};

/// Runs each program of the machine; what is missing is said.
fn each(check: impl Fn(&Program, &mut Faults)) {
    let mut faults = Faults::default();
    for program in PROGRAMS {
        match program.missing() {
            Some(why) => println!("SKIPPED: field: unavailable: {why}"),
            None => check(program, &mut faults),
        }
    }
    faults.finish();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn levels_agree_with_the_kernel_and_no_kv_cache_is_found() {
    each(|program, faults| {
        let observed = observe(program, &Place::Native, "alone");
        levels(program, &observed, faults);
        words(program, &observed, faults);
    });
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_program_compared_with_itself_is_compared_at_its_peak() {
    each(|program, faults| {
        let (a, b) = (observe(program, &Place::Native, "a"), observe(program, &Place::Native, "b"));
        difference(program.name, &a, &b, faults);
    });
}
