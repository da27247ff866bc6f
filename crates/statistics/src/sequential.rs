//! Levels of tests that are made more than once while values come in, so that all of them together err no more often than one.
//!
//! Alpha is spent as information comes in (Lan & DeMets 1983), little at first: the function resembles the limits of O'Brien and
//! Fleming (1979). The distribution of what has not crossed a limit is carried from look to look by integration (Armitage, McPherson &
//! Rowe 1969).

use crate::{
    Error,
    numeric::{check_fraction, finite, midpoint},
    special::{normal_quantile, normal_sf},
};

/// Places of the integration: enough for 60 looks at ten digits.
const PLACES: usize = 160;
/// More looks than this are refused.
pub const MOST_LOOKS: usize = 60;
/// Beyond so many standard deviations there is nothing that f64 could add to 1.
const FARTHEST: f64 = 8.5;

/// The two-sided level of the test at each look, so that a truth of no difference is rejected at any of them with the probability `alpha`
/// at most. `times` are the shares of the planned values at the looks: they rise, and none is above 1.
///
/// alpha*(t) = 4 (1 - Φ(z / √t)) where 1 - Φ(z) = alpha / 4. [`Error::Parameter`] where times or alpha are out of range,
/// [`Error::TooFew`] without a look, [`Error::TooMany`] above [`MOST_LOOKS`].
pub fn levels(times: &[f64], alpha: f64) -> Result<Vec<f64>, Error> {
    check_fraction(alpha)?;
    check_times(times)?;
    let z = -normal_quantile(alpha / 4.0);
    let spent = |time: f64| 4.0 * normal_sf(z / time.sqrt());
    let (mut course, mut levels, mut before) = (Course::new(), vec![], 0.0);
    for time in times {
        let spend = spent(*time) - before;
        before = spent(*time);
        // What is too little for the integration is spent as it is: never more than is allowed.
        if spend < 1e-13 {
            levels.push(spend.max(0.0));
            course.go_on(*time, FARTHEST);
            continue;
        }
        let (mut low, mut high) = (0.0, FARTHEST);
        while high - low > 1e-13 * high {
            let middle = midpoint(low, high);
            if course.beyond(*time, middle) > spend { low = middle } else { high = middle }
        }
        levels.push(finite(2.0 * normal_sf(high))?);
        course.go_on(*time, high);
    }
    Ok(levels)
}

/// How likely |z| is beyond one of these limits at its look, where nothing differs. Undefined as [`levels`] is, and where the numbers of
/// times and limits differ ([`Error::Lengths`]).
pub fn crossing(times: &[f64], limits: &[f64]) -> Result<f64, Error> {
    if times.len() != limits.len() {
        return Err(Error::Lengths);
    }
    check_times(times)?;
    if !limits.iter().all(|limit| limit.is_finite() && *limit > 0.0) {
        return Err(Error::Parameter);
    }
    let (mut course, mut sum) = (Course::new(), 0.0);
    for (time, limit) in times.iter().zip(limits) {
        sum += course.beyond(*time, *limit);
        course.go_on(*time, *limit);
    }
    finite(sum)
}

fn check_times(times: &[f64]) -> Result<(), Error> {
    let rise = times.windows(2).all(|pair| pair[0] < pair[1]);
    let within = times.iter().all(|time| *time > 0.0 && *time <= 1.0);
    match times.len() {
        0 => Err(Error::TooFew),
        many if many > MOST_LOOKS => Err(Error::TooMany),
        _ if rise && within => Ok(()),
        _ => Err(Error::Parameter),
    }
}

/// A Brownian motion that no limit has stopped: its density at places from 0 to the last limit, times their weights. It is even.
struct Course {
    time: f64,
    places: Vec<(f64, f64)>,
}

impl Course {
    fn new() -> Self {
        // All at 0; half of it, since either side has the other half.
        Self { time: 0.0, places: vec![(0.0, 0.5)] }
    }

    fn step(&self, time: f64) -> f64 {
        (time - self.time).sqrt()
    }

    /// How likely it goes on until `time` and is then beyond `limit` standard deviations, on either side.
    fn beyond(&self, time: f64, limit: f64) -> f64 {
        let (step, limit) = (self.step(time), limit * time.sqrt());
        let of = |(place, mass): &(f64, f64)| {
            mass * (normal_sf((limit - place) / step) + normal_sf((limit + place) / step))
        };
        2.0 * self.places.iter().map(of).sum::<f64>()
    }

    fn go_on(&mut self, time: f64, limit: f64) {
        let (step, limit) = (self.step(time), limit * time.sqrt());
        let density = |x: f64| (-x * x / 2.0).exp() / (step * std::f64::consts::TAU.sqrt());
        let at = |x: f64| {
            let of = |(place, mass): &(f64, f64)| {
                mass * (density((x - place) / step) + density((x + place) / step))
            };
            self.places.iter().map(of).sum::<f64>()
        };
        let places = gauss_legendre(PLACES).into_iter().map(|(x, weight)| {
            let x = limit * (x + 1.0) / 2.0;
            (x, at(x) * weight * limit / 2.0)
        });
        *self = Self { time, places: places.collect() };
    }
}

