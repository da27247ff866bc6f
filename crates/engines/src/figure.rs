//! What a number in a log is: its meaning, and its unit once it is read.

use serde::{Serialize, Serializer};
use spark_trace_recording::words;

words! {
    /// A figure of an engine's log. Bytes, unless [`Figure::unit`] has another unit.
    pub enum Figure {
        /// What the device has in all, as the engine has it.
        DeviceTotal = "device-total",
        /// The sum of all devices'.
        DevicesTotal = "devices-total",
        SystemTotal = "system-total",
        /// Free before the weights: the first of the readings that decide.
        FreeBaseline = "free-baseline",
        FreeAfterWeights = "free-after-weights",
        FreeAfterProfiling = "free-after-profiling",
        /// The reading that the cache was sized by, where there is one.
        FreeBeforeCache = "free-before-cache",
        FreeAfterCache = "free-after-cache",
        FreeBeforeGraphs = "free-before-graphs",
        FreeAfterGraphs = "free-after-graphs",
        FreeAtReady = "free-at-ready",
        /// When llama.cpp prints what it has in use.
        FreeAtBreakdown = "free-at-breakdown",
        /// What would be free with what it intends to use.
        FreeProjected = "free-projected",
        /// Of this rank alone.
        FreeOfRank = "free-of-rank",
        /// Free without what is kept for others.
        Usable = "usable",
        /// Free on the machine, as the engine has it.
        SystemFree = "system-free",
        SystemSwapFree = "system-swap-free",
        /// The model needs it of the system's memory.
        SystemNeeded = "system-needed",
        /// 1 where the system's free memory, and not the GPU's, decides.
        SystemLimited = "system-limited",
        /// Taken by torch.distributed and what it loads.
        Distributed = "distributed",
        /// What it intends to use in all: total x fraction.
        Requested = "requested",
        /// What is left within that: after profiling, before the cache.
        LeftOfRequested = "left-of-requested",
        Weights = "weights",
        /// Of the checkpoint, before it is loaded.
        WeightsAnnounced = "weights-announced",
        /// In the host's memory.
        WeightsOnHost = "weights-on-host",
        /// In use outside the engine's own allocator; on unified memory by the whole machine.
        Outside = "outside",
        OutsideAfterWeights = "outside-after-weights",
        /// Growth outside the allocator while it was profiling.
        OutsideGrowth = "outside-growth",
        /// Most that was in use in the run with dummy requests, by the engine and everybody else.
        Peak = "peak",
        /// Taken on top of the weights in that run, at most.
        Activations = "activations",
        /// Everything that is not cache.
        NonCache = "non-cache",
        /// Drop of what is free, from the baseline to after profiling.
        Consumed = "consumed",
        /// What may be cache by the engine's arithmetic. Negative where nothing is left.
        KvBudget = "kv-budget",
        /// What it decided on.
        KvDecided = "kv-decided",
        KvAllocated = "kv-allocated",
        /// Cache of the run with dummy requests.
        KvTemporary = "kv-temporary",
        KvPerToken = "kv-per-token",
        /// Size of the cache that the user stated.
        KvStated = "kv-stated",
        /// What the engine suggests to state, within its fraction and with all that is free.
        KvSuggested = "kv-suggested",
        KvSuggestedAtMost = "kv-suggested-at-most",
        KvLimitByTokens = "kv-limit-by-tokens",
        KvLimitByBytes = "kv-limit-by-bytes",
        /// One request of the greatest length needs it.
        KvNeeded = "kv-needed",
        /// Of the cache in the host's memory.
        KvHost = "kv-host",
        /// Virtual range, which is backed later.
        KvUpperBound = "kv-upper-bound",
        GraphsEstimated = "graphs-estimated",
        /// 1 where the estimate is taken off the cache, 0 where it is not.
        GraphsCounted = "graphs-counted",
        /// Drop of what is free while graphs were captured.
        GraphsTaken = "graphs-taken",
        /// In the graphs' own pool.
        GraphsPool = "graphs-pool",
        ReservedMultimodal = "reserved-multimodal",
        ReservedWorkspace = "reserved-workspace",
        AttentionWorkspace = "attention-workspace",
        AllocatorLimit = "allocator-limit",
        PageCacheReleased = "page-cache-released",
        SleepFreed = "sleep-freed",
        SleepInUse = "sleep-in-use",
        Compute = "compute",
        ComputeOnHost = "compute-on-host",
        Output = "output",
        RecurrentState = "recurrent-state",
        KvOnHost = "kv-on-host",
        /// Weights, cache and compute of the engine itself.
        Own = "own",
        /// total - free - own: others on the machine, and what the engine does not count.
        Unaccounted = "unaccounted",
        /// The parts of [`Self::Own`], in whole MiB.
        OwnWeights = "own-weights",
        OwnContext = "own-context",
        OwnCompute = "own-compute",
        OwnOnHost = "own-on-host",
        OwnWeightsOnHost = "own-weights-on-host",
        OwnContextOnHost = "own-context-on-host",
        OwnComputeOnHost = "own-compute-on-host",
        /// A smaller context takes so much less.
        SavedByContext = "saved-by-context",
        /// What it computes that it will use.
        Projected = "projected",
        /// Kept free by the user's wish.
        Overhead = "overhead",
        /// Kept free on each device.
        Margin = "margin",
        /// What an allocation that failed was for.
        Failed = "failed",
        /// Tokens that the user allows.
        TokensLimit = "tokens-limit",
        TokensOfCache = "tokens-of-cache",
        /// Of those layers that keep all tokens.
        TokensOfFullLayers = "tokens-of-full-layers",
        /// Tokens of one request at most.
        Context = "context",
        /// The context that was wished for.
        ContextWished = "context-wished",
        /// The greatest context that would fit.
        ContextPossible = "context-possible",
        CacheCells = "cache-cells",
        CacheLayers = "cache-layers",
        Blocks = "blocks",
        BlocksOnHost = "blocks-on-host",
        TokensPerBlock = "tokens-per-block",
        LayersOnDevice = "layers-on-device",
        Layers = "layers",
        Fraction = "fraction",
        /// The fraction that would have the same effect without graphs being counted.
        FractionEquivalent = "fraction-equivalent",
        /// The fraction that keeps the cache's size where graphs are counted.
        FractionToKeep = "fraction-to-keep",
        /// The least with which a cache fits.
        FractionLeast = "fraction-least",
        AllocatorFraction = "allocator-fraction",
        Concurrency = "concurrency",
        WeightsSeconds = "weights-seconds",
        ProfilingSeconds = "profiling-seconds",
        GraphSeconds = "graph-seconds",
        DistributedSeconds = "distributed-seconds",
        StartSeconds = "start-seconds",
        FitSeconds = "fit-seconds",
    }
}

