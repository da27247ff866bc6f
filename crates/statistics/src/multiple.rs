//! Adjusting p for how many tests were made.

use crate::Error;

/// Each p times their number, at most one (Bonferroni 1936; Dunn 1961). In the order given; none for none.
/// [`Error::Parameter`] where one is not within 0 and 1.
pub fn bonferroni(p: &[f64]) -> Result<Vec<f64>, Error> {
    check(p)?;
    Ok(p.iter().map(|one| (one * p.len() as f64).min(1.0)).collect())
}

/// Holm's step-down adjustment (Holm 1979): the k-th smallest of m times m - k + 1, at most one, and at least what
/// the one before it came to. In the order given; none for none. [`Error::Parameter`] where one is not within 0
/// and 1.
pub fn holm(p: &[f64]) -> Result<Vec<f64>, Error> {
    check(p)?;
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|i, j| p[*i].total_cmp(&p[*j]));
    let mut adjusted = vec![0.0; p.len()];
    let mut least = 0.0_f64;
    for (rank, i) in order.into_iter().enumerate() {
        least = least.max(p[i] * (p.len() - rank) as f64).min(1.0);
        adjusted[i] = least;
    }
    Ok(adjusted)
}

/// The false discovery rate at which each would be called (Benjamini & Hochberg 1995): the k-th smallest of m times m / k, and no
/// more than what the ones after it come to. In the order given; none for none. [`Error::Parameter`] where one is not within 0
/// and 1.
pub fn benjamini_hochberg(p: &[f64]) -> Result<Vec<f64>, Error> {
    check(p)?;
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|i, j| p[*i].total_cmp(&p[*j]));
    let mut adjusted = vec![1.0; p.len()];
    let mut most = 1.0_f64;
    for (rank, i) in order.into_iter().enumerate().rev() {
        most = most.min(p[i] * p.len() as f64 / (rank + 1) as f64);
        adjusted[i] = most;
    }
    Ok(adjusted)
}

fn check(p: &[f64]) -> Result<(), Error> {
    if p.iter().all(|one| (0.0..=1.0).contains(one)) { Ok(()) } else { Err(Error::Parameter) }
}
