use super::*;
use crate::derived::Derived;
use spark_trace_engines::Cause;
use spark_trace_recording::{
    LaterState, LogLine, MemoryQuery, MemoryState, Process, ProcessSeries, Recording, Series,
};
use spark_trace_testing as testing;
use spark_trace_testing::{MIB, SECOND, START};

const GIB: u64 = 1 << 30;

fn tensorrt_llm() -> Options<'static> {
    Options { engine: Some(Engine::TensorRtLlm), ..Options::default() }
}

fn report(a: Option<&Recording>, b: &Recording, options: Options<'_>) -> Result<Report, KvError> {
    let (a, b) = (a.map(Derived::from), Derived::from(b));
    super::report(a.as_ref().map(Derived::for_kv), b.for_kv(), options)
}

/// A run on unified memory: 16 GiB in all; `free` is what cuMemGetInfo says once the weights are loaded.
fn run(free: u64, file: u64) -> Recording {
    let mut recording = testing::empty();
    let mut ask = |seconds: u64, free: u64, own: u64| {
        recording.provenance.queries.push(MemoryQuery {
            at_ns: START + seconds * SECOND,
            began_ns: Some(START + seconds * SECOND - 1000),
            pid: 4242,
            tid: 4242,
            interface: "cuMemGetInfo_v2".into(),
            values: [("free".to_owned(), free), ("total".to_owned(), 16 * GIB)].into(),
            state: Some(MemoryState {
                mem_free: Some(free),
                later: Some(LaterState {
                    mem_available: Some(free + file),
                    cuda_live: [("device".to_owned(), own)].into(),
                    ..LaterState::default()
                }),
                ..MemoryState::default()
            }),
            ..MemoryQuery::default()
        });
    };
    ask(1, free + 4 * GIB, 0);
    ask(5, free, 4 * GIB);
    for (seconds, live) in [(1, 0), (4, 4608 * MIB), (5, 4 * GIB), (7, 4 * GIB + 2 * GIB)] {
        testing::push(
            &mut recording.samples.cuda,
            START + seconds * SECOND - 2,
            [(reading::DEVICE.to_owned(), live)],
        );
    }
    for seconds in [0, 5, 10] {
        let columns = [
            ("meminfo.MemTotal", 16 * GIB),
            ("meminfo.MemFree", free),
            ("meminfo.AnonPages", 16 * GIB - free - file),
            ("meminfo.Cached", file),
            ("meminfo.Buffers", 0),
            ("meminfo.Shmem", 0),
            ("meminfo.Dirty", 0),
            ("meminfo.Writeback", 0),
        ];
        let columns = columns.map(|(name, value)| (name.to_owned(), value));
        testing::push(&mut recording.samples.system, START + seconds * SECOND, columns);
    }
    recording
}

/// The run as it would have been told with that much free.
fn lines(recording: &mut Recording, at_s: u64, text: &str) {
    recording.provenance.log_lines.push(LogLine {
        at_ns: START + at_s * SECOND,
        stream: "stdout".into(),
        text: text.into(),
    });
}

#[test]
fn the_arithmetic_is_tensorrt_llms() {
    let recording = run(8 * GIB, GIB);
    let report = report(None, &recording, tensorrt_llm()).unwrap();
    let Budget { reading, figures, reclaimable, available, .. } = &report.b;
    assert_eq!((reading.at_ns, reading.free), (START + 5 * SECOND, 8 * GIB));
    assert_eq!((reading.found_by, reading.signal), ("allocations", Some("MemFree")));
    assert_eq!((figures.fraction, figures.fraction_from), (Some(0.9), Some("default")));
    // 16 - 8 - 4 of others; at most 4.5 of its own.
    assert_eq!((figures.outside, figures.peak), (Some(4 * GIB), Some(8 * GIB + 512 * MIB)));
    assert_eq!(figures.kv, Some((7.5 * 0.9 * GIB as f64) as i64));
    assert_eq!(figures.kv_taken, Some(2 * GIB));
    assert_eq!((*reclaimable, *available), (GIB, Some(9 * GIB)));
    let given_up = &report.b.what_if[0];
    assert_eq!(given_up.delta, (0.9 * GIB as f64) as i64);
}