/// Of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    Bytes,
    Count,
    Ratio,
    Seconds,
}

/// How values of several devices, ranks or pools become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fold {
    /// Parts of one whole: the buffers of several devices.
    Sum,
    /// Each states its own: the scarcest decides.
    Least,
    Most,
}

/// Figures that are no bytes.
#[rustfmt::skip]
const UNITS: &[(Unit, &[Figure])] = &[
    (Unit::Count, &[
        Figure::TokensLimit, Figure::TokensOfCache, Figure::TokensOfFullLayers, Figure::Context, Figure::ContextWished, Figure::ContextPossible, Figure::CacheCells,
        Figure::CacheLayers, Figure::Blocks, Figure::BlocksOnHost, Figure::TokensPerBlock, Figure::LayersOnDevice,
        Figure::Layers, Figure::SystemLimited, Figure::GraphsCounted,
    ]),
    (Unit::Ratio, &[
        Figure::Fraction, Figure::FractionEquivalent, Figure::FractionToKeep, Figure::FractionLeast, Figure::AllocatorFraction, Figure::Concurrency,
    ]),
    (Unit::Seconds, &[
        Figure::WeightsSeconds, Figure::ProfilingSeconds, Figure::GraphSeconds, Figure::StartSeconds, Figure::FitSeconds,
        Figure::DistributedSeconds,
    ]),
];

/// Figures of several devices, ranks or pools that do not add up, by which of them counts.
#[rustfmt::skip]
const FOLDS: &[(Fold, &[Figure])] = &[
    (Fold::Least, &[
        Figure::FreeBaseline, Figure::FreeAfterWeights, Figure::FreeAfterProfiling, Figure::FreeBeforeCache,
        Figure::FreeAfterCache, Figure::FreeBeforeGraphs, Figure::FreeAfterGraphs, Figure::FreeAtReady,
        Figure::FreeOfRank, Figure::Usable, Figure::LeftOfRequested, Figure::KvBudget, Figure::KvDecided,
        Figure::TokensOfCache, Figure::TokensOfFullLayers, Figure::ContextPossible, Figure::SystemFree, Figure::KvLimitByTokens, Figure::KvLimitByBytes,
    ]),
    (Fold::Sum, &[
        Figure::Weights, Figure::WeightsOnHost, Figure::KvAllocated, Figure::KvOnHost, Figure::KvHost, Figure::Compute,
        Figure::ComputeOnHost, Figure::Output, Figure::RecurrentState, Figure::Own, Figure::OwnOnHost, Figure::OwnWeights,
        Figure::OwnContext, Figure::OwnCompute, Figure::OwnWeightsOnHost, Figure::OwnContextOnHost,
        Figure::OwnComputeOnHost, Figure::Unaccounted, Figure::GraphsTaken, Figure::GraphsPool, Figure::FreeAtBreakdown,
    ]),
];

impl Figure {
    pub fn unit(self) -> Unit {
        let row = UNITS.iter().find(|(_, figures)| figures.contains(&self));
        row.map_or(Unit::Bytes, |(unit, _)| *unit)
    }

    /// How values of several subjects become one.
    pub fn fold(self) -> Fold {
        let row = FOLDS.iter().find(|(_, figures)| figures.contains(&self));
        row.map_or(Fold::Most, |(fold, _)| *fold)
    }
}

impl Serialize for Figure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
