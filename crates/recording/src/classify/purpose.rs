//! What the kernel wanted memory for, where the counter that has it does not say: slab, vmalloc and per-CPU areas serve
//! everybody.
//!
//! The innermost frame that is known here decides, so that a name that is cached while a socket is made is a name. Names
//! are those of kernels 6.1 to 7.2; leading underscores are left aside.

use super::base_name;
use crate::Symbol;

/// What memory of the kernel is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    BpfMaps,
    BpfPrograms,
    Sockets,
    /// Cached names and inodes of files.
    Names,
    OpenFiles,
    /// Structures of address spaces.
    AddressSpaces,
    /// What finds the pages of a file.
    PageCacheIndex,
}

/// How a frame is known by its name.
enum Known {
    Begins(&'static [&'static str]),
    Ends(&'static [&'static str]),
    /// One of these has called it.
    CalledBy(&'static [&'static str]),
}
use Known::{Begins, CalledBy, Ends};

struct Row {
    known: Known,
    purpose: Purpose,
    what: &'static str,
    /// The frame's name says which kind it is.
    named: bool,
}

const fn row(known: Known, purpose: Purpose, what: &'static str) -> Row {
    Row { known, purpose, what, named: false }
}

const fn named(known: Known, purpose: Purpose, what: &'static str) -> Row {
    Row { known, purpose, what, named: true }
}

/// For one frame the first row that knows it counts.
const ROWS: &[Row] = &[
    // kernel/bpf: map_alloc of struct bpf_map_ops, such as array_map_alloc, htab_map_alloc, trie_alloc.
    named(CalledBy(&["map_create", "find_and_alloc_map"]), Purpose::BpfMaps, "eBPF maps"),
    named(
        Begins(&[
            "trie_update_elem",
            "htab_map_",
            "htab_percpu_map_",
            "array_map_",
            "map_create",
            "bpf_mem_refill",
        ]),
        Purpose::BpfMaps,
        "eBPF maps",
    ),
    named(
        Begins(&[
            "bpf_prog_load",
            "bpf_prog_alloc",
            "bpf_prog_pack",
            "bpf_jit_binary",
            "bpf_int_jit_compile",
            "bpf_check",
        ]),
        Purpose::BpfPrograms,
        "eBPF programs",
    ),
    // net/core/skbuff.c, net/core/sock.c
    row(
        Begins(&[
            "alloc_skb",
            "build_skb",
            "napi_alloc",
            "napi_build_skb",
            "netdev_alloc",
            "kmalloc_reserve",
            "skb_",
            "pskb_",
            "sk_page_frag_refill",
            "sock_alloc_send_",
            "sock_kmalloc",
            "page_pool_alloc",
        ]),
        Purpose::Sockets,
        "socket buffers",
    ),
    row(
        Begins(&["sk_alloc", "sk_prot_alloc", "sock_alloc_inode", "reqsk_alloc", "inet_twsk_alloc"]),
        Purpose::Sockets,
        "sockets",
    ),
    // fs/dcache.c d_alloc
    row(Begins(&["d_alloc"]), Purpose::Names, "dentries (names of files)"),
    // fs/inode.c alloc_inode and alloc_inode of struct super_operations
    row(Begins(&["alloc_inode", "new_inode", "iget_locked", "iget5_locked"]), Purpose::Names, "inodes"),
    row(Ends(&["_alloc_inode"]), Purpose::Names, "inodes"),
    row(Begins(&["alloc_empty_file", "alloc_file"]), Purpose::OpenFiles, "open files"),
    row(
        Begins(&["vm_area_alloc", "vm_area_dup", "anon_vma_", "mas_", "mm_alloc", "dup_mm"]),
        Purpose::AddressSpaces,
        "structures of address spaces",
    ),
    row(
        Begins(&["filemap_add_folio", "radix_tree_node_alloc", "xas_alloc", "xas_split_alloc"]),
        Purpose::PageCacheIndex,
        "index of the page cache",
    ),
];

