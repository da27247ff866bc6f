//! Random numbers that are the same on every machine and in every version.

/// xoshiro256** (Blackman & Vigna 2021).
pub struct Xoshiro256([u64; 4]);

impl Xoshiro256 {
    /// Filled from the seed by SplitMix64, as its authors have it.
    pub fn new(seed: u64) -> Xoshiro256 {
        let mut state = seed;
        Xoshiro256(std::array::from_fn(|_| {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let z = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ z >> 31
        }))
    }

    fn next(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Less than `n`: each index is as likely as the others to within n / 2^64.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::Xoshiro256;

    /// Of the authors' code: `splitmix64.c` with seed 0 begins so.
    #[test]
    fn the_state_is_filled_by_splitmix64() {
        let expected =
            [0xE220_A839_7B1D_CDAF, 0x6E78_9E6A_A1B9_65F4, 0x06C4_5D18_8009_454F, 0xF88B_B8A8_724C_81EC];
        assert_eq!(Xoshiro256::new(0).0, expected);
    }

    /// Of the authors' code: `xoshiro256starstar.c` from the state 1, 2, 3, 4 begins so.
    #[test]
    fn numbers_are_those_of_xoshiro() {
        let mut random = Xoshiro256([1, 2, 3, 4]);
        assert_eq!([11520, 0, 1_509_978_240, 1_215_971_899_390_074_240], [(); 4].map(|()| random.next()));
    }
}
