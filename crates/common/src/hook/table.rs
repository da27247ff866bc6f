//! The hooks: one row each, with what can carry it, in the order of preference.
//!
//! The planner (`crates/agent/src/attach_plan.rs`) takes the first candidate that the running kernel can attach.

use super::{Candidate, Hook, Mechanism, Place, Profile};

const fn candidate(mechanism: Mechanism, program: &'static str, target: &'static str) -> Candidate {
    let (on_return, args, loses, also) = (None, None, None, &[]);
    Candidate {
        mechanism,
        program,
        target,
        on_return,
        args,
        loses,
        every_call: false,
        skips_if_preempted: false,
        also,
    }
}

const fn tp_btf(program: &'static str, target: &'static str) -> Candidate {
    candidate(Mechanism::TpBtf, program, target)
}

/// At a kernel function with so many arguments.
const fn function(mechanism: Mechanism, program: &'static str, target: &'static str, args: u32) -> Candidate {
    Candidate { args: Some(args), ..candidate(mechanism, program, target) }
}

/// Attached to functions of files, as these are found: see [`crate::cuda`].
const fn of_files(mechanism: Mechanism, program: &'static str) -> Candidate {
    candidate(mechanism, program, "")
}

/// At entry and return of a function of a module, whose types are not the kernel's.
const fn in_and_out(enter: &'static str, on_return: &'static str, target: &'static str) -> Candidate {
    Candidate { on_return: Some(on_return), ..candidate(Mechanism::Kprobe, enter, target) }
}

/// What kprobes lose against trampolines.
const KPROBE_LOSES: &str =
    "it costs several times as much, and kernels before 6.7 do not count the runs they skip";

/// The kernel's function for a system call of 64-bit programs (arch/*/include/asm/syscall_wrapper.h). Its one argument is the
/// caller's registers.
macro_rules! system_call {
    ($name:literal) => {
        if cfg!(target_arch = "aarch64") {
            concat!("__arm64_sys_", $name)
        } else {
            concat!("__x64_sys_", $name)
        }
    };
}

/// What carries hook `mapping` beside mmap.
const OTHER_CALLS: &[Place] = &[
    Place { program: "munmap_return", target: system_call!("munmap"), args: Some(1) },
    Place { program: "brk_return", target: system_call!("brk"), args: Some(1) },
    Place { program: "mremap_return", target: system_call!("mremap"), args: Some(1) },
    Place { program: "madvise_return", target: system_call!("madvise"), args: Some(1) },
    Place { program: "sysinfo_return", target: system_call!("sysinfo"), args: Some(1) },
    // All files about memory are made by it: those of procfs and of cgroups.
    Place { program: "seq_file_return", target: "seq_read_iter", args: Some(2) },
];

/// What a program at every system call costs others.
const EVERY_CALL_LOSES: &str = "every system call of every process of the machine costs more, so `record --system` and `serve` do without it";

/// What most hooks share: a row says what differs.
const BASE: Hook = Hook {
    name: "",
    purpose: "",
    candidates: &[],
    profile: Profile::Default,
    required: false,
    without: "",
    stands_in_for: None,
    follows_frames: false,
    waits_for: None,
    module: None,
};

