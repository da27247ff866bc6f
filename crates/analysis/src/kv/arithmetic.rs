//! How each formula makes a cache out of readings, and what a byte at each reading is worth.

use spark_trace_engines::Formula;

/// What a formula is computed from, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Inputs {
    pub total: i64,
    pub free: i64,
    /// At the baseline.
    pub baseline: Option<i64>,
    /// Of the engine, at the reading and at most before it.
    pub allocated: i64,
    pub allocated_peak: i64,
    pub temporary: i64,
    /// Of the cache at the reading, where that comes after its first pages; and the range of addresses that was kept for it.
    pub backed: i64,
    pub upper: Option<i64>,
    pub graphs: i64,
    pub fraction: Option<f64>,
    /// Kept free on the device, of engines that fit a model into what is free.
    pub margin: i64,
    /// Weights and compute buffers of these, and the cache of the whole context.
    pub beside_cache: Option<i64>,
    pub context: Option<i64>,
}

impl Inputs {
    pub fn requested(&self) -> Option<i64> {
        Some(part(self.total, self.fraction?))
    }

    /// For a cache, of engines that fit a model into what is free.
    pub fn room(&self) -> Option<i64> {
        Some(self.free.saturating_sub(self.margin).saturating_sub(self.beside_cache?))
    }

    pub fn whole_context_fits(&self) -> Option<bool> {
        Some(self.room()? >= self.context?)
    }

    pub fn transient(&self) -> i64 {
        self.allocated_peak.saturating_sub(self.allocated).max(0)
    }
}

// Below 2^53 there is an f64 for every byte.
fn part(bytes: i64, fraction: f64) -> i64 {
    (bytes as f64 * fraction) as i64
}

/// The cache; absent where a figure is missing. It may be negative: then nothing is left.
pub fn kv(formula: Formula, inputs: &Inputs) -> Option<i64> {
    match formula {
        Formula::TotalMinusPeakTimesFraction => {
            let outside = inputs.total.saturating_sub(inputs.free).saturating_sub(inputs.allocated).max(0);
            let peak = inputs.allocated_peak.saturating_add(outside);
            let left = inputs.total.saturating_add(inputs.temporary).saturating_sub(peak);
            Some(part(left, inputs.fraction?))
        }
        Formula::FreeTimesFraction => Some(part(inputs.free, inputs.fraction?)),
        // The parts that are summed up in the first are what went, in the second. A trace has the driver's allocations in the
        // place of those of PyTorch's allocator, whose peak is not known: it keeps what tensors have given back, so that its own is
        // at most the driver's.
        Formula::RequestedMinusParts | Formula::RequestedMinusConsumed => {
            let consumed = inputs.baseline?.saturating_sub(inputs.free);
            let left = inputs.requested()?.saturating_sub(consumed).saturating_sub(inputs.transient());
            Some(left.saturating_sub(inputs.graphs))
        }
        Formula::AfterMinusRestOfBefore => {
            let left = after_rest(inputs)?;
            Some(inputs.upper.map_or(left, |upper| left.min(upper)))
        }
        Formula::FitWithinFree => {
            let room = inputs.room()?;
            Some(inputs.context.map_or(room, |context| room.min(context)))
        }
        // Where it does not fit, nobody knows the sizes of the layers that stay.
        Formula::FitLayersWithinFree => inputs.context.filter(|_| inputs.whole_context_fits() == Some(true)),
        Formula::OnDemand => None,
    }
}

fn after_rest(inputs: &Inputs) -> Option<i64> {
    let rest = part(inputs.baseline?, 1.0 - inputs.fraction?);
    Some(inputs.free.saturating_sub(rest).saturating_add(inputs.backed))
}

pub const fn needs_baseline(formula: Formula) -> bool {
    matches!(
        formula,
        Formula::RequestedMinusParts | Formula::RequestedMinusConsumed | Formula::AfterMinusRestOfBefore
    )
}

/// By how much the cache grows with each byte more that is free at a reading.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Worth {
    pub at_reading: f64,
    pub at_baseline: f64,
}

impl Worth {
    /// Whether it matters what others had at the baseline.
    pub fn counts_the_baseline(self) -> bool {
        self.at_baseline.abs() > 0.0
    }

    /// What bytes of others cost at both readings.
    pub fn of(self, at_reading: i64, at_baseline: i64) -> i64 {
        (self.at_reading * at_reading as f64 + self.at_baseline * at_baseline as f64) as i64
    }
}

