//! Steps that concern the whole machine.

use std::{fs, path::Path};

use super::step::{Kind, Outcome, Step};
use crate::{
    page_size,
    source::pool::{self, SHRINKERS},
};
use spark_trace_host::meminfo;

/// Free blocks of at least this size count as large: huge pages, and what drivers take at once.
pub(super) const LARGE: u64 = 2 << 20;

/// All clean page cache.
pub(super) fn expect_page_cache() -> Step {
    let mut step = Step::new(Kind::PageCache, None);
    let Ok(text) = fs::read_to_string("/proc/meminfo") else {
        return step.refused("/proc/meminfo cannot be read");
    };
    let field = |name| meminfo::field(&text, name).unwrap_or(0);
    let cached = page_cache(&text);
    let (unwritten, mapped) = (field("Dirty") + field("Writeback"), field("Mapped"));
    step.expected_bytes = Some(cached.saturating_sub(unwritten).saturating_sub(mapped));
    step.keep(unwritten, "not yet on the disk");
    step.keep(mapped, "mapped by programs");
    step.notes.push("mapped shared memory is counted as mapped, so this may be too little".to_owned());
    step
}

pub(super) fn apply_page_cache() -> Outcome {
    let cached = || fs::read_to_string("/proc/meminfo").map(|text| page_cache(&text));
    let dropped = cached().and_then(|before| {
        fs::write("/proc/sys/vm/drop_caches", "1")?;
        Ok(Outcome::bytes(before, cached()?))
    });
    dropped.unwrap_or_else(Outcome::failed)
}

/// Page cache without shared memory, which is nowhere else.
fn page_cache(meminfo: &str) -> u64 {
    let field = |name| meminfo::field(meminfo, name).unwrap_or(0);
    (field("Cached") + field("Buffers")).saturating_sub(field("Shmem"))
}

/// Whether there are pools of NVIDIA's driver that can be made to free their pages.
pub fn has_pools() -> bool {
    pool::can_give_back(SHRINKERS.as_ref())
}

/// Pages that the driver keeps.
pub(super) fn expect_pools() -> Step {
    let mut step = Step::new(Kind::DriverPools, None);
    step.expected_bytes = pool::bytes(SHRINKERS.as_ref());
    if step.expected_bytes.is_none() {
        return step.refused(
            "no shrinker of NVIDIA's pools is found: driver 590 or later has them, and the kernel shows them with \
             CONFIG_SHRINKER_DEBUG and a mounted debugfs",
        );
    }
    if !has_pools() {
        return step.refused("this kernel has no file that makes a shrinker work (CONFIG_SHRINKER_DEBUG)");
    }
    step
}

pub(super) fn apply_pools() -> Outcome {
    let bytes = || pool::bytes(SHRINKERS.as_ref()).unwrap_or(0);
    let before = bytes();
    let scanned = pool::give_back(SHRINKERS.as_ref());
    let outcome = Outcome::bytes(before, bytes());
    match scanned {
        Ok(()) => outcome,
        Err(error) => outcome.error(error),
    }
}

pub(super) fn expect_compaction() -> Step {
    let step = Step::new(Kind::Compaction, None);
    if Path::new("/proc/sys/vm/compact_memory").exists() {
        step
    } else {
        step.refused("this kernel cannot move pages together (CONFIG_COMPACTION)")
    }
}

pub(super) fn apply_compaction() -> Outcome {
    let large = || fs::read_to_string("/proc/buddyinfo").map(|text| large_blocks(&text));
    let compacted = large().and_then(|before| {
        fs::write("/proc/sys/vm/compact_memory", "1")?;
        Ok(Outcome::blocks(before, large()?))
    });
    compacted.unwrap_or_else(Outcome::failed)
}

/// Bytes in free blocks of at least [`LARGE`]: after the zone's name a count for each order (mm/vmstat.c frag_show_print).
fn large_blocks(buddyinfo: &str) -> u64 {
    let of_zone = |line: &str| {
        let (_, zone) = line.split_once("zone").unwrap_or_default();
        let counts = zone.split_whitespace().skip(1).filter_map(|count| count.parse::<u64>().ok());
        let blocks = counts.enumerate().map(|(order, count)| (page_size() << order, count));
        blocks.filter(|(size, _)| *size >= LARGE).map(|(size, count)| size * count).sum::<u64>()
    };
    buddyinfo.lines().map(of_zone).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_blocks_are_those_of_two_mebibytes_and_more() {
        let smaller = LARGE.trailing_zeros() - page_size().trailing_zeros();
        let counts =
            |from: u32| (0..11).map(|order| if order >= from { " 3" } else { " 9" }).collect::<String>();
        let text =
            format!("Node 0, zone   Normal{}\nNode 1, zone Movable{}\n", counts(smaller), counts(smaller));
        let expected: u64 = (smaller..11).map(|order| 3 * (page_size() << order)).sum();
        assert_eq!(large_blocks(&text), 2 * expected);
    }

    #[test]
    fn page_cache_has_no_shared_memory_in_it() {
        let text = "Buffers:  10 kB\nCached:  100 kB\nShmem:  40 kB\n";
        assert_eq!(page_cache(text), 70 << 10);
    }
}
