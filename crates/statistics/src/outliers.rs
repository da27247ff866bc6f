//! Which values of a sample stand out.

use crate::{
    Error,
    describe::of_sorted,
    numeric::{check, finite, from_median, median_of_sorted, sorted},
};
use serde::Serialize;

/// Where a value lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// Within the inner fences, or on them.
    Inside,
    /// Beyond an inner fence, but not an outer one.
    Outside,
    /// Beyond an outer fence.
    FarOut,
}

/// Tukey's fences.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tukey {
    /// 1.5 interquartile ranges beyond the quartiles.
    pub inner: (f64, f64),
    /// 3 interquartile ranges beyond the quartiles.
    pub outer: (f64, f64),
    /// Of each value, in the order given.
    pub labels: Vec<Label>,
}

/// Labels values by Tukey's fences (Tukey 1977) around the quartiles of [`crate::describe`]. An empty sample gives
/// [`Error::TooFew`]; where the quartiles are equal, every other value is far out.
pub fn tukey(x: &[f64]) -> Result<Tukey, Error> {
    check(x, 1)?;
    let sorted = sorted(x);
    let (q1, q3) = (of_sorted(&sorted, 0.25), of_sorted(&sorted, 0.75));
    let range = finite(q3 - q1)?;
    let fences = |ranges: f64| Ok((finite(q1 - ranges * range)?, finite(q3 + ranges * range)?));
    let (inner, outer) = (fences(1.5)?, fences(3.0)?);
    let label = |x: &f64| {
        if *x < outer.0 || *x > outer.1 {
            Label::FarOut
        } else if *x < inner.0 || *x > inner.1 {
            Label::Outside
        } else {
            Label::Inside
        }
    };
    Ok(Tukey { inner, outer, labels: x.iter().map(label).collect() })
}

/// Modified z scores.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModifiedZ {
    /// The median of the sample.
    pub median: f64,
    /// The median of the distances from it.
    pub mad: f64,
    /// The score of each value, in the order given.
    pub scores: Vec<f64>,
    /// Whether it is above 3.5, either way.
    pub outlying: Vec<bool>,
}

/// Modified z scores, 0.6745 (x - median) / MAD (Iglewicz & Hoaglin 1993). [`Error::TooFew`] for an empty sample,
/// [`Error::Constant`] where half of the values or more are one.
pub fn modified_z(x: &[f64]) -> Result<ModifiedZ, Error> {
    check(x, 1)?;
    let median = finite(median_of_sorted(&sorted(x)))?;
    let x = from_median(x);
    let distances: Vec<f64> = x.iter().map(|x| x.abs()).collect();
    let mad = finite(median_of_sorted(&sorted(&distances)))?;
    if mad == 0.0 {
        return Err(Error::Constant);
    }
    let scores = x.iter().map(|x| finite(0.6745 * (x / mad))).collect::<Result<Vec<_>, _>>()?;
    let outlying = scores.iter().map(|score| score.abs() > 3.5).collect();
    Ok(ModifiedZ { median, mad, scores, outlying })
}
