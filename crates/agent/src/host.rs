//! Facts about the machine that explain a recording's numbers.

use std::fs;

use procfs::ConfigSetting;

use super::{cgroup::Layout, page_size};
use spark_trace_host::meminfo;
use spark_trace_recording::{Host, Nvidia, STAND_IN};

/// Reads the facts. What a machine does not say is absent. GPUs are for NVML to name.
pub fn facts(layout: &Layout) -> Host {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let bytes = |name: &str| meminfo::field(&meminfo, name).unwrap_or(0);
    Host {
        kernel: line("/proc/sys/kernel/osrelease").unwrap_or_default(),
        arch: std::env::consts::ARCH.to_owned(),
        page_size: page_size(),
        cpus: online_cpus(),
        memory_total: bytes("MemTotal"),
        cgroup_version: layout.version.as_str().to_owned(),
        memory_controller: Some(layout.memory_root.display().to_string()),
        boot_id: line("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
        model: line("/sys/class/dmi/id/product_name").or_else(|| line("/proc/device-tree/model")),
        swap_total: bytes("SwapTotal"),
        vmap_stack: vmap_stack(),
        page_reporting_bytes: page_reporting(),
        transparent_hugepage: line("/sys/kernel/mm/transparent_hugepage/enabled")
            .and_then(|l| Some(l.split_once('[')?.1.split_once(']')?.0.to_owned())),
        provenance: if is_emulated() { "emulated" } else { "measured" }.to_owned(),
        gpus: Vec::new(),
        nvidia: nvidia_module().map(|module| Nvidia {
            simulated: module.is_stand_in(),
            driver_version: Some(module.version),
            kernel_module: Some(module.kind.to_owned()),
            ..Nvidia::default()
        }),
    }
}

/// NVIDIA's kernel module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NvidiaModule {
    /// `open`, `proprietary`, or `stand-in` (testing/stand-in/ in the source tree).
    pub kind: &'static str,
    pub version: String,
}

impl NvidiaModule {
    /// It is not NVIDIA's.
    pub fn is_stand_in(&self) -> bool {
        self.kind == STAND_IN
    }
}

/// NVIDIA's kernel module, where one is loaded.
pub fn nvidia_module() -> Option<NvidiaModule> {
    parse_nvidia_version(&fs::read_to_string("/proc/driver/nvidia/version").ok()?)
}

/// How the line begins in the modules that stand in for NVIDIA's.
const STAND_IN_LINE: &str = "NVRM version: STAND-IN ";

/// The open modules say so in the line that has the version; the others do not.
fn parse_nvidia_version(text: &str) -> Option<NvidiaModule> {
    let line = text.lines().find(|line| line.starts_with("NVRM version:"))?;
    if line.starts_with(STAND_IN_LINE) {
        return Some(NvidiaModule { kind: STAND_IN, version: STAND_IN.to_owned() });
    }
    let is_version = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    let version = line.split_whitespace().find(is_version)?.to_owned();
    let kind = if line.contains("Open Kernel Module") { "open" } else { "proprietary" };
    Some(NvidiaModule { kind, version })
}

fn line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!text.is_empty()).then(|| text.to_owned())
}

fn online_cpus() -> u32 {
    // SAFETY: no pointers involved.
    let n = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    u32::try_from(n).unwrap_or(0)
}

/// Whether kernel stacks lie in vmalloc space, from the kernel's configuration where it is readable.
fn vmap_stack() -> Option<bool> {
    let config = procfs::kernel_config().ok()?;
    Some(matches!(config.get("CONFIG_VMAP_STACK"), Some(ConfigSetting::Yes)))
}

/// Blocks that one report to a hypervisor has room for: PAGE_REPORTING_CAPACITY (include/linux/page_reporting.h).
const REPORTED_AT_A_TIME: u64 = 32;
/// The place of VIRTIO_BALLOON_F_REPORTING in a device's features (include/uapi/linux/virtio_balloon.h).
const F_REPORTING: usize = 5;

/// The most that the kernel takes off its free lists at a time to report it to a hypervisor: so many of its largest
/// blocks. Absent where no virtio balloon takes part.
fn page_reporting() -> Option<u64> {
    let devices = fs::read_dir("/sys/bus/virtio/drivers/virtio_balloon").ok()?;
    let mut features = devices.filter_map(|entry| fs::read(entry.ok()?.path().join("features")).ok());
    if !features.any(|features| reports_free_pages(&features)) {
        return None;
    }
    let orders = largest_order(&fs::read_to_string("/proc/buddyinfo").ok()?)?;
    Some((REPORTED_AT_A_TIME * page_size()) << orders)
}

/// Whether a balloon's `features` say so, which has a digit for each, from the lowest on.
fn reports_free_pages(features: &[u8]) -> bool {
    features.get(F_REPORTING) == Some(&b'1')
}

/// The largest order of /proc/buddyinfo, which has a column for each from 0 on.
fn largest_order(buddyinfo: &str) -> Option<usize> {
    let (_, zone) = buddyinfo.lines().next()?.split_once("zone")?;
    // The zone's name comes first.
    zone.split_whitespace().count().checked_sub(2)
}

/// A CPU that QEMU interprets: such a machine's memory accounting is real, its timing is not.
fn is_emulated() -> bool {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    cpuinfo.lines().filter_map(|l| l.split_once(':')).any(|(key, value)| match key.trim() {
        "model name" => value.contains("QEMU TCG"),
        // QEMU's own arm64 CPU has no implementer's code.
        "CPU implementer" => value.trim() == "0x00",
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_module_says_which_it_is() {
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.95.05  Release Build  (x@y)\nGCC version:  gcc 13.3.0\n";
        let closed =
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n";
        let of = |text| parse_nvidia_version(text).map(|module| (module.kind, module.version));
        assert_eq!(of(open), Some(("open", "580.95.05".to_owned())));
        assert_eq!(of(closed), Some(("proprietary", "535.183.01".to_owned())));
        assert_eq!(of("GCC version: gcc 13.3.0"), None);
    }

    #[test]
    fn a_balloon_that_reports_free_pages_says_so() {
        assert!(reports_free_pages(b"0110010100000000000000000000000010\n"));
        assert!(!reports_free_pages(b"0110000100000000000000000000000010\n"));
        assert!(!reports_free_pages(b"0110"));
    }

    #[test]
    fn the_largest_order_is_the_last_column() {
        let text = "Node 0, zone      DMA      0      0      0      0      0      0      0      0      1      1      3 \n";
        assert_eq!(largest_order(text), Some(10));
        assert_eq!(largest_order(""), None);
    }

    #[test]
    fn a_stand_in_is_never_taken_for_a_driver() {
        // The line as testing/stand-in/nvidia/device.c has it; a version number in it must not count.
        let source = include_str!("../../../testing/stand-in/nvidia/device.c");
        let line = source.split('"').find(|part| part.starts_with("NVRM version:")).unwrap();
        for line in [line.to_owned(), format!("{line} 590.48.01")] {
            let module = parse_nvidia_version(&line).unwrap();
            assert!(module.is_stand_in(), "{line}");
            assert_eq!(module.version, "stand-in");
        }
    }

    #[test]
    fn this_machine_has_facts() {
        let host = facts(&Layout::detect().unwrap());
        assert!(host.memory_total > 1 << 20 && host.cpus > 0 && !host.boot_id.is_empty());
        assert!(host.kernel.starts_with(|c: char| c.is_ascii_digit()));
    }
}
