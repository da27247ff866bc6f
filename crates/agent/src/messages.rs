//! Messages of the kernel side, which aya-log brings, as lines of the log.
//!
//! Only at the most detailed level: the programs that send them are in an object of their own, so that they cost nothing
//! elsewhere.

use std::os::fd::{AsFd, BorrowedFd};

use aya::Ebpf;
use aya_log::EbpfLogger;
use spark_trace_common::capacities::LossKind;
use spark_trace_recording::Loss;
use tracing::{debug, error, info, trace, warn};

/// What the log says where a line comes from.
const KERNEL_SIDE: &str = "spark_trace_ebpf";

/// The map that aya-log-ebpf has in the object.
pub(crate) const MAP: &str = "AYA_LOGS";

/// Logs what was lost since it was looked at last.
pub(crate) fn log_losses(before: &mut Vec<Loss>, now: &[Loss]) {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    for Loss { what, count } in now {
        let known = before.iter().find(|loss| loss.what == *what).map_or(0, |loss| loss.count);
        if *count > known {
            let why = LossKind::ALL.into_iter().find(|kind| kind.name() == what).map_or("", LossKind::why);
            debug!("lost {what}: {} more, {count} in all: {why}", count - known);
        }
    }
    *before = now.to_vec();
}

/// Whether they are wanted.
pub(crate) fn are_wanted() -> bool {
    tracing::enabled!(target: KERNEL_SIDE, tracing::Level::TRACE)
}

/// The messages that wait.
pub(crate) struct Messages(EbpfLogger<Lines>);

impl Messages {
    /// Takes their map out of the object.
    pub(crate) fn new(ebpf: &mut Ebpf) -> Result<Self, aya_log::Error> {
        EbpfLogger::init_with_logger(ebpf, Lines).map(Self)
    }

    /// Hands on what has come.
    pub(crate) fn hand_on(&mut self) {
        self.0.flush();
    }
}

impl AsFd for Messages {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// aya-log writes to `log`, the agent to `tracing`.
struct Lines;

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        are_wanted()
    }

    fn log(&self, record: &log::Record<'_>) {
        let text = record.args();
        match record.level() {
            log::Level::Error => error!(target: KERNEL_SIDE, "{text}"),
            log::Level::Warn => warn!(target: KERNEL_SIDE, "{text}"),
            log::Level::Info => info!(target: KERNEL_SIDE, "{text}"),
            log::Level::Debug => debug!(target: KERNEL_SIDE, "{text}"),
            log::Level::Trace => trace!(target: KERNEL_SIDE, "{text}"),
        }
    }

    fn flush(&self) {}
}
