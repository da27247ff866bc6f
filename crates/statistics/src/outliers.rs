//! Which values of a sample stand out.

use crate::{
    Error,
    describe::of_sorted,
    numeric::{check, finite, sorted},
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
