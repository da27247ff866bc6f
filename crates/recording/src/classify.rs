//! Which source a page allocation belongs to, known by its kernel stack.
//!
//! A stack goes from the page allocator outward to whoever wanted the page. The innermost frame
//! that a rule knows decides: it is the one that counters are kept by. Names are those of kernels
//! 6.1 to 7.2.

use spark_trace_common::source::UNATTRIBUTED;

use crate::{Mobility, Symbol};

mod objects;
pub mod purpose;

use purpose::Purpose;

/// What a rule looks at.
enum Frame {
    Name(&'static [&'static str]),
    Prefix(&'static [&'static str]),
    Module(&'static str),
    /// A name that begins with one of the first, called (at any distance) by one of the second.
    PrefixUnder(&'static [&'static str], &'static [&'static str]),
}
use Frame::{Module, Name, Prefix, PrefixUnder};

struct Rule {
    frame: Frame,
    source: Class,
    label: &'static str,
}

enum Class {
    Source(&'static str),
    /// Slab pages are counted by the cache's kind, which the allocation's migrate type shows.
    Slab,
}
use Class::{Slab, Source};

const fn rule(frame: Frame, source: Class, label: &'static str) -> Rule {
    Rule { frame, source, label }
}

const VMALLOC: &[&str] = &["__vmalloc_node", "__vmalloc_area_node", "vmalloc", "__vmalloc", "vzalloc"];
const THREAD: &[&str] = &["alloc_thread_stack_node", "dup_task_struct"];

/// For one frame the first rule that knows it counts.
const RULES: &[Rule] = &[
    rule(
        Name(&[
            "pte_alloc_one",
            "__pte_alloc_one",
            "pmd_alloc_one",
            "__pte_alloc",
            "__pmd_alloc",
            "__pud_alloc",
        ]),
        Source("page-tables"),
        "page tables",
    ),
    rule(Name(&["__p4d_alloc", "pgd_alloc", "__pte_alloc_kernel"]), Source("page-tables"), "page tables"),
    rule(Name(&["allocate_slab", "new_slab", "___slab_alloc", "alloc_slab_page"]), Slab, "slab"),
    // Larger than a slab object can be, but counted as unreclaimable slab all the same.
    rule(
        Prefix(&["__kmalloc_large", "___kmalloc_large", "kmalloc_large", "kmalloc_order"]),
        Source("slab-unreclaimable"),
        "large kmalloc",
    ),
    // Stacks in vmalloc areas are taken out of the vmalloc row.
    rule(PrefixUnder(VMALLOC, THREAD), Source("kernel-stack"), "kernel stacks"),
    rule(Name(THREAD), Source("kernel-stack"), "kernel stacks"),
    rule(Prefix(VMALLOC), Source("vmalloc"), "vmalloc"),
    rule(
        Name(&["pcpu_populate_chunk", "pcpu_alloc_pages", "pcpu_alloc"]),
        Source("percpu"),
        "per-CPU chunks",
    ),
    rule(Name(&["anon_pipe_write", "pipe_write"]), Source("kernel-other"), "pipe buffers"),
    rule(
        Prefix(&[
            "skb_page_frag_refill",
            "sk_page_frag_refill",
            "alloc_skb_with_frags",
            "__napi_alloc",
            "napi_alloc",
            "__netdev_alloc",
            "page_pool_alloc",
        ]),
        Source("sock"),
        "socket buffers",
    ),
    rule(Module("nvidia_uvm"), Source("nvidia-managed"), "NVIDIA managed memory"),
    rule(Module("nvidia-uvm"), Source("nvidia-managed"), "NVIDIA managed memory"),
    rule(Module("nvidia"), Source("nvidia-sysmem"), "NVIDIA driver"),
    rule(Prefix(&["shmem_"]), Source("shmem"), "shared memory"),
    rule(
        Prefix(&["page_cache_ra_", "filemap_alloc_folio", "__filemap_get_folio", "ractl_alloc_folio"]),
        Source("file-clean"),
        "page cache",
    ),
    rule(
        Prefix(&[
            "do_anonymous_page",
            "do_huge_pmd_anonymous_page",
            "alloc_anon_folio",
            "vma_alloc_folio",
            "vma_alloc_anon_folio",
            "folio_prealloc",
            "wp_page_copy",
        ]),
        Source("anon"),
        "anonymous pages",
    ),
    // It is inside do_huge_pmd_anonymous_page, which is further out.
    rule(
        Name(&[
            "get_huge_zero_page",
            "mm_get_huge_zero_page",
            "get_huge_zero_folio",
            "mm_get_huge_zero_folio",
        ]),
        Source("huge-zero-page"),
        "the huge zero page",
    ),
    rule(Prefix(&["bpf_", "__bpf_"]), Source("kernel-other"), "BPF"),
];

/// Frames that every allocation passes through: they say nothing and only fill a label.
const ALLOCATOR: &[&str] = &[
    "alloc_pages",
    "__alloc_pages",
    "alloc_frozen_pages",
    "__alloc_frozen_pages",
    "alloc_page",
    "get_free_pages",
    "__get_free_pages",
    "get_zeroed_page",
    "folio_alloc",
    "__folio_alloc",
    "post_alloc_hook",
    "get_page_from_freelist",
];

/// Frames of the tracing itself, innermost in every stack a BPF program takes.
const TRACING: &[&str] = &[
    "bpf_trace_run",
    "bpf_trampoline",
    "bpf_get_stack",
    "__bpf_trace_",
    "__bpf_prog_",
    "__traceiter_",
    "trace_call_bpf",
    "perf_trace_",
    "kprobe_",
];

/// Where an allocation belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Slug of the source; `unattributed` where no frame shows it.
    pub source: &'static str,
    /// What it is part of: an object of the NVIDIA driver, else what it is for, else what the rule calls it, else the
    /// innermost frames.
    pub label: String,
    /// What it is for, where the source does not say.
    pub purpose: Option<Purpose>,
    /// Objects in its pages are charged one by one, and the pages themselves never: whether a cgroup is charged for
    /// them the page does not say (mm/slub.c new_slab, mm/percpu.c pcpu_memcg_post_alloc_hook).
    pub charged_by_object: bool,
}