#[test]
fn the_log_says_which_answer_and_how_much() {
    let mut recording = run(8 * GIB, GIB);
    lines(
        &mut recording,
        6,
        "[TRT-LLM] [I] Peak memory during memory usage profiling (torch + non-torch): 8.50 GiB, available KV cache memory \
         when calculating max tokens: 6.00 GiB, fraction is set 0.8, kv size is 131072. device total memory 16.00 GiB, , \
         tmp kv_mem 0.25 GiB",
    );
    lines(&mut recording, 7, "[MemUsageChange] Allocated 6.00 GiB for max tokens in paged KV cache (49152).");
    let report = report(None, &recording, Options { fraction: Some(0.5), ..Options::default() }).unwrap();
    let figures = &report.b.figures;
    assert_eq!(figures.taken_of_it(), None);
    assert_eq!((report.b.reading.found_by, figures.fraction_from), ("log", Some("log")));
    assert_eq!((figures.fraction, figures.temporary_kv), (Some(0.8), 256 * MIB));
    // (16 - 8.5 + 0.25) x 0.8
    assert_eq!(figures.kv, Some((6.2 * GIB as f64) as i64));
    let off: Vec<_> = report.b.agreement.iter().map(|row| (row.figure, row.percent.round())).collect();
    assert_eq!(off[0], ("peak", 0.0));
    assert_eq!(off[1].1, 3.0, "{off:?}");
    assert_eq!(figures.budget(), Some(6 * GIB as i64));
}

#[test]
fn two_runs_are_told_apart_by_what_others_held() {
    let (a, b) = (run(9 * GIB, GIB), run(7 * GIB, 3 * GIB));
    let report = report(Some(&a), &b, tensorrt_llm()).unwrap();
    let (kv_a, kv_b) = (report.a.as_ref().unwrap().figures.kv.unwrap(), report.b.figures.kv.unwrap());
    assert_eq!(kv_a - kv_b, (1.8 * GIB as f64) as i64);
    assert!(report.b_with_state_of_a.unwrap().abs_diff(kv_a) < 16);
    assert_eq!(report.advice[0].gains_bytes, Some((2.7 * GIB as f64) as u64));
    assert!(report.advice[0].command.as_deref().is_some_and(|command| command.contains("drop_caches")));
}

#[test]
fn a_gpu_with_memory_of_its_own_has_nothing_to_reclaim() {
    let mut recording = run(8 * GIB, GIB);
    recording
        .host
        .gpus
        .push(spark_trace_recording::Gpu { memory_total: Some(16 * GIB), ..Default::default() });
    let report = report(None, &recording, tensorrt_llm()).unwrap();
    assert_eq!((report.b.reading.signal, report.b.reclaimable), (Some("the GPU's own memory"), 0));
    assert!(!report.advice.iter().any(|advice| advice.cause == Cause::PageCache.as_str()));
}

/// Answers of one kind, by second and with what device memory there was then.
fn answers(interface: &str, figures: [&str; 2], rows: &[(u64, u64, u64)]) -> Vec<MemoryQuery> {
    let row = |&(seconds, free, live): &(u64, u64, u64)| MemoryQuery {
        at_ns: START + seconds * SECOND,
        pid: 4242,
        tid: 4242,
        interface: interface.into(),
        values: [(figures[0].to_owned(), free), (figures[1].to_owned(), 16 * GIB)].into(),
        state: Some(MemoryState {
            later: Some(LaterState {
                cuda_live: [("device".to_owned(), live)].into(),
                ..LaterState::default()
            }),
            ..MemoryState::default()
        }),
        ..MemoryQuery::default()
    };
    rows.iter().map(row).collect()
}

fn with(queries: Vec<MemoryQuery>) -> Recording {
    let mut recording = testing::native();
    recording.provenance.queries = queries;
    recording
}

const CUDA: (&str, [&str; 2]) = ("cuMemGetInfo_v2", ["free", "total"]);

#[test]
fn answers_of_ordinary_programs_are_memory_queries_and_nothing_more() {
    for (interface, figures) in [
        ("sysinfo", ["freeram", "totalram"]),
        ("/proc/meminfo", ["MemAvailable", "MemTotal"]),
        ("memory.max", ["bytes", "total"]),
        // A GPU's library answers a program that takes nothing of it.
        CUDA,
    ] {
        let mut recording = with(answers(interface, figures, &[(1, 9 * GIB, 0), (4, 8 * GIB, 0)]));
        assert_eq!(Derived::from(&recording).kv_instant(), None, "{interface}");
        let error = report(None, &recording, Options::default()).unwrap_err().to_string();
        assert!(error.contains("has no KV-cache reading"), "{error}");
        // Nor does a log make one of it that states no budget.
        lines(&mut recording, 6, "free memory: 8.00 GiB");
        assert_eq!(Derived::from(&recording).kv_instant(), None, "{interface}");
    }
}

