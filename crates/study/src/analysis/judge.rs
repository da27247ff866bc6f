//! The verdict of a comparison: diagnostics first, then p and the margin, then runs without a result.

use super::attrition::Bounds;
use super::compare::{Comparison, overhead, written_p};
use super::{Options, Verdict};

impl Comparison {
    /// Decides, once p is adjusted.
    pub fn judge(&mut self, options: Options) {
        let options = Options { alpha: self.alpha, ..options };
        (self.verdict, self.because) = self.decided(options);
        if let Some(remark) = self.outliers(self.verdict, options) {
            self.because = format!("{}; {remark}", self.because);
        }
        if let Some(function) = &self.function {
            self.because = format!("{}; no further evidence: {function}", self.because);
        }
        self.overhead = match self.verdict {
            // A class for a difference that is not shown would be one for noise.
            Verdict::Different => overhead(&self.subject, self.difference, self.a.mean),
            _ => None,
        };
    }

    fn decided(&self, options: Options) -> (Verdict, String) {
        if self.a.n < 2 || self.b.n < 2 {
            return (Verdict::NotComparable, format!("{} and {} runs are too few", self.a.n, self.b.n));
        }
        if let Some(problem) = self.diagnostics.problems.iter().max_by_key(|problem| problem.verdict) {
            let all: Vec<_> = self.diagnostics.problems.iter().map(|problem| problem.what.as_str()).collect();
            return (problem.verdict, all.join("; "));
        }
        let Some(p) = self.p_adjusted() else {
            return (Verdict::NotComparable, "no test can be computed from these values".to_owned());
        };
        let (different, because) = self.differs(p, options);
        let same = self.is_same(options);
        let within =
            self.margin_written.as_ref().map_or_else(String::new, |margin| format!("within {margin}"));
        let (verdict, because) = match (different, same) {
            (true, false) => (Verdict::Different, because),
            // Found with certainty, and too small to matter.
            (true, true) => (Verdict::Equivalent, format!("{because}, but the means are the same {within}")),
            (false, true) => (Verdict::Equivalent, format!("the means are the same {within}; {because}")),
            (false, false) => {
                (Verdict::Undecided, format!("{because}; nor are the means shown to be the same {within}"))
            }
        };
        if let Some(noise) = self.noise.filter(|noise| different && self.difference.abs() <= *noise) {
            let unit = &self.subject.unit;
            let why = format!("environments that are the same differ by {noise:.3} {unit}");
            return (Verdict::Undecided, format!("{because}, but {why}"));
        }
        match &self.bounds {
            Some(bounds) if !self.survives(verdict, p, bounds, options) => {
                (Verdict::Undecided, format!("{because}, but {}", self.missing(bounds)))
            }
            Some(bounds) if verdict != Verdict::Undecided => (
                verdict,
                format!("{because}, whatever the {} would show", runs(bounds.a_missing + bounds.b_missing)),
            ),
            _ => (verdict, because),
        }
    }

    /// Where the means and the trimmed means come to different ends, a few runs decide.
    fn outliers(&self, verdict: Verdict, options: Options) -> Option<String> {
        let wild = self.a_values.iter().chain(&self.b_values).any(|point| point.outlier);
        let trimmed = self.trimmed.as_ref().filter(|_| wild)?;
        let cost = self.p.filter(|raw| *raw > 0.0).map_or(1.0, |raw| self.p_adjusted().unwrap_or(raw) / raw);
        let p = (trimmed.p * cost.max(1.0)).min(1.0);
        let said = format!("{:+.3} {} (p {})", trimmed.difference, self.subject.unit, written_p(p));
        match (verdict, p < options.alpha) {
            (Verdict::Undecided, true) => {
                Some(format!("a few runs hide what the others show: without the fifth at either end {said}"))
            }
            (Verdict::Different, false) => {
                Some(format!("a few runs make the difference: without the fifth at either end {said}"))
            }
            _ => None,
        }
    }

    fn differs(&self, p: f64, options: Options) -> (bool, String) {
        let adjusted = match (self.p_holm, self.p_fdr) {
            (Some(_), _) => "p adjusted by Holm's method",
            (None, Some(_)) => "p adjusted by the false discovery rate",
            (None, None) => "p",
        };
        let because = match (self.varies, self.difference == 0.0) {
            (false, true) => "all runs have the same value".to_owned(),
            _ => format!("{adjusted} is {} by {}", written_p(p), self.test),
        };
        let because = match self.at_look {
            true if self.alpha > 0.0 => {
                format!("{because}, where this look decides below {}", written_p(self.alpha))
            }
            true => format!("{because}, before the first look of the plan"),
            false => because,
        };
        (p < options.alpha, because)
    }

    fn is_same(&self, options: Options) -> bool {
        match self.varies {
            true => self.tost_p().is_some_and(|p| p < options.alpha),
            false => self.margin.is_some_and(|margin| self.difference.abs() <= margin),
        }
    }

    /// Adjusted for the other comparisons of its family.
    fn tost_p(&self) -> Option<f64> {
        self.equivalence_p.or_else(|| Some(self.equivalence.as_ref()?.p))
    }

    /// Whether the runs without a result cannot have made the verdict.
    fn survives(&self, verdict: Verdict, p: f64, bounds: &Bounds, options: Options) -> bool {
        // What adjusting for other comparisons costs this p, it costs that of the worst case.
        let cost = |adjusted: f64, raw: Option<f64>| {
            raw.filter(|raw| *raw > 0.0).map_or(1.0, |raw| (adjusted / raw).max(1.0))
        };
        match verdict {
            Verdict::Different => {
                let side = if self.difference > 0.0 { bounds.low > 0.0 } else { bounds.high < 0.0 };
                side && bounds.p * cost(p, self.p) < options.alpha
            }
            Verdict::Equivalent => {
                // Environments that do not fail alike are not the same.
                let alike = bounds.failures_p.is_none_or(|p| p >= options.alpha);
                let cost = cost(self.tost_p().unwrap_or(1.0), self.equivalence.as_ref().map(|tost| tost.p));
                alike && bounds.equivalence_p.is_some_and(|p| p * cost < options.alpha)
            }
            _ => true,
        }
    }

    fn missing(&self, bounds: &Bounds) -> String {
        let Bounds { a_missing, b_missing, low, high, .. } = bounds;
        let unit = &self.subject.unit;
        format!(
            "{a_missing} of {} and {b_missing} of {} have no result: with the smallest or the largest value seen for these the \
             difference is {low:+.3} to {high:+.3} {unit}",
            self.a_name, self.b_name
        )
    }
}

fn runs(count: usize) -> String {
    match count {
        1 => "run without a result".to_owned(),
        count => format!("{count} runs without a result"),
    }
}
