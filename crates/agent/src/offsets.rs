//! The running kernel's facts as the programs' load-time configuration.

use spark_trace_common::config::{Config, NO_MEMBER};
use thiserror::Error;

use super::{btf::Btf, cgroup::Layout};

/// A kernel structure is not what any known version looks like.
#[derive(Debug, Error)]
#[error(
    "this kernel's type information lacks {what}; please report it with `uname -r` and `spark-trace doctor --format json`"
)]
pub struct MissingType {
    what: String,
}

/// What the user chose that the programs must know.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub whole_system: bool,
    pub all_pages: bool,
    pub min_region: u64,
    /// Allocations from this size on have the frames of Python that made them; `None` for none.
    pub python_min: Option<u64>,
    /// The user stack is copied of allocations from this size on; `None` for none.
    pub unwind_min: Option<u64>,
}

/// Resolves everything the programs need.
pub fn resolve(btf: &Btf, layout: &Layout, settings: Settings) -> Result<Config, MissingType> {
    let mut config = Config::ZERO;
    members(btf, &mut config)?;
    registers(btf, &mut config)?;
    values(btf, &mut config)?;
    config.memory_hierarchy = layout.memory_hierarchy_id;
    config.whole_system = u32::from(settings.whole_system);
    config.all_pages = u32::from(settings.all_pages);
    config.min_region_4k = u32::try_from((settings.min_region >> 12).max(1)).unwrap_or(u32::MAX);
    // The highest number means that none is wanted.
    let min_4k = |bytes: u64| u32::try_from(bytes >> 12).unwrap_or(u32::MAX).min(u32::MAX - 1);
    config.python_min_4k = settings.python_min.map_or(NO_MEMBER, min_4k);
    config.unwind_min_4k = settings.unwind_min.map_or(NO_MEMBER, min_4k);
    Ok(config)
}