#[test]
fn with_a_budget_in_the_log_meminfo_may_be_the_reading() {
    let queries = answers(
        "/proc/meminfo",
        ["MemAvailable", "MemTotal"],
        &[(1, 9 * GIB, 0), (4, 8 * GIB, 0), (8, 2 * GIB, 0)],
    );
    let mut recording = with(queries);
    let budget = "Peak memory during memory usage profiling (torch + non-torch): 8.50 GiB, available KV cache memory when \
                  calculating max tokens: 6.00 GiB, fraction is set 0.8, kv size is 131072.";
    lines(&mut recording, 6, budget);
    let reading = Derived::from(&recording).reading().unwrap().clone();
    assert_eq!((reading.at_ns, reading.found_by), (START + 4 * SECOND, "log"));
    // sort and git ask this while they work; an engine that logs its budget does not size it by that.
    recording.provenance.queries = answers("sysinfo", ["freeram", "totalram"], &[(4, 8 * GIB, 0)]);
    assert_eq!(Derived::from(&recording).kv_instant(), None);
}

/// Of several answers the choice rests on sums of calls, wherever samples fall.
#[test]
fn two_runs_of_one_program_have_the_same_reading_wherever_samples_fall() {
    // 38 GiB are taken between the first and the second answer, 2 GiB more before the third: of 139 GiB.
    let rows = [(1, 139 * GIB, 0), (4, 101 * GIB, 38 * GIB), (8, 99 * GIB, 40 * GIB)];
    for sampled in [&[][..], &[2], &[5], &[2, 5, 9], &[9]] {
        let mut recording = with(answers(CUDA.0, CUDA.1, &rows));
        for &seconds in sampled {
            let live = rows.iter().filter(|(at, ..)| *at <= seconds + 2).map(|(.., live)| *live).max();
            testing::push(
                &mut recording.samples.cuda,
                START + seconds * SECOND,
                [(reading::DEVICE.to_owned(), live.unwrap())],
            );
        }
        assert_eq!(Derived::from(&recording).kv_instant(), Some(START + SECOND), "{sampled:?}");
    }
}

/// A program that prints what is free before and after it takes 8 GiB of a GPU of 139 GiB has no KV cache; an engine whose
/// cache is small, but larger than its weights, has one.
#[test]
fn what_follows_an_answer_must_have_been_sized_by_it() {
    let mib = GIB / 1024;
    for (before, grown, free, sized) in [
        (2 * mib, 8 * GIB, 139 * GIB, false),
        (0, 8 * GIB, 139 * GIB, false),
        (0, 28 * GIB, 139 * GIB, true),
        (200 * mib, 400 * mib, 17 * GIB, true),
        (200 * mib, 200 * mib, 17 * GIB, false),
        (20 * mib, 40 * mib, 17 * GIB, false),
        (16 * GIB, 12 * GIB, 100 * GIB, false),
    ] {
        let rows = [(1, free, before), (4, free - grown, before + grown)];
        let recording = with(answers(CUDA.0, CUDA.1, &rows));
        let found = Derived::from(&recording).kv_instant();
        assert_eq!(found.is_some(), sized, "{before} and {grown} of {free}");
    }
}

#[test]
fn growth_after_the_last_answer_is_known_from_the_highest_level() {
    let mut recording = with(answers(CUDA.0, CUDA.1, &[(1, 12 * GIB, 0), (4, 10 * GIB, GIB / 4)]));
    let total = |peak, peak_ns| spark_trace_recording::CudaTotal {
        kind: "device-all".into(),
        peak,
        peak_ns,
        ..Default::default()
    };
    recording.provenance.cuda_totals = vec![total(9 * GIB, START + 5 * SECOND)];
    assert_eq!(Derived::from(&recording).kv_instant(), Some(START + 4 * SECOND));
    // A context and its modules are no cache.
    recording.provenance.cuda_totals = vec![total(GIB / 2, START + 5 * SECOND)];
    assert_eq!(Derived::from(&recording).kv_instant(), None);
}

