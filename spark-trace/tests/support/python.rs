//! Programs of Python's, for what no workload of ours does.

use tempfile::TempDir;

use super::{Recorded, Running};

const PLACES: &[&str] = &["/usr/bin/python3", "/usr/local/bin/python3"];

/// Python, where this machine has it; else says so.
pub fn python() -> Option<&'static str> {
    let found = PLACES.iter().copied().find(|path| std::fs::metadata(path).is_ok());
    if found.is_none() {
        println!("SKIPPED: program: not-applicable: there is no python3 on this machine");
    }
    found
}

/// Records a program, which calls `hold()` where it is to stay as it is until the recorder has seen that.
pub fn record(python: &str, dir: &TempDir, name: &str, program: &str) -> Recorded {
    let gate = super::path(dir, &format!("{name}.gate"));
    let program = format!(
        "def hold(passed=[]):\n  import os, time\n  passed.append('{gate}.%d' % len(passed))\n  \
         print('HOLD', flush=True)\n  while not os.path.exists(passed[-1]): time.sleep(0.01)\n  \
         os.remove(passed[-1])\n{program}"
    );
    let holds = program.matches("hold()").count();
    let output = super::path(dir, &format!("{name}.json"));
    let mut running = Running::start(&output, &["--force", "--quiet", "--", python, "-c", &program]);
    for number in 0..holds {
        running.line(|line| line == "HOLD");
        running.reads_details();
        std::fs::write(format!("{gate}.{number}"), "").unwrap();
    }
    running.finish().exited(0)
}
