//! Pages that the NVIDIA module keeps after freeing them (driver 590 and later: kernel-open/nvidia/nv-vm.c
//! sysmem_page_pools), from the shrinkers it registers for them.
//!
//! No machine with such a driver was at hand: names and units are those of the source.

use std::{fs, path::Path};

use crate::page_size;

/// Where the kernel shows shrinkers (CONFIG_SHRINKER_DEBUG, mounted debugfs).
pub const SHRINKERS: &str = "/sys/kernel/debug/shrinker";

/// How the pools' shrinkers are called: `nv-sysmem-alloc-node-N-order-M`, and a number that the kernel appends.
const NAME: &str = "nv-sysmem-alloc-node-";

/// Bytes in all pools; `None` where there is no such shrinker.
pub fn bytes(shrinkers: &Path) -> Option<u64> {
    let entries = fs::read_dir(shrinkers).ok()?;
    let mut sum = None;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(order) = name.to_str().and_then(order_of) else { continue };
        let Ok(text) = fs::read_to_string(entry.path().join("count")) else { continue };
        *sum.get_or_insert(0) += count(&text) * (page_size() << order.min(30));
    }
    sum
}

fn order_of(name: &str) -> Option<u32> {
    let (_, order) = name.strip_prefix(NAME)?.split_once("-order-")?;
    order.split('-').next()?.parse().ok()
}

/// A line for each memory cgroup: its inode number, then a count for each node (mm/shrinker_debug.c).
fn count(text: &str) -> u64 {
    let nodes = text.lines().flat_map(|line| line.split_whitespace().skip(1));
    nodes.filter_map(|count| count.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_of_all_nodes_and_orders_add_up() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("nv-sysmem-alloc-node-0-order-0-57", "1 10 \n"),
            ("nv-sysmem-alloc-node-0-order-9-58", "1 2 1 \n"),
            ("sb-ext4:vda-12", "1 1000\n"),
        ] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("count"), text).unwrap();
        }
        assert_eq!(bytes(dir.path()), Some((10 + 3 * 512) * page_size()));
    }

    #[test]
    fn without_such_shrinkers_there_is_no_pool() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(bytes(dir.path()), None);
        assert_eq!(bytes(&dir.path().join("missing")), None);
    }
}