#[test]
fn another_thread_that_polls_does_not_cut_the_growth_short() {
    let mut queries = answers(CUDA.0, CUDA.1, &[(2, 12 * GIB, 0)]);
    let mut polls = answers(
        CUDA.0,
        CUDA.1,
        &[(3, 12 * GIB, 0), (4, 11 * GIB, GIB), (5, 10 * GIB, 2 * GIB), (6, 9 * GIB, 3 * GIB)],
    );
    polls.iter_mut().for_each(|poll| poll.tid = 99);
    queries.extend(polls);
    let recording = with(queries);
    assert_eq!(Derived::from(&recording).kv_instant(), Some(START + 2 * SECOND));
}

#[test]
fn nvml_is_a_reading_where_the_driver_s_own_answer_is_none() {
    let nvml = "nvmlDeviceGetMemoryInfo_v2";
    let recording = with(answers(nvml, CUDA.1, &[(2, 12 * GIB, 0), (5, 4 * GIB, 8 * GIB)]));
    let reading = Derived::from(&recording).reading().unwrap().clone();
    assert_eq!((reading.at_ns, reading.query.interface.as_str()), (START + 2 * SECOND, nvml));
}

#[test]
fn without_an_answer_there_is_no_budget() {
    let error = report(None, &testing::native(), Options::default()).unwrap_err().to_string();
    assert!(error.starts_with("the run has no KV-cache reading"), "{error}");
    let recording = testing::native();
    assert_eq!(Derived::from(&recording).kv_instant(), None);
}

/// A kept recording of this repository.
fn kept(path: &str) -> Recording {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../results/");
    spark_trace_recording::read(std::path::Path::new(&format!("{root}{path}"))).unwrap()
}

/// What vLLM 0.25.1 logged in these runs, all with the same model and settings.
const VLLM_ON_AN_H200: &str = "\
(EngineCore pid=61) INFO 11-30 02:23:05 [core.py:114] Initializing a V1 LLM engine (v0.25.1) with config: model='/w/model'
(EngineCore pid=61) INFO 11-30 02:23:08 [model_runner.py:302] Model loading took 11.05 GiB and 1.394435 seconds
(EngineCore pid=61) INFO 11-30 02:23:10 [gpu_worker.py:538] Available KV cache memory: 113.13 GiB
";

#[test]
fn real_vllm_on_an_h200_is_explained_to_a_percent() {
    let logged = 113.13 * GIB as f64;
    for path in [
        "2026-11-29-h200-on-time/vgraph.json.zst",
        "2026-11-29-h200-on-time/vdgraph.json.zst",
        "2026-11-30-h200-docker-cpu/vdgraph.json.zst",
        "2026-11-30-h200-docker-cpu/vdocker2.json.zst",
    ] {
        let recording = kept(path);
        for (log, version) in [(None, None), (Some(VLLM_ON_AN_H200), Some("0.25.1"))] {
            let options = Options { b_log: log, ..Options::default() };
            let Budget { engine, reading, baseline, figures, .. } =
                report(None, &recording, options).unwrap().b;
            assert_eq!(engine.engine, Some(Engine::Vllm), "{path}");
            assert_eq!(engine.version.map(|version| version.to_string()).as_deref(), version, "{path}");
            // As the worker's own answers were: before the weights, and after the dummy run.
            let free = |reading: &Reading| reading.free;
            assert_eq!(
                (free(&reading), baseline.as_ref().map(free)),
                (137_238_806_528, Some(149_557_477_376)),
                "{path}"
            );
            assert_eq!(figures.fraction, Some(0.9), "{path}");
            for bytes in [figures.kv.unwrap() as f64, figures.kv_taken.unwrap() as f64] {
                assert!((bytes - logged).abs() <= logged / 100.0, "{path}: {bytes} instead of {logged}");
            }
        }
    }
}

