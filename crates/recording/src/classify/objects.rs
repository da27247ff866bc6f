//! What the NVIDIA driver wanted a page for, known by the names of its functions.
//!
//! The source of a page says which counter has it; this says which object it is part of. Names are those of NVIDIA's
//! open-gpu-kernel-modules at 580 (src/nvidia/src/kernel, kernel-open/nvidia, kernel-open/nvidia-uvm). Leading
//! underscores of static functions and the chip's suffix (`_GH100`, `_IMPL`) are left aside.

use crate::Symbol;
use crate::classify::base_name;

/// Modules of the driver, by the names that kallsyms and modinfo give them.
const MODULES: [&str; 5] = ["nvidia", "nvidia_uvm", "nvidia-uvm", "nvidia_modeset", "nvidia_drm"];

/// How the names of an object's functions begin, and what it is called.
type Object = (&'static [&'static str], &'static str);

/// For one frame the first row that knows it counts. The functions that every allocation of the driver passes through
/// (`nv_alloc_pages`, `osAllocPagesInternal`, `memdescAlloc`) say nothing and have no row.
const OBJECTS: &[Object] = &[
    // kernel-open/nvidia
    (&["nvos_create_alloc"], "page lists"),
    (&["os_alloc_mem"], "driver kmalloc"),
    (&["os_lock_user_pages", "os_pin_user_pages"], "user pages pinned by the driver"),
    (&["nvidia_mmap", "nv_mmap", "nvidia_vma"], "mappings into processes"),
    // src/nvidia: the specific before what they are built of
    (
        &["kgmmuFaultBuffer", "kgmmuClientShadowFaultBuffer", "faultbufConstruct", "faultbufCtrl"],
        "fault buffers",
    ),
    (
        &["kgmmuAccessCounter", "accesscntr", "uvmAccessCntr", "uvmInitAccessCntrBuffer"],
        "access counter buffers",
    ),
    (&["kchannel", "kchangrp", "kfifo", "krunlist", "userdConstruct", "usermode"], "channels"),
    (&["kgraphics", "kgrctx", "kgrobj", "kgrmgr", "ctxBuf", "grGlobalCtx"], "graphics context buffers"),
    (
        &["mmuWalk", "gmmuWalk", "bar2WalkCB", "kgmmu", "gvaspace", "rmMemPool", "dmaPageArray", "virtmem"],
        "GPU page tables",
    ),
    (
        &["kgsp", "gsp", "GspMsgQueue", "GspStatusQueue", "rpcRm", "rpcWrite", "msgq"],
        "GSP firmware communication",
    ),
    (
        &["kceutils", "ceutils", "memmgrMemUtils", "memUtils", "channelAllocSubdevice"],
        "driver's copy channels",
    ),
    (&["kbus", "kbif"], "bus and BAR structures"),
    (&["eventbuffer", "eventBuffer", "RmInitRmapi", "notify"], "event buffers"),
    (&["sysmemConstruct", "sysmemAllocResources"], "RM system memory (cudaMalloc on unified memory, pinned)"),
    (&["memmgr", "heap", "pma"], "memory manager"),
    (&["RmInitAdapter", "RmInitNvDevice", "nv_open_device", "nvidia_open"], "device start"),
    // kernel-open/nvidia-uvm
    (&["uvm_cpu_chunk_alloc"], "managed pages"),
    (&["phys_mem_allocate", "page_tree", "uvm_page_tree", "uvm_page_table_range"], "UVM page tables"),
    (
        &["uvm_pushbuffer", "uvm_channel", "channel_manager", "channel_create", "channel_pool"],
        "UVM push buffers and channels",
    ),
    (&["uvm_gpu_semaphore", "uvm_gpu_tracking_semaphore"], "UVM semaphores"),
    (&["uvm_conf_computing", "conf_computing"], "UVM staging buffers"),
    (&["uvm_mem_alloc", "mem_alloc_sysmem", "uvm_rm_mem_alloc"], "UVM memory"),
    (&["uvm_kvmalloc", "uvm_kmem_cache", "alloc_internal"], "UVM kernel memory"),
    (&["uvm_perf_", "uvm_ats_", "uvm_hmm_", "uvm_parent_gpu", "uvm_gpu_", "add_gpu"], "UVM GPU state"),
];