/// Sources whose pages serve everybody.
const SHARED: &[&str] =
    &["slab-reclaimable", "slab-unreclaimable", "vmalloc", "percpu", "kernel-other", "sock", UNATTRIBUTED];

/// Classifies an allocation by its frames, innermost first, and its migrate type.
pub fn classify(frames: &[&Symbol], mobility: Option<Mobility>) -> Verdict {
    let known = (0..frames.len()).find_map(|index| rule_for(frames, index));
    let source = known.map_or(UNATTRIBUTED, |rule| rule.source.slug(mobility));
    let object = objects::label(frames).map(ToOwned::to_owned);
    let (purpose, meant) = match purpose::of(frames).filter(|_| SHARED.contains(&source)) {
        Some((purpose, label)) => (Some(purpose), Some(label)),
        None => (None, None),
    };
    let named = known.and(object).or(meant);
    Verdict {
        source,
        label: named.unwrap_or_else(|| known.map_or_else(|| innermost(frames), |rule| rule.label.to_owned())),
        purpose,
        charged_by_object: known.is_some_and(|rule| matches!(rule.source, Slab | Source("percpu"))),
    }
}

/// The source that the frame at `index` shows, if it shows one.
pub fn source_at(frames: &[&Symbol], index: usize) -> Option<&'static str> {
    rule_for(frames, index).map(|rule| rule.source.slug(None))
}

impl Class {
    fn slug(&self, mobility: Option<Mobility>) -> &'static str {
        match self {
            Source(slug) => slug,
            Slab if mobility == Some(Mobility::Reclaimable) => "slab-reclaimable",
            Slab => "slab-unreclaimable",
        }
    }
}

fn rule_for(frames: &[&Symbol], index: usize) -> Option<&'static Rule> {
    let frame = frames.get(index)?;
    let name = frame.name.as_deref().map(base_name);
    if name.is_some_and(is_tracing) {
        return None;
    }
    let begins =
        |prefixes: &[&str]| name.is_some_and(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)));
    RULES.iter().find(|rule| match rule.frame {
        Name(names) => name.is_some_and(|name| names.contains(&name)),
        Prefix(prefixes) => begins(prefixes),
        Module(module) => frame.module.as_deref() == Some(module),
        PrefixUnder(prefixes, callers) => begins(prefixes) && any_named(&frames[index..], callers),
    })
}

fn any_named(frames: &[&Symbol], names: &[&str]) -> bool {
    frames.iter().filter_map(|frame| frame.name.as_deref()).any(|name| names.contains(&base_name(name)))
}

/// The function's name as its source has it: compilers append `.constprop.0` and the like to clones,
/// and allocation profiling (6.10) renames what it wraps.
pub fn base_name(name: &str) -> &str {
    let name = name.split_once('.').map_or(name, |(base, _)| base);
    name.strip_suffix("_noprof").unwrap_or(name)
}

fn is_tracing(name: &str) -> bool {
    TRACING.iter().any(|prefix| name.starts_with(prefix)) || is_program(name)
}

/// A BPF program as kallsyms names it: `bpf_prog_`, sixteen hexadecimal digits of its tag, its name.
fn is_program(name: &str) -> bool {
    name.strip_prefix("bpf_prog_")
        .and_then(|rest| rest.get(..16))
        .is_some_and(|tag| tag.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// A frame says more than that a page was allocated, or that it was traced.
pub fn is_telling(name: &str) -> bool {
    let name = base_name(name);
    !is_tracing(name) && !ALLOCATOR.iter().any(|prefix| name.starts_with(prefix))
}

/// The two innermost frames that say something.
fn innermost(frames: &[&Symbol]) -> String {
    let telling = frames.iter().filter(|frame| frame.name.as_deref().is_none_or(is_telling));
    let label: Vec<_> = telling.take(2).map(|symbol| frame(symbol)).collect();
    if label.is_empty() { "(no stack)".to_owned() } else { label.join(" <- ") }
}

/// Behind these a path is that of a package, wherever it is installed.
const PACKAGES: &[&str] = &["/site-packages/", "/dist-packages/"];

/// A source of Python from its package on, or its whole path where it is in none.
fn in_package(path: &str) -> &str {
    let package = |directory: &&str| path.rsplit_once(*directory).map(|(_, file)| file);
    PACKAGES.iter().find_map(package).unwrap_or(path)
}

/// One frame for people: its name, or where it lies; of Python `package/module.py:function:line`.
pub fn frame(symbol: &Symbol) -> String {
    if symbol.python {
        let file = symbol.module.as_deref().map_or("?", in_package);
        let function = symbol.name.as_deref().unwrap_or("?");
        let line = symbol.line.map_or_else(|| "?".to_owned(), |line| line.to_string());
        return format!("{file}:{function}:{line}");
    }
    let place = match &symbol.name {
        Some(name) => name.clone(),
        None => format!("{:#x}", symbol.address),
    };
    match &symbol.module {
        Some(module) => format!("{place} [{module}]"),
        None => place,
    }
}

#[cfg(test)]
mod tests;