fn members(btf: &Btf, config: &mut Config) -> Result<(), MissingType> {
    // One line a member; alternatives where kernels name it differently, the newest first.
    macro_rules! resolve {
        ($($field:ident: $($name:literal . $($member:literal).+)|+;)+) => {
            $(config.$field = None
                $(.or_else(|| btf.offset($name, &[$($member),+])))+
                .ok_or_else(|| MissingType {
                    what: concat!($("struct ", $name, $(".", $member),+, " "),+).trim().to_owned(),
                })?;)+
        };
    }
    resolve! {
        task_cgroups: "task_struct"."cgroups";
        task_tgid: "task_struct"."tgid";
        task_pid: "task_struct"."pid";
        task_comm: "task_struct"."comm";
        task_mm: "task_struct"."mm";
        task_signal: "task_struct"."signal";
        task_exit_code: "task_struct"."exit_code";
        task_real_parent: "task_struct"."real_parent";
        signal_live: "signal_struct"."live"."counter";
        signal_group_exit_code: "signal_struct"."group_exit_code";
        signal_maxrss: "signal_struct"."maxrss";
        mm_hiwater_rss: "mm_struct"."hiwater_rss";
        css_set_subsys: "css_set"."subsys";
        css_cgroup: "cgroup_subsys_state"."cgroup";
        css_serial: "cgroup_subsys_state"."serial_nr";
        css_ss: "cgroup_subsys_state"."ss";
        css_parent: "cgroup_subsys_state"."parent";
        cgroup_self: "cgroup"."self";
        cgroup_kn: "cgroup"."kn";
        cgroup_root: "cgroup"."root";
        cgroup_subsys: "cgroup"."subsys";
        cgroup_root_hierarchy: "cgroup_root"."hierarchy_id";
        kernfs_id: "kernfs_node"."id";
        memcg_css: "mem_cgroup"."css";
        memcg_usage: "mem_cgroup"."memory"."usage";
        memcg_watermark: "mem_cgroup"."memory"."watermark";
        memcg_memory: "mem_cgroup"."memory";
        counter_parent: "page_counter"."parent";
        node_memcg: "mem_cgroup_per_node"."memcg";
        page_flags: "page"."flags";
        page_refcount: "page"."_refcount";
        page_type: "page"."page_type";
        page_head: "page"."compound_head" | "page"."compound_info";
        folio_flags: "folio"."flags";
        folio_mapping: "folio"."mapping";
        folio_memcg_data: "folio"."memcg_data";
        folio_order: "folio"."_folio_order" | "folio"."_flags_1";
        mapping_host: "address_space"."host";
        inode_ino: "inode"."i_ino";
        inode_sb: "inode"."i_sb";
        inode_dentry: "inode"."i_dentry"."first";
        sb_dev: "super_block"."s_dev";
        sb_magic: "super_block"."s_magic";
        task_files: "task_struct"."files";
        files_table: "files_struct"."fdt";
        table_fds: "fdtable"."fd";
        table_size: "fdtable"."max_fds";
        file_inode: "file"."f_inode";
        file_pos: "file"."f_pos";
        file_dentry: "file"."f_path"."dentry" | "file"."__f_path"."dentry";
        task_ptrace: "task_struct"."ptrace";
        task_jobctl: "task_struct"."jobctl";
        signal_pending: "signal_struct"."shared_pending"."signal";
        memcg_nodes: "mem_cgroup"."nodeinfo";
        memcg_node_data: "mem_cgroup_per_node"."lruvec"."pgdat";
        node_zones: "pglist_data"."node_zones";
        node_stat: "pglist_data"."vm_stat";
        zone_stat: "zone"."vm_stat";
        dentry_alias: "dentry"."d_alias" | "dentry"."d_u"."d_alias";
        dentry_parent: "dentry"."d_parent";
        dentry_name: "dentry"."__d_name"."name" | "dentry"."d_name"."name";
    }
    config.zone_size = btf
        .element_size("pglist_data", &["node_zones"])
        .ok_or_else(|| MissingType { what: "struct pglist_data.node_zones".to_owned() })?;
    // Only for finding the array of pages, which some kernels do not have either.
    let optional = |name: &str, path: &[&str]| btf.offset(name, path).unwrap_or(NO_MEMBER);
    // What its first argument is differs; the trampoline and the register have it alike.
    config.node_argument = match btf.function("__mod_memcg_lruvec_state") {
        Some(function) if function.first_points_to == "mem_cgroup_per_node" => 0,
        _ => optional("mem_cgroup_per_node", &["lruvec"]),
    };
    // include/linux/memcontrol.h: an array of counters, one for each enum memcg_memory_event.
    let kills = btf.enumerator("MEMCG_OOM_KILL").and_then(|index| u32::try_from(index).ok());
    config.memcg_oom_kills = match (btf.offset("mem_cgroup", &["memory_events"]), kills) {
        (Some(events), Some(index)) => events + 8 * index,
        _ => NO_MEMBER,
    };
    config.file_mapping = optional("file", &["f_mapping"]);
    // The member marks the kernels whose folios point to such an object.
    config.objcg_memcg = match btf.offset("obj_cgroup", &["is_root"]) {
        Some(_) => optional("obj_cgroup", &["memcg"]),
        None => NO_MEMBER,
    };
    config.task_thread_pointer = optional("task_struct", THREAD_POINTER);
    config.mapping_pages = optional("address_space", &["i_pages", "xa_head"]);
    config.page_struct_size = btf.size("page").unwrap_or(0);
    // Four counters, each a percpu_counter from 6.2 on, one array of atomics before.
    (config.mm_rss, config.mm_rss_stride) =
        match (btf.offset("mm_struct", &["rss_stat"]), btf.element_size("mm_struct", &["rss_stat"])) {
            (Some(at), Some(stride)) => {
                (at + btf.offset("percpu_counter", &["count"]).unwrap_or(NO_MEMBER), stride)
            }
            (Some(at), None) => (at, 8),
            (None, _) => (NO_MEMBER, 0),
        };
    Ok(())
}

/// The thread pointer of a task that is not running. It changes when a thread begins, so that of the running one is known
/// too: arch/x86/kernel/process_64.c do_arch_prctl_64 and copy_thread, arch/arm64/kernel/process.c tls_preserve_current_state.
#[cfg(target_arch = "x86_64")]
const THREAD_POINTER: &[&str] = &["thread", "fsbase"];
#[cfg(target_arch = "aarch64")]
const THREAD_POINTER: &[&str] = &["thread", "uw", "tp_value"];

