//! What a machine is started for, what runs in it, and what has become of it.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::kernels::Kernel;
use super::outcome::Console;

/// No test takes longer in a machine.
pub const TEST_LIMIT: Duration = Duration::from_mins(10);

/// What a machine is started for.
pub enum Mode {
    Tests,
    Shell,
    /// A line for a shell.
    Command(String),
}

/// What runs in a machine, as written in results.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    pub commit: String,
    /// SHA-256 of programs, tests and what to do with them: the same is the same run.
    pub programs: String,
}

/// What to run where.
pub struct Plan {
    pub kernels: Vec<&'static Kernel>,
    /// Parts of tests' names; all tests where there are none.
    pub filter: Vec<String>,
    pub mode: Mode,
    pub output: Option<PathBuf>,
    /// Leaves out what is in `output` already, of the same programs.
    pub goes_on: bool,
    pub packages: Option<PathBuf>,
    pub memory_mib: u32,
    pub at_once: usize,
    pub instructions: bool,
}

/// Another place reports what was being done when a thread panicked.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A machine that has run.
pub struct Ran {
    pub kernel: &'static Kernel,
    pub of: Origin,
    pub package: String,
    pub console: Console,
    /// What `spark-trace doctor` said there.
    pub doctor: serde_json::Value,
    /// All that the console has said.
    pub log: String,
    pub took: Duration,
}

impl Ran {
    pub fn broken(kernel: &'static Kernel, why: String) -> Self {
        let mut console = Console::new(kernel.name);
        console.ended(Some(why));
        let (package, log) = (String::new(), String::new());
        let doctor = serde_json::Value::Null;
        Self { kernel, of: Origin::default(), package, console, doctor, log, took: Duration::ZERO }
    }
}
