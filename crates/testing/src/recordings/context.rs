//! What surrounds a synthetic run.

use super::*;
use spark_trace_recording::process_env::*;

/// One process under a container's rights, and a model that an earlier run left in shared memory.
pub(super) fn add(recording: &mut Recording) {
    let context = ProcessContext {
        at_ns: START + 1_000_000,
        pid: 4242,
        comm: "python3".into(),
        environment: [("CUDA_MODULE_LOADING", "LAZY"), ("LD_LIBRARY_PATH", "/opt/driver")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        left_out: 0,
        capabilities: Some(0xa804_25fb),
        seccomp: Some(2),
        limits: [
            ("Max locked memory", Some(8 * MIB)),
            ("Max stack size", Some(8 * MIB)),
            ("Max data size", None),
        ]
        .map(|(name, soft)| (name.to_owned(), soft))
        .into(),
    };
    recording.provenance.contexts = vec![context];
    recording.provenance.processes[0].context = Some(0);
    for (at_ns, mib) in [(START - SECOND, 96), (START + 10 * SECOND, 100)] {
        recording.provenance.tmpfs.extend([
            TmpfsUse {
                at_ns,
                mount_point: "/dev/shm".into(),
                kind: "tmpfs".into(),
                used: mib * MIB,
                files: vec![TmpfsFile { path: "/dev/shm/model.bin".into(), bytes: 96 * MIB }],
                ..TmpfsUse::default()
            },
            TmpfsUse { at_ns, mount_point: "/dev".into(), kind: "devtmpfs".into(), ..TmpfsUse::default() },
        ]);
    }
}