pub const HOOKS: &[Hook] = &[
    Hook {
        name: "process-fork",
        purpose: "follow the target's processes",
        candidates: &[tp_btf("process_fork", "sched_process_fork")],
        profile: Profile::Light,
        required: true,
        without: "processes that the target forks outside its cgroup",
        ..BASE
    },
    Hook {
        name: "process-exec",
        purpose: "programs that the target runs",
        candidates: &[tp_btf("process_exec", "sched_process_exec")],
        profile: Profile::Light,
        required: true,
        without: "the programs' names and the phase mark of the first exec",
        ..BASE
    },
    Hook {
        name: "process-exit",
        purpose: "exit status and peak RSS of each process",
        candidates: &[tp_btf("process_exit", "sched_process_exit")],
        profile: Profile::Light,
        required: true,
        without: "exit status and peak RSS of short-lived processes",
        ..BASE
    },
    Hook {
        name: "cgroup-mkdir",
        purpose: "select the target's cgroups as they are created",
        candidates: &[tp_btf("cgroup_mkdir", "cgroup_mkdir")],
        profile: Profile::Light,
        required: true,
        without: "containers from their first instruction, and cgroups made inside the target",
        ..BASE
    },
    Hook {
        name: "cgroup-rmdir",
        purpose: "last charge and peak of a cgroup as it is removed",
        candidates: &[tp_btf("cgroup_rmdir", "cgroup_rmdir")],
        profile: Profile::Light,
        without: "the charge left behind by a removed cgroup",
        ..BASE
    },
    Hook {
        name: "cgroup-populated",
        purpose: "a last reading when a cgroup's last process ends",
        candidates: &[tp_btf("cgroup_populated", "cgroup_notify_populated")],
        profile: Profile::Light,
        without: "a reading at the moment a container ends; the last interval's stands",
        ..BASE
    },
    Hook {
        name: "file-add",
        purpose: "page cache added, by file and owner",
        candidates: &[tp_btf("filemap_add", "mm_filemap_add_to_page_cache")],
        without: "which files make up the page cache",
        ..BASE
    },
    Hook {
        name: "file-remove",
        purpose: "page cache removed, by file and owner",
        candidates: &[tp_btf("filemap_delete", "mm_filemap_delete_from_page_cache")],
        without: "which files left the page cache: added bytes would count as still there",
        ..BASE
    },
    Hook {
        name: "page-alloc",
        purpose: "kernel and driver pages, by kernel stack",
        candidates: &[tp_btf("page_alloc", "mm_page_alloc")],
        without: "who allocated kernel and driver pages",
        follows_frames: true,
        ..BASE
    },
    Hook {
        name: "page-sweep",
        purpose: "which kernel and driver pages are still in use, looked up at each snapshot of details",
        candidates: &[candidate(Mechanism::OnDemand, "page_sweep", "")],
        without: "which kernel pages are still alive: allocated bytes would count as live",
        follows_frames: true,
        ..BASE
    },
    Hook {
        name: "page-free",
        purpose: "pages freed, as it happens",
        candidates: &[tp_btf("page_free", "mm_page_free")],
        without: "frees between two sweeps are counted at the next",
        follows_frames: true,
        waits_for: Some("cuda"),
        ..BASE
    },
    Hook {
        name: "page-alloc-nested",
        purpose: "page allocations in interrupts that hit page-alloc",
        candidates: &[tp_btf("page_alloc_nested", "mm_page_alloc")],
        profile: Profile::Deep,
        without: "a few allocations in ten million, which then count as lost",
        stands_in_for: Some("page-alloc"),
        follows_frames: true,
        ..BASE
    },
    Hook {
        name: "page-free-nested",
        purpose: "pages freed in interrupts that hit page-free",
        candidates: &[tp_btf("page_free_nested", "mm_page_free")],
        profile: Profile::Deep,
        without: "a few frees in ten million, which then count as lost",
        stands_in_for: Some("page-free"),
        follows_frames: true,
        ..BASE
    },
    Hook {
        name: "mapping",
        purpose: "the target's mmap, munmap, mremap, brk and madvise, large ones with their user stack; what it reads of the kernel's memory figures; CUDA libraries it maps",
        candidates: &[
            Candidate {
                also: OTHER_CALLS,
                skips_if_preempted: true,
                ..function(Mechanism::Fexit, "mmap_return", system_call!("mmap"), 1)
            },
            Candidate { every_call: true, loses: Some(EVERY_CALL_LOSES), ..tp_btf("mapping", "sys_exit") },
        ],
        without: "which code made the target's large mappings, what it read of meminfo and cgroup files, and CUDA libraries that are only in a container",
        ..BASE
    },
    Hook {
        name: "library-call",
        purpose: "calls of the CUDA driver and of NVML: allocations, and answers on memory",
        candidates: &[
            of_files(Mechanism::UprobeMulti, "call_enter"),
            of_files(Mechanism::Uprobe, "call_enter"),
        ],
        profile: Profile::Light,
        without: "device, pinned and managed memory by caller, and the free memory that the framework read",
        ..BASE
    },
    Hook {
        name: "charge-try",
        purpose: "pages charged to the target's cgroups, by kernel stack",
        candidates: &[
            function(Mechanism::Fexit, "counter_try_charge", "page_counter_try_charge", 3),
            Candidate {
                on_return: Some("counter_try_charge_return"),
                loses: Some(KPROBE_LOSES),
                ..function(Mechanism::Kprobe, "counter_try_charge_enter", "page_counter_try_charge", 3)
            },
        ],
        without: "which kernel path charged the target's cgroups, and a second count beside memory.current",
        ..BASE
    },
    Hook {
        name: "charge-force",
        purpose: "pages charged to the target's cgroups beyond their limit or in one piece",
        candidates: &[
            function(Mechanism::Fentry, "counter_charge", "page_counter_charge", 2),
            Candidate {
                loses: Some(KPROBE_LOSES),
                ..function(Mechanism::Kprobe, "counter_charge_probe", "page_counter_charge", 2)
            },
        ],
        without: "charges that cannot fail, and a second count beside memory.current",
        ..BASE
    },
    Hook {
        name: "uncharge",
        purpose: "pages uncharged from the target's cgroups",
        candidates: &[
            function(Mechanism::Fentry, "counter_uncharge", "page_counter_uncharge", 2),
            Candidate {
                loses: Some(KPROBE_LOSES),
                ..function(Mechanism::Kprobe, "counter_uncharge_probe", "page_counter_uncharge", 2)
            },
        ],
        without: "what left the target's cgroups, and a second count beside memory.current",
        ..BASE
    },
    Hook {
        name: "charge",
        purpose: "cgroup charges by counter",
        candidates: &[
            tp_btf("charge_state", "mod_memcg_state"),
            function(Mechanism::Fentry, "charge_state_function", "__mod_memcg_state", 3),
            Candidate {
                loses: Some(KPROBE_LOSES),
                ..function(Mechanism::Kprobe, "charge_state_probe", "__mod_memcg_state", 3)
            },
        ],
        profile: Profile::Deep,
        without: "the split of charged kernel memory on cgroup v1",
        ..BASE
    },
    Hook {
        name: "charge-node",
        purpose: "cgroup charges by counter, those kept by node",
        candidates: &[
            tp_btf("charge_node_state", "mod_memcg_lruvec_state"),
            function(Mechanism::Fentry, "charge_node_state_function", "__mod_memcg_lruvec_state", 3),
            Candidate {
                loses: Some(KPROBE_LOSES),
                ..function(Mechanism::Kprobe, "charge_node_state_probe", "__mod_memcg_lruvec_state", 3)
            },
        ],
        profile: Profile::Deep,
        without: "the split of charged kernel memory on cgroup v1",
        ..BASE
    },
    Hook {
        name: "nvidia-alloc",
        purpose: "system memory requested of the NVIDIA driver, by process and kernel stack",
        candidates: &[in_and_out("nvidia_alloc_enter", "nvidia_alloc_return", "nv_alloc_pages")],
        profile: Profile::Light,
        without: "what each process requested of the NVIDIA driver and has not freed",
        module: Some("nvidia"),
        ..BASE
    },
    Hook {
        name: "nvidia-free",
        purpose: "system memory given back to the NVIDIA driver",
        candidates: &[candidate(Mechanism::Kprobe, "nvidia_free", "nv_free_pages")],
        profile: Profile::Light,
        without: "which of the driver's allocations are gone: all would count as live",
        module: Some("nvidia"),
        ..BASE
    },
    Hook {
        name: "nvidia-pages",
        purpose: "the NVIDIA driver's single pages counted together at the end of its call, not one by one",
        candidates: &[in_and_out("nvidia_pages_enter", "nvidia_pages_return", "nv_alloc_system_pages")],
        without: "time: each page that the driver takes costs as much as any other page of the kernel's",
        module: Some("nvidia"),
        ..BASE
    },
    Hook {
        name: "nvidia-pin",
        purpose: "user pages that the NVIDIA driver pinned",
        candidates: &[in_and_out("nvidia_pin_enter", "nvidia_pin_return", "os_lock_user_pages")],
        without: "what was pinned by the driver, in the kernel's own words",
        module: Some("nvidia"),
        ..BASE
    },
    Hook {
        name: "nvidia-unpin",
        purpose: "user pages that the NVIDIA driver let go of",
        candidates: &[candidate(Mechanism::Kprobe, "nvidia_unpin", "os_unlock_user_pages")],
        without: "which pinned pages were let go of: all would count as pinned",
        module: Some("nvidia"),
        ..BASE
    },
    Hook {
        name: "managed-alloc",
        purpose: "chunks of managed memory in system memory, by process and kernel stack",
        candidates: &[in_and_out("managed_alloc_enter", "managed_alloc_return", "uvm_cpu_chunk_alloc")],
        without: "whose managed memory lies in system memory",
        module: Some("nvidia_uvm"),
        ..BASE
    },
    Hook {
        name: "managed-free",
        purpose: "chunks of managed memory given back",
        candidates: &[candidate(Mechanism::Kprobe, "managed_free", "uvm_cpu_chunk_free")],
        without: "which chunks of managed memory are gone: all would count as live",
        module: Some("nvidia_uvm"),
        ..BASE
    },
];

// A row cannot leave out what only BASE would give it.
const _: () = {
    let mut i = 0;
    while i < HOOKS.len() {
        let row = &HOOKS[i];
        assert!(!row.name.is_empty() && !row.purpose.is_empty() && !row.without.is_empty());
        assert!(!row.candidates.is_empty());
        i += 1;
    }
};
