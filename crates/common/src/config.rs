//! What user space passes to the programs when it loads them: offsets of the running kernel and settings.
//!
//! aya-ebpf has no CO-RE relocations, so nothing about a kernel's structures is compiled in: user space
//! resolves each offset from the kernel's BTF and sets this struct as read-only data. The verifier then
//! sees constants and checks every access against the BTF type it claims to be.

/// Offset of a member that this kernel does not have.
pub const NO_MEMBER: u32 = u32::MAX;

/// Name of the global the object file keeps the [`Config`] in.
pub const CONFIG_SYMBOL: &str = "CONFIG";

macro_rules! config {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Load-time configuration; every field is a `u32`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[cfg_attr(feature = "zerocopy", derive(zerocopy::IntoBytes, zerocopy::Immutable))]
        #[repr(C)]
        pub struct Config { $($(#[$doc])* pub $name: u32),+ }

        impl Config {
            pub const ZERO: Self = Self { $($name: 0),+ };
        }
    };
}

config! {
    // Offsets, named struct_member.
    task_cgroups, task_tgid, task_pid, task_comm, task_mm, task_signal, task_exit_code, task_real_parent,
    signal_live, signal_group_exit_code, signal_maxrss,
    mm_hiwater_rss,
    /// Offset of the first RSS counter's value and distance to the next (file, anon, swap, shmem).
    mm_rss, mm_rss_stride,
    css_set_subsys,
    css_cgroup, css_serial, css_ss,
    css_parent,
    cgroup_self, cgroup_kn, cgroup_root, cgroup_subsys,
    cgroup_root_hierarchy,
    kernfs_id,
    memcg_css, memcg_usage, memcg_watermark,
    /// The cgroup's count of processes that were killed for want of memory.
    memcg_oom_kills,
    /// The counter of a cgroup's memory, and from a counter to that of the cgroup above.
    memcg_memory, counter_parent,
    /// From the per-node argument of `__mod_memcg_lruvec_state` back to its `struct mem_cgroup_per_node`, and on to the
    /// cgroup.
    node_argument, node_memcg,
    page_flags, page_refcount, page_type, page_head,
    folio_flags, folio_mapping, folio_memcg_data,
    /// Where a folio points to an object of the cgroup and not to the cgroup itself.
    objcg_memcg,
    /// Where a large folio keeps its order (low byte).
    folio_order,
    mapping_host,
    inode_ino, inode_sb, inode_dentry,
    sb_dev,
    dentry_alias, dentry_parent, dentry_name,
    /// From a task to a file it has open.
    task_files, files_table, table_fds, table_size, file_mapping, mapping_pages, file_inode, file_dentry, file_pos, sb_magic,
    /// From a memory cgroup to the counters of a node and its zones.
    memcg_nodes, memcg_node_data, node_zones, node_zone_count, node_stat, zone_size, zone_stat,
    /// Registers at system call exit.
    regs_nr, regs_arg0, regs_arg1, regs_arg2, regs_arg3, regs_arg4,
    /// Stack pointer, and link register where the architecture has one.
    regs_sp, regs_link, regs_ip,
    /// Whether a task is traced by another (a debugger), and what it is to do (include/linux/sched/jobctl.h).
    task_ptrace, task_jobctl,
    /// Signals that wait for a whole process.
    signal_pending,
    /// Where the thread pointer of a task lies that is not running: what the calling thread of Python's is found by.
    task_thread_pointer,
    /// Where a task says that it is in a 32-bit system call, whose numbers mean other calls: word and bits.
    task_compat, compat_bits,

    // Values.
    /// Index of the memory controller in `subsys` arrays.
    memory_subsys,
    /// Number of the hierarchy that holds the memory controller; 0 for cgroup v2.
    memory_hierarchy,
    flag_head, flag_uptodate, flag_swapbacked,
    /// Lowest and highest page type (top byte of `page_type`), and the one of free pages in the buddy
    /// allocator; [`NO_MEMBER`] on kernels before 6.12, which keep types otherwise.
    page_type_first, page_type_last, page_type_buddy,
    migrate_movable,
    gfp_account,
    page_size,
    sys_mmap, sys_munmap, sys_mremap, sys_brk, sys_madvise, sys_read, sys_pread, sys_sysinfo,
    /// Counters of zones and nodes.
    nr_free_pages, nr_file_pages, nr_file_dirty, nr_writeback, nr_shmem, nr_anon, nr_slab_reclaimable,
    /// Memory nodes.
    nodes,

    /// Bytes of a `struct page`.
    page_struct_size,

    // Settings.
    /// Page frames that can be followed: one after the other from that of [`PLACE_BASE`].
    page_frames,
    /// Number of the first of them.
    first_frame,
    /// The NVIDIA module is loaded, and calls of its functions can be seen.
    driver_bursts,
    /// The tracer's own process, whose readings are of no interest.
    own_tgid,
    /// Every task is a target.
    whole_system,
    /// Movable user pages too (profile `deep`).
    all_pages,
    /// Regions at least this long have an event of their own; in units of 4 KiB, so that it fits.
    min_region_4k,
    /// The frames of Python are walked for allocations of at least this size, in units of 4 KiB; [`NO_MEMBER`] for none.
    python_min_4k,
    /// The user stack is copied of allocations of at least this size, in units of 4 KiB; [`NO_MEMBER`] for none.
    unwind_min_4k,
}

/// Index in the `CONTROL` map: settings that change while tracing.
pub const CONTROL_SELECT_NEW: u32 = 0;
/// Goes up whenever the selection changes: what a CPU remembers of it is then out of date.
pub const CONTROL_GENERATION: u32 = 1;
/// Whether a process of the target may be paused while a library that it has just mapped is attached to.
pub const CONTROL_PAUSE: u32 = 2;
/// Whether processes of one cgroup may differ in whether they are of the target.
pub const CONTROL_BY_PID: u32 = 3;
/// Whether the target's mappings and queries are no part of the trace any more.
pub const CONTROL_ENDED: u32 = 4;
pub const CONTROL_LEN: u32 = 5;

/// In the `BESIDE` map: the spark-trace that the map belongs to, ...
pub const BESIDE_OWN: u32 = 1;
/// ... another one, ...
pub const BESIDE_OTHER: u32 = 2;
/// ... and another one that has ended: its number may be another process's next.
pub const BESIDE_GONE: u32 = 3;

/// Index in the `CLIENTS` map: clients of container engines that the target has started, as the kernel side counts them, ...
pub const CLIENTS_STARTED: u32 = 0;
/// ... and how many of them user space has dealt with. While there are more, every new cgroup is selected.
pub const CLIENTS_DONE: u32 = 1;
pub const CLIENTS_LEN: u32 = 2;

/// Index in the `PLACE` map: address of the `struct page` of the first page frame that is followed.
pub const PLACE_BASE: u32 = 0;
/// Where `page_of_file` leaves the page that it found, or 0.
pub const PLACE_FOUND: u32 = 1;
/// Numbers of page rows that have been given out.
pub const PLACE_ROWS: u32 = 2;
/// Whether a call's list did not have the page that it should begin with: from then on pages are counted one by one.
pub const PLACE_NO_BURSTS: u32 = 3;
/// Words of `TOUCHED` that a sweep may still look into, ...
pub const PLACE_SWEEP_LEFT: u32 = 4;
/// ... and the word that it goes on with.
pub const PLACE_SWEEP_NEXT: u32 = 5;
pub const PLACE_LEN: u32 = 6;
