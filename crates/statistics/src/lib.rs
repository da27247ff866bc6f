//! The statistics of spark-trace's studies: what two sets of runs differ in, and how sure that is.
//!
//! Everything here is a pure function of its input. Where two samples are compared, a difference is
//! always **B minus A**. No function panics, and none returns NaN: input that a figure is not defined
//! for gives an [`Error`] (or `None`) that says which rule it broke. A p may underflow to zero.
//!
//! Means and sums are carried in twice the precision of f64, so that samples with a large common
//! offset (addresses, time stamps) keep the digits in which they differ. Small p are computed as
//! tails, never as one minus something.

pub mod association;
pub mod bootstrap;
pub mod covariate;
pub mod dependence;
mod describe;
pub mod effect;
pub mod equivalence;
pub mod exact;
pub mod mixed;
pub mod multiple;
mod noncentral;
pub mod normality;
mod numeric;
pub mod outliers;
pub mod power;
pub mod rank;
pub mod ratio;
pub mod sequential;
pub mod series;
mod special;
pub mod spread;
pub mod t;
pub mod trimmed;

pub use describe::{Description, describe, quantile};
pub use noncentral::{noncentral_t_cdf, noncentral_t_sf};

use serde::Serialize;

/// The confidence level to use when nothing names another one.
pub const LEVEL: f64 = 0.95;

/// Why a figure is not defined for an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Error {
    /// Fewer values than the figure needs.
    TooFew,
    /// A value is infinite or not a number.
    NotFinite,
    /// More values than the figure is defined for, or can be computed from in reasonable time.
    TooMany,
    /// The values do not vary where the figure divides by their variation.
    Constant,
    /// One of several predictors is a combination of the others.
    Collinear,
    /// Two samples that belong together pair by pair differ in length.
    Lengths,
    /// A level, probability, bound or count is outside its range.
    Parameter,
    /// The values are so large or so small that f64 cannot carry the figure, or no answer was found.
    Range,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Error::TooFew => "too few values",
            Error::TooMany => "too many values",
            Error::NotFinite => "a value is not finite",
            Error::Constant => "the values do not vary",
            Error::Collinear => "a predictor is a combination of the others",
            Error::Lengths => "the samples differ in length",
            Error::Parameter => "a parameter is out of range",
            Error::Range => "the values are out of the range that can be computed with",
        })
    }
}

impl std::error::Error for Error {}
