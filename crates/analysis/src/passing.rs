//! Frames that only pass an allocation on: allocators, of the kernel and of programs, and what wraps them.
//!
//! A stack is shown from behind them, for who called the allocator is what matters. Nothing is lost by it: JSON and
//! exports have all frames.

use spark_trace_recording::classify::{base_name, is_telling};

/// Where functions of this name are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Kernel,
    /// Any file of a program: allocators are linked in as often as not.
    Program,
}

enum Names {
    Exact(&'static [&'static str]),
    Prefix(&'static [&'static str]),
    /// Every function of a library whose file name begins so.
    Library(&'static [&'static str]),
}
use Names::{Exact, Library, Prefix};
use Place::{Kernel, Program};

/// One allocator a row. What matters of the kernel's page allocator alone is in `classify`.
const ALLOCATORS: &[(&str, Place, Names)] = &[
    // mm/slub.c, mm/slab_common.c; 6.10 renames what allocation profiling wraps (_noprof), 6.18 has sheaves.
    (
        "slab",
        Kernel,
        Prefix(&[
            "allocate_slab",
            "new_slab",
            "___slab_alloc",
            "__slab_alloc",
            "alloc_slab_page",
            "refill_sheaf",
            "refill_objects",
            "__refill_objects",
            "__pcs_replace_empty_main",
            "alloc_from_pcs",
            "alloc_full_sheaf",
            "kmem_cache_alloc",
            "__kmem_cache_alloc",
            "kmalloc",
            "__kmalloc",
            "___kmalloc",
            "__do_kmalloc",
            "kzalloc",
            "krealloc",
            "__do_krealloc",
            "kmemdup",
            "kstrdup",
            "mempool_alloc",
            "mempool_kmalloc",
        ]),
    ),
    // mm/vmalloc.c, mm/util.c
    (
        "vmalloc",
        Kernel,
        Prefix(&[
            "__vmalloc",
            "vmalloc",
            "vzalloc",
            "vm_area_alloc_pages",
            "kvmalloc",
            "__kvmalloc",
            "kvzalloc",
            "kvrealloc",
        ]),
    ),
    // mm/percpu.c, mm/percpu-vm.c
    (
        "percpu",
        Kernel,
        Prefix(&["pcpu_populate_chunk", "pcpu_alloc", "pcpu_create_chunk", "__alloc_percpu", "alloc_percpu"]),
    ),
    // glibc: malloc/malloc.c, malloc/arena.c, malloc/morecore.c and the system calls below them
    (
        "mmap and brk",
        Program,
        Exact(&[
            "mmap",
            "mmap64",
            "__mmap",
            "__mmap64",
            "__GI_mmap64",
            "__GI___mmap",
            "__GI___mmap64",
            "mremap",
            "__mremap",
            "__GI___mremap",
            "brk",
            "__brk",
            "__GI___brk",
            "sbrk",
            "__sbrk",
            "__GI___sbrk",
            "syscall",
        ]),
    ),
    (
        "glibc",
        Program,
        Exact(&[
            "malloc",
            "__malloc",
            "__libc_malloc",
            "__libc_malloc2",
            "__GI___libc_malloc",
            "_int_malloc",
            "_int_realloc",
            "_int_memalign",
            "_mid_memalign",
            "sysmalloc",
            "sysmalloc_mmap",
            "sysmalloc_mmap_fallback",
            "malloc_hugepage",
            "malloc_consolidate",
            "mremap_chunk",
            "__default_morecore",
            "__glibc_morecore",
            "__morecore",
            "new_heap",
            "alloc_new_heap",
            "_int_new_arena",
            "arena_get2",
            "arena_get_retry",
            "tcache_init",
            "tcache_malloc",
            "calloc",
            "__calloc",
            "__libc_calloc",
            "__libc_calloc2",
            "realloc",
            "__libc_realloc",
            "__GI___libc_realloc",
            "memalign",
            "__libc_memalign",
            "aligned_alloc",
            "__libc_aligned_alloc",
            "posix_memalign",
            "__posix_memalign",
            "valloc",
            "pvalloc",
            "reallocarray",
            "__libc_reallocarray",
        ]),
    ),
    (
        "C++",
        Program,
        Prefix(&["operator new", "std::allocator<", "__gnu_cxx::new_allocator", "std::__new_allocator"]),
    ),
    ("C++", Program, Exact(&["_Znwm", "_Znam", "_ZnwmSt11align_val_t", "_ZnamSt11align_val_t"])),
    (
        "Rust",
        Program,
        Prefix(&["__rust_alloc", "__rust_realloc", "__rdl_", "__rg_", "alloc::alloc::", "alloc::raw_vec::"]),
    ),
    (
        "Go",
        Program,
        Prefix(&[
            "runtime.mmap",
            "runtime.sysMmap",
            "runtime.sysAlloc",
            "runtime.sysReserve",
            "runtime.sysMap",
            "runtime.persistentalloc",
            "runtime.mallocgc",
            "runtime.newobject",
            "runtime.(*mheap).",
            "runtime.(*mcache).",
            "runtime.(*mcentral).",
        ]),
    ),
    ("libraries of allocators", Program, Library(&["libjemalloc", "libtcmalloc", "libmimalloc"])),
    ("mimalloc", Program, Prefix(&["mi_", "_mi_"])),
    ("tcmalloc", Program, Prefix(&["tcmalloc::", "tc_malloc", "tc_new"])),
    // jemalloc as it is linked in (redis-server, rustc): src/pages.c, extent.c, ehooks.c, pac.c, pa.c, arena.c, large.c
    ("jemalloc", Program, Prefix(&["je_", "_rjem_", "jemalloc_"])),
    (
        "jemalloc",
        Program,
        Exact(&[
            "os_pages_map",
            "pages_map",
            "extent_alloc_mmap",
            "extent_alloc_default_impl",
            "extent_alloc_core",
            "ehooks_default_alloc_impl",
            "ehooks_alloc",
            "extent_grow_retained",
            "extent_alloc_wrapper",
            "extent_alloc_retained",
            "ecache_alloc",
            "ecache_alloc_grow",
            "pac_alloc_new_guarded",
            "pac_alloc_real",
            "pac_alloc_impl",
            "pa_alloc",
            "arena_extent_alloc_large",
            "arena_slab_alloc",
            "arena_slab_alloc_hard",
            "arena_bin_malloc_hard",
            "arena_tcache_fill_small",
            "arena_cache_bin_fill_small",
            "arena_malloc_hard",
            "large_malloc",
            "large_palloc",
            "large_ralloc",
            "tcache_alloc_small_hard",
            "base_map",
            "base_block_alloc",
            "malloc_default",
            "imalloc",
            "imalloc_no_sample",
        ]),
    ),
    // What programs put around malloc, by its usual names: redis, GNU programs, GLib, SQLite, PostgreSQL.
    (
        "wrappers",
        Program,
        Exact(&[
            "zmalloc",
            "zcalloc",
            "zrealloc",
            "ztrymalloc_usable",
            "ztrymalloc_usable_internal",
            "zmalloc_usable",
            "ztrycalloc_usable",
            "ztrycalloc_usable_internal",
            "ztryrealloc_usable",
            "ztryrealloc_usable_internal",
            "xmalloc",
            "xcalloc",
            "xrealloc",
            "xzalloc",
            "xnmalloc",
            "x2nrealloc",
            "g_malloc",
            "g_malloc0",
            "g_realloc",
            "sqlite3MemMalloc",
            "sqlite3Malloc",
            "sqlite3_malloc64",
            "mallocWithAlarm",
            "palloc",
            "palloc0",
            "AllocSetAlloc",
            "AllocSetAllocFromNewBlock",
            "AllocSetAllocLarge",
            "MemoryContextAlloc",
            "MemoryContextAllocZero",
        ]),
    ),
    // Objects/obmalloc.c
    (
        "Python",
        Program,
        Exact(&[
            "PyMem_Malloc",
            "PyMem_Calloc",
            "PyMem_Realloc",
            "PyMem_RawMalloc",
            "PyMem_RawCalloc",
            "PyMem_RawRealloc",
            "_PyMem_RawMalloc",
            "_PyMem_RawCalloc",
            "_PyMem_RawRealloc",
            "PyObject_Malloc",
            "PyObject_Calloc",
            "PyObject_Realloc",
            "_PyObject_Malloc",
            "_PyObject_Calloc",
            "_PyObject_Realloc",
            "_PyObject_ArenaMmap",
            "_PyMem_ArenaAlloc",
            "pymalloc_alloc",
            "pymalloc_realloc",
            "new_arena",
            "allocate_from_new_pool",
        ]),
    ),
    // c10/cuda/CUDACachingAllocator.cpp, c10/core/CPUAllocator.cpp, aten/src/ATen/cuda/CachingHostAllocator.cpp
    (
        "PyTorch",
        Program,
        Prefix(&[
            "c10::cuda::CUDACachingAllocator",
            "c10::cuda::MemPool",
            "c10::CachingDeviceAllocator",
            "c10::alloc_cpu",
            "c10::DefaultCPUAllocator",
            "c10::DefaultMobileCPUAllocator",
            "at::cuda::CachingHostAllocator",
            "at::CachingHostAllocator",
        ]),
    ),
    ("CUDA", Program, Library(&["libcudart", "libcuda.so"])),
];

