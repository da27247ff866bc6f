//! A line for each GPU: who uses its memory, and the machine's beside it.

use spark_trace_analysis::memory_use::{GpuProcess, GpuUse, HostUse, MemoryUse};
use spark_trace_recording::units::size;

/// Processes of a GPU that are named.
const MOST: usize = 3;

/// One line where there is one GPU, else one for each and one for the machine.
pub fn lines(used: &MemoryUse) -> Vec<String> {
    let mut lines: Vec<String> = used.gpus.iter().map(gpu).collect();
    let Some(host) = &used.host else { return lines };
    match &mut lines[..] {
        [only] => *only = format!("{only}; host {}", machine(host, used.gpus.iter().all(|gpu| gpu.unified))),
        _ => lines.push(format!("Host {}", machine(host, false))),
    }
    lines
}

fn amount(bytes: Option<i64>) -> String {
    bytes.map_or_else(|| "an unknown amount".to_owned(), size)
}

fn gpu(gpu: &GpuUse) -> String {
    let simulated = if gpu.simulated { " (simulated)" } else { "" };
    let whose = if gpu.unified { "the machine's " } else { "" };
    let (bytes, total) = (amount(gpu.bytes), amount(gpu.total));
    let mut parts: Vec<String> = gpu.processes.iter().take(MOST).map(process).collect();
    let others = gpu.processes.get(MOST..).unwrap_or_default();
    if !others.is_empty() {
        let sum = others.iter().try_fold(0_i64, |sum, process| Some(sum.saturating_add(process.bytes?)));
        parts.push(format!("{} more {}", others.len(), amount(sum)));
    }
    if parts.is_empty() {
        parts.push("no process".to_owned());
    }
    parts.extend(gpu.reserved.map(|bytes| format!("reserved {}", size(bytes))));
    if !gpu.unified {
        parts.push(format!("unexplained {}", amount(gpu.unexplained)));
    }
    format!("GPU {}{simulated} holds {bytes} of {whose}{total}: {}", gpu.device, parts.join(", "))
}

fn process(process: &GpuProcess) -> String {
    let bytes = amount(process.bytes);
    match &process.comm {
        Some(comm) => format!("{comm} ({}) {bytes}", process.pid),
        None => format!("process {} {bytes}", process.pid),
    }
}

/// Of a GPU that shares the machine's memory its total is there already.
fn machine(host: &HostUse, has_total: bool) -> String {
    let of = if has_total { String::new() } else { format!(" of {}", amount(host.total)) };
    format!(
        "{}{of}; page cache {}; unexplained {}",
        amount(host.bytes),
        amount(host.page_cache),
        amount(host.unexplained)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: i64 = 1 << 30;

    fn gpu_of(device: u32, unified: bool, processes: &[(u32, Option<i64>)]) -> GpuUse {
        GpuUse {
            device,
            simulated: false,
            unified,
            bytes: Some(6 * GIB),
            total: Some(128 * GIB),
            processes: processes
                .iter()
                .map(|&(pid, bytes)| GpuProcess { pid, comm: (pid < 9).then(|| "python3".to_owned()), bytes })
                .collect(),
            reserved: (!unified).then_some(GIB),
            unexplained: (!unified).then_some(0),
        }
    }

    fn host() -> Option<HostUse> {
        Some(HostUse {
            total: Some(64 * GIB),
            bytes: Some(3 * GIB),
            page_cache: Some(20 * GIB),
            unexplained: Some(-GIB),
        })
    }

    #[test]
    fn one_gpu_is_one_line() {
        let processes = [(7, Some(5 * GIB)), (9, Some(GIB))];
        let used = MemoryUse { gpus: vec![gpu_of(0, true, &processes)], host: host() };
        assert_eq!(
            lines(&used),
            [
                "GPU 0 holds 6.00 GiB of the machine's 128.00 GiB: python3 (7) 5.00 GiB, process 9 1.00 GiB; host \
                 3.00 GiB; page cache 20.00 GiB; unexplained -1.00 GiB"
            ]
        );
        let used = MemoryUse { gpus: vec![gpu_of(0, false, &[])], host: host() };
        assert_eq!(
            lines(&used),
            [
                "GPU 0 holds 6.00 GiB of 128.00 GiB: no process, reserved 1.00 GiB, unexplained 0; host 3.00 GiB of \
                 64.00 GiB; page cache 20.00 GiB; unexplained -1.00 GiB"
            ]
        );
    }

    #[test]
    fn several_gpus_have_a_line_each_and_the_machine_one() {
        let many: Vec<_> = (1..6).map(|pid| (pid, (pid < 5).then_some(GIB))).collect();
        let used = MemoryUse { gpus: vec![gpu_of(0, false, &many), gpu_of(1, false, &[])], host: host() };
        let lines = lines(&used);
        assert_eq!(lines.len(), 3);
        assert!(lines[0].contains("python3 (3) 1.00 GiB, 2 more an unknown amount, reserved"), "{lines:?}");
        assert!(lines[2].starts_with("Host 3.00 GiB of 64.00 GiB; page cache"), "{lines:?}");
    }
}
