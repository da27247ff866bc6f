//! The matrix product, C = A B, in f32.

use std::ffi::c_void;

use anyhow::{Context as _, Result};
use cudarc::driver::sys::{CUdeviceptr, CUfunction};

use super::driver::call;

/// PTX, which the driver compiles for the GPU that is there. Ends with the NUL that the driver looks for.
const PTX: &str = concat!(include_str!("gemm.ptx"), "\0");
const NAME: &std::ffi::CStr = c"spark_trace_gemm";
/// Rows and columns of a tile, and threads of a block in each direction: fixed in the PTX.
const TILE: u32 = 16;
/// Blocks that a grid may have in y.
const MAX_GRID_Y: u32 = 65_535;

/// A loaded kernel. Its module is unloaded by the end of the context.
pub struct Gemm(CUfunction);

impl Gemm {
    pub fn load() -> Result<Self> {
        let (mut module, mut function) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: the text ends with a NUL, and both pointers are good for a handle.
        unsafe {
            call!(cuModuleLoadData(&mut module, PTX.as_ptr().cast())).context(
                "the driver's compiler does not take our PTX, or is missing (libnvidia-ptxjitcompiler)",
            )?;
            call!(cuModuleGetFunction(&mut function, module, NAME.as_ptr()))?;
        }
        Ok(Self(function))
    }

    /// C (m x n) = A (m x k) B (k x n), by rows, on the null stream: started, not waited for. The matrices must be
    /// device memory of at least their size.
    pub fn run(
        &self,
        [mut a, mut b, mut c]: [CUdeviceptr; 3],
        [mut m, mut n, mut k]: [u32; 3],
    ) -> Result<()> {
        let (across, down) = (n.div_ceil(TILE), m.div_ceil(TILE));
        anyhow::ensure!(down <= MAX_GRID_Y, "{m} rows are more than one launch takes");
        let mut params: [*mut c_void; 6] = [
            (&raw mut a).cast(),
            (&raw mut b).cast(),
            (&raw mut c).cast(),
            (&raw mut m).cast(),
            (&raw mut n).cast(),
            (&raw mut k).cast(),
        ];
        let (stream, none) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: the parameters are those of the kernel in number, order and type, and are read during the call; the
        // kernel stays within the matrices.
        unsafe {
            let params = params.as_mut_ptr();
            call!(cuLaunchKernel(self.0, across, down, 1, TILE, TILE, 1, 0, stream, params, none))?;
        }
        Ok(())
    }
}

/// Operations of one product: a multiplication and an addition each.
pub fn operations([m, n, k]: [u32; 3]) -> f64 {
    2.0 * f64::from(m) * f64::from(n) * f64::from(k)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_the_kernel() {
        assert!(PTX.is_ascii() && PTX.ends_with("\0") && PTX.matches('\0').count() == 1);
        assert!(PTX.contains(&format!(".entry {}(", NAME.to_str().unwrap())));
        // One step of the sum for each column of the tile.
        assert_eq!(PTX.matches("fma.rn.f32").count(), TILE as usize);
    }

    /// Every register that is used is declared: what a compiler would say first.
    #[test]
    fn registers_are_declared() {
        for (prefix, declared) in [("%p", 6), ("%f", 6), ("%r", 24), ("%rd", 16)] {
            assert!(PTX.contains(&format!("{prefix}<{declared}>")), "{prefix}");
            for (at, _) in PTX.match_indices(prefix) {
                let digits: String =
                    PTX[at + prefix.len()..].chars().take_while(char::is_ascii_digit).collect();
                if let Ok(number) = digits.parse::<u32>() {
                    assert!(number < declared, "{prefix}{number}");
                }
            }
        }
    }
}
