//! llama.cpp, and Ollama, which runs it; xinfer.

use super::*;
use Figure as F;

#[test]
fn buffers_of_a_load() {
    let log = parse_text(
        "ggml_cuda_init: found 1 CUDA devices (Total VRAM: 143155 MiB):\n\
         \x20 Device 0: NVIDIA H200, compute capability 9.0, VMM: yes, VRAM: 143155 MiB\n\
         llama_prepare_model_devices: using device CUDA0 (NVIDIA H200) (0000:00:06.0) - 142629 MiB free\n\
         print_info: n_ctx_train           = 8192\n\
         load_tensors:   CPU_Mapped model buffer size =   125.00 MiB\n\
         load_tensors:        CUDA0 model buffer size =  1501.26 MiB\n\
         llama_context: constructing llama_context\n\
         llama_context: n_ctx                 = 8192\n\
         llama_context:  CUDA_Host  output buffer size =     0.12 MiB\n\
         llama_kv_cache: layer   0: dev = CUDA0\n\
         llama_kv_cache:      CUDA0 KV buffer size =   256.00 MiB\n\
         llama_kv_cache: size =  256.00 MiB (  8192 cells,  16 layers,  1/1 seqs), K (f16):  128.00 MiB, V (f16):  128.00 MiB\n",
    );
    assert_eq!(log.engine, Some(Engine::LlamaCpp));
    assert_figures(
        &log,
        In::MiB,
        &[
            (F::DevicesTotal, "", 143_155.0),
            (F::DeviceTotal, "0", 143_155.0),
            (F::FreeBaseline, "CUDA0", 142_629.0),
            (F::WeightsOnHost, "CPU_Mapped", 125.0),
            (F::Weights, "CUDA0", 1501.26),
            (F::Context, "", 8192.0),
            (F::Output, "CUDA_Host", 0.12),
            (F::KvAllocated, "CUDA0", 256.0),
            (F::CacheCells, "", 8192.0),
            (F::CacheLayers, "", 16.0),
        ],
    );
    let buffers: Vec<_> =
        log.buffers.iter().map(|row| (row.figure, row.subject.as_deref(), row.line)).collect();
    assert_eq!(
        buffers,
        [
            (F::WeightsOnHost, Some("CPU_Mapped"), 4),
            (F::Weights, Some("CUDA0"), 5),
            (F::KvAllocated, Some("CUDA0"), 10)
        ]
    );
    assert_eq!(log.buffers[2].bytes, 256 << 20);
}

/// Compute buffers are allocated anew, model files have a buffer each, and a run that only fits has none.
#[test]
fn buffers_that_replace_others_and_buffers_beside_others() {
    let log = parse_text(
        "load_tensors:        CUDA0 model buffer size =     0.00 MiB\n\
         load_tensors:        CUDA0 model buffer size =    10.00 MiB\n\
         load_tensors:        CUDA0 model buffer size =    20.00 MiB\n\
         llama_context:      CUDA0 compute buffer size =     3.00 MiB\n\
         llama_context:      CUDA0 compute buffer size =     4.00 MiB\n",
    );
    let buffers: Vec<_> = log.buffers.iter().map(|row| (row.figure, row.bytes >> 20)).collect();
    assert_eq!(buffers, [(F::Weights, 10), (F::Weights, 20), (F::Compute, 4)]);
}