pub fn worth(formula: Formula, inputs: &Inputs) -> Option<Worth> {
    let (at_reading, at_baseline) = match formula {
        Formula::TotalMinusPeakTimesFraction | Formula::FreeTimesFraction => (inputs.fraction?, 0.0),
        Formula::RequestedMinusParts | Formula::RequestedMinusConsumed => (1.0, -1.0),
        // The range follows from a reading that is not looked at.
        Formula::AfterMinusRestOfBefore
            if inputs.upper.is_some_and(|upper| after_rest(inputs) > Some(upper)) =>
        {
            return None;
        }
        Formula::AfterMinusRestOfBefore => (1.0, -(1.0 - inputs.fraction?)),
        Formula::FitWithinFree => {
            inputs.room()?;
            (if inputs.whole_context_fits() == Some(true) { 0.0 } else { 1.0 }, 0.0)
        }
        Formula::FitLayersWithinFree => kv(formula, inputs).map(|_| (0.0, 0.0))?,
        Formula::OnDemand => return None,
    };
    Some(Worth { at_reading, at_baseline })
}

/// The fraction that makes the cache as large as what was taken: two digits, as people write it, where they do. What the engine
/// had for its peak lies between nothing and the peak of the driver's allocations, so the fraction lies between two, too. Only of
/// engines whose cache is all that the fraction leaves; others are often limited by tokens.
pub fn implied_fraction(formula: Formula, inputs: &Inputs, taken: i64) -> Option<f64> {
    let whole = match formula {
        Formula::RequestedMinusParts | Formula::RequestedMinusConsumed => inputs.total,
        Formula::AfterMinusRestOfBefore => inputs.baseline?,
        Formula::TotalMinusPeakTimesFraction
        | Formula::FreeTimesFraction
        | Formula::FitWithinFree
        | Formula::FitLayersWithinFree
        | Formula::OnDemand => return None,
    };
    let with_peak = |allocated_peak: i64| {
        let rest = kv(formula, &Inputs { fraction: Some(0.0), allocated_peak, ..*inputs })?;
        Some(taken.saturating_sub(rest) as f64 / whole as f64)
    };
    let (least, exact) = (with_peak(inputs.allocated)?, with_peak(inputs.allocated_peak)?);
    let rounded = (exact * 100.0).round() / 100.0;
    let (first, last) = ((least * 100.0 - BLOCKS).ceil(), (exact * 100.0 + BLOCKS).floor());
    if last > first {
        // Several fit: which of them it was is not known.
        return is_fraction(exact);
    }
    if last >= first {
        return is_fraction(first / 100.0);
    }
    let same = |fraction: f64| {
        let kv = kv(formula, &Inputs { fraction: Some(fraction), ..*inputs })?;
        Some(kv.abs_diff(taken) <= taken.unsigned_abs() / 100)
    };
    is_fraction(if same(rounded)? { rounded } else { exact })
}

/// A cache has whole blocks, so what was taken is a little less: so many hundredths of the fraction.
const BLOCKS: f64 = 0.05;

