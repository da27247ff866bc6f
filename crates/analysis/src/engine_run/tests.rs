use spark_trace_engines::{Engine, Stage};
use spark_trace_recording::{LogLine, Recording};
use spark_trace_testing::{MIB, SECOND, START, empty, push};

use super::*;

const GIB: u64 = 1024 * MIB;

fn at(seconds: u64) -> u64 {
    START + seconds * SECOND
}

/// Lines with their seconds, and device memory in GiB at some seconds.
fn recording(lines: &[(u64, &str)], device: &[(u64, u64)]) -> Recording {
    let mut recording = empty();
    for (seconds, text) in lines {
        recording.provenance.log_lines.push(LogLine {
            at_ns: at(*seconds),
            stream: "stderr".into(),
            text: (*text).into(),
        });
    }
    for (seconds, gib) in device {
        push(
            &mut recording.samples.cuda,
            at(*seconds) - SECOND / 10,
            [("live.device-all".to_owned(), gib * GIB)],
        );
    }
    recording
}

fn stages(run: &EngineRun) -> Vec<(Stage, u64, Option<u64>, Option<i64>)> {
    let seconds = |ns: u64| (ns - START) / SECOND;
    let gib = |bytes: i64| bytes / GIB as i64;
    let row = |row: &StageRow| {
        (row.stage, seconds(row.span.begin_ns), row.span.end_ns.map(seconds), row.growth_bytes.map(gib))
    };
    run.stages.iter().map(row).collect()
}

const VLLM: &[(u64, &str)] = &[
    (
        1,
        "(EngineCore pid=7) INFO 06-10 10:00:00 [core.py:1] Initializing a V1 LLM engine (v0.25.1) with config: x",
    ),
    (2, "(EngineCore pid=7) INFO 06-10 10:00:00 [gpu_model_runner.py:1] Starting to load model m..."),
    (
        10,
        "(EngineCore pid=7) INFO 06-10 10:00:00 [gpu_model_runner.py:1] Model loading took 14.00 GiB memory and 8.0 seconds",
    ),
    (20, "(EngineCore pid=7) INFO 06-10 10:00:00 [gpu_worker.py:1] Available KV cache memory: 70.00 GiB"),
    (20, "(EngineCore pid=7) INFO 06-10 10:00:00 [kv_cache_utils.py:1] GPU KV cache size: 1,000 tokens"),
    (
        30,
        "(EngineCore pid=7) INFO 06-10 10:00:00 [gpu_model_runner.py:1] Graph capturing finished in 5 secs, took 1.00 GiB",
    ),
    (
        31,
        "(EngineCore pid=7) INFO 06-10 10:00:00 [core.py:1] init engine (profile, create kv cache, warmup model) took 21.0 seconds",
    ),
];

/// Weights 14 GiB, a peak of 20 while profiling of which 1 stays, a cache of 70, graphs of 1, 2 more while it serves.
const DEVICE: &[(u64, u64)] =
    &[(1, 0), (3, 7), (10, 14), (15, 20), (19, 15), (22, 85), (29, 86), (31, 86), (40, 88)];

#[test]
fn stages_and_parts_by_the_log() {
    let run = report(&recording(VLLM, DEVICE), at(40)).unwrap();
    assert_eq!((run.engine, run.version), (Some(Engine::Vllm), Version::parse("0.25.1")));
    assert_eq!(
        stages(&run),
        [
            (Stage::Weights, 2, Some(10), Some(14)),
            (Stage::Profiling, 10, Some(20), Some(1)),
            (Stage::KvAllocation, 20, Some(25), Some(70)),
            (Stage::GraphCapture, 25, Some(30), Some(1)),
            (Stage::Serving, 31, None, None),
        ]
    );
    let parts = run.parts.unwrap();
    let rows: Vec<_> = parts.parts.iter().map(|part| (part.part, part.bytes / GIB)).collect();
    assert_eq!(
        rows,
        [(PartName::Weights, 14), (PartName::KvCache, 70), (PartName::Graphs, 1), (PartName::Workspace, 3)]
    );
    assert_eq!(parts.parts.iter().map(|part| part.bytes).sum::<u64>(), parts.bytes);
    assert_eq!(parts.parts[1].logged_bytes, Some(70 * GIB));
    // While the weights are loaded there is no cache yet.
    let early = report(&recording(VLLM, DEVICE), at(5)).unwrap().parts.unwrap();
    let rows: Vec<_> = early.parts.iter().map(|part| (part.part, part.bytes / GIB)).collect();
    assert_eq!(rows, [(PartName::Weights, 7), (PartName::Workspace, 0)]);
}

