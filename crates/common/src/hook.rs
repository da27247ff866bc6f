//! What a hook is, and what can carry it. The hooks themselves are rows of [`HOOKS`], in `hook/table.rs`.

mod table;

pub use table::HOOKS;

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
    /// It runs at every system call of every process of the machine.
    pub every_call: bool,
    /// Where the kernel preempts itself, a task may wait in one of its programs: calls that come meanwhile on the CPU are then
    /// skipped (kernel/bpf/trampoline.c, the recursion guard), and their stacks may be missing.
    pub skips_if_preempted: bool,
    /// Functions that carry the rest of the hook, by the same mechanism: all of them, or the candidate is none.
    pub also: &'static [Place],
}

/// A program at a kernel function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Function in the eBPF object.
    pub program: &'static str,
    /// Kernel function.
    pub target: &'static str,
    /// Arguments that the program expects of it; none where it does not matter.
    pub args: Option<u32>,
}

impl Candidate {
    /// Where it attaches.
    pub fn places(&self) -> impl Iterator<Item = Place> + use<> {
        let Self { program, target, args, .. } = *self;
        core::iter::once(Place { program, target, args }).chain(self.also.iter().copied())
    }
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

/// Why a candidate that would run at every system call is not used where the target is the whole machine.
pub const NOT_ON_A_WHOLE_MACHINE: &str =
    "it would slow down every system call of every process; with `record --system-calls on` it is used";

/// What a hook may wait for, and what is said of it until then.
pub const TRIGGERS: &[(&str, &str)] = &[("cuda", "attached when the target maps a CUDA driver")];

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