/// With the lines that `--log` kept and without them: the reading is the same, and so is the cache, to a percent of vLLM's own.
#[test]
fn lines_of_vllm_s_log_change_what_is_known_and_not_what_is_found() {
    for (run, logged_gib) in [
        ("graphs-native", 113.13),
        ("graphs-docker", 113.13),
        ("server-native", 116.62),
        ("server-docker", 116.62),
    ] {
        let with_log = kept(&format!("2026-11-30-h200-engines/vllm-{run}.json.zst"));
        let mut without = with_log.clone();
        without.provenance.log_lines.clear();
        let budget = |recording| report(None, recording, Options::default()).unwrap().b;
        let (with_log, without) = (budget(&with_log), budget(&without));
        assert_eq!((with_log.reading.found_by, without.reading.found_by), ("log", "allocations"), "{run}");
        assert_eq!(with_log.reading.at_ns, without.reading.at_ns, "{run}");
        let logged = logged_gib * GIB as f64;
        let near = |bytes: f64| (bytes - logged).abs() <= logged / 100.0;
        assert!(with_log.figures.logged_kv.is_some_and(|bytes| near(bytes as f64)), "{run}");
        for figures in [with_log.figures, without.figures] {
            assert!(figures.kv.is_some_and(|bytes| near(bytes as f64)), "{run}: {figures:?}");
            assert!(figures.kv_taken.is_some_and(|bytes| near(bytes as f64)), "{run}: {figures:?}");
        }
    }
}

/// An engine on unified memory that goes by MemAvailable: 16 GiB in all, 2 GiB of weights, a compiler's GiB meanwhile.
fn pairs() -> Recording {
    let meminfo = ["MemAvailable", "MemTotal"];
    let rows = [(1, 14 * GIB, 0), (4, 11 * GIB, 2 * GIB)];
    let mut queries = answers(CUDA.0, CUDA.1, &rows.map(|(at, _, live)| (at, 3 * GIB, live)));
    queries.extend(answers("/proc/meminfo", meminfo, &rows));
    for query in &mut queries {
        // The file is read right after the call.
        query.at_ns += u64::from(query.interface != CUDA.0) * 1_000_000;
    }
    let mut recording = with(queries);
    let levels = [(1, 0), (3, 2 * GIB), (5, 7 * GIB)];
    for (seconds, live) in levels {
        testing::push(
            &mut recording.samples.cuda,
            START + seconds * SECOND,
            [(reading::DEVICE.to_owned(), live)],
        );
    }
    recording
}

#[test]
fn mem_available_right_after_the_driver_s_answer_is_the_reading() {
    let options = Options { engine: Some(Engine::Vllm), fraction: Some(0.5), ..Options::default() };
    let report = report(None, &pairs(), options).unwrap();
    let Budget { reading, baseline, figures, .. } = &report.b;
    assert_eq!(
        (reading.signal, reading.free, reading.device_free),
        (Some("MemAvailable"), 11 * GIB, Some(3 * GIB))
    );
    assert_eq!(baseline.as_ref().map(|reading| reading.free), Some(14 * GIB));
    // 8 GiB of 16 requested, 3 GiB went.
    assert_eq!((figures.consumed, figures.kv), (Some(3 * GIB as i64), Some(5 * GIB as i64)));
    assert_eq!(figures.kv_taken, Some(5 * GIB));
    assert!(
        !report.advice.iter().any(|advice| advice.cause == Cause::PageCache.as_str()),
        "{:?}",
        report.advice
    );
}

/// Readings of a busy machine are far apart: of a process that was there and was not read, nobody knows what it cost.
#[test]
fn a_process_that_was_not_read_at_the_baseline_has_no_cost() {
    const MIB: u64 = 1 << 20;
    let mut recording = pairs();
    recording.target.ended_ns = START + 9 * SECOND;
    let processes = [
        // Read at both, at the second only, and started between them.
        (77, 0, &[(1, 256 * MIB), (4, 256 * MIB)][..], (Some(256 * MIB), Some(0))),
        (78, 0, &[(4, 256 * MIB)], (None, None)),
        (79, 2, &[(4, 256 * MIB)], (Some(0), Some(256 * MIB as i64))),
    ];
    for (pid, started, readings, _) in processes {
        recording.provenance.processes.push(Process {
            pid,
            comm: format!("p{pid}"),
            started_ns: Some(START + started * SECOND),
            ..Process::default()
        });
        let mut series = Series::default();
        for (seconds, bytes) in readings {
            testing::push(&mut series, START + seconds * SECOND, [("rss_anon".to_owned(), *bytes)]);
        }
        recording.samples.processes.push(ProcessSeries { pid, series });
    }
    let options = Options { engine: Some(Engine::Vllm), fraction: Some(0.5), ..Options::default() };
    let budget = report(None, &recording, options).unwrap().b;
    for (pid, _, _, expected) in processes {
        let row = budget.processes.iter().find(|row| row.pid == Some(pid)).unwrap();
        assert_eq!((row.before, row.costs), expected, "{pid}");
    }
    // An engine that goes by the level alone pays for all that others have, whatever they had before.
    let options = Options { engine: Some(Engine::TensorRtLlm), fraction: Some(0.5), ..Options::default() };
    let budget = report(None, &recording, options).unwrap().b;
    let costs = |pid| budget.processes.iter().find(|row| row.pid == Some(pid)).unwrap().costs;
    assert_eq!([77, 78, 79].map(costs), [Some(128 * MIB as i64); 3]);
}