/// What a stack's memory is for, and how it is called; nothing where no frame shows it.
pub fn of(frames: &[&Symbol]) -> Option<(Purpose, String)> {
    let names: Vec<_> = frames.iter().map(|frame| frame.name.as_deref().map_or("", base_name)).collect();
    (0..names.len()).find_map(|index| {
        if super::is_tracing(names[index]) || !super::is_telling(names[index]) {
            return None;
        }
        let name = names[index].trim_start_matches('_');
        let row = ROWS.iter().find(|row| match row.known {
            Begins(beginnings) => beginnings.iter().any(|start| name.starts_with(start)),
            Ends(endings) => endings.iter().any(|end| name.ends_with(end)),
            CalledBy(callers) => names.get(index + 1).is_some_and(|caller| callers.contains(caller)),
        })?;
        let label = if row.named { format!("{} ({name})", row.what) } else { row.what.to_owned() };
        Some((row.purpose, label))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(frames: &[&str]) -> Option<String> {
        let symbols = frames.iter().map(|name| Symbol { name: Some((*name).into()), ..Symbol::default() });
        let symbols: Vec<_> = symbols.collect();
        of(&symbols.iter().collect::<Vec<_>>()).map(|(_, label)| label)
    }

    #[test]
    fn stacks_of_real_kernels_say_what_they_are_for() {
        // 6.18, x86-64; 6.1 has neither _noprof nor frozen pages.
        let vmalloc = ["__alloc_frozen_pages_noprof", "alloc_pages_mpol", "__vmalloc_node_range_noprof"];
        let slab = ["alloc_pages_mpol", "allocate_slab", "___slab_alloc", "__slab_alloc.isra.0"];
        let percpu = ["__alloc_pages_noprof", "pcpu_populate_chunk", "pcpu_alloc_noprof"];
        let cases: &[(&[&str], &[&str], Option<&str>)] = &[
            (
                &vmalloc,
                &["__bpf_map_area_alloc", "array_map_alloc", "map_create"],
                Some("eBPF maps (array_map_alloc)"),
            ),
            (
                &vmalloc,
                &["__bpf_map_area_alloc", "htab_map_alloc", "map_create"],
                Some("eBPF maps (htab_map_alloc)"),
            ),
            (
                &percpu,
                &["bpf_map_alloc_percpu", "array_map_alloc", "map_create"],
                Some("eBPF maps (array_map_alloc)"),
            ),
            (
                &vmalloc,
                &["bpf_ringbuf_alloc", "ringbuf_map_alloc", "map_create"],
                Some("eBPF maps (ringbuf_map_alloc)"),
            ),
            (
                &slab,
                &["__kmalloc_node_noprof", "trie_alloc", "map_create", "__sys_bpf"],
                Some("eBPF maps (trie_alloc)"),
            ),
            (
                &slab,
                &["kmem_cache_alloc_lru_noprof", "__d_alloc", "d_alloc", "__lookup_slow"],
                Some("dentries (names of files)"),
            ),
            // A socket's own entry among the names.
            (
                &slab,
                &[
                    "kmem_cache_alloc_lru_noprof",
                    "__d_alloc",
                    "d_alloc_pseudo",
                    "alloc_file_pseudo",
                    "sock_alloc_file",
                ],
                Some("dentries (names of files)"),
            ),
            (
                &slab,
                &["kmem_cache_alloc_lru_noprof", "ext4_alloc_inode", "alloc_inode", "iget_locked"],
                Some("inodes"),
            ),
            (
                &slab,
                &["kmem_cache_alloc_node_noprof", "__alloc_skb", "alloc_skb_with_frags"],
                Some("socket buffers"),
            ),
            (
                &slab,
                &["kmem_cache_alloc_lru_noprof", "xas_alloc", "__filemap_add_folio"],
                Some("index of the page cache"),
            ),
            (&slab, &["kmem_cache_alloc_noprof", "alloc_buffer_head"], None),
            (&vmalloc, &["module_memory_alloc", "layout_and_allocate"], None),
        ];
        for (inner, outer, known) in cases {
            assert_eq!(label(&[*inner, *outer].concat()).as_deref(), *known, "{outer:?}");
        }
    }
}