#[test]
fn memory_that_was_given_back_is_in_no_part() {
    let gone: Vec<_> = DEVICE.iter().copied().chain([(50, 3)]).collect();
    let run = report(&recording(VLLM, &gone), at(50)).unwrap();
    assert_eq!(run.parts, None, "14 GiB of weights are not in 3 GiB");
}

#[test]
fn several_ranks_load_at_once() {
    let lines = [
        (1, "[2026-01-01 00:00:00 TP0] Load weight begin. avail mem=100.00 GB"),
        (2, "[2026-01-01 00:00:00 TP1] Load weight begin. avail mem=100.00 GB"),
        (8, "[2026-01-01 00:00:00 TP0] Load weight end. avail mem=90.00 GB, mem usage=10.00 GB."),
        (9, "[2026-01-01 00:00:00 TP1] Load weight end. avail mem=90.00 GB, mem usage=10.00 GB."),
        (12, "[2026-01-01 00:00:00 TP0] Memory pool end. avail mem=20.00 GB"),
        (13, "INFO:     Application startup complete."),
    ];
    let run = report(&recording(&lines, &[]), at(40)).unwrap();
    assert_eq!(run.engine, Some(Engine::Sglang));
    assert_eq!(
        stages(&run),
        [
            (Stage::Weights, 1, Some(8), None),
            (Stage::KvAllocation, 8, Some(12), None),
            (Stage::Serving, 13, None, None),
        ]
    );
    assert_eq!(run.parts, None, "no device memory was seen");
}

#[test]
fn an_engine_that_is_not_known_is_not_guessed() {
    let lines = [(
        1,
        "[TensorRT-LLM][INFO] [MemUsageChange] Allocated 59.50 GiB for max tokens in paged KV cache (6931712).",
    )];
    let run = report(&recording(&lines, &[]), at(40)).unwrap();
    assert_eq!((run.engine, run.title), (None, None));
    assert_eq!(run.candidates, [Engine::TensorRtLlm, Engine::TensorRtLlmCpp]);
    // A web server is no engine.
    assert_eq!(report(&recording(&[(1, "INFO:     Application startup complete.")], &[]), at(40)), None);
    assert_eq!(report(&empty(), at(40)), None);
}

/// vLLM 0.25.1 on an H200, recorded without its log. The model is a Llama of 32 layers: 5,933,105,152 parameters of two
/// bytes (its config.json); PyTorch rounds them up and vLLM adds its buffers before it profiles.
#[test]
fn vllm_on_an_h200_without_its_log() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../results/2026-11-29-h200-on-time/vgraph.json.zst");
    let recording = spark_trace_recording::read(std::path::Path::new(file)).unwrap();
    let run = report(&recording, recording.target.ended_ns - 5 * SECOND).unwrap();
    assert_eq!(run.engine, Some(Engine::Vllm));
    let growth = |stage: Stage| {
        let row = run.stages.iter().find(|row| row.stage == stage).unwrap();
        assert_eq!(row.evidence, Evidence::Calls);
        row.growth_bytes.unwrap() as f64
    };
    const WEIGHTS: f64 = 5_933_105_152.0 * 2.0;
    assert!((growth(Stage::Weights) / WEIGHTS - 1.0).abs() < 0.02, "{}", growth(Stage::Weights));
    // Blocks of 16 tokens, 32 layers, keys and values of 8 heads with 128 numbers of two bytes.
    const BLOCK: i64 = 16 * 32 * 2 * 8 * 128 * 2;
    assert_eq!(growth(Stage::KvAllocation) as i64 % BLOCK, 0);
}

