//! Page cache that is charged to a cgroup, by memory.reclaim of cgroup v2 (Linux 5.19; mm/memcontrol.c memory_reclaim).

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
};

use super::step::{Kind, Outcome, Step};
use crate::cgroup::Layout;
use spark_trace_host::meminfo;
use spark_trace_recording::units::size;

/// Says to leave anonymous memory alone (Linux 6.10; mm/vmscan.c user_proactive_reclaim).
const NO_SWAPPING: &str = "swappiness=0";

/// What a cgroup would give back; nothing more where it is among those that were `named` before.
pub(super) fn expect(name: &str, named: &mut HashSet<PathBuf>) -> Step {
    let mut step = Step::new(Kind::Cgroup, Some(name.to_owned()));
    let dir = match directory(name) {
        Ok(dir) => dir,
        Err(why) => return step.refused(why),
    };
    if !named.insert(dir.components().collect()) {
        step.needless = Some("it is named twice".to_owned());
        return step;
    }
    let stat = match fs::read_to_string(dir.join("memory.stat")) {
        Ok(stat) => Stat::parse(&stat),
        Err(error) => return step.refused(format!("memory.stat cannot be read: {error}")),
    };
    step.expected_bytes = Some(stat.clean());
    step.keep(stat.unwritten, "not yet on the disk");
    step.keep(stat.mapped, "mapped by programs of the cgroup");
    step.notes
        .push("the kernel chooses the pages, the least used first, and takes kernel caches too".to_owned());
    if fs::symlink_metadata(dir.join("memory.reclaim")).is_err() {
        return step.refused("this kernel has no memory.reclaim (Linux 5.19 has)");
    }
    // Nothing is reclaimed of no bytes: whether the kernel knows the word is all that this shows.
    match reclaim(&dir.join("memory.reclaim"), 0) {
        Ok(()) => step,
        Err(error) => step.refused(error.to_string()),
    }
}

/// Gives back `bytes` of it.
pub(super) fn apply(name: &str, bytes: u64) -> Outcome {
    let dir = match directory(name) {
        Ok(dir) => dir,
        Err(why) => return Outcome::failed(why),
    };
    let current = || fs::read_to_string(dir.join("memory.current"))?.trim().parse().map_err(io::Error::other);
    let before: u64 = match current() {
        Ok(before) => before,
        Err(error) => return Outcome::failed(format!("memory.current: {error}")),
    };
    let reclaimed = reclaim(&dir.join("memory.reclaim"), bytes);
    let outcome = match current() {
        Ok(after) => Outcome::bytes(before, after),
        Err(error) => return Outcome::failed(format!("memory.current: {error}")),
    };
    match reclaimed {
        Ok(()) => outcome,
        // Less than that could be reclaimed: how much was is known.
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => outcome,
        Err(error) => outcome.error(format!("memory.reclaim: {error}")),
    }
}

fn reclaim(file: &Path, bytes: u64) -> io::Result<()> {
    match fs::write(file, format!("{bytes} {NO_SWAPPING}")) {
        // An older kernel does not know the word. Without swap it has nothing else to take.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => match meminfo::read("SwapTotal") {
            Some(0) => fs::write(file, bytes.to_string()),
            swap => Err(io::Error::other(format!(
                "this kernel cannot leave anonymous memory alone (Linux 6.10 can), and the machine has {} of swap",
                swap.map_or_else(|| "an unknown amount".to_owned(), |bytes| size(bytes as i64))
            ))),
        },
        result => result,
    }
}

/// The directory of a cgroup by its path below the mount point, or by the whole path.
fn directory(name: &str) -> Result<PathBuf, String> {
    let layout = Layout::detect().map_err(|error| error.to_string())?;
    if !layout.is_v2() {
        return Err(
            "cgroup v1 has nothing that gives back page cache and leaves anonymous memory alone".to_owned()
        );
    }
    let given = Path::new(name);
    if given.components().any(|part| part == std::path::Component::ParentDir) {
        return Err("a path with `..` is no name of a cgroup".to_owned());
    }
    let dir = if given.starts_with(&layout.memory_root) { given.to_owned() } else { layout.dir(name) };
    if dir == layout.memory_root {
        return Err("the root has no memory.reclaim: name cgroups below it, or use --page-cache".to_owned());
    }
    match fs::symlink_metadata(dir.join("memory.current")) {
        Ok(_) => Ok(dir),
        Err(error) => Err(format!("{} is no cgroup with the memory controller: {error}", dir.display())),
    }
}

/// What counts of memory.stat, in bytes.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    /// On the lists of pages of files.
    file: u64,
    unwritten: u64,
    mapped: u64,
}

impl Stat {
    fn parse(text: &str) -> Self {
        let value = |key: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(' '));
            lines.find(|(name, _)| *name == key).and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
        };
        Self {
            file: value("inactive_file") + value("active_file"),
            unwritten: value("file_dirty") + value("file_writeback"),
            mapped: value("file_mapped"),
        }
    }

    /// Mapped pages of tmpfs are counted as mapped and are not on these lists, so this may be too little.
    const fn clean(&self) -> u64 {
        self.file.saturating_sub(self.unwritten).saturating_sub(self.mapped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_pages_are_those_of_the_lists_without_dirty_and_mapped_ones() {
        let text = "anon 4096\nfile 900000\nfile_mapped 4096\nfile_dirty 8192\nfile_writeback 4096\n\
                    inactive_file 409600\nactive_file 81920\n";
        let stat = Stat::parse(text);
        assert_eq!(stat, Stat { file: 491_520, unwritten: 12_288, mapped: 4096 });
        assert_eq!(stat.clean(), 475_136);
        assert_eq!(Stat::parse("").clean(), 0);
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_refused() {
        assert!(expect("/../etc", &mut HashSet::new()).refused.is_some());
    }
}
