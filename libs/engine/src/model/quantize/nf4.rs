//! NF4: four bits for a weight, NormalFloat quantiles scaled by the largest magnitude of a block.
//!
//! QLoRA (arXiv 2305.14314) as bitsandbytes computes it: blocks of 64 along the row (the last of a
//! row may be short), and the blocks' magnitudes themselves in 8 bits ("double quantization"): their
//! mean over the matrix is taken off, and 256 of them share a scale. 0.516 bytes a weight. Error of
//! a value: at most 0.152 of its block's magnitude, plus 0.0071 of the scale its magnitude shares.

use super::{ROWS, Read, by_rows, strips};

mod codebook;
mod decode;
mod encode;

use codebook::{DynamicMap, dynamic_map};

/// Values that share a magnitude.
pub(crate) const BLOCK: usize = 64;
/// Magnitudes that share a scale.
const GROUP: usize = 256;
/// Values whose codes lie together in 16 bytes: byte `j` holds value `j` in its low half and value
/// `16 + j` in its high one, so that 16 values in order are decoded at once.
const RUN: usize = 32;

/// A matrix `[rows, cols]` in NF4.
pub(crate) struct Nf4 {
    /// `[rows, run_bytes]`, two codes a byte, in runs of [`RUN`].
    codes: Vec<u8>,
    magnitudes: Magnitudes,
    rows: usize,
    cols: usize,
    map: &'static DynamicMap,
}

/// The blocks' largest magnitudes in 8 bits, row after row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Magnitudes {
    /// `[rows, blocks of a row]`, indices of the dynamic map.
    pub(crate) codes: Vec<u8>,
    /// One for each [`GROUP`] codes.
    pub(crate) scales: Vec<f32>,
    /// What was taken off all of them.
    pub(crate) offset: f32,
}

/// How many numbers of each kind a matrix has.
pub(crate) struct Sizes {
    /// Bytes of the weights' codes.
    pub(crate) codes: usize,
    /// Codes of magnitudes: one a block.
    pub(crate) magnitudes: usize,
    /// Scales of magnitudes: one a group.
    pub(crate) scales: usize,
}

/// Bytes that the codes of a row take.
const fn row_bytes(cols: usize) -> usize {
    cols.div_ceil(RUN) * (RUN / 2)
}

impl Nf4 {
    /// Quantizes the matrix that `read` gives in strips.
    ///
    /// # Errors
    /// Those of `read`.
    pub(crate) fn encode<E>(rows: usize, cols: usize, read: &mut Read<'_, E>) -> Result<Self, E> {
        let (blocks, sizes) = (cols.div_ceil(BLOCK), Self::sizes(rows, cols));
        let mut codes = vec![0; sizes.codes];
        let mut magnitudes = vec![0.0; sizes.magnitudes];
        strips(rows, cols, read, |first, values| {
            let codes = codes.get_mut(first * row_bytes(cols)..).unwrap_or_default();
            let magnitudes = magnitudes.get_mut(first * blocks..).unwrap_or_default();
            encode::rows(codes, magnitudes, values, cols);
        })?;
        Ok(Self {
            codes,
            magnitudes: encode::magnitudes(&magnitudes, dynamic_map()),
            rows,
            cols,
            map: dynamic_map(),
        })
    }

    /// The matrix of these codes and magnitudes; none if their numbers do not match.
    pub(crate) fn from_parts(
        codes: Vec<u8>,
        magnitudes: Magnitudes,
        rows: usize,
        cols: usize,
    ) -> Option<Self> {
        let sizes = Self::sizes(rows, cols);
        let whole = cols > 0
            && sizes.codes == codes.len()
            && sizes.magnitudes == magnitudes.codes.len()
            && sizes.scales == magnitudes.scales.len();
        whole.then_some(Self {
            codes,
            magnitudes,
            rows,
            cols,
            map: dynamic_map(),
        })
    }

    /// How many numbers of each kind a matrix `[rows, cols]` has; both below 2³².
    pub(crate) const fn sizes(rows: usize, cols: usize) -> Sizes {
        let magnitudes = rows * cols.div_ceil(BLOCK);
        Sizes {
            codes: rows * row_bytes(cols),
            magnitudes,
            scales: magnitudes.div_ceil(GROUP),
        }
    }

    /// The codes as they lie in memory, `[rows, run_bytes]`.
    pub(crate) fn codes(&self) -> &[u8] {
        &self.codes
    }

    pub(crate) const fn magnitudes(&self) -> &Magnitudes {
        &self.magnitudes
    }

    pub(crate) const fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) const fn cols(&self) -> usize {
        self.cols
    }

    pub(crate) fn bytes(&self) -> usize {
        self.codes.len() + self.magnitudes.codes.len() + self.magnitudes.scales.len() * 4
    }

    /// Decodes the rows from `first` on into `out` `[_, cols]`.
    pub(crate) fn decode(&self, first: usize, out: &mut [f32]) {
        by_rows(out, self.cols, |row, out| {
            let rows = self.rows_from(first + row, out);
            rows.for_each(|(out, codes, block)| {
                decode::row(out, codes, |index| self.magnitude(block + index));
            });
        });
    }

    /// The same without this machine's own instructions.
    #[cfg(test)]
    pub(crate) fn decode_portable(&self, first: usize, out: &mut [f32]) {
        by_rows(out, self.cols, |row, out| {
            let rows = self.rows_from(first + row, out);
            rows.for_each(|(out, codes, block)| {
                decode::row_portable(out, codes, |index| self.magnitude(block + index));
            });
        });
    }

    /// The rows of `out` `[_, cols]`, each with its codes and the index of its first block.
    fn rows_from<'a>(
        &'a self,
        first: usize,
        out: &'a mut [f32],
    ) -> impl Iterator<Item = (&'a mut [f32], &'a [u8], usize)> {
        let (blocks, bytes) = (self.cols.div_ceil(BLOCK), row_bytes(self.cols));
        let codes = self.codes.get(first * bytes..).unwrap_or_default();
        let rows = out
            .chunks_exact_mut(self.cols)
            .zip(codes.chunks_exact(bytes));
        rows.enumerate()
            .map(move |(row, (out, codes))| (out, codes, (first + row) * blocks))
    }

    /// The magnitude of a block, never negative.
    #[inline(always)]
    fn magnitude(&self, block: usize) -> f32 {
        let Magnitudes {
            codes,
            scales,
            offset,
        } = &self.magnitudes;
        // Invariant: `from_parts` and `encode` hold one code a block and one scale a group.
        let code = codes.get(block).copied().unwrap_or_default();
        let scale = scales.get(block / GROUP).copied().unwrap_or_default();
        (self.map.value(code) * scale + offset).max(0.0)
    }
}

#[cfg(test)]
mod tests;