/// How the names of C libraries' files begin: glibc, its former name, musl's loader that is the library, too.
const C_LIBRARIES: &[&str] = &["libc.so", "libc-", "ld-linux", "ld-musl", "libpthread"];

/// Whether a frame only passes an allocation on.
pub fn is_passing(frame: &str, place: Stack) -> bool {
    let (name, library) = parts(frame);
    let base = base_name(name);
    let wanted = match place {
        Stack::Kernel => Kernel,
        Stack::User => Program,
    };
    if wanted == Kernel && !is_telling(name) {
        return true;
    }
    // The C library exports what programs call; what it maps by has no name once it is stripped.
    let in_c_library = |library: &str| C_LIBRARIES.iter().any(|file| library.starts_with(file));
    if wanted == Program && name.starts_with("0x") && library.is_some_and(in_c_library) {
        return true;
    }
    ALLOCATORS.iter().filter(|(_, place, _)| *place == wanted).any(|(.., names)| match names {
        Exact(names) => names.contains(&base),
        Prefix(prefixes) => prefixes.iter().any(|prefix| name.starts_with(prefix)),
        Library(files) => library.is_some_and(|library| files.iter().any(|file| library.starts_with(file))),
    })
}

/// Whose frames a stack has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stack {
    Kernel,
    User,
}

