//! Programs that nobody here wrote, recorded natively, against the kernel's files read by the test.

use crate::support::Faults;
use crate::support::field::{PROGRAMS, Place, observe};
use crate::support::field_checks::{difference, levels, words};

#[test]
#[ignore = "needs root: cargo xtask test"]
fn levels_agree_with_the_kernel_and_a_program_is_compared_with_itself_at_its_peak() {
    let mut faults = Faults::default();
    for program in PROGRAMS {
        if let Some(why) = program.missing() {
            println!("SKIPPED: field: unavailable: {why}");
            continue;
        }
        let (a, b) = (observe(program, &Place::Native, "a"), observe(program, &Place::Native, "b"));
        levels(program, &a, &mut faults);
        words(program, &a, &mut faults);
        difference(program.name, &a, &b, &mut faults);
    }
    faults.finish();
}
