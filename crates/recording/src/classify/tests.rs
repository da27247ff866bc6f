use spark_trace_common::source;

use super::*;
use crate::word::Word;

/// Classifies frames written as `name` or `module:name`.
fn of(frames: &[&str], mobility: &str) -> Verdict {
    let symbols: Vec<Symbol> = frames
        .iter()
        .map(|frame| match frame.split_once(':') {
            Some((module, name)) => {
                Symbol { name: Some(name.into()), module: Some(module.into()), ..Symbol::default() }
            }
            None => Symbol { name: Some((*frame).into()), ..Symbol::default() },
        })
        .collect();
    classify(&symbols.iter().collect::<Vec<_>>(), Word::from(mobility).known())
}

#[test]
fn stacks_of_real_kernels_find_their_source() {
    let cases: &[(&[&str], &str)] = &[
        (
            &["alloc_pages_mpol", "alloc_pages_noprof", "pte_alloc_one", "__pte_alloc", "do_anonymous_page"],
            "page-tables",
        ),
        (&["__get_free_pages", "pgd_alloc", "mm_init", "dup_mm"], "page-tables"),
        (
            &[
                "__alloc_pages",
                "__vmalloc_area_node",
                "__vmalloc_node_range",
                "alloc_thread_stack_node",
                "dup_task_struct",
            ],
            "kernel-stack",
        ),
        (&["__alloc_pages", "__vmalloc_node_range_noprof", "os_alloc_mem", "nvidia:nv_alloc"], "vmalloc"),
        (&["pcpu_populate_chunk.isra.0", "pcpu_alloc_noprof"], "percpu"),
        (&["alloc_pages", "anon_pipe_write", "vfs_write"], "kernel-other"),
        (&["alloc_pages", "skb_page_frag_refill", "tcp_sendmsg_locked"], "sock"),
        (&["alloc_pages", "nvidia:nv_alloc_system_pages", "nvidia:nv_alloc_pages"], "nvidia-sysmem"),
        (
            &["alloc_pages", "nvidia_uvm:uvm_cpu_chunk_alloc", "nvidia_uvm:block_populate_pages_cpu"],
            "nvidia-managed",
        ),
        (&["folio_alloc_noprof", "page_cache_ra_unbounded", "filemap_fault"], "file-clean"),
        (
            &[
                "shmem_alloc_folio",
                "shmem_get_folio_gfp",
                "shmem_fault",
                "pin_user_pages",
                "nvidia:os_lock_user_pages",
            ],
            "shmem",
        ),
        (&["vma_alloc_folio_noprof", "do_anonymous_page", "handle_mm_fault"], "anon"),
        (&["alloc_pages", "bpf_map_area_alloc", "array_map_alloc"], "kernel-other"),
        (
            &["___kmalloc_large_node", "__kmalloc_large_node_noprof", "nvidia:os_alloc_mem"],
            "slab-unreclaimable",
        ),
    ];
    for (frames, source) in cases {
        assert_eq!(of(frames, "unmovable").source, *source, "{frames:?}");
    }
}

#[test]
fn the_kind_of_slab_follows_the_migrate_type() {
    let frames = &["alloc_slab_page", "allocate_slab.constprop.0", "___slab_alloc", "d_alloc"];
    assert_eq!(of(frames, "reclaimable").source, "slab-reclaimable");
    assert_eq!(of(frames, "unmovable").source, "slab-unreclaimable");
}

#[test]
fn frames_of_the_tracing_itself_say_nothing() {
    let frames = &[
        "bpf_prog_0123456789abcdef_mm_page_alloc",
        "bpf_trace_run4",
        "__bpf_trace_mm_page_alloc",
        "__traceiter_mm_page_alloc",
        "__alloc_pages",
        "virtio_gpu:virtio_gpu_alloc",
        "drm:drm_ioctl",
        "sys_ioctl",
    ];
    let verdict = of(frames, "unmovable");
    assert_eq!(verdict.source, UNATTRIBUTED);
    assert_eq!(verdict.label, "virtio_gpu_alloc [virtio_gpu] <- drm_ioctl [drm]");
    assert_eq!(of(&["bpf_prog_alloc"], "unmovable").source, "kernel-other");
}

#[test]
fn the_drivers_objects_have_names_and_the_source_stays() {
    let label = |frames: &[&str]| {
        let verdict = of(frames, "unmovable");
        (verdict.source, verdict.label)
    };
    let known = |source, label: &str| (source, label.to_owned());
    assert_eq!(
        label(&["nvidia:nv_alloc_system_pages", "nvidia:memdescAlloc", "nvidia:kchannelAllocMem_GM107"]),
        known("nvidia-sysmem", "channels")
    );
    assert_eq!(
        label(&["allocate_slab", "__kmalloc_noprof", "nvidia:os_alloc_mem", "nvidia:rm_init_adapter"]),
        known("slab-unreclaimable", "driver kmalloc")
    );
    assert_eq!(
        label(&["nvidia:nv_alloc_system_pages", "nvidia:nv_alloc_pages"]),
        known("nvidia-sysmem", "NVIDIA driver")
    );
}

#[test]
fn without_a_stack_there_is_no_source() {
    let nothing = of(&[], "unmovable");
    assert_eq!((nothing.source, nothing.label.as_str(), nothing.purpose), (UNATTRIBUTED, "(no stack)", None));
    let nameless = Symbol { address: 0x10, ..Symbol::default() };
    assert_eq!(classify(&[&nameless], Some(Mobility::Unmovable)).label, "0x10");
}

#[test]
fn every_rule_names_a_source() {
    for rule in RULES {
        for mobility in ["reclaimable", "unmovable"] {
            assert!(
                source::by_slug(rule.source.slug(Word::from(mobility).known())).is_some(),
                "{}",
                rule.label
            );
        }
    }
}

#[test]
fn the_use_of_shared_memory_of_the_kernel_is_named_and_its_source_stays() {
    let map = of(
        &["__vmalloc_node_range_noprof", "__bpf_map_area_alloc", "array_map_alloc", "map_create"],
        "unmovable",
    );
    assert_eq!((map.source, map.label.as_str()), ("vmalloc", "eBPF maps (array_map_alloc)"));
    assert_eq!((map.purpose, map.charged_by_object), (Some(Purpose::BpfMaps), false));
    let name = of(&["allocate_slab", "kmem_cache_alloc_lru_noprof", "__d_alloc", "d_alloc"], "reclaimable");
    assert_eq!((name.source, name.label.as_str()), ("slab-reclaimable", "dentries (names of files)"));
    assert_eq!((name.purpose, name.charged_by_object), (Some(Purpose::Names), true));
    // A page of page tables or of a file is what its counter says, whoever wanted it.
    let table = of(
        &["__pte_alloc_kernel", "vmap_small_pages_range_noflush", "htab_map_alloc", "map_create"],
        "unmovable",
    );
    assert_eq!((table.source, table.label.as_str(), table.purpose), ("page-tables", "page tables", None));
    let data = of(&["alloc_pages_mpol", "alloc_skb_with_frags", "sock_alloc_send_pskb"], "unmovable");
    assert_eq!((data.source, data.purpose, data.charged_by_object), ("sock", Some(Purpose::Sockets), false));
}