/// `struct pt_regs` as the ABI lays it out; at system call exit the arguments are still in it.
fn registers(btf: &Btf, config: &mut Config) -> Result<(), MissingType> {
    #[cfg(target_arch = "x86_64")]
    const NAMES: [&str; 6] = ["orig_ax", "di", "si", "dx", "r10", "r8"];
    // On arm64 the result replaces x0, whose former value is kept apart.
    #[cfg(target_arch = "aarch64")]
    const NAMES: [&str; 2] = ["syscallno", "orig_x0"];

    let at = |name: &str| {
        btf.offset("pt_regs", &[name]).ok_or_else(|| MissingType { what: format!("struct pt_regs.{name}") })
    };
    let thread_info = |name: &str| {
        btf.offset("task_struct", &["thread_info", name])
            .ok_or_else(|| MissingType { what: format!("struct thread_info.{name}") })
    };
    config.regs_nr = at(NAMES[0])?;
    config.regs_arg0 = at(NAMES[1])?;
    #[cfg(target_arch = "x86_64")]
    {
        config.regs_arg1 = at(NAMES[2])?;
        config.regs_arg2 = at(NAMES[3])?;
        config.regs_arg3 = at(NAMES[4])?;
        config.regs_arg4 = at(NAMES[5])?;
        config.regs_sp = at("sp")?;
        config.regs_ip = at("ip")?;
        config.regs_link = NO_MEMBER;
        // arch/x86/include/asm/thread_info.h TS_COMPAT
        (config.task_compat, config.compat_bits) = (thread_info("status")?, 0x2);
    }
    #[cfg(target_arch = "aarch64")]
    {
        let x0 = at("regs")?;
        config.regs_arg1 = x0 + 8;
        config.regs_arg2 = x0 + 16;
        config.regs_arg3 = x0 + 24;
        config.regs_arg4 = x0 + 32;
        config.regs_sp = at("sp")?;
        config.regs_ip = at("pc")?;
        config.regs_link = x0 + 30 * 8;
        // arch/arm64/include/asm/thread_info.h TIF_32BIT
        (config.task_compat, config.compat_bits) = (thread_info("flags")?, 1 << 22);
    }
    Ok(())
}

fn values(btf: &Btf, config: &mut Config) -> Result<(), MissingType> {
    let value = |name: &str| {
        btf.enumerator(name)
            .and_then(|v| u32::try_from(v).ok())
            .ok_or_else(|| MissingType { what: format!("enumerator {name}") })
    };
    config.memory_subsys = value("memory_cgrp_id")?;
    config.flag_head = value("PG_head")?;
    config.flag_uptodate = value("PG_uptodate")?;
    config.flag_swapbacked = value("PG_swapbacked")?;
    let page_type = |name: &str| btf.enumerator(name).map_or(NO_MEMBER, |v| v as u32);
    config.page_type_buddy = page_type("PGTY_buddy");
    config.page_type_first = page_type("PGTY_buddy");
    // The last is a bound beyond all types.
    config.page_type_last = page_type("PGTY_mapcount_underflow");
    config.migrate_movable = value("MIGRATE_MOVABLE")?;
    // An enumerator from 6.10 on; a macro with this value before.
    config.gfp_account = btf.enumerator("___GFP_ACCOUNT_BIT").map_or(0x40_0000, |bit| 1 << (bit & 31));
    config.page_size = super::page_size() as u32;
    config.sys_mmap = libc::SYS_mmap as u32;
    config.sys_munmap = libc::SYS_munmap as u32;
    config.sys_mremap = libc::SYS_mremap as u32;
    config.sys_brk = libc::SYS_brk as u32;
    config.sys_madvise = libc::SYS_madvise as u32;
    config.sys_read = libc::SYS_read as u32;
    config.sys_pread = libc::SYS_pread64 as u32;
    config.sys_sysinfo = libc::SYS_sysinfo as u32;
    config.nr_free_pages = value("NR_FREE_PAGES")?;
    config.nr_file_pages = value("NR_FILE_PAGES")?;
    config.nr_file_dirty = value("NR_FILE_DIRTY")?;
    config.nr_writeback = value("NR_WRITEBACK")?;
    config.nr_shmem = value("NR_SHMEM")?;
    config.nr_anon = value("NR_ANON_MAPPED")?;
    config.nr_slab_reclaimable = value("NR_SLAB_RECLAIMABLE_B")?;
    config.node_zone_count = value("__MAX_NR_ZONES")?;
    config.nodes = nodes();
    config.own_tgid = std::process::id();
    Ok(())
}

/// Memory nodes this machine can have: the last of a list such as `0` or `0-3`.
fn nodes() -> u32 {
    let possible = std::fs::read_to_string("/sys/devices/system/node/possible").unwrap_or_default();
    let last = possible.trim().rsplit(['-', ',']).next().and_then(|n| n.parse().ok());
    // A kernel without NUMA has one node and no such file.
    last.map_or(1, |last: u32| last.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolves_on_the_running_kernel() {
        let btf = Btf::from_kernel().unwrap();
        let layout = Layout::detect().unwrap();
        let config = resolve(
            &btf,
            &layout,
            Settings {
                whole_system: false,
                all_pages: false,
                min_region: 1 << 20,
                python_min: Some(1 << 20),
                unwind_min: None,
            },
        )
        .unwrap();
        assert_eq!(config.min_region_4k, 256);
        assert_eq!((config.python_min_4k, config.unwind_min_4k), (256, NO_MEMBER));
        assert_ne!(config.task_thread_pointer, NO_MEMBER);
        assert!(config.task_cgroups > 0 && config.folio_mapping > 0);
    }
}
