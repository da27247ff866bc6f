//! The complementary error function, to the last digits: statrs has ten.

/// Rational approximations of Cody (1969), highest power first, as in his CALERF.
const SMALL: [[f64; 5]; 2] = [
    [
        1.857_777_061_846_031_5e-1,
        3.161_123_743_870_565_6,
        1.138_641_541_510_501_6e2,
        3.774_852_376_853_02e2,
        3.209_377_589_138_469_5e3,
    ],
    [
        1.0,
        2.360_129_095_234_412_1e1,
        2.440_246_379_344_441_7e2,
        1.282_616_526_077_372_3e3,
        2.844_236_833_439_171e3,
    ],
];
const MIDDLE: [[f64; 9]; 2] = [
    [
        2.153_115_354_744_038_5e-8,
        5.641_884_969_886_701e-1,
        8.883_149_794_388_376,
        6.611_919_063_714_163e1,
        2.986_351_381_974_001e2,
        8.819_522_212_417_69e2,
        1.712_047_612_634_070_6e3,
        2.051_078_377_826_071_5e3,
        1.230_339_354_797_997_2e3,
    ],
    [
        1.0,
        1.574_492_611_070_983_5e1,
        1.176_939_508_913_125e2,
        5.371_811_018_620_099e2,
        1.621_389_574_566_690_2e3,
        3.290_799_235_733_459_6e3,
        4.362_619_090_143_247e3,
        3.439_367_674_143_721_6e3,
        1.230_339_354_803_749_4e3,
    ],
];
const LARGE: [[f64; 6]; 2] = [
    [
        1.631_538_713_730_209_8e-2,
        3.053_266_349_612_323_4e-1,
        3.603_448_999_498_044_4e-1,
        1.257_817_261_112_292_5e-1,
        1.608_378_514_874_228e-2,
        6.587_491_615_298_378e-4,
    ],
    [
        1.0,
        2.568_520_192_289_822,
        1.872_952_849_923_467_2,
        5.279_051_029_514_284e-1,
        6.051_834_131_244_132e-2,
        2.335_204_976_268_691_8e-3,
    ],
];

/// 2/√π ∫ e^(-t²) dt from x to infinity.
pub(super) fn erfc(x: f64) -> f64 {
    let y = x.abs();
    if y <= 0.468_75 {
        return 1.0 - x * ratio(&SMALL, y * y);
    }
    let upper = if y > 30.0 {
        0.0
    } else {
        // e^(-y²) in two parts: the first square has no rounding error to be raised by.
        let part = (y * 16.0).floor() / 16.0;
        let bell = (-part * part).exp() * (-(y - part) * (y + part)).exp();
        let scaled = if y <= 4.0 {
            ratio(&MIDDLE, y)
        } else {
            let z = 1.0 / (y * y);
            (1.0 / std::f64::consts::PI.sqrt() - z * ratio(&LARGE, z)) / y
        };
        bell * scaled
    };
    if x < 0.0 { 2.0 - upper } else { upper }
}

fn ratio<const N: usize>(polynomials: &[[f64; N]; 2], x: f64) -> f64 {
    let [above, below] =
        polynomials.each_ref().map(|terms| terms.iter().fold(0.0, |sum, term| sum * x + term));
    above / below
}