#[test]
fn an_engine_that_nothing_names_gets_no_formula() {
    let budget = report(None, &pairs(), Options::default()).unwrap().b;
    assert_eq!((budget.engine.engine, budget.figures.kv, budget.figures.fraction), (None, None, None));
    assert!(budget.what_if.is_empty() && budget.notes.contains(&Note::UnknownEngine));
    let candidates = &budget.engine.candidates;
    assert!(candidates.contains(&Engine::Vllm) && candidates.contains(&Engine::Sglang), "{candidates:?}");
    assert!(!candidates.contains(&Engine::TensorRtLlm), "{candidates:?}");
}

#[test]
fn a_run_that_ended_early_is_explained_by_the_check_that_failed() {
    let mut recording = pairs();
    recording.samples.cuda = Series::default();
    recording.provenance.queries.retain(|query| query.at_ns < START + 2 * SECOND);
    let text = "ValueError: Free memory on device cuda:0 (14.0/16.0 GiB) on startup is less than desired GPU memory utilization \
                (0.95, 15.2 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.";
    lines(&mut recording, 2, text);
    let Budget { reading, failure, figures, .. } = report(None, &recording, Options::default()).unwrap().b;
    assert_eq!((reading.found_by, reading.free), ("failure", 14 * GIB));
    let failure = failure.unwrap();
    assert_eq!(failure.check, Check::FreeBelowRequested);
    assert_eq!(
        (failure.free, failure.needed),
        (Some(14 * GIB as i64), Some((15.2 * GIB as f64).round() as i64))
    );
    assert_eq!(figures.kv_taken, None);
}

#[test]
fn gaps_at_a_reading_and_losses_are_noted() {
    let mut recording = pairs();
    let notes = |recording: &Recording| report(None, recording, Options::default()).unwrap().b.notes;
    let of_health = |notes: Vec<Note>| {
        notes.into_iter().filter(|note| matches!(note, Note::GapAtReading | Note::Losses)).collect::<Vec<_>>()
    };
    assert_eq!(of_health(notes(&recording)), []);
    recording.health.lost_total = 3;
    assert_eq!(of_health(notes(&recording)), [Note::Losses]);
    // One interval lies between the readings of this recording; let that be far too long.
    recording.health.gaps =
        Some(spark_trace_recording::Gaps { count: 1, longest_ns: SECOND, total_ns: SECOND });
    recording.tool.interval_ns = 1;
    assert_eq!(of_health(notes(&recording)), [Note::GapAtReading, Note::Losses]);
}

/// Ollama in a container without a limit: the counter has 9 GiB as used, of which it may drop much.
#[test]
fn the_container_s_counter_decides_where_it_has_less() {
    let mut recording = pairs();
    let directory = Some("0123".to_owned());
    let used = MemoryQuery {
        at_ns: START + SECOND / 2,
        pid: 4242,
        tid: 1,
        interface: "memory.current".into(),
        directory,
        values: [("bytes".to_owned(), 9 * GIB)].into(),
        ..MemoryQuery::default()
    };
    recording.provenance.queries.push(used);
    recording.host.memory_total = 16 * GIB;
    let options = Options { engine: Some(Engine::Ollama), ..Options::default() };
    let budget = report(None, &recording, options).unwrap().b;
    assert_eq!(budget.figures.container_free, Some(7 * GIB));
    assert!(budget.notes.contains(&Note::ContainerCounter), "{:?}", budget.notes);
    let other = Options { engine: Some(Engine::LlamaCpp), ..Options::default() };
    let budget = report(None, &recording, other).unwrap().b;
    assert_eq!(budget.figures.container_free, None, "llama.cpp reads no such file");
}
