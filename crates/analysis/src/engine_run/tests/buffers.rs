//! Buffers of llama.cpp's log among allocations of one caller, and its own account of device memory.

use spark_trace_recording::{CudaAllocation, DeviceSeries};

use super::*;

const LLAMA: &[(u64, &str)] = &[
    (1, "ggml_cuda_init: found 1 CUDA devices (Total VRAM: 8192 MiB):"),
    (
        2,
        "llama_model_loader: loaded meta data with 12 key-value pairs and 147 tensors from m.gguf (version GGUF V3 (latest))",
    ),
    (5, "load_tensors:        CUDA0 model buffer size =   900.25 MiB"),
    (5, "load_tensors:        CUDA0 model buffer size =   100.00 MiB"),
    (6, "llama_context: constructing llama_context"),
    (7, "llama_kv_cache:      CUDA0 KV buffer size =   256.00 MiB"),
    (8, "sched_reserve:      CUDA0 compute buffer size =    64.50 MiB"),
    (
        9,
        "llama_memory_breakdown_print: |   - CUDA0 (NVIDIA H200)   |  8192 =  6000 + ( 1320 =  1000 +     256 +      64) +         872 |",
    ),
];

fn allocation(second: u64, kib: u64, freed: Option<u64>) -> CudaAllocation {
    CudaAllocation {
        pid: 7,
        kind: "device".into(),
        function: "cuMemAlloc_v2".into(),
        bytes: kib << 10,
        allocated_ns: at(second),
        freed_ns: freed.map(at),
        ..CudaAllocation::default()
    }
}

fn llama() -> Recording {
    let mut recording = recording(LLAMA, &[(1, 0), (4, 1), (20, 1)]);
    push(&mut recording.samples.cuda, at(30), [("live.device-all".to_owned(), 1400 * MIB)]);
    recording.provenance.cuda_largest = vec![
        allocation(3, 102_400, Some(4)),
        allocation(4, 921_856, None),
        allocation(4, 102_400, None),
        allocation(6, 262_144, None),
        allocation(7, 66_050, None),
        // Of the KV cache's size, and younger than its line.
        allocation(12, 262_144, None),
    ];
    recording
}

#[test]
fn each_line_has_the_allocation_of_its_size() {
    let run = report(&llama(), at(31)).unwrap();
    let rows: Vec<_> = run
        .buffers
        .rows
        .iter()
        .map(|row| {
            (
                row.part,
                row.traced_bytes.map(|bytes| bytes >> 10),
                row.allocated_ns.map(|ns| (ns - START) / SECOND),
            )
        })
        .collect();
    assert_eq!(
        rows,
        [
            (PartName::Weights, Some(921_856), Some(4)),
            (PartName::Weights, Some(102_400), Some(4)),
            (PartName::KvCache, Some(262_144), Some(6)),
            (PartName::Compute, Some(66_050), Some(7)),
        ]
    );
    assert_eq!(run.buffers.together, None);
    let parts = run.parts.unwrap();
    let rows: Vec<_> = parts.parts.iter().map(|row| (row.part, row.bytes >> 10, row.evidence)).collect();
    assert_eq!(
        rows,
        [
            (PartName::Weights, 1_024_256, Some(Evidence::Allocations)),
            (PartName::KvCache, 262_144, Some(Evidence::Allocations)),
            (PartName::Compute, 66_050, Some(Evidence::Allocations)),
            (PartName::Workspace, 1400 * 1024 - 1_024_256 - 262_144 - 66_050, None),
        ]
    );
}

#[test]
fn a_buffer_that_is_not_there_is_unknown() {
    let mut recording = llama();
    recording.provenance.cuda_largest.remove(3);
    let run = report(&recording, at(31)).unwrap();
    assert_eq!(run.buffers.rows[2].traced_bytes, None, "the younger one of its size is another");
    assert_eq!(run.buffers.together, None);
    let parts: Vec<_> = run.parts.unwrap().parts.iter().map(|row| row.part).collect();
    assert!(!parts.contains(&PartName::KvCache), "{parts:?}");
    let context = run.breakdown.iter().find(|row| row.of == BreakdownOf::Context).unwrap();
    assert_eq!((context.logged_bytes, context.traced_bytes), (256 * MIB as i64, None));
}

