//! The kernels that this driver can play, known by name: it does not read their code.

use std::ffi::{c_uint, c_void};

use crate::abi::{Done, Error, Kernel};
use crate::state::lock;

/// Threads of a block in x and in y, and so elements of a tile.
const TILE: c_uint = 16;

pub struct Launch {
    pub grid: [c_uint; 3],
    pub block: [c_uint; 3],
    pub params: *mut *mut c_void,
}

impl Launch {
    /// The parameter at `index`, in the order of the kernel's signature.
    fn param<T: Copy>(&self, index: usize) -> T {
        // SAFETY: the caller of cuLaunchKernel vouches for a pointer to a value for each of the kernel's parameters,
        // and their types are those of its signature; alignment is not promised.
        unsafe { self.params.add(index).read().cast::<T>().read_unaligned() }
    }
}

pub fn run(kernel: Kernel, launch: &Launch) -> Done {
    match kernel {
        Kernel::Gemm => gemm(launch),
    }
}

fn gemm(launch: &Launch) -> Done {
    if launch.block != [TILE, TILE, 1] || launch.grid.contains(&0) {
        return Err(Error::INVALID_VALUE);
    }
    let [m, n, k] = [3, 4, 5].map(|index| launch.param::<u32>(index) as usize);
    let matrix = |index: usize, rows: usize, columns: usize| {
        let bytes = rows.checked_mul(columns).and_then(|count| count.checked_mul(4));
        let bytes = bytes.ok_or(Error::ILLEGAL_ADDRESS)?;
        let range = lock()?.blocks.range(launch.param(index), bytes);
        range.map(std::ptr::with_exposed_provenance_mut::<f32>).map_err(|_| Error::ILLEGAL_ADDRESS)
    };
    let (a, b, c) = (matrix(0, m, k)?, matrix(1, k, n)?, matrix(2, m, n)?);
    // Threads beyond the matrix do nothing, and neither does anybody beyond the grid.
    let reach = |blocks: c_uint| blocks as usize * TILE as usize;
    let (rows, columns) = (m.min(reach(launch.grid[1])), n.min(reach(launch.grid[0])));
    let mut sums = vec![0_f32; columns];
    for row in 0..rows {
        sums.fill(0.0);
        for inner in 0..k {
            // SAFETY: row < m, inner < k and columns <= n, so these lie in the blocks just looked up. A program that
            // frees them while a kernel runs breaks the contract that it has with a GPU, too.
            let (factor, line) = unsafe {
                (a.add(row * k + inner).read(), std::slice::from_raw_parts(b.add(inner * n), columns))
            };
            for (sum, value) in sums.iter_mut().zip(line) {
                *sum += factor * value;
            }
        }
        // SAFETY: as above; and nothing else points into `sums`.
        unsafe { c.add(row * n).copy_from_nonoverlapping(sums.as_ptr(), columns) };
    }
    Ok(())
}
