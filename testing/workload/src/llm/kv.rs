//! How much the KV cache gets: TensorRT-LLM's arithmetic (tensorrt_llm/_torch/pyexecutor/_util.py, class
//! KvCacheCreator), with our own allocations in the place of PyTorch's.

/// Tokens of a block of the cache.
pub const BLOCK: u64 = 32;

/// What was measured after a dummy run.
#[derive(Debug, Clone, Copy)]
pub struct Profile {
    pub free: u64,
    pub total: u64,
    /// Our allocations at that time, and at most.
    pub allocated: u64,
    pub allocated_peak: u64,
    /// The cache that the dummy run used, which is in `allocated`.
    pub temporary_kv: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Used on the device by others: on a machine with one memory for all, by everything that runs on it, and by the
    /// page cache.
    pub outside: u64,
    pub peak: u64,
    /// For the cache, uncapped.
    pub available: u64,
}

impl Profile {
    pub fn budget(&self, fraction: f64) -> Budget {
        let outside = (self.total - self.free.min(self.total)).saturating_sub(self.allocated);
        let peak = self.allocated_peak + outside;
        let left = (self.total + self.temporary_kv).saturating_sub(peak);
        // Below 2^53 there is an f64 for every byte.
        Budget { outside, peak, available: (left as f64 * fraction) as u64 }
    }
}

/// Tokens in whole blocks that fit into `bytes`.
pub fn tokens(bytes: u64, bytes_per_token: u64) -> u64 {
    bytes / bytes_per_token / BLOCK * BLOCK
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_machine_with_one_memory() {
        // 119.7 GiB in all; 14.2 of weights, 1 of activations at the peak, 0.5 of temporary cache; others have 49.28.
        let gib = |value: f64| (value * GIB as f64) as u64;
        let allocated = gib(14.2) + gib(0.5);
        let profile = Profile {
            total: gib(119.7),
            free: gib(119.7) - allocated - gib(49.28),
            allocated,
            allocated_peak: allocated + GIB,
            temporary_kv: gib(0.5),
        };
        let budget = profile.budget(0.9);
        assert_eq!(budget.outside, gib(49.28));
        assert_eq!(budget.peak, gib(14.2) + gib(0.5) + GIB + gib(49.28));
        // Peak + cache / fraction - temporary cache is the device's total.
        let total = budget.peak as f64 + budget.available as f64 / 0.9 - profile.temporary_kv as f64;
        assert!((total - profile.total as f64).abs() < 4.0);
    }

    #[test]
    fn nothing_below_zero() {
        let profile = Profile { free: 20, total: 10, allocated: 5, allocated_peak: 50, temporary_kv: 1 };
        assert_eq!(profile.budget(0.9), Budget { outside: 0, peak: 50, available: 0 });
    }

    #[test]
    fn whole_blocks() {
        assert_eq!((tokens(1000, 10), tokens(319, 10), tokens(640, 10)), (96, 0, 64));
    }
}