#[test]
fn the_breakdown_is_beside_the_recording() {
    let mut recording = llama();
    let mut device = DeviceSeries { index: 0, ..DeviceSeries::default() };
    // A container's client passed the line on when the engine had ended.
    for (second, free, live) in [(1, 8192, 0), (6, 6001, 1400), (7, 8192, 0)] {
        let columns =
            [("memory.total", 8800), ("memory.reserved", 608), ("memory.free", free), ("cuda.live", live)];
        push(&mut device.series, at(second), columns.map(|(name, mib)| (name.to_owned(), mib * MIB)));
    }
    recording.samples.devices = vec![device];
    let run = report(&recording, at(31)).unwrap();
    let mib = |bytes: i64| bytes / MIB as i64;
    let rows: Vec<_> =
        run.breakdown.iter().map(|row| (row.of, mib(row.logged_bytes), row.traced_bytes.map(mib))).collect();
    assert_eq!(
        rows,
        [
            (BreakdownOf::Total, 8192, Some(8192)),
            (BreakdownOf::Free, 6000, Some(6001)),
            (BreakdownOf::Own, 1320, Some(1320)),
            (BreakdownOf::Model, 1000, Some(1000)),
            (BreakdownOf::Context, 256, Some(256)),
            (BreakdownOf::Compute, 64, Some(64)),
            (BreakdownOf::Unaccounted, 872, Some(870)),
        ]
    );
    // It was read when they were free, all of them long ago or the last of them just now.
    let (seconds, tenths) = (at(8), |tenths: u64| at(9) - tenths * SECOND / 10);
    for freed_ns in [
        [Some(seconds), Some(seconds + 1), Some(seconds + 2), Some(seconds + 3)],
        [Some(tenths(4)), None, Some(tenths(2)), Some(tenths(1))],
    ] {
        let mut late = recording.clone();
        let buffers = late.provenance.cuda_largest[1..].iter_mut();
        for (buffer, freed_ns) in buffers.zip(freed_ns) {
            buffer.freed_ns = freed_ns;
        }
        assert_eq!(report(&late, at(31)).unwrap().breakdown, run.breakdown);
    }
    // A buffer that it gave up long before is not its any more.
    let mut given_up = recording.clone();
    given_up.provenance.cuda_largest[3].freed_ns = Some(at(8));
    let run = report(&given_up, at(31)).unwrap();
    assert_eq!(run.breakdown[4].traced_bytes, Some(0));
    // A reading with a part of the buffers alone is none.
    let part = [(6, 1000)].map(|(second, live)| (at(second), [("cuda.live".to_owned(), live * MIB)]));
    let mut early = recording.clone();
    let columns = &mut early.samples.devices[0].series;
    *columns = spark_trace_recording::Series::default();
    for (at_ns, live) in part {
        let all =
            [("memory.total", 8800), ("memory.free", 7000)].map(|(name, mib)| (name.to_owned(), mib * MIB));
        push(columns, at_ns, all.into_iter().chain(live));
    }
    let run = report(&early, at(31)).unwrap();
    assert_eq!((run.breakdown[1].traced_bytes, run.breakdown[6].traced_bytes), (None, None));
    // Of two GPUs the log has one: which it is nobody knows.
    recording.samples.devices.push(recording.samples.devices[0].clone());
    let run = report(&recording, at(31)).unwrap();
    assert_eq!((run.breakdown[0].traced_bytes, run.breakdown[6].traced_bytes), (None, None));
    assert_eq!(report(&recording_without_breakdown(), at(31)).unwrap().breakdown, []);
}

fn recording_without_breakdown() -> Recording {
    recording(&LLAMA[..7], &[])
}