/// The frames from the caller of an allocator on, innermost first, each with the name of its file alone. Where all
/// are an allocator's, the outermost.
pub fn callers(frames: &[String], place: Stack) -> Vec<String> {
    let passed = frames.iter().take_while(|frame| is_passing(frame, place)).count();
    // Where code keeps no frame pointers the walk ends in addresses that are nothing.
    let named = frames.iter().rposition(|frame| !is_unresolved(frame)).map_or(0, |last| last + 1);
    let from = if passed < named { passed } else { named.saturating_sub(1) };
    frames.get(from..named).unwrap_or_default().iter().map(|frame| short(frame)).collect()
}

/// The same in one line.
pub fn line(frames: &[String], place: Stack) -> String {
    callers(frames, place).join(" <- ")
}

/// A frame that is an address in no known file: of a JIT, or no frame at all.
pub fn is_unresolved(frame: &str) -> bool {
    frame.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// A frame with the name of its file alone.
fn short(frame: &str) -> String {
    match parts(frame) {
        (name, Some(library)) => format!("{name} [{library}]"),
        (name, None) => name.to_owned(),
    }
}

/// The function and the name of its file, of a frame as `names::frame` has it.
fn parts(frame: &str) -> (&str, Option<&str>) {
    let Some((name, path)) = frame.strip_suffix(']').and_then(|frame| frame.rsplit_once(" [")) else {
        return (frame, None);
    };
    (name, Some(path.rsplit('/').next().unwrap_or(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(frames: &[&str], place: Stack) -> String {
        super::line(&frames.iter().map(|&frame| frame.to_owned()).collect::<Vec<_>>(), place)
    }

    #[test]
    fn a_stack_begins_with_the_caller_of_the_allocator() {
        let map = [
            "__alloc_frozen_pages_noprof",
            "alloc_pages_mpol",
            "__vmalloc_node_range_noprof",
            "__bpf_map_area_alloc",
            "array_map_alloc",
            "map_create",
        ];
        assert_eq!(line(&map, Stack::Kernel), "__bpf_map_area_alloc <- array_map_alloc <- map_create");
        let slab =
            ["allocate_slab", "___slab_alloc.constprop.0", "__kmalloc_cache_noprof", "security_inode_alloc"];
        assert_eq!(line(&slab, Stack::Kernel), "security_inode_alloc");
        let heap = [
            "__GI___mmap64 [/usr/lib/x86_64-linux-gnu/libc.so.6]",
            "sysmalloc_mmap.isra.0 [/usr/lib/x86_64-linux-gnu/libc.so.6]",
            "__libc_malloc [/usr/lib/x86_64-linux-gnu/libc.so.6]",
            "PyMem_RawMalloc [/usr/bin/python3.11]",
            "array_new [/usr/lib/numpy/_multiarray_umath.so]",
            "main [/usr/bin/python3.11]",
            "0x6c0000000fff01",
        ];
        assert_eq!(line(&heap, Stack::User), "array_new [_multiarray_umath.so] <- main [python3.11]");
        // A C library without its symbol table.
        let stripped = [
            "mmap [/usr/lib/x86_64-linux-gnu/libc.so.6]",
            "0x95f28 [/usr/lib/x86_64-linux-gnu/libc.so.6]",
            "0x22d099 [/usr/bin/python3.11]",
        ];
        assert_eq!(line(&stripped, Stack::User), "0x22d099 [python3.11]");
        let torch = [
            "cudaMalloc [/venv/lib/libcudart.so.13]",
            "c10::cuda::CUDACachingAllocator::Native::DeviceCachingAllocator::malloc(int) [/venv/libc10_cuda.so]",
            "at::detail::empty_cuda(long) [/venv/libtorch_cuda.so]",
        ];
        assert_eq!(line(&torch, Stack::User), "at::detail::empty_cuda(long) [libtorch_cuda.so]");
    }

    #[test]
    fn of_an_allocator_alone_the_outermost_frame_is_left() {
        let frames = ["mmap [/lib/libc.so.6]", "malloc [/lib/libc.so.6]", "0x7ffe6dfdb190", "0x0"];
        assert_eq!(line(&frames, Stack::User), "malloc [libc.so.6]");
        assert_eq!(line(&["alloc_pages_noprof"], Stack::Kernel), "alloc_pages_noprof");
        assert_eq!(line(&[], Stack::User), "");
        assert_eq!(line(&["0x10", "0x20"], Stack::User), "");
    }

    #[test]
    fn an_allocator_further_out_is_kept() {
        let frames = ["mmap [libc.so.6]", "load [app]", "malloc [libc.so.6]"];
        assert_eq!(line(&frames, Stack::User), "load [app] <- malloc [libc.so.6]");
        // A function of a program has no kernel allocator's name.
        assert_eq!(line(&["vmalloc [app]", "main [app]"], Stack::User), "vmalloc [app] <- main [app]");
        assert_eq!(line(&["malloc", "nv_open [nvidia]"], Stack::Kernel), "malloc <- nv_open [nvidia]");
    }

    #[test]
    fn what_looks_like_an_address_is_one_only_without_a_file() {
        assert!(is_unresolved("0x6c0000000fff01") && is_unresolved("0x0"));
        assert!(!is_unresolved("0x40 [/usr/bin/app]") && !is_unresolved("0xgood") && !is_unresolved("main"));
    }
}
