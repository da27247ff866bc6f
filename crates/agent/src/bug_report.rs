//! All that a report of a fault needs in one file: a snapshot, what `doctor` says, and the kernel's files behind both.

use std::{fs, io};

use super::doctor;
use spark_trace_recording::{
    Recording,
    redact::{HOST, Kept, redact_value},
};

/// A file of the kernel's that goes along, and whether it holds names of somebody's.
struct Raw {
    path: &'static str,
    named: bool,
}

const RAW: &[Raw] = &[
    Raw { path: "/proc/meminfo", named: false },
    Raw { path: "/proc/vmstat", named: false },
    Raw { path: "/proc/zoneinfo", named: false },
    Raw { path: "/proc/buddyinfo", named: false },
    Raw { path: "/proc/pagetypeinfo", named: false },
    Raw { path: "/proc/slabinfo", named: false },
    Raw { path: "/proc/swaps", named: true },
    // Who built it, and on which machine.
    Raw { path: "/proc/version", named: true },
    Raw { path: "/proc/cmdline", named: true },
    Raw { path: "/proc/cgroups", named: false },
    Raw { path: "/proc/self/mountinfo", named: true },
    Raw { path: "/proc/sysvipc/shm", named: false },
    Raw { path: "/proc/pressure/memory", named: false },
    Raw { path: "/proc/driver/nvidia/version", named: true },
    Raw { path: "/proc/driver/nvidia/params", named: false },
    Raw { path: "/sys/fs/cgroup/memory.stat", named: false },
    Raw { path: "/sys/fs/cgroup/cgroup.stat", named: false },
    Raw { path: "/sys/kernel/mm/transparent_hugepage/enabled", named: false },
];

/// Texts of `doctor` that stay: those of its own lists. What was found, and why something does not work, may name anybody.
const DOCTOR: Kept = &[HOST, OF_DOCTOR];

const OF_DOCTOR: &[&str] = &[
    "schema",
    "tool_version",
    "hooks/*/name",
    "hooks/*/mechanism",
    "hooks/*/verdict",
    "hooks/*/purpose",
    "hooks/*/target",
    "hooks/*/without",
    "hooks/*/profile",
    "checks/*/name",
    "checks/*/probe",
    "checks/*/status",
    "checks/*/without",
    "checks/*/remedy",
];

/// More than any of these files has.
const LARGEST: usize = 4 << 20;
/// zstd's own default.
const ZSTD_LEVEL: i32 = 3;

/// The bundle as a compressed tar archive. `redacted`: without the files that hold names.
pub fn contents(recording: &Recording, redacted: bool) -> io::Result<Vec<u8>> {
    let mut doctor = serde_json::to_value(doctor::run(None, &[]))?;
    if redacted {
        redact_value(&mut doctor, DOCTOR);
    }
    let mut archive = tar::Builder::new(zstd::Encoder::new(Vec::new(), ZSTD_LEVEL)?);
    add(&mut archive, "snapshot.json", &serde_json::to_vec(recording)?)?;
    add(&mut archive, "doctor.json", &serde_json::to_vec_pretty(&doctor)?)?;
    for raw in RAW.iter().filter(|raw| !(redacted && raw.named)) {
        let name = format!("kernel{}", raw.path);
        match fs::read(raw.path) {
            Ok(mut bytes) => {
                bytes.truncate(LARGEST);
                add(&mut archive, &name, &bytes)?;
            }
            // What a kernel does not have is reported, too.
            Err(error) => add(&mut archive, &format!("{name}.error"), format!("{error}\n").as_bytes())?,
        }
    }
    archive.into_inner()?.finish()
}

fn add(archive: &mut tar::Builder<impl io::Write>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o600);
    header.set_cksum();
    archive.append_data(&mut header, format!("spark-trace/{name}"), bytes)
}
