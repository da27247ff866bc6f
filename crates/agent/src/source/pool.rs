//! Pages that the NVIDIA module keeps after freeing them (driver 590 and later: kernel-open/nvidia/nv-vm.c
//! sysmem_page_pools), from the shrinkers it registers for them.
//!
//! No machine with such a driver was at hand: names and units are those of the source.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::page_size;

/// Where the kernel shows shrinkers (CONFIG_SHRINKER_DEBUG, mounted debugfs).
pub const SHRINKERS: &str = "/sys/kernel/debug/shrinker";

/// How the pools' shrinkers are called: `nv-sysmem-alloc-node-N-order-M`, and a number that the kernel appends.
const NAME: &str = "nv-sysmem-alloc-node-";

/// Bytes in all pools; `None` where there is no such shrinker.
pub fn bytes(shrinkers: &Path) -> Option<u64> {
    let mut sum = None;
    for (order, dir) in pools(shrinkers) {
        let Ok(text) = fs::read_to_string(dir.join("count")) else { continue };
        *sum.get_or_insert(0) += count(&text) * (page_size() << order.min(30));
    }
    sum
}

/// Whether the pools can be made to free their pages: only a kernel with CONFIG_SHRINKER_DEBUG has a file for that.
pub fn can_give_back(shrinkers: &Path) -> bool {
    let mut pools = pools(shrinkers).peekable();
    pools.peek().is_some() && pools.all(|(_, dir)| dir.join("scan").exists())
}

/// Makes every pool free all its pages, on each node. A line of `scan` has the inode number of a memory cgroup, which is 0
/// for a shrinker that does not go by cgroups, a node and a number of objects (mm/shrinker_debug.c
/// shrinker_debugfs_scan_write).
pub fn give_back(shrinkers: &Path) -> io::Result<()> {
    for (_, dir) in pools(shrinkers) {
        let text = fs::read_to_string(dir.join("count"))?;
        for (node, objects) in by_node(&text).into_iter().enumerate().filter(|(_, objects)| *objects > 0) {
            fs::write(dir.join("scan"), format!("0 {node} {objects}"))?;
        }
    }
    Ok(())
}

/// Order of the blocks of each pool, and its directory.
fn pools(shrinkers: &Path) -> impl Iterator<Item = (u32, PathBuf)> {
    let entries = fs::read_dir(shrinkers).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((order_of(entry.file_name().to_str()?)?, entry.path())))
}

fn order_of(name: &str) -> Option<u32> {
    let (_, order) = name.strip_prefix(NAME)?.split_once("-order-")?;
    order.split('-').next()?.parse().ok()
}

/// A line for each memory cgroup: its inode number, then a count for each node (mm/shrinker_debug.c).
fn count(text: &str) -> u64 {
    by_node(text).into_iter().sum()
}

/// The counts of each node, of all cgroups.
fn by_node(text: &str) -> Vec<u64> {
    let mut nodes = Vec::new();
    for line in text.lines() {
        for (node, count) in line.split_whitespace().skip(1).enumerate() {
            if nodes.len() == node {
                nodes.push(0);
            }
            nodes[node] += count.parse::<u64>().unwrap_or(0);
        }
    }
    nodes
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
    fn each_node_of_a_pool_is_scanned_for_what_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let pool = dir.path().join("nv-sysmem-alloc-node-0-order-0-57");
        fs::create_dir(&pool).unwrap();
        fs::write(pool.join("count"), "1 0 7 \n").unwrap();
        assert!(!can_give_back(dir.path()), "without the file");
        fs::write(pool.join("scan"), "").unwrap();
        assert!(can_give_back(dir.path()));
        give_back(dir.path()).unwrap();
        // The node without pages is left out, so the last line written is the only one.
        assert_eq!(fs::read_to_string(pool.join("scan")).unwrap(), "0 1 7");
    }

    #[test]
    fn without_such_shrinkers_there_is_no_pool() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(bytes(dir.path()), None);
        assert_eq!(bytes(&dir.path().join("missing")), None);
    }
}
