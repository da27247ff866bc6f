//! Page cache by file: added and removed, by (device, inode) and the memory cgroup it is charged to.
//!
//! The inode is that of the file system that holds the data: below overlayfs and bind mounts. Machine-wide
//! on purpose: page cache that somebody else left behind is what a run finds when it starts.

use aya_ebpf::{
    helpers::{bpf_get_current_comm, bpf_ktime_get_ns, generated::bpf_probe_read_kernel_str},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use spark_trace_common::{
    config::NO_MEMBER,
    event::{EventKind, FILE_NAME_LEN, FileNameEvent},
    hook::index,
    map_records::{FileKey, FileTotals},
};

use crate::{
    config::conf,
    loss::lost,
    maps::{EVENTS, FILE_NAME_SCRATCH, FILES, add, hit},
    read::{load, probe},
    target::{current_task, current_tgid, memory_cgroup_read_of},
    wake::{self, Patience},
};

/// Components of a path that are walked, and room kept for each.
const MAX_COMPONENTS: usize = 24;
const COMPONENT_LEN: usize = 256;

/// `void mm_filemap_add_to_page_cache(struct folio *folio)`
#[btf_tracepoint(function = "mm_filemap_add_to_page_cache")]
pub fn filemap_add(ctx: BtfTracePointContext) -> i32 {
    hit(const { index("file-add") });
    let folio: *const u8 = ctx.arg(0);
    if !folio.is_null() {
        // SAFETY: an argument of a BTF tracepoint, not null.
        unsafe { count(folio, true) };
    }
    0
}

/// `void mm_filemap_delete_from_page_cache(struct folio *folio)`
#[btf_tracepoint(function = "mm_filemap_delete_from_page_cache")]
pub fn filemap_delete(ctx: BtfTracePointContext) -> i32 {
    hit(const { index("file-remove") });
    let folio: *const u8 = ctx.arg(0);
    if !folio.is_null() {
        // SAFETY: an argument of a BTF tracepoint, not null.
        unsafe { count(folio, false) };
    }
    0
}

/// # Safety
/// `folio` must be a folio pointer whose type the verifier knows.
#[inline(always)]
unsafe fn count(folio: *const u8, added: bool) {
    // SAFETY (whole block): every pointer is loaded from a structure the verifier knows the type of.
    let (flags, host, memcg_data): (u64, *const u8, u64) = unsafe {
        let mapping: *const u8 = load(folio, conf!(folio_mapping));
        (
            load(folio, conf!(folio_flags)),
            load(mapping, conf!(mapping_host)),
            load(folio, conf!(folio_memcg_data)),
        )
    };
    // tmpfs pages are swap-backed. Their removal passes here but their adding does not
    // (mm/shmem.c shmem_add_to_page_cache has no tracepoint): they are counted as shmem elsewhere.
    if flags & (1 << (conf!(flag_swapbacked) & 63)) != 0 || host.is_null() {
        return;
    }
    // SAFETY: as above.
    let (inode, device, order): (u64, u32, u32) = unsafe {
        let sb: *const u8 = load(host, conf!(inode_sb));
        let large = flags & (1 << (conf!(flag_head) & 63)) != 0;
        let order = if large { u32::from(load::<u8>(folio, conf!(folio_order))) } else { 0 };
        (load(host, conf!(inode_ino)), load(sb, conf!(sb_dev)), order)
    };
    // The low bits of memcg_data are flags (enum page_memcg_data_flags).
    let mut memcg = (memcg_data & !7) as *const u8;
    // From 7.0 on it points to an object that outlives the cgroup, and that to the cgroup (include/linux/memcontrol.h,
    // folio_memcg).
    if conf!(objcg_memcg) != NO_MEMBER && !memcg.is_null() {
        memcg = probe::<*const u8>(memcg, conf!(objcg_memcg)).unwrap_or(core::ptr::null());
    }
    let css = memcg.wrapping_add(conf!(memcg_css) as usize);
    let owner_serial = if memcg.is_null() { 0 } else { probe::<u64>(css, conf!(css_serial)).unwrap_or(0) };
    let key = FileKey { inode, owner_serial, device, reserved: 0 };
    let bytes = u64::from(conf!(page_size)) << (order & 31);

    if let Some(totals) = FILES.get_ptr_mut(&key) {
        // SAFETY: a live map value.
        unsafe {
            add(counter(totals, added), bytes);
            // A row that began with a removal: whoever adds now is the first that is seen.
            if added && (*totals).first_ns == 0 {
                touch(totals);
            }
        }
        return;
    }
    let mut totals = FileTotals { owner: owner_id(css, owner_serial), ..FileTotals::default() };
    // A row that begins with a removal is of pages that were there before the trace: nobody saw who added them.
    if added {
        // SAFETY: a local.
        unsafe { touch(&raw mut totals) };
    }
    // SAFETY: a local.
    unsafe { *counter(&raw mut totals, added) = bytes };
    if FILES.insert(&key, &totals, u64::from(aya_ebpf::bindings::BPF_NOEXIST)).is_err() {
        // Another CPU may have made the row since: then add to it.
        match FILES.get_ptr_mut(&key) {
            // SAFETY: a live map value.
            Some(totals) => unsafe { add(counter(totals, added), bytes) },
            None => lost!(Files),
        }
        return;
    }
    send_name(host, device, inode);
}

/// Notes the current task as the first that was seen to add a page.
///
/// # Safety
/// `totals` must be a local or a live map value.
#[inline(always)]
unsafe fn touch(totals: *mut FileTotals) {
    // SAFETY: as promised.
    unsafe {
        (*totals).first_ns = bpf_ktime_get_ns();
        (*totals).first_cgroup = memory_cgroup_read_of(current_task());
        (*totals).first_tgid = current_tgid();
        (*totals).first_comm = bpf_get_current_comm().unwrap_or_default();
    }
}

#[inline(always)]
fn counter(totals: *mut FileTotals, added: bool) -> *mut u64 {
    // SAFETY: field addresses of a live value; nothing is read.
    unsafe { if added { &raw mut (*totals).bytes_added } else { &raw mut (*totals).bytes_removed } }
}

#[inline(always)]
fn owner_id(css: *const u8, serial: u64) -> u64 {
    if serial == 0 {
        return 0;
    }
    probe::<*const u8>(css, conf!(css_cgroup))
        .and_then(|cgroup| probe::<*const u8>(cgroup, conf!(cgroup_kn)))
        .and_then(|node| probe::<u64>(node, conf!(kernfs_id)))
        .unwrap_or(0)
}

/// Sends the file's name, component by component from the file upwards, once per row of `FILES`.
#[inline(always)]
fn send_name(inode: *const u8, device: u32, ino: u64) {
    let Some(scratch) = FILE_NAME_SCRATCH.get_ptr_mut(0) else { return };
    // SAFETY: a per-CPU slot that the map keeps alive.
    let event = unsafe { &mut *scratch };
    event.kind = EventKind::FileName as u32;
    event.device = device;
    event.inode = ino;
    event.truncated = 1;

    let mut length = 0usize;
    let alias = probe::<*const u8>(inode, conf!(inode_dentry)).unwrap_or(core::ptr::null());
    let mut dentry =
        if alias.is_null() { core::ptr::null() } else { alias.wrapping_sub(conf!(dentry_alias) as usize) };
    for _ in 0..MAX_COMPONENTS {
        if dentry.is_null() || length > FILE_NAME_LEN - COMPONENT_LEN {
            break;
        }
        let parent = probe::<*const u8>(dentry, conf!(dentry_parent)).unwrap_or(core::ptr::null());
        if parent == dentry {
            // The file system's root.
            event.truncated = 0;
            break;
        }
        let Some(name) = probe::<*const u8>(dentry, conf!(dentry_name)) else { break };
        // SAFETY: `length` leaves room for COMPONENT_LEN bytes; the helper checks the source.
        let n = unsafe {
            bpf_probe_read_kernel_str(
                event.names.as_mut_ptr().add(length & (FILE_NAME_LEN - 1)).cast(),
                COMPONENT_LEN as u32,
                name.cast(),
            )
        };
        if n <= 0 || n > COMPONENT_LEN as i64 {
            break;
        }
        length += n as usize;
        dentry = parent;
    }
    event.length = length as u32;
    // Whole records keep the verifier content and cost a copy only once per file.
    if EVENTS.output::<FileNameEvent>(&*event, wake::flags(Patience::Short)).is_err() {
        lost!(Events);
    }
}