/// Of a GB10, of several runs: the last free memory is none.
#[test]
fn a_spark() {
    let log = parse_text(
        "llama_model_load_from_file_impl: using device CUDA0 (NVIDIA GB10) (000f:01:00.0) - 118548 MiB free\n\
         load_tensors: offloaded 25/25 layers to GPU\n\
         load_tensors:        CUDA0 model buffer size = 11548.00 MiB\n\
         load_tensors:   CPU_Mapped model buffer size =  1104.00 MiB\n\
         llama_kv_cache:      CUDA0 KV buffer size =   192.00 MiB\n\
         llama_context:      CUDA0 compute buffer size =   216.92 MiB\n\
         llama_params_fit: - CUDA0 (NVIDIA GB10): 119000 total, 1400 used, 117000 free vs. target\n",
    );
    assert_figures(
        &log,
        In::MiB,
        &[
            (F::FreeBaseline, "CUDA0", 118_548.0),
            (F::LayersOnDevice, "", 25.0),
            (F::Layers, "", 25.0),
            (F::Weights, "CUDA0", 11_548.0),
            (F::WeightsOnHost, "CPU_Mapped", 1104.0),
            (F::KvAllocated, "CUDA0", 192.0),
            (F::Compute, "CUDA0", 216.92),
            (F::DeviceTotal, "CUDA0", 119_000.0),
            (F::Projected, "CUDA0", 1400.0),
            (F::FreeProjected, "CUDA0", 117_000.0),
        ],
    );
    let none = parse_text("llama_model_load_from_file_impl: using device CUDA0 (NVIDIA GB10) - 0 MiB free");
    assert_eq!(none.bytes(F::FreeBaseline), Some(0), "none is a figure");
}

/// A fit run writes the same lines with nothing in them, and models with a sliding window have two caches.
#[test]
fn a_fit_run_comes_first() {
    let load = |model: &str, kv: [&str; 2], compute: &str| {
        format!(
            "load_tensors:        CUDA0 model buffer size = {model} MiB\n\
             llama_kv_cache:      CUDA0 KV buffer size = {} MiB\n\
             llama_kv_cache:      CUDA0 KV buffer size = {} MiB\n\
             llama_context:      CUDA0 compute buffer size = {compute} MiB\n",
            kv[0], kv[1]
        )
    };
    let text = load("0.00", ["0.00", "0.00"], "0.00") + &load("1000.00", ["64.00", "36.00"], "50.00");
    assert_figures(
        &parse_text(&text),
        In::MiB,
        &[(F::Weights, "CUDA0", 1000.0), (F::KvAllocated, "CUDA0", 100.0), (F::Compute, "CUDA0", 50.0)],
    );
}

/// Free memory of the machine taken for that of a card with its own.
#[test]
fn a_list_of_devices() {
    let log = parse_text(
        "ggml_backend_cuda_get_available_uma_memory: final available_memory_kb: 56701456\n\
         \x20 CUDA0: NVIDIA GeForce RTX 5090 (32106 MiB, 55372 MiB free)\n",
    );
    assert_figures(
        &log,
        In::MiB,
        &[
            (F::SystemFree, "", 56_701_456.0 / 1024.0),
            (F::DeviceTotal, "CUDA0", 32_106.0),
            (F::FreeBaseline, "CUDA0", 55_372.0),
        ],
    );
}

/// 17592186036877 is -7539 without its sign.
#[test]
fn a_breakdown_with_a_wrapped_number() {
    let log = parse_text(
        "llama_model_load_from_file_impl: using device CUDA0 (NVIDIA GeForce GTX 1080 Ti) (0000:03:00.0) - 8720 MiB free\n\
         llama_memory_breakdown_print: |   - CUDA0 (GTX 1080 Ti) | 11165 = 8702 + (10001 =  9814 +     134 +      51) + 17592186036877 |\n\
         llama_memory_breakdown_print: |   - Host                |                   197 =   166 +       0 +      30                   |\n\
         llama_params_fit_impl: context size reduced from 262144 to 30000 -> need 6257 MiB less memory in total\n\
         llama_params_fit: failed to fit params to free device memory: n_gpu_layers already set by user to 99, abort\n\
         llama_params_fit: fitting params to free memory took 1.96 seconds\n",
    );
    assert_eq!(checks(&log), [Check::DoesNotFit]);
    assert_figures(
        &log,
        In::MiB,
        &[
            (F::FreeBaseline, "CUDA0", 8720.0),
            (F::DeviceTotal, "CUDA0", 11_165.0),
            (F::FreeAtBreakdown, "CUDA0", 8702.0),
            (F::Own, "CUDA0", 10_001.0),
            (F::OwnWeights, "CUDA0", 9814.0),
            (F::OwnContext, "CUDA0", 134.0),
            (F::OwnCompute, "CUDA0", 51.0),
            (F::Unaccounted, "CUDA0", -7539.0),
            (F::OwnOnHost, "", 197.0),
            (F::OwnWeightsOnHost, "", 166.0),
            (F::OwnContextOnHost, "", 0.0),
            (F::OwnComputeOnHost, "", 30.0),
            (F::ContextWished, "", 262_144.0),
            (F::Context, "", 30_000.0),
            (F::SavedByContext, "", 6257.0),
            (F::FitSeconds, "", 1.96),
        ],
    );
}

