//! Run times of programs, which are counted a small part of the time and put up to the whole.

use std::fs;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{self, array, int};

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// The kernel counts for everybody, until it is dropped.
struct CountedAlways {
    before: String,
}

impl CountedAlways {
    fn begin() -> Self {
        let before = fs::read_to_string(SWITCH).unwrap();
        fs::write(SWITCH, "1").unwrap();
        Self { before }
    }
}

impl Drop for CountedAlways {
    fn drop(&mut self) {
        fs::write(SWITCH, self.before.trim()).unwrap();
    }
}

/// Pages of a pipe are allocated and freed until `goes_on` is false.
fn storm(goes_on: &AtomicBool) {
    let (mut from, mut to) = std::io::pipe().unwrap();
    let mut pages = vec![0; 32 << 10];
    while goes_on.load(Ordering::Relaxed) {
        to.write_all(&pages).unwrap();
        from.read_exact(&mut pages).unwrap();
    }
}

/// The program counts its runs itself, all the time. What another tracer has the kernel count outside of this one's windows
/// was put up, too: twenty times as many.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_the_kernel_counts_for_others_is_not_put_up() {
    let dir = support::disk_dir();
    let goes_on = Arc::new(AtomicBool::new(true));
    let thread = std::thread::spawn({
        let goes_on = Arc::clone(&goes_on);
        move || storm(&goes_on)
    });
    let always = CountedAlways::begin();
    let words = ["--quiet", "--system", "--duration", "8s"];
    let recorded = support::record_words(&support::path(&dir, "r.json"), &words).exited(0);
    drop(always);
    goes_on.store(false, Ordering::Relaxed);
    thread.join().unwrap();

    let recording = recorded.recording();
    let hook = array(&recording["health"]["hooks"]).iter().find(|hook| hook["name"] == "page-alloc").unwrap();
    let (hits, runs) = (int(&hook["hits"]), int(&hook["runs"]));
    assert!(hits > 10_000, "{hook}");
    // A window may fall into a time in which the storm has no CPU.
    assert!((hits / 5..hits * 5).contains(&runs), "{hook}");
}