fn is_fraction(fraction: f64) -> Option<f64> {
    (fraction > 0.0 && fraction <= 1.0).then_some(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gib(value: f64) -> i64 {
        (value * f64::from(1 << 30)) as i64
    }

    fn near(kv: Option<i64>, wanted: f64) {
        let found = kv.unwrap() as f64 / f64::from(1 << 30);
        assert!((found - wanted).abs() <= wanted.abs() / 100.0, "{found} instead of {wanted}");
    }

    /// Figures of published logs, each with the cache that its engine logged.
    #[test]
    fn the_arithmetic_is_the_engines_own() {
        // TensorRT-LLM 1.1 on a GB10: 63.52 inside PyTorch, 0.85 more at the peak, 49.28 outside, 0.56 for the dummy run.
        let inputs = Inputs {
            total: gib(119.70),
            free: gib(119.70 - 63.52 - 49.28),
            allocated: gib(63.52),
            allocated_peak: gib(63.52 + 0.85),
            temporary: gib(0.56),
            fraction: Some(0.9),
            ..Inputs::default()
        };
        near(kv(Formula::TotalMinusPeakTimesFraction, &inputs), 5.95);
        // vLLM 0.25 on an H200: 0.9 of 139.80; 11.05 of weights, 1.41 of activations, 0.22 outside.
        let inputs = Inputs {
            total: gib(139.80),
            baseline: Some(gib(139.29)),
            free: gib(139.29 - 11.05 - 0.22),
            allocated: gib(11.05),
            allocated_peak: gib(11.05 + 1.41),
            fraction: Some(0.9),
            ..Inputs::default()
        };
        near(kv(Formula::RequestedMinusParts, &inputs), 113.13);
        // SGLang: 36.63 before the weights, 35.57 after them.
        let inputs = Inputs {
            baseline: Some(gib(36.63)),
            free: gib(35.57),
            fraction: Some(0.86),
            ..Inputs::default()
        };
        near(kv(Formula::AfterMinusRestOfBefore, &inputs), 30.42);
    }

    /// SGLang's sizing after the capture of graphs: the first pages are there, and the range of addresses is the most.
    #[test]
    fn a_cache_that_is_backed_after_the_capture() {
        let of = |free: f64| Inputs {
            baseline: Some(gib(100.0)),
            free: gib(free),
            fraction: Some(0.8),
            backed: gib(0.25),
            upper: Some(gib(40.0)),
            ..Inputs::default()
        };
        let formula = Formula::AfterMinusRestOfBefore;
        near(kv(formula, &of(59.0)), 39.25);
        assert_eq!(worth(formula, &of(59.0)).map(|worth| worth.at_reading), Some(1.0));
        assert_eq!((kv(formula, &of(61.0)), worth(formula, &of(61.0))), (Some(gib(40.0)), None));
    }

    #[test]
    fn an_estimate_below_zero_makes_the_cache_larger() {
        let of = |graphs| {
            let inputs = Inputs {
                total: gib(120.0),
                baseline: Some(gib(110.0)),
                free: gib(70.0),
                fraction: Some(0.8),
                graphs,
                ..Inputs::default()
            };
            kv(Formula::RequestedMinusConsumed, &inputs).unwrap()
        };
        assert_eq!(of(gib(-35.0)) - of(0), gib(35.0));
    }

    /// A stated context is the cache, or nobody knows which part of it.
    #[test]
    fn a_stated_context_is_not_cut() {
        let of = |free: f64| Inputs {
            total: gib(120.0),
            free: gib(free),
            margin: gib(1.0),
            beside_cache: Some(gib(40.0)),
            context: Some(gib(8.0)),
            ..Inputs::default()
        };
        let formula = Formula::FitLayersWithinFree;
        assert_eq!(kv(formula, &of(49.0)), Some(gib(8.0)));
        assert_eq!(worth(formula, &of(49.0)), Some(Worth::default()));
        assert_eq!((kv(formula, &of(48.0)), worth(formula, &of(48.0))), (None, None));
        assert_eq!(kv(Formula::FitWithinFree, &of(48.0)), Some(gib(7.0)));
    }

    #[test]
    fn nothing_is_computed_from_what_is_unknown() {
        let inputs = Inputs { total: gib(120.0), free: gib(70.0), ..Inputs::default() };
        for formula in [
            Formula::TotalMinusPeakTimesFraction,
            Formula::RequestedMinusConsumed,
            Formula::AfterMinusRestOfBefore,
            Formula::FitWithinFree,
            Formula::OnDemand,
        ] {
            assert_eq!(kv(formula, &inputs), None, "{formula}");
        }
    }

    /// What was there before the baseline costs vLLM nothing, what came after it all of its bytes; SGLang loses part of
    /// the first.
    #[test]
    fn a_byte_is_worth_what_the_formula_makes_of_it() {
        let inputs = Inputs {
            total: gib(120.0),
            baseline: Some(gib(110.0)),
            free: gib(70.0),
            fraction: Some(0.8),
            ..Inputs::default()
        };
        for (formula, both, later) in [
            (Formula::RequestedMinusConsumed, 0.0, 1.0),
            (Formula::AfterMinusRestOfBefore, 0.8, 1.0),
            (Formula::TotalMinusPeakTimesFraction, 0.8, 0.8),
        ] {
            let worth = worth(formula, &inputs).unwrap();
            let gain = |after: f64, before: f64| {
                let more = Inputs {
                    free: inputs.free + gib(after),
                    baseline: inputs.baseline.map(|free| free + gib(before)),
                    ..inputs
                };
                kv(formula, &more).unwrap() - kv(formula, &inputs).unwrap()
            };
            for (name, after, before, wanted) in [("both", 10.0, 10.0, both), ("later", 10.0, 0.0, later)] {
                let found = worth.of(gib(after), gib(before));
                assert!(found.abs_diff(gib(10.0 * wanted)) < 16, "{formula} {name}: {found}");
                assert!(found.abs_diff(gain(after, before)) < 16, "{formula} {name}: as computed again");
            }
        }
    }

    #[test]
    fn a_fraction_that_follows_has_two_digits_where_they_fit() {
        let inputs = Inputs {
            total: gib(139.80),
            baseline: Some(gib(139.29)),
            free: gib(127.82),
            allocated: gib(11.31),
            allocated_peak: gib(13.0),
            ..Inputs::default()
        };
        let formula = Formula::RequestedMinusParts;
        assert_eq!(implied_fraction(formula, &inputs, gib(113.19)), Some(0.9));
        // A worker of vLLM 0.25.1 on two H200s, with 0.9: the driver's peak would make it 0.906.
        let worker = Inputs {
            total: gib(139.80),
            baseline: Some(gib(138.38)),
            free: gib(132.05),
            allocated: gib(6.79),
            allocated_peak: gib(8.29),
            ..Inputs::default()
        };
        assert_eq!(implied_fraction(formula, &worker, gib(118.81)), Some(0.9));
        // With a peak of a tenth of the memory any of ten would do.
        let wide = Inputs { allocated_peak: gib(20.0), ..worker };
        let exact = (118.81 + 138.38 - 132.05 + 20.0 - 6.79) / 139.80;
        assert!((implied_fraction(formula, &wide, gib(118.81)).unwrap() - exact).abs() < 1e-6);
        assert_eq!(implied_fraction(Formula::TotalMinusPeakTimesFraction, &inputs, gib(2.0)), None);
    }
}
