//! The shape of a model whose weights have a given size.

use anyhow::{Result, bail};

/// Bytes of an f32, which all weights and the KV cache are made of.
pub const ELEMENT: u64 = 4;

/// Per layer: queries, keys and values in one (h x 3h), output (h x h), and a feed-forward part up (h x 4h) and down
/// (4h x h). What is left over is an embedding, and a rest that is no whole row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub hidden: u64,
    pub layers: u64,
    pub embedding_rows: u64,
    pub rest: u64,
}

/// One tensor of the weights, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    pub name: String,
    pub dtype: &'static str,
    pub shape: Vec<u64>,
    pub bytes: u64,
}

impl Shape {
    /// Elements of a layer, in units of h squared.
    const LAYER: u64 = 3 + 1 + 4 + 4;
    const SMALLEST: u64 = 64;

    /// The widest model with at least two layers, of exactly `bytes`.
    pub fn of(bytes: u64) -> Result<Self> {
        let layer = |hidden: u64| Self::LAYER * hidden * hidden * ELEMENT;
        let widths = [8192, 4096, 2048, 1024, 512, 256, 128, Self::SMALLEST];
        // Two layers, and as much again for the embedding.
        let Some(hidden) = widths.into_iter().find(|hidden| 2 * layer(*hidden) + hidden * ELEMENT <= bytes)
        else {
            let least = 2 * layer(Self::SMALLEST) + Self::SMALLEST * ELEMENT;
            bail!("--weights-size {bytes}: the smallest model has {least} bytes");
        };
        let row = hidden * ELEMENT;
        // One row of an embedding there must be.
        let layers = (bytes - row) / layer(hidden);
        let left = bytes - layers * layer(hidden);
        Ok(Self { hidden, layers, embedding_rows: left / row, rest: left % row })
    }

    pub fn tensors(&self) -> Vec<Tensor> {
        let h = self.hidden;
        let matrix = |name: String, rows: u64, columns: u64| Tensor {
            name,
            dtype: "F32",
            shape: vec![rows, columns],
            bytes: rows * columns * ELEMENT,
        };
        let mut tensors = vec![matrix("embedding.weight".to_owned(), self.embedding_rows, h)];
        for layer in 0..self.layers {
            let name = |part: &str| format!("layers.{layer}.{part}.weight");
            tensors.extend([
                matrix(name("attention.qkv"), h, 3 * h),
                matrix(name("attention.output"), h, h),
                matrix(name("feed_forward.up"), h, 4 * h),
                matrix(name("feed_forward.down"), 4 * h, h),
            ]);
        }
        if self.rest > 0 {
            let (name, shape) = ("rest".to_owned(), vec![self.rest]);
            tensors.push(Tensor { name, dtype: "U8", shape, bytes: self.rest });
        }
        tensors
    }

    /// A key and a value of every layer.
    pub fn kv_bytes_per_token(&self) -> u64 {
        2 * self.layers * self.hidden * ELEMENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_have_the_requested_size() {
        for bytes in [400_000, 1 << 20, (64 << 20) + 3, 256 << 20, 14 << 30, (100 << 30) + 1] {
            let shape = Shape::of(bytes).unwrap();
            assert_eq!(shape.tensors().iter().map(|tensor| tensor.bytes).sum::<u64>(), bytes);
            assert!(shape.layers >= 2 && shape.embedding_rows >= 1, "{shape:?}");
        }
        assert!(Shape::of(1000).is_err());
    }

    #[test]
    fn a_known_shape() {
        // 48 MiB a layer; five layers leave 16 MiB: 4096 rows of 4 KiB.
        let shape = Shape::of(256 << 20).unwrap();
        assert_eq!(shape, Shape { hidden: 1024, layers: 5, embedding_rows: 4096, rest: 0 });
        assert_eq!(shape.kv_bytes_per_token(), 2 * 5 * 1024 * 4);
    }
}
