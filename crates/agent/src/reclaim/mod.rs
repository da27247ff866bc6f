//! Giving memory back to the machine: which steps there are, what each should give, and taking those that were chosen.
//!
//! Nothing is chosen here: a step that was not named is not taken, and one that could take what is in use is refused.

mod cgroups;
mod files;
mod holders;
mod machine;
mod step;
mod walk;

pub use machine::has_pools;
pub use step::{Kept, Kind, Outcome, Step};

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

/// The steps that somebody chose.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Files, and directories with all files below them.
    pub files: Vec<PathBuf>,
    /// Cgroups by their path below the mount point.
    pub cgroups: Vec<String>,
    pub driver_pools: bool,
    /// All clean page cache.
    pub page_cache: bool,
    pub compaction: bool,
    /// Files that a process has mapped are not left out.
    pub mapped: bool,
    /// Files are written to the disk first.
    pub write_back: bool,
}

impl Wanted {
    pub const fn is_empty(&self) -> bool {
        self.files.is_empty()
            && self.cgroups.is_empty()
            && !(self.driver_pools || self.page_cache || self.compaction)
    }
}

/// The chosen steps in the order in which they are taken, with what each should give back. Changes nothing.
pub fn expect(wanted: &Wanted) -> Vec<Step> {
    // What two paths share is counted with the first.
    let mut seen = walk::Seen::new();
    let files = wanted.files.iter().map(|path| files::expect(path, wanted, &mut seen));
    let mut steps: Vec<_> = files.collect();
    let mut named = std::collections::HashSet::new();
    steps.extend(wanted.cgroups.iter().map(|name| cgroups::expect(name, &mut named)));
    // Free pages are moved together last: then there are most of them.
    let of_machine: [(bool, fn() -> Step); 3] = [
        (wanted.driver_pools, machine::expect_pools),
        (wanted.page_cache, machine::expect_page_cache),
        (wanted.compaction, machine::expect_compaction),
    ];
    steps.extend(of_machine.into_iter().filter(|(chosen, _)| *chosen).map(|(_, expect)| expect()));
    steps
}

/// Takes the open steps, one after the other.
pub fn apply(steps: &mut [Step], wanted: &Wanted) {
    for step in steps.iter_mut().filter(|step| step.is_open()) {
        let begun = Instant::now();
        let subject = step.subject.as_deref().unwrap_or_default();
        let outcome = match step.kind {
            Kind::Files => files::apply(step.path.as_deref().unwrap_or_else(|| Path::new(subject)), wanted),
            Kind::Cgroup => cgroups::apply(subject, step.expected_bytes.unwrap_or(0)),
            Kind::DriverPools => machine::apply_pools(),
            Kind::PageCache => machine::apply_page_cache(),
            Kind::Compaction => machine::apply_compaction(),
        };
        step.outcome = Some(Outcome { took_ns: begun.elapsed().as_nanos() as u64, ..outcome });
    }
}