/// Places and weights on -1 to 1: the zeros of the Legendre polynomial by Newton's method (Abramowitz & Stegun 25.4.29).
fn gauss_legendre(n: usize) -> Vec<(f64, f64)> {
    let of = |place: usize| {
        let mut x = (std::f64::consts::PI * (place as f64 + 0.75) / (n as f64 + 0.5)).cos();
        let mut slope = 1.0;
        for _ in 0..100 {
            let (mut last, mut value) = (0.0, 1.0);
            for k in 1..=n {
                let k = k as f64;
                (last, value) = (value, ((2.0 * k - 1.0) * x * value - (k - 1.0) * last) / k);
            }
            slope = n as f64 * (x * value - last) / (x * x - 1.0);
            let by = value / slope;
            x -= by;
            if by.abs() < 1e-15 {
                break;
            }
        }
        (x, 2.0 / ((1.0 - x * x) * slope * slope))
    };
    (0..n).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn even(looks: usize) -> Vec<f64> {
        (1..=looks).map(|look| look as f64 / looks as f64).collect()
    }

    /// The published limits of O'Brien and Fleming (Jennison & Turnbull 2000, table 2.3: 0.05, two-sided), to their four digits.
    #[test]
    fn published_limits_are_crossed_as_often_as_published() {
        let constants: [(usize, f64); 4] = [(2, 1.977), (3, 2.004), (4, 2.024), (5, 2.040)];
        for (looks, last) in constants {
            let times = even(looks);
            let limits: Vec<f64> = times.iter().map(|time| last / time.sqrt()).collect();
            let found = crossing(&times, &limits).unwrap();
            assert!((found - 0.05).abs() < 1e-4, "{looks}: {found}");
        }
        // Pocock's, of the same book's table 2.1.
        for (looks, limit) in [(2, 2.178), (5, 2.413), (10, 2.555), (20, 2.672)] {
            let found = crossing(&even(looks), &vec![limit; looks]).unwrap();
            assert!((found - 0.05).abs() < 1e-4, "{looks}: {found}");
        }
    }

    /// Limits of the spending function by `goldens/sequential.py`: nested integrals of scipy in a program of its own.
    #[test]
    fn levels_are_those_of_another_program() {
        let goldens: serde_json::Value =
            serde_json::from_str(include_str!("../tests/goldens/sequential.json")).unwrap();
        let numbers = |value: &serde_json::Value| -> Vec<f64> {
            value.as_array().unwrap().iter().map(|one| one.as_f64().unwrap()).collect()
        };
        let cases = goldens.as_array().unwrap();
        assert!(cases.len() >= 8);
        for case in cases {
            let (times, wanted) = (numbers(&case["times"]), numbers(&case["levels"]));
            let found = levels(&times, case["alpha"].as_f64().unwrap()).unwrap();
            assert_eq!(found.len(), wanted.len());
            for (found, wanted) in found.iter().zip(&wanted) {
                assert!((found - wanted).abs() <= 1e-7 * wanted, "{times:?}: {found} instead of {wanted}");
            }
        }
    }

    #[test]
    fn levels_spend_alpha_and_no_more() {
        for times in [even(1), even(2), even(30), even(60), vec![0.1, 0.11, 0.9], vec![0.5]] {
            let levels = levels(&times, 0.05).unwrap();
            let limits: Vec<f64> = levels.iter().map(|level| -normal_quantile(level / 2.0)).collect();
            let finite: Vec<f64> = limits.iter().map(|limit| limit.min(FARTHEST)).collect();
            let spent = crossing(&times, &finite).unwrap();
            let last = *times.last().unwrap();
            let wanted = 4.0 * normal_sf(-normal_quantile(0.0125) / last.sqrt());
            assert!((spent - wanted).abs() < 1e-9, "{times:?}: {spent}");
            assert!(levels.windows(2).all(|pair| pair[0] < pair[1] || times.len() == 3), "{levels:?}");
        }
        assert_eq!(levels(&[1.0], 0.05).map(|levels| (levels[0] - 0.05).abs() < 1e-9), Ok(true));
    }

    #[test]
    fn what_is_no_course_of_looks_is_refused() {
        assert_eq!(levels(&[], 0.05), Err(Error::TooFew));
        assert_eq!(levels(&[0.5, 0.5], 0.05), Err(Error::Parameter));
        assert_eq!(levels(&[0.5, 1.5], 0.05), Err(Error::Parameter));
        assert_eq!(levels(&[f64::NAN], 0.05), Err(Error::Parameter));
        assert_eq!(levels(&even(61), 0.05), Err(Error::TooMany));
        assert_eq!(crossing(&[1.0], &[]), Err(Error::Lengths));
    }
}