/// The object that the innermost frame known here is part of; outer frames decide only if no inner one does.
pub(super) fn label(frames: &[&Symbol]) -> Option<&'static str> {
    frames.iter().filter(|frame| is_of_driver(frame)).find_map(|frame| {
        let name = base_name(frame.name.as_deref()?).trim_start_matches('_');
        let known = |(beginnings, _): &&Object| beginnings.iter().any(|start| name.starts_with(start));
        OBJECTS.iter().find(known).map(|(_, label)| *label)
    })
}

fn is_of_driver(frame: &Symbol) -> bool {
    frame.module.as_deref().is_some_and(|module| MODULES.contains(&module))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(frames: &[&str]) -> Option<&'static str> {
        let symbols: Vec<Symbol> = frames
            .iter()
            .map(|frame| {
                let (module, name) = frame.split_once(':').map_or((None, *frame), |(m, n)| (Some(m), n));
                Symbol { name: Some(name.into()), module: module.map(Into::into), ..Symbol::default() }
            })
            .collect();
        label(&symbols.iter().collect::<Vec<_>>())
    }

    #[test]
    fn stacks_that_were_measured() {
        // H200, kernel 6.18, driver 580.159.04.
        let sysmem = [
            "alloc_pages_noprof",
            "nvidia:nv_alloc_system_pages",
            "nvidia:nv_alloc_pages",
            "nvidia:osAllocPagesInternal",
            "nvidia:_memdescAllocInternal",
            "nvidia:memdescAlloc",
            "nvidia:sysmemConstruct_IMPL",
            "nvidia:__nvoc_objCreate_SystemMemory",
        ];
        assert_eq!(of(&sysmem), Some("RM system memory (cudaMalloc on unified memory, pinned)"));
        let managed =
            ["alloc_pages", "nvidia_uvm:uvm_cpu_chunk_alloc", "nvidia_uvm:block_populate_pages_cpu"];
        assert_eq!(of(&managed), Some("managed pages"));
        let pinned = ["shmem_fault", "__get_user_pages", "pin_user_pages", "nvidia:os_lock_user_pages"];
        assert_eq!(of(&pinned), Some("user pages pinned by the driver"));
    }

    #[test]
    fn stacks_as_the_source_has_them() {
        let path = ["nvidia:nv_alloc_contig_pages", "nvidia:nv_alloc_pages", "nvidia:memdescAlloc"];
        let cases: &[(&[&str], &str)] = &[
            (&["nvidia:kgmmuFaultBufferAllocSharedMemory_GH100"], "fault buffers"),
            (&["nvidia:kgmmuClientShadowFaultBufferPagesAllocate_IMPL"], "fault buffers"),
            (&["nvidia:kchannelAllocMem_GM107", "nvidia:kchannelConstruct_IMPL"], "channels"),
            (&["nvidia:_gmmuWalkCBLevelAlloc", "nvidia:_mmuWalkLevelInstAcquire"], "GPU page tables"),
            (&["nvidia:kgraphicsAllocGrGlobalCtxBuffers_TU102"], "graphics context buffers"),
            (&["nvidia:GspMsgQueuesInit", "nvidia:kgspConstructEngine_IMPL"], "GSP firmware communication"),
            (
                &["nvidia_uvm:phys_mem_allocate.constprop.0", "nvidia_uvm:uvm_page_tree_init"],
                "UVM page tables",
            ),
            (&["nvidia_uvm:mem_alloc_sysmem_chunks", "nvidia_uvm:uvm_pushbuffer_create"], "UVM memory"),
        ];
        for (outer, object) in cases {
            assert_eq!(of(&[&path, *outer].concat()), Some(*object), "{outer:?}");
        }
        assert_eq!(of(&path), None, "the way every allocation goes tells nothing");
    }

    #[test]
    fn inner_frames_decide_before_outer_ones() {
        let nested = ["nvidia:os_alloc_mem", "nvidia:memdescCreate", "nvidia:kchannelConstruct_IMPL"];
        assert_eq!(of(&nested), Some("driver kmalloc"));
        assert_eq!(of(&["nvidia:nvos_create_alloc", "nvidia:nv_alloc_pages"]), Some("page lists"));
    }

    #[test]
    fn names_of_other_modules_are_not_the_drivers() {
        assert_eq!(of(&["kbus_alloc", "virtio_gpu:heap_alloc", "notify_change"]), None);
    }
}
