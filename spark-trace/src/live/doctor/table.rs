//! The checks: one row each.

use super::{Finding, Machine, accounting, engine, kernel, nvidia, rights};

/// Something a recording uses beside the hooks.
pub struct Check {
    pub name: &'static str,
    /// How it is found out.
    pub probe: &'static str,
    /// What it costs where it is missing.
    pub without: &'static str,
    /// How to get it.
    pub remedy: &'static str,
    pub run: fn(&Machine) -> Finding,
}

pub const CHECKS: &[Check] = &[
    Check {
        name: "user",
        probe: "the effective user id",
        without: "nothing is recorded, unless the capabilities below are there",
        remedy: "sudo spark-trace doctor",
        run: rights::user,
    },
    Check {
        name: "capabilities",
        probe: "CapEff in /proc/self/status",
        without: "CAP_BPF, CAP_PERFMON: any recording; CAP_SYS_ADMIN: kernel pages by stack, run times of programs, names in \
                  containers; CAP_SYS_PTRACE: PSS and user stacks of other users' processes; CAP_SYSLOG: names \
                  of kernel functions",
        remedy: "run as root; in a container add them with --cap-add",
        run: rights::capabilities,
    },
    Check {
        name: "lockdown",
        probe: "/sys/kernel/security/lockdown",
        without: "in mode confidentiality programs may not read kernel memory: nothing is recorded",
        remedy: "boot with lockdown=integrity, or without Secure Boot",
        run: rights::lockdown,
    },
    Check {
        name: "unprivileged-bpf",
        probe: "/proc/sys/kernel/unprivileged_bpf_disabled",
        without: "nothing: the programs are privileged in any case",
        remedy: "nothing to do",
        run: rights::unprivileged_bpf,
    },
    Check {
        name: "kernel",
        probe: "/proc/sys/kernel/osrelease",
        without: "the recording does not name its kernel",
        remedy: "mount /proc",
        run: kernel::release,
    },
    Check {
        name: "architecture",
        probe: "what this program was built for",
        without: "registers of system calls are not known: no mappings",
        remedy: "x86-64 and arm64 are supported",
        run: kernel::architecture,
    },
    Check {
        name: "page-size",
        probe: "sysconf(_SC_PAGESIZE)",
        without: "nothing: every size is followed",
        remedy: "nothing to do",
        run: kernel::pages,
    },
    Check {
        name: "kernel-types",
        probe: "read and decoded /sys/kernel/btf/vmlinux",
        without: "nothing is recorded: programs cannot find their way in kernel structures",
        remedy: "a kernel built with CONFIG_DEBUG_INFO_BTF=y (distributions' kernels are, from 5.8 or so on)",
        run: kernel::types,
    },
    Check {
        name: "kernel-members",
        probe: "looked up each structure member and constant that the programs use",
        without: "nothing is recorded: the programs do not know this kernel",
        remedy: "report it with the output of `spark-trace doctor --format markdown`",
        run: kernel::members,
    },
    Check {
        name: "module-types",
        probe: "/sys/kernel/btf has an entry for each line of /proc/modules",
        without: "no hook can be attached inside these modules; none is yet",
        remedy: "modules built with CONFIG_DEBUG_INFO_BTF_MODULES=y; out-of-tree ones need the kernel's vmlinux \
                 when they are built",
        run: kernel::module_types,
    },
    Check {
        name: "program-memory",
        probe: "loaded programs and maps at a recording's sizes, memlock in their fdinfo",
        without: "the recording does not say what itself takes of kernel memory",
        remedy: "root; on kernels before 5.11 also `ulimit -l unlimited`",
        run: kernel::program_memory,
    },
    Check {
        name: "program-run-times",
        probe: "bpf(BPF_ENABLE_STATS)",
        without: "the recording does not say what its programs cost",
        remedy: "CAP_SYS_ADMIN and a kernel from 5.8 on",
        run: kernel::run_times,
    },
    Check {
        name: "tracefs",
        probe: "events below /sys/kernel/tracing",
        without: "hooks cannot fall back on plain tracepoints and kprobes",
        remedy: "mount -t tracefs tracefs /sys/kernel/tracing",
        run: kernel::tracefs,
    },
    Check {
        name: "kernel-symbols",
        probe: "addresses in /proc/kallsyms",
        without: "kernel stacks have no names, and what they allocated no source",
        remedy: "root, or CAP_SYSLOG with sysctl kernel.kptr_restrict=1",
        run: rights::kernel_symbols,
    },
    Check {
        name: "user-symbols",
        probe: "opened a file of /proc/self/map_files",
        without: "user stacks in containers and in deleted files have no names",
        remedy: "CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE; before 5.9 a kernel with CONFIG_CHECKPOINT_RESTORE",
        run: kernel::map_files,
    },
    Check {
        name: "kernel-config",
        probe: "/proc/config.gz or /boot/config-*",
        without: "whether kernel stacks are part of vmalloc space is assumed: it is, as by default",
        remedy: "modprobe configs, or install the kernel's config file",
        run: kernel::configuration,
    },
    Check {
        name: "counters",
        probe: "opened /proc/meminfo, /proc/vmstat and /proc/zoneinfo",
        without: "nothing is recorded: there are no levels",
        remedy: "mount /proc without subset=pid",
        run: kernel::counters,
    },
    Check {
        name: "exact-counters",
        probe: "read /proc/sys/vm/stat_refresh",
        without: "the system's counters may be some hundred pages a CPU behind",
        remedy: "root, and /proc/sys not mounted read-only",
        run: kernel::exact_counters,
    },
    Check {
        name: "cachestat",
        probe: "the system call, on this program's file",
        without: "how much of a file is cached is found out more slowly, and not on all file systems",
        remedy: "root, a kernel from 6.5 on, and a seccomp filter that knows it",
        run: kernel::cachestat,
    },
    Check {
        name: "page-owners",
        probe: "read /proc/kpagecgroup",
        without: "no cross-check of which cgroup is charged for a page",
        remedy: "CAP_SYS_ADMIN and CONFIG_PROC_PAGE_MONITOR",
        run: kernel::page_owners,
    },
    Check {
        name: "cgroups",
        probe: "/proc/self/mountinfo and /proc/cgroups",
        without: "nothing is recorded: there is nothing that memory is charged to",
        remedy: "mount -t cgroup2 none /sys/fs/cgroup; boot with cgroup_enable=memory where it is off",
        run: accounting::hierarchy,
    },
    Check {
        name: "cgroup-leaf",
        probe: "made a cgroup, ran a process in it, removed it",
        without: "native commands need --no-cgroup, and are then not accounted the way a container is",
        remedy: "root, and cgroups mounted writable (in a container: --cgroupns=host and -v /sys/fs/cgroup:rw)",
        run: accounting::leaf,
    },
    Check {
        name: "cgroup-peak",
        probe: "read memory.peak or memory.max_usage_in_bytes of that cgroup",
        without: "peaks between two readings are missed",
        remedy: "a kernel from 5.19 on, or a shorter --interval",
        run: accounting::peak,
    },
    Check {
        name: "swap",
        probe: "SwapTotal in /proc/meminfo",
        without: "nothing: no memory can be swapped out",
        remedy: "nothing to do",
        run: accounting::swap,
    },
    Check {
        name: "huge-pages",
        probe: "/sys/kernel/mm/transparent_hugepage/enabled",
        without: "nothing: memory is in base pages",
        remedy: "nothing to do",
        run: accounting::huge_pages,
    },
    Check {
        name: "docker",
        probe: "docker --version, and docker version of the daemon, within 2 s",
        without: "no Docker containers can be recorded",
        remedy: "start the daemon, or name it in DOCKER_HOST (sudo drops it: sudo --preserve-env=DOCKER_HOST)",
        run: |_| engine::docker(),
    },
    Check {
        name: "podman",
        probe: "podman --version and podman info, within 2 s",
        without: "no Podman containers can be recorded",
        remedy: "see what `podman info` says, as the user who runs containers",
        run: |_| engine::podman(),
    },
    Check {
        name: "nerdctl",
        probe: "nerdctl --version and nerdctl info, within 2 s",
        without: "no containerd containers can be recorded",
        remedy: "start containerd, or name it in CONTAINERD_ADDRESS",
        run: |_| engine::nerdctl(),
    },
    Check {
        name: "nvidia-driver",
        probe: "/proc/driver/nvidia/version",
        without: "nothing that a GPU's driver takes is named",
        remedy: "load the driver",
        run: |_| nvidia::driver(),
    },
    Check {
        name: "libcuda",
        probe: "libcuda.so.1 in /etc/ld.so.cache or the usual directories; not opened",
        without: "CUDA programs do not run here",
        remedy: "install the driver's user side of the same version",
        run: |_| nvidia::library(),
    },
];
