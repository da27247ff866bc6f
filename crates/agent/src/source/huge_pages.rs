//! Huge pages of anonymous memory of which only parts are mapped: the kernel keeps them whole until memory is short
//! (mm/huge_memory.c deferred_split_folio, deferred_split_scan).

use std::{fs, path::Path};

use super::KernelFile;

/// A folder for each size (Linux 6.12: mm/huge_memory.c nr_anon_partially_mapped of mthp_stat).
pub const SIZES: &str = "/sys/kernel/mm/transparent_hugepage";
const COUNT: &str = "stats/nr_anon_partially_mapped";

/// The counters of all sizes, kept open.
#[derive(Debug, Default)]
pub struct PartlyMapped {
    /// Bytes of one page, and how many of that size there are.
    sizes: Vec<(u64, KernelFile)>,
}

impl PartlyMapped {
    /// Of a kernel that does not count them none.
    pub fn open(sizes: &Path) -> Self {
        let entries = fs::read_dir(sizes).into_iter().flatten().flatten();
        let open = |entry: fs::DirEntry| {
            let size = size_of(entry.file_name().to_str()?)?;
            Some((size, KernelFile::open(&entry.path().join(COUNT)).ok()?))
        };
        Self { sizes: entries.filter_map(open).collect() }
    }

    /// Bytes of such pages, mapped and unmapped parts together; absent where the kernel does not say.
    pub fn bytes(&self) -> Option<u64> {
        let mut sum = None;
        for (size, file) in &self.sizes {
            let count: u64 = file.read().ok()?.trim().parse().ok()?;
            *sum.get_or_insert(0) += *size * count;
        }
        sum
    }
}

/// `hugepages-2048kB`.
fn size_of(name: &str) -> Option<u64> {
    let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_sizes_add_up() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(PartlyMapped::open(dir.path()).bytes(), None);
        for (size, count) in [("hugepages-64kB", "3\n"), ("hugepages-2048kB", "2\n")] {
            fs::create_dir_all(dir.path().join(size).join("stats")).unwrap();
            fs::write(dir.path().join(size).join(COUNT), count).unwrap();
        }
        fs::create_dir(dir.path().join("khugepaged")).unwrap();
        // A size of page cache alone has no such counter.
        fs::create_dir(dir.path().join("hugepages-8kB")).unwrap();
        assert_eq!(PartlyMapped::open(dir.path()).bytes(), Some(3 * (64 << 10) + 2 * (2048 << 10)));
    }
}
