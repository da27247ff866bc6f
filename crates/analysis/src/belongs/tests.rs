use spark_trace_recording::Recording;
use spark_trace_recording::cuda::MemoryQuery;
use spark_trace_recording::provenance::Process;
use spark_trace_recording::schema::Gpu;

use super::*;

/// Of tensorrt_llm/_torch/pyexecutor/_util.py.
const TRT: &str = "[TRT-LLM] [I] Peak memory during memory usage profiling (torch + non-torch): 113.65 GiB, available KV cache \
                   memory when calculating max tokens: 5.95 GiB, fraction is set 0.9, kv size is 57344. device total memory \
                   119.64 GiB, , tmp kv_mem 0.56 GiB";

/// 2025-11-20 09:00:00 to 09:20:00 UTC, by `date -d`.
const BEGAN: i64 = 1_763_629_200;

fn recording() -> Recording {
    let mut recording = spark_trace_testing::empty();
    recording.provenance.queries.clear();
    recording.provenance.processes.clear();
    recording.host.gpus.clear();
    recording.target.argv = vec!["trtllm-bench".to_owned()];
    recording.target.started_ns = 5 * SECOND as u64;
    recording.target.ended_ns = 1205 * SECOND as u64;
    recording.clock.realtime_offset_ns = (BEGAN - 5) * SECOND;
    recording
}

fn answered(total: f64) -> MemoryQuery {
    MemoryQuery {
        interface: "cuMemGetInfo_v2".to_owned(),
        values: [("total".to_owned(), (total * GIB) as u64)].into(),
        ..MemoryQuery::default()
    }
}

fn difference(recording: &Recording, text: &str) -> Option<Difference> {
    mismatch(recording, "log.txt", text).map(|found| found.difference)
}

#[test]
fn the_gpu_of_the_log_is_that_of_the_recording() {
    let trt = TRT;
    let vllm = "ValueError: Free memory on device cuda:0 (110.34/121.69 GiB) on startup is less than desired";
    let mut of = recording();
    assert_eq!(difference(&of, trt), None, "the recording has no total");
    of.provenance.queries = vec![answered(119.64)];
    assert_eq!(difference(&of, trt), None);
    assert_eq!(difference(&of, vllm), None, "within 2 %: what CUDA and the kernel count differs");
    of.provenance.queries = vec![answered(139.8)];
    let found = mismatch(&of, "log.txt", trt).unwrap();
    assert_eq!(
        found.to_string(),
        "log.txt and the recording are of different runs: the GPU has 119.64 GiB in the file and 139.80 GiB in the recording"
    );
    // One of two GPUs.
    of.provenance.queries.push(answered(119.64));
    assert_eq!(difference(&of, trt), None);
    // A call that failed says nothing.
    of.provenance.queries = vec![MemoryQuery { result: 2, ..answered(139.8) }];
    assert_eq!(difference(&of, trt), None);
    // NVML's total contains what the driver keeps: a card of 12 GiB.
    let card = |total: u64, mig| Gpu { memory_total: Some(total), mig: Some(mig), ..Gpu::default() };
    of.provenance.queries.clear();
    of.host.gpus = vec![card(12 << 30, false)];
    assert_eq!(difference(&of, &TRT.replace("119.64", "11.63")), None);
    assert!(difference(&of, trt).is_some());
    // An instance of a divided GPU has less than the whole.
    of.host.gpus = vec![card(140 << 30, true)];
    assert_eq!(difference(&of, &TRT.replace("119.64", "34.5")), None);
}