/// A Spark with another one behind it; nothing is allocated, so that what is unaccounted is negative.
#[test]
fn a_breakdown_of_two_devices() {
    let log = parse_text(
        "0.00.676.453 I common_memory_breakdown_print: |   - CUDA0 (GB10)           | 124610 = 117434 + (58557 = 52652 +    2927 +    2977) +      -51381 |\n\
         0.00.676.453 I common_memory_breakdown_print: |   - RPC0 (10.0.0.2:50052) |  90112 =  89899 + (81512 = 74317 +    4097 +    3097) +      -81300 |\n\
         0.00.676.454 I common_memory_breakdown_print: |   - Host                   |                    54087 = 52524 +       0 +    1563                |\n",
    );
    assert_eq!(log.engine, Some(Engine::LlamaCpp));
    assert_figures(
        &log,
        In::MiB,
        &[
            (F::DeviceTotal, "CUDA0", 124_610.0),
            (F::FreeAtBreakdown, "CUDA0", 117_434.0),
            (F::Own, "CUDA0", 58_557.0),
            (F::OwnWeights, "CUDA0", 52_652.0),
            (F::OwnContext, "CUDA0", 2927.0),
            (F::OwnCompute, "CUDA0", 2977.0),
            (F::Unaccounted, "CUDA0", -51_381.0),
            (F::DeviceTotal, "RPC0", 90_112.0),
            (F::FreeAtBreakdown, "RPC0", 89_899.0),
            (F::Own, "RPC0", 81_512.0),
            (F::OwnWeights, "RPC0", 74_317.0),
            (F::OwnContext, "RPC0", 4097.0),
            (F::OwnCompute, "RPC0", 3097.0),
            (F::Unaccounted, "RPC0", -81_300.0),
            (F::OwnOnHost, "", 54_087.0),
            (F::OwnWeightsOnHost, "", 52_524.0),
            (F::OwnContextOnHost, "", 0.0),
            (F::OwnComputeOnHost, "", 1563.0),
        ],
    );
}

#[test]
fn allocations_that_failed() {
    let log = parse_text(
        "build: 7166 (9f1a2b3c4) with cc\n\
         ggml_backend_cuda_buffer_type_alloc_buffer: allocating 5632.50 MiB on device 0: cudaMalloc failed: out of memory\n",
    );
    assert_eq!((checks(&log), log.version), (vec![Check::AllocationFailed], Some(Version(7166, 0, 0))));
    assert_figures(&log, In::MiB, &[(F::Failed, "0", 5632.5)]);
    assert_eq!(
        log.variants().iter().map(|variant| variant.unified).collect::<Vec<_>>(),
        [Signal::MemAvailable]
    );
}

#[test]
fn ollama_says_what_it_has_found() {
    let devices = parse_text(
        "time=2026-07-16T00:49:00.371Z level=INFO source=types.go:32 msg=\"inference compute\" id=0 library=CUDA compute=12.1 name=CUDA0 description=\"NVIDIA GB10\" type=iGPU total=\"121.7 GiB\" available=\"96.8 GiB\"\n\
         time=2026-07-15T01:51:42.511Z level=INFO source=types.go:50 msg=\"inference compute\" id=cpu library=cpu compute=\"\" name=cpu description=cpu type=\"\" total=\"121.5 GiB\" available=\"90.0 GiB\"\n\
         Jun 06 07:22:24 host ollama[2401]: time=2026-06-06T07:22:24.799+02:00 level=INFO source=routes.go:2031 msg=\"vram-based default context\" total_vram=\"121.6 GiB\" default_num_ctx=262144\n",
    );
    assert_eq!(devices.engine, Some(Engine::Ollama));
    assert_figures(
        &devices,
        In::GiB,
        &[
            (F::DeviceTotal, "CUDA0", 121.7),
            (F::FreeBaseline, "CUDA0", 96.8),
            (F::SystemTotal, "cpu", 121.5),
            (F::SystemFree, "cpu", 90.0),
            (F::DevicesTotal, "", 121.6),
            (F::Context, "", 262_144.0),
        ],
    );
    let wrapped = parse_text(
        "inference compute  library=CUDA compute=12.1 name=CUDA0 description=\"NVIDIA GB10\" type=iGPU total=\"119.7 GiB\" available=\"110.7 GiB\"",
    );
    assert_figures(&wrapped, In::GiB, &[(F::DeviceTotal, "CUDA0", 119.7), (F::FreeBaseline, "CUDA0", 110.7)]);
}

