//! The words of the table: engines, and what their rows name.

use serde::{Serialize, Serializer};
use spark_trace_recording::words;

words! {
    /// An inference engine, or a program that takes memory as one does.
    pub enum Engine {
        /// PyTorch backend: trtllm-serve, trtllm-bench, the LLM API.
        TensorRtLlm = "tensorrt-llm",
        /// Engine backend: the C++ runtime sizes the cache.
        TensorRtLlmCpp = "tensorrt-llm-cpp",
        Vllm = "vllm",
        /// vLLM's first engine, up to 0.8.
        VllmV0 = "vllm-v0",
        Sglang = "sglang",
        LlamaCpp = "llama.cpp",
        Ollama = "ollama",
        LmDeployPytorch = "lmdeploy-pytorch",
        LmDeployTurboMind = "lmdeploy-turbomind",
        /// In Rust, after vLLM's design.
        Xinfer = "xinfer",
        ComfyUi = "comfyui",
    }
}

words! {
    /// The figure of free memory that an engine goes by.
    pub enum Signal {
        /// The driver's answer: MemFree where the GPU has no memory of its own, so that page cache counts as used.
        CudaMemGetInfo = "cudaMemGetInfo",
        /// The kernel's estimate: page cache counts as free, memory of others does not.
        MemAvailable = "MemAvailable",
        /// memory.max (or MemTotal) - memory.current, in containers: page cache of the container counts as used, memory
        /// of the driver and of other containers does not.
        CgroupCurrent = "memory.current",
        Nvml = "NVML",
    }
}

words! {
    /// How the size of the cache follows from the readings. Names are of [`crate::Figure`]s.
    pub enum Formula {
        /// (total - peak + temporary cache) x fraction; peak = total - free - allocated now + allocated at most.
        TotalMinusPeakTimesFraction = "total-minus-peak-times-fraction",
        /// free x fraction.
        FreeTimesFraction = "free-times-fraction",
        /// total x utilization - (weights + peak of activations + growth outside the allocator) - graphs.
        RequestedMinusParts = "requested-minus-parts",
        /// total x utilization - (free at the baseline - free after profiling + transient peak) - graphs.
        RequestedMinusConsumed = "requested-minus-consumed",
        /// free after the weights, or after the capture of graphs, - free before the weights x (1 - fraction). After the capture
        /// what is there already of the cache is added, and the cache is no larger than its range of addresses.
        AfterMinusRestOfBefore = "after-minus-rest-of-before",
        /// The context is cut, then layers, until free - projected use is the margin.
        FitWithinFree = "fit-within-free",
        /// The context is stated and stays. Layers go to the host until free - projected use is the margin, and their cache
        /// with them.
        FitLayersWithinFree = "fit-layers-within-free",
        /// No cache is sized: memory is taken as it is needed.
        OnDemand = "on-demand",
    }
}

words! {
    /// When an engine reads how much is free.
    pub enum Moment {
        /// Before the weights.
        Baseline = "baseline",
        AfterWeights = "after-weights",
        /// After a run with dummy requests.
        AfterProfiling = "after-profiling",
        /// Right before the cache is allocated, where nothing of it is measured.
        BeforeCache = "before-cache",
        BeforeGraphs = "before-graphs",
        AfterGraphs = "after-graphs",
    }
}

words! {
    /// What an engine is doing.
    pub enum Stage {
        Weights = "weights",
        Profiling = "profiling",
        KvAllocation = "kv-allocation",
        GraphCapture = "graph-capture",
        Serving = "serving",
    }
}

words! {
    /// A check that an engine makes of memory, and that ends it.
    pub enum Check {
        /// Less is free at the start than the fraction stands for.
        FreeBelowRequested = "free-below-requested",
        /// More was free after profiling than before it: others gave memory back.
        FreeGrewInProfiling = "free-grew-in-profiling",
        /// The cache is too small for one request of the greatest length.
        CacheBelowOneRequest = "cache-below-one-request",
        NothingLeftForCache = "nothing-left-for-cache",
        /// One of several ranks has much less free than the others.
        RanksUnbalanced = "ranks-unbalanced",
        /// The model needs more of the system's memory than is available.
        ModelAboveSystemMemory = "model-above-system-memory",
        /// Parameters that the user set do not fit.
        DoesNotFit = "does-not-fit",
        AllocationFailed = "allocation-failed",
    }
}

words! {
    /// What made a cache smaller than it could be, as a cause that advice is for.
    pub enum Cause {
        PageCache = "page-cache",
        /// Memory of other processes.
        Others = "others",
        Pinned = "pinned",
        Dirty = "dirty",
        /// What the kernel keeps free for itself: vm.min_free_kbytes.
        Watermark = "watermark",
        /// Memory of compilers that the engine started, at the second reading.
        Compiler = "compiler",
        /// The fraction that was set, or its default.
        Fraction = "fraction",
        /// The peak of the run with dummy requests.
        Activations = "activations",
        Graphs = "graphs",
        /// A copy of the cache in the host's memory, which is the same memory.
        HostTier = "host-tier",
        /// What the container's counter has as used.
        ContainerCharge = "container-charge",
        Context = "context",
    }
}

words! {
    /// What a user can do.
    pub enum Action {
        DropPageCache = "drop-page-cache",
        /// Read the weights past the page cache.
        ReadDirectly = "read-directly",
        EndOthers = "end-others",
        RaiseFraction = "raise-fraction",
        LowerFraction = "lower-fraction",
        /// State the size of the cache, so that no reading decides it.
        StateCacheSize = "state-cache-size",
        CompileBefore = "compile-before",
        LowerBatch = "lower-batch",
        LowerContext = "lower-context",
        DisableGraphs = "disable-graphs",
        DisableGraphEstimate = "disable-graph-estimate",
        DisableHostTier = "disable-host-tier",
        WriteBack = "write-back",
        LowerWatermark = "lower-watermark",
        Unpin = "unpin",
        /// A limit, so that the container's counter is compared with what the user means.
        SetLimit = "set-limit",
    }
}

words! {
    /// What a user sets, and what has a default.
    pub enum ParameterName {
        /// Of the total, or of what is free: the formula says which.
        Fraction = "fraction",
        /// Bytes of the cache, stated.
        CacheBytes = "cache-bytes",
        CacheTokens = "cache-tokens",
        /// Tokens of one request at most.
        Context = "context",
        /// Bytes that are left free on each device.
        Margin = "margin",
        Overhead = "overhead",
        HostTierBytes = "host-tier-bytes",
        Layers = "layers",
        /// Whether the estimate for graphs is taken off the cache.
        GraphEstimate = "graph-estimate",
    }
}

macro_rules! serialized {
    ($($name:ident),+) => {
        $(impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        })+
    };
}

serialized!(Engine, Signal, Formula, Moment, Stage, Check, Cause, Action, ParameterName);
