//! What the planner needs to know of the running kernel.

use std::{cell::OnceCell, path::Path};

use super::{btf::Btf, kallsyms::Kallsyms, uprobe_multi};
use crate::attach_plan::Facts;

/// A kernel function that nobody calls but for tests of BPF programs, and that every kernel with BPF has.
const HARMLESS: &str = "bpf_fentry_test1";

/// Where the kernel lists that events can be had from kprobes.
const KPROBE_EVENTS: &str = "/sys/bus/event_source/devices/kprobe/type";

pub fn kernel_has_kprobes() -> bool {
    Path::new(KPROBE_EVENTS).exists()
}

/// The running kernel, as far as the plan needs to know it.
pub struct KernelFacts<'a> {
    btf: &'a Btf,
    symbols: OnceCell<Kallsyms>,
    trampolines: OnceCell<Result<(), String>>,
}

impl<'a> KernelFacts<'a> {
    pub const fn new(btf: &'a Btf) -> Self {
        Self { btf, symbols: OnceCell::new(), trampolines: OnceCell::new() }
    }
}

impl Facts for KernelFacts<'_> {
    fn has_btf_tracepoint(&self, name: &str) -> bool {
        self.btf.tracepoint(name).is_some()
    }

    fn args_of(&self, function: &str) -> Option<u32> {
        Some(self.btf.function(function)?.args)
    }

    fn has_symbol(&self, function: &str) -> bool {
        // Where they cannot be read, attaching shows it.
        let symbols = self.symbols.get_or_init(|| Kallsyms::from_kernel().unwrap_or_default());
        symbols.is_empty() || symbols.has(function)
    }

    /// Some kernels refuse to load such a program, others (arm64 before 6.4) load it and refuse to attach it.
    fn trampolines(&self) -> Result<(), String> {
        let attached = self.trampolines.get_or_init(|| {
            let function = self
                .btf
                .function(HARMLESS)
                .ok_or_else(|| format!("cannot be tried: this kernel's types have no {HARMLESS}"))?;
            uprobe_multi::try_trampoline(function.id)
                .map_err(|e| format!("this kernel refuses trampolines: {e}"))
        });
        attached.clone()
    }

    fn kprobes(&self) -> Result<(), String> {
        if kernel_has_kprobes() {
            return Ok(());
        }
        Err(format!("this kernel has no kprobes (no {KPROBE_EVENTS})"))
    }

    fn preemption(&self) -> Option<String> {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        preemption(&read(PREEMPT), &read("/proc/version"), &read("/proc/cmdline"))
    }

    fn has_module(&self, name: &str) -> bool {
        Path::new("/sys/module").join(name).exists()
    }
}

/// Where a kernel that can choose has what it has chosen (kernel/sched/debug.c sched_dynamic_show).
const PREEMPT: &str = "/sys/kernel/debug/sched/preempt";

/// Whether the kernel may preempt its own code. `modes` has the one in brackets that is on; without it there are the kernel's version
/// (init/Makefile, UTS_VERSION) and its command line. What is not known counts as yes.
fn preemption(modes: &str, version: &str, line: &str) -> Option<String> {
    let on = modes.split_once('(').and_then(|(_, rest)| Some(rest.split_once(')')?.0));
    let named = line.split_whitespace().rev().find_map(|word| word.strip_prefix("preempt="));
    let built = version.split_whitespace().find(|word| word.starts_with("PREEMPT"));
    let known = match (on, built) {
        (_, Some("PREEMPT_RT")) => "PREEMPT_RT",
        (Some(on), _) => on,
        (None, Some("PREEMPT_DYNAMIC")) => named.unwrap_or("not known"),
        (None, Some(built)) => built,
        (None, None) => "none",
    };
    let preempts = !matches!(known, "none" | "voluntary");
    preempts.then(|| format!("this kernel preempts its own code (preempt={known})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_answers() {
        let btf = Btf::from_kernel().unwrap();
        let facts = KernelFacts::new(&btf);
        assert!(facts.has_btf_tracepoint("sched_process_exec"));
        assert_eq!(facts.args_of(HARMLESS), Some(1));
        assert_eq!(facts.args_of("no_such_function"), None);
    }

    #[test]
    fn kernels_that_preempt_themselves_are_known() {
        const DYNAMIC: &str = "Linux version 6.12 #1 SMP PREEMPT_DYNAMIC Debian";
        let known = |modes, version, line| {
            let how = preemption(modes, version, line)?;
            Some(how.split_once('=').unwrap().1.trim_end_matches(')').to_owned())
        };
        let is = |how: &str| Some(how.to_owned());
        assert_eq!(known("none (voluntary) full\n", DYNAMIC, ""), None);
        assert_eq!(known("none voluntary (full) lazy\n", DYNAMIC, "preempt=none"), is("full"));
        assert_eq!(known("(full) lazy\n", "#1 SMP PREEMPT_RT", ""), is("PREEMPT_RT"));
        assert_eq!(known("", DYNAMIC, "quiet preempt=full preempt=voluntary"), None);
        assert_eq!(known("", DYNAMIC, "quiet"), is("not known"));
        assert_eq!(known("", "#1 SMP PREEMPT Mon", ""), is("PREEMPT"));
        assert_eq!(known("", "Linux version 6.1 #1 SMP Debian", ""), None);
    }
}
