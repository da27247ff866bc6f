//! Figures that can be checked by hand.

use spark_trace_statistics::{Error, LEVEL, describe, rank, t};

#[test]
fn a_small_sample_is_described() {
    let d = describe(&[4.0, 1.0, 3.0, 2.0]).unwrap();
    assert_eq!((d.n, d.mean, d.median, d.min, d.max, d.q1, d.q3), (4, 2.5, 2.5, 1.0, 4.0, 1.75, 3.25));
    assert!((d.sd.unwrap() - (5.0_f64 / 3.0).sqrt()).abs() < 1e-15);
    assert_eq!(describe(&[7.0]).unwrap().sd, None);
    assert_eq!(describe(&[]), None);
}

#[test]
fn a_difference_is_b_minus_a() {
    let (a, b) = ([1.0, 2.0, 3.0], [4.0, 5.0, 7.0]);
    for test in [t::welch(&a, &b, LEVEL), t::student(&a, &b, LEVEL), t::paired(&a, &b, LEVEL)] {
        let test = test.unwrap();
        assert!(test.statistic > 0.0 && (test.difference - 10.0 / 3.0).abs() < 1e-15, "{test:?}");
    }
    assert_eq!(rank::mann_whitney(&a, &b).unwrap().shift, 3.0);
}

#[test]
fn the_fewest_arrangements_are_counted_exactly() {
    // One of the 20 ways to split six ranks in halves, at either end.
    let test = rank::mann_whitney(&[1.0, 2.0, 3.0], &[4.0, 5.0, 7.0]).unwrap();
    assert!(test.exact && test.u == 0.0 && (test.p - 0.1).abs() < 1e-15, "{test:?}");
    // One of the 32 ways to sign five ranks, at either end.
    let test = rank::wilcoxon(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
    assert!(test.exact && test.statistic == 0.0 && (test.p - 2.0 / 32.0).abs() < 1e-15, "{test:?}");
    assert_eq!(test.shift, 3.0);
}

#[test]
fn what_does_not_vary_is_no_test() {
    let constant = [2.0; 4];
    assert_eq!(t::welch(&constant, &constant, LEVEL), Err(Error::Constant));
    assert_eq!(t::paired(&[1.0, 2.0], &[2.0, 3.0], LEVEL), Err(Error::Constant));
    assert_eq!(t::welch(&[1.0], &constant, LEVEL), Err(Error::TooFew));
    assert_eq!(t::welch(&[1.0, f64::NAN], &constant, LEVEL), Err(Error::NotFinite));
    assert_eq!(rank::mann_whitney(&constant, &constant), Err(Error::Constant));
    assert_eq!(rank::wilcoxon(&[0.0, 0.0]), Err(Error::Constant));
}
