//! Frozen matrices, in plain `f32` or in fewer bits and decoded when used.
#![expect(
    unsafe_code,
    reason = "bytes of quantized blocks are viewed as blocks, under a stated invariant"
)]

use std::ops::Range;

use candle_core::quantized::{GgmlDType, GgmlType, QTensor, k_quants};
use domain::adapter::Projection;
use half::{bf16, f16};
use rayon::prelude::*;

use super::quantize::{Bf16, Int8, Nf4};
use crate::ops::Table;
use crate::ops::side_term::SideTerm;

/// Rows that one task decodes.
const ROWS: usize = 64;

/// A frozen matrix `[rows, cols]`.
pub(crate) enum Matrix {
    Dense {
        data: Vec<f32>,
        cols: usize,
    },
    /// Stacked tensors that share their number of columns.
    Source {
        parts: Vec<QTensor>,
        rows: usize,
        cols: usize,
    },
    Bf16(Bf16),
    Int8(Int8),
    Nf4(Nf4),
}

impl Matrix {
    /// Stacks `parts`, each `[_, cols]`, in their own precision.
    pub(crate) fn source(parts: Vec<QTensor>, cols: usize) -> Self {
        let rows = parts
            .iter()
            .map(|part| part.shape().elem_count() / cols)
            .sum();
        Self::Source { parts, rows, cols }
    }

    /// The same matrix in `f32`.
    pub(crate) fn into_dense(self) -> Result<Self, candle_core::Error> {
        let (rows, cols) = (self.count(), self.width());
        let mut data = Vec::new();
        self.rows(0..rows, &mut data)?;
        if let Self::Dense { data: own, .. } = self {
            data = own;
        }
        Ok(Self::Dense { data, cols })
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Dense { data, .. } => size_of_val(data.as_slice()),
            Self::Source { parts, .. } => parts.iter().map(QTensor::storage_size_in_bytes).sum(),
            Self::Bf16(matrix) => matrix.bytes(),
            Self::Int8(matrix) => matrix.bytes(),
            Self::Nf4(matrix) => matrix.bytes(),
        }
    }
}

impl Table for Matrix {
    type Error = candle_core::Error;

    fn count(&self) -> usize {
        match self {
            Self::Dense { data, cols } => data.len() / cols,
            Self::Source { rows, .. } => *rows,
            Self::Bf16(matrix) => matrix.rows(),
            Self::Int8(matrix) => matrix.rows(),
            Self::Nf4(matrix) => matrix.rows(),
        }
    }

    fn width(&self) -> usize {
        match self {
            Self::Dense { cols, .. } | Self::Source { cols, .. } => *cols,
            Self::Bf16(matrix) => matrix.cols(),
            Self::Int8(matrix) => matrix.cols(),
            Self::Nf4(matrix) => matrix.cols(),
        }
    }

    fn rows<'a>(
        &'a self,
        range: Range<usize>,
        scratch: &'a mut Vec<f32>,
    ) -> Result<&'a [f32], candle_core::Error> {
        if let Self::Dense { data, cols } = self {
            return Ok(data
                .get(range.start * cols..range.end * cols)
                .unwrap_or_default());
        }
        // Growing fills with zeros; a scratch that is reused is filled once.
        scratch.resize(range.len() * self.width(), 0.0);
        match self {
            Self::Dense { .. } => {}
            Self::Source { parts, cols, .. } => decode_parts(parts, *cols, range, scratch)?,
            Self::Bf16(matrix) => matrix.decode(range.start, scratch),
            Self::Int8(matrix) => matrix.decode(range.start, scratch),
            Self::Nf4(matrix) => matrix.decode(range.start, scratch),
        }
        Ok(scratch)
    }
}

/// Decodes the rows of `range` of stacked `parts`, each `[_, cols]`, into `out` `[range, cols]`.
pub(crate) fn decode_parts(
    parts: &[QTensor],
    cols: usize,
    range: Range<usize>,
    mut out: &mut [f32],
) -> Result<(), candle_core::Error> {
    let mut first = 0;
    for part in parts {
        let count = part.shape().elem_count() / cols;
        let (start, end) = (
            range.start.clamp(first, first + count),
            range.end.clamp(first, first + count),
        );
        let (here, rest) = out.split_at_mut((end - start) * cols);
        decode_rows(part, cols, start - first, here)?;
        (first, out) = (first + count, rest);
    }
    Ok(())
}

/// Decodes the rows of `tensor` from `first` on into `out` `[_, cols]`.
fn decode_rows(
    tensor: &QTensor,
    cols: usize,
    first: usize,
    out: &mut [f32],
) -> Result<(), candle_core::Error> {
    let (kind, data) = (tensor.dtype(), tensor.data()?);
    let row_bytes = cols / kind.block_size() * kind.type_size();
    let bytes = data.get(first * row_bytes..).unwrap_or_default();
    let tasks = out
        .par_chunks_mut(ROWS * cols)
        .zip(bytes.par_chunks(ROWS * row_bytes));
    tasks.for_each(|(out, bytes)| {
        let bytes = bytes
            .get(..out.len() / cols * row_bytes)
            .unwrap_or_default();
        match kind {
            GgmlDType::F32 => decode::<f32>(bytes, out),
            GgmlDType::F16 => decode::<f16>(bytes, out),
            GgmlDType::BF16 => decode::<bf16>(bytes, out),
            GgmlDType::Q4_0 => decode::<k_quants::BlockQ4_0>(bytes, out),
            GgmlDType::Q4_1 => decode::<k_quants::BlockQ4_1>(bytes, out),
            GgmlDType::Q5_0 => decode::<k_quants::BlockQ5_0>(bytes, out),
            GgmlDType::Q5_1 => decode::<k_quants::BlockQ5_1>(bytes, out),
            GgmlDType::Q8_0 => decode::<k_quants::BlockQ8_0>(bytes, out),
            GgmlDType::Q8_1 => decode::<k_quants::BlockQ8_1>(bytes, out),
            GgmlDType::Q2K => decode::<k_quants::BlockQ2K>(bytes, out),
            GgmlDType::Q3K => decode::<k_quants::BlockQ3K>(bytes, out),
            GgmlDType::Q4K => decode::<k_quants::BlockQ4K>(bytes, out),
            GgmlDType::Q5K => decode::<k_quants::BlockQ5K>(bytes, out),
            GgmlDType::Q6K => decode::<k_quants::BlockQ6K>(bytes, out),
            GgmlDType::Q8K => decode::<k_quants::BlockQ8K>(bytes, out),
        }
    });
    Ok(())
}

fn decode<T: GgmlType>(bytes: &[u8], out: &mut [f32]) {
    // SAFETY: every `T` here is plain numbers in `repr(C)`, valid for any bytes; and the bytes are
    // whole blocks out of candle's own `Vec<T>`, so the middle part is all of them (asserted).
    let (before, blocks, after) = unsafe { bytes.align_to::<T>() };
    assert!(
        before.is_empty() && after.is_empty(),
        "blocks must be whole and aligned"
    );
    T::to_float(blocks, out);
}

/// Weights that share their input, stacked: q, k and v; gate and up; o; down.
pub(crate) struct Stack {
    pub(crate) matrix: Matrix,
    pub(crate) parts: Vec<StackPart>,
    /// A frozen change of the stack: not trained, and no part of any adapter.
    pub(crate) side: SideTerm,
}

/// One weight of a stack.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StackPart {
    pub(crate) projection: Projection,
    /// First row in the stack.
    pub(crate) first: usize,
    pub(crate) outputs: usize,
}