/// The same with its log, natively and in a container, with CUDA graphs and as a server: sizes are those that vLLM logged, and
/// nearly all device memory has a frame of vLLM's own Python.
#[test]
fn vllm_on_an_h200_by_its_log() {
    for (run, kv_gib) in [
        ("graphs-native", 113.13),
        ("graphs-docker", 113.13),
        ("server-native", 116.62),
        ("server-docker", 116.62),
    ] {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../results/2026-11-30-h200-engines");
        let file = format!("{root}/vllm-{run}.json.zst");
        let recording = spark_trace_recording::read(std::path::Path::new(&file)).unwrap();
        let serving =
            stages_of(&recording).iter().find(|row| row.stage == Stage::Serving).unwrap().span.begin_ns;
        let report = report(&recording, serving + SECOND / 2).unwrap();
        assert_eq!(report.engine, Some(Engine::Vllm), "{run}");
        assert_eq!(report.version.map(|version| version.to_string()).as_deref(), Some("0.25.1"), "{run}");
        let stages: Vec<Stage> = report.stages.iter().map(|row| row.stage).collect();
        let captures = run.starts_with("graphs").then_some(Stage::GraphCapture);
        let mut expected = vec![Stage::Weights, Stage::Profiling, Stage::KvAllocation];
        expected.extend(captures.into_iter().chain([Stage::Serving]));
        assert_eq!(stages, expected, "{run}");
        // Its log: "Graph capturing finished in 3 secs, took 0.45 GiB", with two digits.
        let falls: Vec<_> =
            report.stages.iter().filter_map(|row| row.free_fall.zip(row.growth_bytes)).collect();
        assert_eq!(falls.len(), usize::from(captures.is_some()), "{run}");
        for (fall, calls) in falls {
            let (gib, digits) = ((1_u64 << 30) as f64, 0.005);
            assert!((fall.bytes as f64 / gib - 0.45).abs() <= digits, "{run}: {fall:?}");
            assert!(
                calls < fall.bytes,
                "{run}: graphs that are instantiated are in no call: {calls}, {fall:?}"
            );
        }
        let parts = report.parts.unwrap().parts;
        for (name, gib) in [(PartName::Weights, 11.05), (PartName::KvCache, kv_gib)] {
            let part = parts.iter().find(|part| part.part == name).unwrap();
            let found = part.bytes as f64 / (1_u64 << 30) as f64;
            assert!((found / gib - 1.0).abs() < 0.01, "{run}: {found} instead of {gib}");
        }
        let provenance = &recording.provenance;
        let by_vllm = |stack: &Option<u32>| {
            let frames = stack.map(|id| provenance.stacks[id as usize].frames.as_slice()).unwrap_or_default();
            frames.iter().map(|frame| &provenance.symbols[*frame as usize]).any(|symbol| {
                symbol.python && symbol.module.as_deref().is_some_and(|source| source.contains("/vllm/"))
            })
        };
        let device = || {
            provenance
                .cuda_allocs
                .iter()
                .filter(|row| ["device", "async", "physical"].contains(&row.kind.as_str()))
        };
        let all: u64 = device().map(|row| row.bytes_allocated).sum();
        let named: u64 = device().filter(|row| by_vllm(&row.stack)).map(|row| row.bytes_allocated).sum();
        assert!(named * 100 >= all * 99, "{run}: {named} of {all}");
    }
}

/// llama.cpp (ggml 0.26) on an H200: buffers of a model, a KV cache of 8192 cells and a compute buffer, in MiB of its log.
#[test]
fn llama_cpp_on_an_h200_by_its_log() {
    for run in ["native", "docker"] {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../results/2026-11-30-h200-engines");
        let file = format!("{root}/llama-{run}.json.zst");
        let recording = spark_trace_recording::read(std::path::Path::new(&file)).unwrap();
        let report = report(&recording, recording.target.ended_ns).unwrap();
        assert_eq!(report.engine, Some(Engine::LlamaCpp), "{run}");
        // One function in ggml allocates the three: the recording has their sum, and the model alone before the others.
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let near = |bytes: u64, logged: f64| (mib(bytes) - logged).abs() < 0.01;
        let buffers = &report.buffers;
        let parts: Vec<_> = buffers.rows.iter().map(|row| (row.part, mib(row.logged_bytes))).collect();
        assert_eq!(
            parts,
            [(PartName::Weights, 1501.26), (PartName::KvCache, 256.0), (PartName::Compute, 86.52)]
                .map(|(part, mib)| (part, (mib * f64::from(1 << 20)).round() / f64::from(1 << 20))),
            "{run}"
        );
        assert!(near(buffers.rows[0].traced_bytes.unwrap(), 1501.26), "{run}");
        assert_eq!((buffers.rows[1].traced_bytes, buffers.rows[2].traced_bytes), (None, None), "{run}");
        assert!(near(buffers.together.unwrap().traced_bytes, 1501.26 + 256.0 + 86.52), "{run}");
        let loaded = recording.provenance.log_lines.last().unwrap().at_ns + SECOND / 10;
        let parts = super::report(&recording, loaded).unwrap().parts.unwrap().parts;
        let parts: Vec<_> = parts.iter().map(|row| (row.part, row.evidence, row.bytes)).collect();
        for (place, (name, evidence, logged)) in [
            (PartName::Weights, Evidence::Allocations, 1501.26),
            (PartName::KvCache, Evidence::Sum, 256.0),
            (PartName::Compute, Evidence::Sum, 86.52),
        ]
        .into_iter()
        .enumerate()
        {
            let (part, by, bytes) = parts[place];
            assert_eq!((part, by), (name, Some(evidence)), "{run}");
            assert!(near(bytes, logged), "{run}: {bytes}");
        }
    }
}

mod buffers;