#[test]
fn the_times_of_the_log_are_those_of_the_recording() {
    let of = recording();
    let trt =
        |time: &str| format!("[11/20/2025-{time}] [TRT-LLM] [I] Preparing to run throughput benchmark...");
    let vllm = |time: &str| format!("(EngineCore_DP0 pid=7) INFO 11-20 {time} [gpu_worker.py:440] x");
    let sglang = |time: &str| format!("[2025-11-20 {time} TP0] Load weight begin. avail mem=36.63 GB");
    let lines: [&dyn Fn(&str) -> String; 3] = [&trt, &vllm, &sglang];
    for line in lines {
        // UTC, Berlin, Nepal (+5:45), and a minute of difference between clocks.
        for (first, last) in [
            ("09:00:10", "09:19:59"),
            ("10:00:10", "10:19:59"),
            ("14:45:00", "15:05:00"),
            ("08:59:10", "09:20:50"),
        ] {
            let text = format!("{}\nother 2001-01-01 00:00:00\n{}", line(first), line(last));
            assert_eq!(difference(&of, &text), None, "{text}");
        }
        // A time zone explains a whole quarter of an hour, and no run of 20 minutes has lines over 40.
        let text = format!("{}\n{}", line("09:00:10"), line("09:40:10"));
        assert!(matches!(difference(&of, &text), Some(Difference::Times { .. })), "{text}");
    }
    let other_day = trt("09:05:00").replace("/20/", "/23/");
    let found = mismatch(&of, "log.txt", &other_day).unwrap().to_string();
    assert_eq!(
        found,
        "log.txt and the recording are of different runs: the file's lines are of 2025-11-23 09:05:00 to 2025-11-23 09:05:00, \
         the recording is of 2025-11-20 09:00:00 to 2025-11-20 09:20:00 UTC, and no time zone explains that"
    );
    // Summer time ended meanwhile: 10:00:10 to 09:19:59.
    assert_eq!(difference(&of, &format!("{}\n{}", trt("10:00:10"), trt("09:19:59"))), None);
    // Results in UTC need no time zone.
    let bench = |time: &str| format!(r#"{{"n_prompt": 512, "test_time": "2025-11-20T{time}Z"}}"#);
    assert_eq!(difference(&of, &bench("09:10:00")), None);
    assert!(difference(&of, &bench("10:10:00")).is_some());
    assert_eq!(difference(&of, r#"{"date": "20251120-101000", "backend": "vllm"}"#), None);
    assert!(difference(&of, r#"{"date": "20251121-231000", "backend": "vllm"}"#).is_some());
    // What was there before the recording may have written earlier.
    let mut attached = recording();
    attached.target.argv.clear();
    assert_eq!(difference(&attached, &other_day), None);
}

#[test]
fn dates_are_those_of_the_calendar() {
    // By `date -u -d ... +%s`.
    for (date, at) in [
        ((1970, 1, 1), 0),
        ((2000, 2, 29), 951_782_400),
        ((2024, 3, 1), 1_709_251_200),
        ((2025, 12, 31), 1_767_139_200),
        ((2100, 3, 1), 4_107_542_400),
    ] {
        let (year, month, day) = date;
        assert_eq!(days(year, month, day) * 86_400, at, "{date:?}");
        assert_eq!(shown(at + 3_661), format!("{year:04}-{month:02}-{day:02} 01:01:01"));
    }
    // Of a line without a year: just before and just after the new year.
    let (regex, _) = &STAMPED[1];
    let line = "INFO 12-31 23:59:58 [gpu_worker.py:1] x";
    assert_eq!(seconds(regex, line, 1_767_225_610), Some(1_767_225_598));
}

#[test]
fn the_engine_of_the_log_is_one_that_was_running() {
    let process = |pid: u32, parent: u32, comm: &str, argv: &[&str]| Process {
        pid,
        parent: Some(parent),
        comm: comm.to_owned(),
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        ..Process::default()
    };
    let trt = TRT;
    let of = |processes: Vec<Process>, text: &str| {
        let mut recording = recording();
        recording.provenance.processes = processes;
        difference(&recording, text)
    };
    let vllm = || {
        vec![
            process(10, 1, "vllm", &["/usr/bin/python3", "/usr/local/bin/vllm", "serve", "trtllm/model"]),
            // It is vLLM's, by the process that started it.
            process(11, 10, "python3", &["python3", "-c", "from multiprocessing.spawn import spawn_main"]),
        ]
    };
    assert_eq!(
        of(vllm(), trt),
        Some(Difference::Engine { file: Engine::TensorRtLlm, recording: vec![Engine::Vllm] })
    );
    assert_eq!(
        of(
            vllm(),
            "(EngineCore_DP0 pid=11) INFO 11-20 09:01:07 [gpu_worker.py:440] Available KV cache memory: 52.66 GiB"
        ),
        None
    );
    // A program in Python may have been any engine; so may one whose model alone is called so.
    let mut script = vllm();
    script.push(process(12, 1, "python3", &["python3", "bench.py"]));
    assert_eq!(of(script, trt), None);
    assert_eq!(of(vec![process(10, 1, "bench", &["bench", "--model", "meta-llama/vllm"])], trt), None);
    assert_eq!(of(vec![], trt), None);
    let module = process(10, 1, "python3", &["python3", "-m", "sglang.launch_server"]);
    assert!(of(vec![module], trt).is_some());
    // Ollama's log is llama.cpp's.
    assert_eq!(
        of(vec![process(1, 0, "ollama", &["ollama", "serve"])], "load_tensors: offloading 33 layers"),
        None
    );
    // A circle of parents ends.
    let circle = vec![process(1, 2, "a", &["a"]), process(2, 1, "b", &["b"])];
    assert_eq!(of(circle, trt), None);
}

#[test]
fn the_tables_expressions_compile() {
    assert_eq!((TOTAL_OF_REPORT.is_some(), STAMPED.len()), (true, STAMPS.len()));
}
