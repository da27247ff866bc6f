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

    fn has_module(&self, name: &str) -> bool {
        Path::new("/sys/module").join(name).exists()
    }
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
}
