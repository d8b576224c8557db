//! How large the buffers of products become: for predictions of memory.

use crate::kernel::{Compute, Kernel, Unit};

/// Rows and columns are padded to this where operands are brought into words.
const BLOCK: usize = 32;

/// Bytes of each buffer of a [`Scratch`](super::Scratch).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    decoded: usize,
    left: usize,
    right: usize,
}

impl Needs {
    /// For `x` `[rows, inputs]` times the transpose of a matrix `[outputs, inputs]`.
    pub(crate) fn forward(kernel: Kernel, rows: usize, outputs: usize, inputs: usize) -> Self {
        let bytes = match kernel.compute() {
            Compute::F32 => 0,
            Compute::Bf16 => 2,
            Compute::Int8 => 1,
        };
        Self::new(kernel, bytes, (rows, inputs, outputs))
    }

    /// For `dy` `[rows, outputs]` times the matrix.
    pub(crate) fn backward(kernel: Kernel, rows: usize, outputs: usize, inputs: usize) -> Self {
        let bytes = match kernel.compute() {
            Compute::F32 => 0,
            Compute::Bf16 | Compute::Int8 => 2,
        };
        Self::new(kernel, bytes, (rows, outputs, inputs))
    }

    /// A product `[rows, inner] · [inner, cols]` whose operands take `bytes` a value.
    fn new(kernel: Kernel, bytes: usize, (rows, inner, cols): (usize, usize, usize)) -> Self {
        // Without the instructions values are rounded in `f32`.
        let (bytes, padded) = match kernel.unit() {
            Unit::Avx512Dot | Unit::Amx => (bytes, BLOCK),
            _ => (4 * bytes.min(1), 1),
        };
        let padded = |n: usize| n.next_multiple_of(padded);
        Self {
            decoded: 4 * inner * cols,
            left: bytes * padded(rows) * padded(inner),
            right: bytes * padded(inner) * padded(cols),
        }
    }

    /// The buffers after both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            decoded: self.decoded.max(other.decoded),
            left: self.left.max(other.left),
            right: self.right.max(other.right),
        }
    }

    /// All buffers; matrices in plain `f32` are not decoded.
    pub(crate) const fn bytes(self, decoded: bool) -> u64 {
        let decoded = if decoded { self.decoded } else { 0 };
        (decoded + self.left + self.right) as u64
    }
}