#[test]
fn ollama_in_a_container() {
    let log = parse_text("sched.go msg=\"system memory\" total=\"32.0 GiB\" free=\"3.7 GiB\"");
    assert_figures(&log, In::GiB, &[(F::SystemTotal, "", 32.0), (F::SystemFree, "", 3.7)]);
    let error = parse_text("model requires more system memory (10.2 GiB) than is available (2.9 GiB)");
    assert_eq!(checks(&error), [Check::ModelAboveSystemMemory]);
    assert_figures(&error, In::GiB, &[(F::SystemNeeded, "", 10.2), (F::SystemFree, "", 2.9)]);
    let decision = parse_text(
        "time=t level=INFO source=sched.go:1 msg=\"llama-server model predicted to exceed available memory, evicting\" predicted=\"60.5 GiB\" predicted_num_ctx=8192 num_batch=512 available=\"50.0 GiB\" gpu_free=\"110.0 GiB\" system_free=\"50.0 GiB\" system_limited=true",
    );
    assert_figures(
        &decision,
        In::GiB,
        &[
            (F::Projected, "", 60.5),
            (F::Context, "", 8192.0),
            (F::Usable, "", 50.0),
            (F::FreeBeforeCache, "", 110.0),
            (F::SystemFree, "", 50.0),
            (F::SystemLimited, "", 1.0),
        ],
    );
}

/// It passes llama.cpp's lines on, and loads one model after the other.
#[test]
fn ollama_loads_twice() {
    let load = |weights: &str| {
        format!(
            "time=t level=INFO source=server.go:1 msg=\"starting runner\" cmd=x\n\
             load_tensors:        CUDA0 model buffer size = {weights} MiB\n\
             time=t level=INFO source=server.go:1 msg=\"llama runner started in 2.50 seconds\"\n"
        )
    };
    let text = "time=t msg=\"Listening on 127.0.0.1:11434 (version 0.18.0)\"\n".to_owned()
        + &load("4000.00")
        + &load("7000.00");
    let log = parse_text(&text);
    assert_eq!((log.engine, log.version), (Some(Engine::Ollama), Some(Version(0, 18, 0))));
    assert_figures(&log, In::MiB, &[(F::Weights, "CUDA0", 7000.0), (F::StartSeconds, "", 2.5)]);
}

#[test]
fn xinfer() {
    let log = parse_text(
        "2026-04-07T06:11:49.660476Z  WARN vllm_rs::utils::kvcache_allocator: GPU 0: total 119.63 GB, free 29.34 GB, kv_fraction 50%, Max usable cache budget 14.67 GB\n\
         2026-04-07T06:11:49.660501Z  WARN vllm_rs::utils::kvcache_allocator: KVCache Allocation: 18025 GPU blocks (13.20 GB x 1), max usable kvcache tokens 1153600 (12k bytes per token)\n",
    );
    assert_eq!(log.engine, Some(Engine::Xinfer));
    assert_figures(
        &log,
        In::GiB,
        &[
            (F::DeviceTotal, "0", 119.63),
            (F::FreeBeforeCache, "0", 29.34),
            (F::Fraction, "0", 0.5),
            (F::KvBudget, "0", 14.67),
            (F::Blocks, "", 18_025.0),
            (F::KvAllocated, "", 13.2),
            (F::TokensOfCache, "", 1_153_600.0),
        ],
    );
}
