//! The model on the device: weights, activations, cache; and what a batch of requests does with them.

use anyhow::{Result, ensure};
use cudarc::driver::sys::CUdeviceptr;

use super::model::{ELEMENT, Shape};
use super::weights::{Mapped, Placed};
use crate::cuda::driver::{Buffer, call, synchronize};
use crate::cuda::gemm::Gemm;
use crate::sys;

/// Rows of one product at most: longer prompts go through in parts.
pub const MAX_ROWS: u64 = 1024;

/// Our device allocations, as PyTorch counts its own.
#[derive(Debug, Default, Clone, Copy)]
pub struct Allocated {
    pub current: u64,
    pub peak: u64,
}

impl Allocated {
    pub fn take(&mut self, bytes: u64) -> Result<Buffer> {
        let buffer = Buffer::new(usize::try_from(bytes)?)?;
        self.current += bytes;
        self.peak = self.peak.max(self.current);
        Ok(buffer)
    }

    pub fn free(&mut self, buffer: Buffer) -> Result<()> {
        self.current -= buffer.bytes as u64;
        Ok(buffer.free()?)
    }
}

pub struct Weights {
    shape: Shape,
    buffers: Vec<Buffer>,
}

impl Weights {
    /// A buffer for each tensor, copied from the mapped file.
    pub fn load(shape: Shape, placed: &[Placed], file: &Mapped, allocated: &mut Allocated) -> Result<Self> {
        let mut buffers = Vec::new();
        for Placed { tensor, offset } in placed {
            let (begin, len) = (usize::try_from(*offset)?, usize::try_from(tensor.bytes)?);
            let buffer = allocated.take(tensor.bytes)?;
            let bytes = file.bytes().get(begin..begin + len);
            buffer.fill_from(0, bytes.ok_or_else(|| anyhow::anyhow!("the weights' file is cut short"))?)?;
            buffers.push(buffer);
        }
        synchronize()?;
        Ok(Self { shape, buffers })
    }

    /// Matrices of a layer: qkv, output, up, down. The embedding comes before all of them.
    fn layer(&self, layer: u64) -> Result<[CUdeviceptr; 4]> {
        let first = 1 + usize::try_from(layer)? * 4;
        let buffers = self.buffers.get(first..first + 4);
        let buffers = buffers.ok_or_else(|| anyhow::anyhow!("no layer {layer}"))?;
        Ok([0, 1, 2, 3].map(|part: usize| buffers[part].address))
    }

    pub fn free(self, allocated: &mut Allocated) -> Result<()> {
        self.buffers.into_iter().rev().try_for_each(|buffer| allocated.free(buffer))
    }
}

/// Matrices with a row for each token that is worked on.
pub struct Activations {
    rows: u64,
    /// Width h: what a layer is given and leaves.
    x: Buffer,
    /// Width 4h: what is in between.
    y: Buffer,
}

impl Activations {
    pub fn new(shape: &Shape, rows: u64, allocated: &mut Allocated) -> Result<Self> {
        let width = rows * shape.hidden * ELEMENT;
        Ok(Self { rows, x: allocated.take(width)?, y: allocated.take(4 * width)? })
    }

    pub fn free(self, allocated: &mut Allocated) -> Result<()> {
        allocated.free(self.y)?;
        allocated.free(self.x)
    }
}

/// Keys and values: for each layer, a row of 2h for each token.
pub struct Cache {
    buffer: Buffer,
    tokens: u64,
}

impl Cache {
    pub fn new(shape: &Shape, tokens: u64, allocated: &mut Allocated) -> Result<Self> {
        Ok(Self { buffer: allocated.take(tokens * shape.kv_bytes_per_token())?, tokens })
    }

    pub fn bytes(&self) -> u64 {
        self.buffer.bytes as u64
    }

    pub fn free(self, allocated: &mut Allocated) -> Result<()> {
        allocated.free(self.buffer)
    }
}

pub struct Model<'a> {
    pub gemm: &'a Gemm,
    pub weights: &'a Weights,
    pub activations: &'a Activations,
    pub cache: &'a Cache,
}

impl Model<'_> {
    /// Works on `count` tokens, whose keys and values go to the cache from token `from` on, which starts over at its
    /// end: as many requests as do not fit at once would wait for each other.
    fn forward(&self, from: u64, count: u64) -> Result<()> {
        let shape = &self.weights.shape;
        let (h, rows) = (u32::try_from(shape.hidden)?, u32::try_from(count)?);
        let (x, y) = (self.activations.x.address, self.activations.y.address);
        ensure!(count <= self.activations.rows, "{count} rows are more than there is room for");
        self.embed(count)?;
        let from = from % (self.cache.tokens + 1 - count.min(self.cache.tokens));
        for layer in 0..shape.layers {
            let [qkv, output, up, down] = self.weights.layer(layer)?;
            self.gemm.run([x, qkv, y], [rows, 3 * h, h])?;
            self.store(layer, from, count.min(self.cache.tokens))?;
            self.gemm.run([y, output, x], [rows, h, h])?;
            self.gemm.run([x, up, y], [rows, 4 * h, h])?;
            self.gemm.run([y, down, x], [rows, h, 4 * h])?;
        }
        Ok(())
    }

    /// Rows of the embedding, over and over: which ones makes no difference to memory.
    fn embed(&self, count: u64) -> Result<()> {
        let row = self.weights.shape.hidden * ELEMENT;
        let mut done = 0;
        while done < count {
            let rows = (count - done).min(self.weights.shape.embedding_rows);
            let to = self.activations.x.address + done * row;
            let from = self.weights.buffers[0].address;
            // SAFETY: `rows` rows are in the embedding, and so many are left in the activations.
            unsafe { call!(cuMemcpyDtoD_v2(to, from, usize::try_from(rows * row)?))? };
            done += rows;
        }
        Ok(())
    }

    /// As many bytes as keys and values have, from the product to the cache.
    fn store(&self, layer: u64, from: u64, count: u64) -> Result<()> {
        let row = 2 * self.weights.shape.hidden * ELEMENT;
        let to = self.cache.buffer.address + (layer * self.cache.tokens + from) * row;
        let bytes = usize::try_from(count * row)?;
        // SAFETY: from + count tokens are in the cache, and the product has 3h of 4h for each row.
        unsafe { call!(cuMemcpyDtoD_v2(to, self.activations.y.address, bytes))? };
        Ok(())
    }

    /// A batch of requests, from prompts to the last token of the answers. False after a signal to stop on the way.
    #[inline(never)]
    pub fn answer(&self, batch: u64, prompt: u64, output: u64) -> Result<bool> {
        self.prefill(batch * prompt)?;
        self.decode(batch, batch * prompt, output)
    }

    #[inline(never)]
    fn prefill(&self, tokens: u64) -> Result<()> {
        let mut done = 0;
        while done < tokens && sys::stop_signal().is_none() {
            let count = (tokens - done).min(self.activations.rows);
            self.forward(done, count)?;
            done += count;
        }
        Ok(synchronize()?)
    }

    #[inline(never)]
    fn decode(&self, batch: u64, from: u64, output: u64) -> Result<bool> {
        for token in 0..output {
            if sys::stop_signal().is_some() {
                return Ok(false);
            }
            self.forward(from + token * batch, batch)?;
            // Each token is needed before the next one can be begun.
            synchronize()?;
        }
        Ok(true)
    }
}
