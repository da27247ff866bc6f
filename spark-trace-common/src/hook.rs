//! The hooks: one row each, with what can carry it, in the order of preference.
//!
//! The planner (`spark-trace/src/plan.rs`) takes the first candidate that the running kernel can attach.

/// How a program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// BTF-typed tracepoint: arguments with their types, the cheapest.
    TpBtf,
    /// Entry of a kernel function, by a trampoline: nearly as cheap, and arguments have their types.
    Fentry,
    /// Its return, with the arguments and the result.
    Fexit,
    /// Entry of a kernel function by a breakpoint or ftrace: arguments are registers. With
    /// [`Candidate::on_return`] a second program runs at the return, where the arguments are gone.
    Kprobe,
    /// Functions of a file, a perf event for each.
    Uprobe,
    /// Functions of a file, all through one link.
    UprobeMulti,
    /// Attached to nothing: user space runs it when it wants to know.
    OnDemand,
}

impl Mechanism {
    pub const ALL: [Self; 7] = [
        Self::TpBtf,
        Self::Fentry,
        Self::Fexit,
        Self::Kprobe,
        Self::Uprobe,
        Self::UprobeMulti,
        Self::OnDemand,
    ];

    /// Attached to functions of files as these are found, and to nothing before.
    pub const fn is_of_files(self) -> bool {
        matches!(self, Self::Uprobe | Self::UprobeMulti)
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TpBtf => "tp_btf",
            Self::Fentry => "fentry",
            Self::Fexit => "fexit",
            Self::Kprobe => "kprobe",
            Self::Uprobe => "uprobe",
            Self::UprobeMulti => "uprobe.multi",
            Self::OnDemand => "on-demand",
        }
    }
}

/// One way to carry a hook.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    pub mechanism: Mechanism,
    /// Function in the eBPF object.
    pub program: &'static str,
    /// Tracepoint or kernel function.
    pub target: &'static str,
    /// Function in the eBPF object that runs when the target returns (kprobes only).
    pub on_return: Option<&'static str>,
    /// Arguments that the programs expect of a kernel function; a kernel where it has others is not attached to.
    pub args: Option<u32>,
    /// What is lost against the candidates before it.
    pub loses: Option<&'static str>,
}

/// The least profile that wants a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    Light,
    Default,
    Deep,
}

impl Profile {
    pub const ALL: [Self; 3] = [Self::Light, Self::Default, Self::Deep];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Default => "default",
            Self::Deep => "deep",
        }
    }
}

/// One hook.
#[derive(Debug, Clone, Copy)]
pub struct Hook {
    pub name: &'static str,
    pub purpose: &'static str,
    pub candidates: &'static [Candidate],
    pub profile: Profile,
    /// Recording makes no sense without it.
    pub required: bool,
    /// What a recording lacks without it.
    pub without: &'static str,
    /// The hook it stands in for. The kernel skips a program that would interrupt itself (a page freed in
    /// an interrupt while a page is being freed); a second program on the same event takes those.
    pub stands_in_for: Option<&'static str>,
    /// It follows single page frames, so it must be known where the kernel keeps their `struct page`s.
    pub follows_frames: bool,
    /// Below profile `deep` it is attached only when this has happened: a name from [`TRIGGERS`].
    pub waits_for: Option<&'static str>,
    /// The kernel module that it is about; without that loaded it is not applicable.
    pub module: Option<&'static str>,
}

/// What a hook may wait for, and what is told of it until then.
pub const TRIGGERS: &[(&str, &str)] = &[("cuda", "attached when the target maps a CUDA driver")];

const fn candidate(mechanism: Mechanism, program: &'static str, target: &'static str) -> Candidate {
    Candidate { mechanism, program, target, on_return: None, args: None, loses: None }
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

pub const HOOKS: &[Hook] = &[
    Hook {
        name: "process-fork",
        purpose: "follow the target's processes",
        candidates: &[tp_btf("process_fork", "sched_process_fork")],
        profile: Profile::Light,
        required: true,
        without: "processes that the target forks outside its cgroup",
        stands_in_for: None,
        follows_frames: false,
        waits_for: None,
        module: None,
    },
    Hook {
        name: "process-exec",
        purpose: "programs that the target runs",
        candidates: &[tp_btf("process_exec", "sched_process_exec")],
        profile: Profile::Light,
        required: true,
        without: "the programs' names and the phase mark of the first exec",
        stands_in_for: None,
        follows_frames: false,
        waits_for: None,
        module: None,
    },
    Hook {
        name: "process-exit",
        purpose: "exit status and peak RSS of each process",
        candidates: &[tp_btf("process_exit", "sched_process_exit")],
        profile: Profile::Light,
        required: true,
        without: "exit status and peak RSS of short-lived processes",
        stands_in_for: None,
        follows_frames: false,
        waits_for: None,
        module: None,
    },
    Hook {
        name: "cgroup-mkdir",
        purpose: "select the target's cgroups as they are created",
        candidates: &[tp_btf("cgroup_mkdir", "cgroup_mkdir")],
        profile: Profile::Light,
        required: true,
        without: "containers from their first instruction, and cgroups made inside the target",
        stands_in_for: None,
        follows_frames: false,
        waits_for: None,
        module: None,
    },
    Hook {
        name: "cgroup-rmdir",
        purpose: "last charge and peak of a cgroup as it is removed",
        candidates: &[tp_btf("cgroup_rmdir", "cgroup_rmdir")],
        profile: Profile::Light,
        required: false,
        without: "the charge left behind by a removed cgroup",
        stands_in_for: None,
        follows_frames: false,
        waits_for: None,
        module: None,
    },
    Hook {
        name: "cgroup-populated",
        purpose: "a last reading when a cgroup's last process ends",
        candidates: &[tp_btf("cgroup_populated", "cgroup_notify_populated")],
        profile: Profile::Light,
        required: false,
        without: "a reading at the moment a container ends; the last interval's stands",
        stands_in_for: None,
        follows_frames: false,
        waits_for: None,
        module: None,
    },
    Hook {
        name: "file-add",
        purpose: "page cache added, by file and owner",
        candidates: &[tp_btf("filemap_add", "mm_filemap_add_to_page_cache")],
        profile: Profile::Default,
        required: false,
        without: "which files make up the page cache",
        stands_in_for: None,
        follows_frames: false,
        waits_for: None,
        module: None,
    },
    Hook {
        name: "file-remove",
        purpose: "page cache removed, by file and owner",
        candidates: &[tp_btf("filemap_delete", "mm_filemap_delete_from_page_cache")],
        profile: Profile::Default,
        required: false,
        without: "which files left the page cache: added bytes would count as still there",
        stands_in_for: None,
        follows_frames: false,
        waits_for: None,
        module: None,
    },
    Hook {
        name: "page-alloc",
        purpose: "kernel and driver pages, by kernel stack",
        candidates: &[tp_btf("page_alloc", "mm_page_alloc")],
        profile: Profile::Default,
        required: false,
        without: "who allocated kernel and driver pages",
        stands_in_for: None,
        follows_frames: true,
        waits_for: None,
        module: None,
    },
    Hook {
        name: "page-sweep",
        purpose: "which kernel and driver pages are still in use, looked up when asked",
        candidates: &[candidate(Mechanism::OnDemand, "page_sweep", "")],
        profile: Profile::Default,
        required: false,
        without: "which kernel pages are still alive: allocated bytes would count as live",
        stands_in_for: None,
        follows_frames: true,
        waits_for: None,
        module: None,
    },
    Hook {
        name: "page-free",
        purpose: "pages freed, as it happens",
        candidates: &[tp_btf("page_free", "mm_page_free")],
        profile: Profile::Default,
        required: false,
        without: "frees between two sweeps are counted at the next",
        stands_in_for: None,
        follows_frames: true,
        waits_for: Some("cuda"),
        module: None,
    },
    Hook {
        name: "page-alloc-nested",
        purpose: "page allocations in interrupts that hit page-alloc",
        candidates: &[tp_btf("page_alloc_nested", "mm_page_alloc")],
        profile: Profile::Deep,
        required: false,
        without: "a few allocations in ten million, which then count as lost",
        stands_in_for: Some("page-alloc"),
        follows_frames: true,
        waits_for: None,
        module: None,
    },
    Hook {
        name: "page-free-nested",
        purpose: "pages freed in interrupts that hit page-free",
        candidates: &[tp_btf("page_free_nested", "mm_page_free")],
        profile: Profile::Deep,
        required: false,
        without: "a few frees in ten million, which then count as lost",
        stands_in_for: Some("page-free"),
        follows_frames: true,
        waits_for: None,
        module: None,
    },
    Hook {
        name: "mapping",
        purpose: "the target's mmap, munmap, mremap, brk and madvise, large ones with their user stack; what it reads of the kernel's memory figures; CUDA libraries it maps",
        candidates: &[tp_btf("mapping", "sys_exit")],
        profile: Profile::Default,
        required: false,
        without: "which code made the target's large mappings, what it read of meminfo and cgroup files, and CUDA libraries that are only in a container",
        stands_in_for: None,
        follows_frames: false,
        waits_for: None,
        module: None,
    },
    Hook {
        name: "library-call",
        purpose: "calls of the CUDA driver and of NVML: what they allocate, and what they say of memory",
        candidates: &[
            of_files(Mechanism::UprobeMulti, "call_enter"),
            of_files(Mechanism::Uprobe, "call_enter"),
        ],
        profile: Profile::Light,
        required: false,
        without: "device, pinned and managed memory by caller, and what the framework was told of free memory",
        stands_in_for: None,
        follows_frames: false,
        waits_for: None,
        module: None,
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
        profile: Profile::Default,
        required: false,
        without: "which kernel path charged the target's cgroups, and a second count beside memory.current",
        stands_in_for: None,
        follows_frames: false,
        waits_for: None,
        module: None,
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
        profile: Profile::Default,
        required: false,
        without: "charges that cannot fail, and a second count beside memory.current",
        stands_in_for: None,
        follows_frames: false,
        waits_for: None,
        module: None,
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
        profile: Profile::Default,
        required: false,
        without: "what left the target's cgroups, and a second count beside memory.current",
        stands_in_for: None,
        follows_frames: false,
        waits_for: None,
        module: None,
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
        required: false,
        without: "the split of charged kernel memory on cgroup v1",
        stands_in_for: None,
        follows_frames: false,
        waits_for: None,
        module: None,
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
        required: false,
        without: "the split of charged kernel memory on cgroup v1",
        stands_in_for: None,
        follows_frames: false,
        waits_for: None,
        module: None,
    },
    Hook {
        name: "nvidia-alloc",
        purpose: "system memory that the NVIDIA driver was asked for, by process and kernel stack",
        candidates: &[in_and_out("nvidia_alloc_enter", "nvidia_alloc_return", "nv_alloc_pages")],
        profile: Profile::Light,
        required: false,
        without: "what each process asked the NVIDIA driver for, and has not given back",
        stands_in_for: None,
        follows_frames: false,
        waits_for: None,
        module: Some("nvidia"),
    },
    Hook {
        name: "nvidia-free",
        purpose: "system memory given back to the NVIDIA driver",
        candidates: &[candidate(Mechanism::Kprobe, "nvidia_free", "nv_free_pages")],
        profile: Profile::Light,
        required: false,
        without: "which of the driver's allocations are gone: all would count as live",
        stands_in_for: None,
        follows_frames: false,
        waits_for: None,
        module: Some("nvidia"),
    },
    Hook {
        name: "nvidia-pages",
        purpose: "the NVIDIA driver's single pages counted together at the end of its call, not one by one",
        candidates: &[in_and_out("nvidia_pages_enter", "nvidia_pages_return", "nv_alloc_system_pages")],
        profile: Profile::Default,
        required: false,
        without: "time: each page that the driver takes costs as much as any other page of the kernel's",
        stands_in_for: None,
        follows_frames: false,
        waits_for: None,
        module: Some("nvidia"),
    },
    Hook {
        name: "nvidia-pin",
        purpose: "user pages that the NVIDIA driver pinned",
        candidates: &[in_and_out("nvidia_pin_enter", "nvidia_pin_return", "os_lock_user_pages")],
        profile: Profile::Default,
        required: false,
        without: "what was pinned by the driver, in the kernel's own words",
        stands_in_for: None,
        follows_frames: false,
        waits_for: None,
        module: Some("nvidia"),
    },
    Hook {
        name: "nvidia-unpin",
        purpose: "user pages that the NVIDIA driver let go of",
        candidates: &[candidate(Mechanism::Kprobe, "nvidia_unpin", "os_unlock_user_pages")],
        profile: Profile::Default,
        required: false,
        without: "which pinned pages were let go of: all would count as pinned",
        stands_in_for: None,
        follows_frames: false,
        waits_for: None,
        module: Some("nvidia"),
    },
    Hook {
        name: "managed-alloc",
        purpose: "chunks of managed memory in system memory, by process and kernel stack",
        candidates: &[in_and_out("managed_alloc_enter", "managed_alloc_return", "uvm_cpu_chunk_alloc")],
        profile: Profile::Default,
        required: false,
        without: "whose managed memory lies in system memory",
        stands_in_for: None,
        follows_frames: false,
        waits_for: None,
        module: Some("nvidia_uvm"),
    },
    Hook {
        name: "managed-free",
        purpose: "chunks of managed memory given back",
        candidates: &[candidate(Mechanism::Kprobe, "managed_free", "uvm_cpu_chunk_free")],
        profile: Profile::Default,
        required: false,
        without: "which chunks of managed memory are gone: all would count as live",
        stands_in_for: None,
        follows_frames: false,
        waits_for: None,
        module: Some("nvidia_uvm"),
    },
];

/// Position of the hook called `name` in [`HOOKS`]: the index of its run counter. Compile-time only.
pub const fn index(name: &str) -> u32 {
    let mut i = 0;
    while i < HOOKS.len() {
        if same(HOOKS[i].name.as_bytes(), name.as_bytes()) {
            return i as u32;
        }
        i += 1;
    }
    panic!("no hook of that name")
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}
