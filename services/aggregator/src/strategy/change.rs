//! The merged change of one weight, gathered as scaled products `coefficient · B · A` and taken apart
//! into its singular values.
//!
//! Few slices are kept side by side, as `L·Rᵀ`; where they would pass half of the weight's smaller width
//! the weight itself is summed, a batch of slices at a time, which is then cheaper and holds memory
//! still, however many workers there are. Both lie in the same buffer, which a thread keeps from weight
//! to weight.
//!
//! Singular values come from Gram matrices in 64 bits: of the weight's smaller side, or of both sides of
//! the stack. A direction's own σ is the norm of what the change does to it, so that directions under
//! 1e-8 of the largest are noise of that size and nothing else is lost: far under the 1e-6 at which a
//! slice restarts, and the 6e-8 to which its factors are stored.
#![expect(
    clippy::indexing_slicing,
    reason = "numeric kernel: `a` holds rank · inp values and `b` out · rank, as `Factors` states; \
              columns of a gathering lie one after the other in buffers made for `room` of them"
)]

use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, Mat, MatMut, MatRef, Par};

use super::directions::Directions;
use super::eigen::{Eigen, touch};

/// Slices that are added to a summed weight in one product.
const BATCH: usize = 256;

/// Eigenvalues of a Gram matrix under this share of the largest are rounding.
const ROUNDING: f64 = 1e-14;

/// Two factors in 32 bits, row by row: `a` `[rank, inp]`, `b` `[out, rank]`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Factors {
    pub rank: usize,
    pub a: Vec<f32>,
    pub b: Vec<f32>,
}

impl Factors {
    pub(super) fn is_finite(&self) -> bool {
        self.a.iter().chain(&self.b).all(|value| value.is_finite())
    }
}

/// The leading directions of a change: `left` is U·Σ `[out, k]`, `v` `[inp, k]`.
pub(super) struct Spectrum {
    pub left: Mat<f64>,
    /// Descending, k of them.
    pub sigma: Vec<f64>,
    pub v: Mat<f64>,
    /// Σσ² over all directions, kept or not.
    pub energy: f64,
}

/// What one thread computes in, from weight to weight.
#[derive(Debug, Default)]
pub(super) struct Space {
    left: Vec<f64>,
    right: Vec<f64>,
    weight: Vec<f64>,
    gram: Vec<f64>,
    eigen: Eigen,
}

impl Space {
    /// Takes the memory for a weight `[out, inp]` now, stacked or summed: a merge that begins has what it
    /// needs, and needs no more for more workers.
    pub(super) fn reserve(&mut self, out: usize, inp: usize) {
        let small = out.min(inp);
        let room = BATCH.max(small / 2);
        touch(&mut self.left, out * room);
        touch(&mut self.right, inp * room);
        touch(&mut self.weight, out * inp);
        touch(&mut self.gram, small * small);
        self.eigen.reserve(small);
    }
}

/// A change being gathered.
pub(super) struct Change<'s> {
    out: usize,
    inp: usize,
    space: &'s mut Space,
    /// Columns that are filled.
    filled: usize,
    /// Columns there is room for.
    room: usize,
    summed: bool,
    /// Sum of the squares of what the terms would be if none cancelled another.
    gross: f64,
}

impl<'s> Change<'s> {
    /// Room for `slices` rank-1 terms of a weight `[out, inp]`.
    pub(super) fn new(out: usize, inp: usize, slices: usize, space: &'s mut Space) -> Self {
        if 2 * slices > out.min(inp) {
            Self::summed(out, inp, space)
        } else {
            Self::stacked(out, inp, slices, space)
        }
    }

    /// Summed into the weight itself.
    pub(super) fn summed(out: usize, inp: usize, space: &'s mut Space) -> Self {
        clear(&mut space.weight, out * inp);
        Self::with_room(out, inp, BATCH, true, space)
    }

    /// Kept side by side.
    pub(super) fn stacked(out: usize, inp: usize, slices: usize, space: &'s mut Space) -> Self {
        Self::with_room(out, inp, slices, false, space)
    }

    fn with_room(out: usize, inp: usize, room: usize, summed: bool, space: &'s mut Space) -> Self {
        touch(&mut space.left, out * room);
        touch(&mut space.right, inp * room);
        Self {
            out,
            inp,
            space,
            filled: 0,
            room,
            summed,
            gross: 0.0,
        }
    }

    /// Whether the weight itself is summed.
    #[cfg(test)]
    pub(super) const fn is_summed(&self) -> bool {
        self.summed
    }

    /// The Frobenius norm that the terms would have if they were orthogonal: what cancels leaves
    /// rounding of this size.
    pub(super) fn gross(&self) -> f64 {
        self.gross.sqrt()
    }

    /// Adds `coefficient[j] · b[:, j] · a[j, :]` for every slice j; a coefficient of 0 skips it.
    pub(super) fn add(&mut self, factors: &Factors, coefficients: &[f64]) {
        let used: Vec<usize> = (0..factors.rank.min(coefficients.len()))
            .filter(|j| coefficients[*j] != 0.0)
            .collect();
        let mut rest = used.as_slice();
        while !rest.is_empty() {
            if self.filled == self.room {
                if !self.summed {
                    // More slices than were announced: the sum has room for any number.
                    self.unstack();
                }
                self.flush();
            }
            let (now, later) = rest.split_at(rest.len().min(self.room - self.filled));
            self.copy(factors, coefficients, now);
            rest = later;
        }
    }

    fn copy(&mut self, factors: &Factors, coefficients: &[f64], slices: &[usize]) {
        let Self {
            out, inp, filled, ..
        } = *self;
        let left = &mut self.space.left[filled * out..];
        for (row, values) in factors.b.chunks_exact(factors.rank).enumerate() {
            for (k, j) in slices.iter().enumerate() {
                left[k * out + row] = coefficients[*j] * f64::from(values[*j]);
            }
        }
        let right = &mut self.space.right[filled * inp..];
        for (column, j) in right.chunks_exact_mut(inp).zip(slices) {
            let row = &factors.a[j * inp..][..inp];
            for (to, value) in column.iter_mut().zip(row) {
                *to = f64::from(*value);
            }
        }
        let square = |column: &[f64]| column.iter().map(|value| value * value).sum::<f64>();
        for k in 0..slices.len() {
            self.gross += square(&left[k * out..][..out]) * square(&right[k * inp..][..inp]);
        }
        self.filled += slices.len();
    }

    fn unstack(&mut self) {
        clear(&mut self.space.weight, self.out * self.inp);
        self.summed = true;
    }

    /// Adds what is gathered to the weight.
    fn flush(&mut self) {
        let Self {
            out, inp, filled, ..
        } = *self;
        if filled == 0 {
            return;
        }
        let left = MatRef::from_column_major_slice(&self.space.left[..out * filled], out, filled);
        let right = MatRef::from_column_major_slice(&self.space.right[..inp * filled], inp, filled);
        let weight = &mut self.space.weight[..out * inp];
        let weight = MatMut::from_column_major_slice_mut(weight, out, inp);
        matmul(weight, Accum::Add, left, right.transpose(), 1.0, Par::Seq);
        self.filled = 0;
    }

    /// Takes the change apart, with at most `keep` directions; `None` if that does not converge.
    pub(super) fn spectrum(&mut self, keep: usize) -> Option<Spectrum> {
        if self.summed {
            self.flush();
        }
        let Self {
            out, inp, filled, ..
        } = *self;
        let Space {
            left,
            right,
            weight,
            gram,
            eigen,
        } = &mut *self.space;
        if self.summed {
            let weight = MatRef::from_column_major_slice(&weight[..out * inp], out, inp);
            return of_weight(weight, keep, gram, eigen);
        }
        let left = MatRef::from_column_major_slice(&left[..out * filled], out, filled);
        let right = MatRef::from_column_major_slice(&right[..inp * filled], inp, filled);
        of_stack(left, right, keep, gram, eigen)
    }

    /// Every direction with σ above `floor`, as far as it is no rounding; `None` if that does not converge.
    pub(super) fn directions(&mut self, floor: f64) -> Option<Directions<'_>> {
        if !self.summed {
            let spectrum = self.spectrum(usize::MAX)?;
            return Some(Directions::of_spectrum(spectrum, floor));
        }
        self.flush();
        let Self { out, inp, .. } = *self;
        let Space {
            weight,
            gram,
            eigen,
            ..
        } = &mut *self.space;
        let weight = MatRef::from_column_major_slice(&weight[..out * inp], out, inp);
        Directions::of_weight(weight, floor, gram, eigen)
    }
}

/// `W` by the eigenvectors of the Gram matrix of its smaller side.
fn of_weight(
    weight: MatRef<'_, f64>,
    keep: usize,
    buffer: &mut Vec<f64>,
    eigen: &mut Eigen,
) -> Option<Spectrum> {
    let energy = weight.squared_norm_l2();
    let wide = weight.nrows() <= weight.ncols();
    let turned = if wide { weight } else { weight.transpose() };
    let own = eigen
        .leading(lower_gram(buffer, turned.transpose()), keep)?
        .1;
    let other = product(turned.transpose(), own.as_ref());
    let sigma = norms(&other);
    let (left, v) = if wide {
        (scaled(&own, &sigma), divided(&other, &sigma))
    } else {
        (other, own)
    };
    sorted(left, sigma, v, energy)
}

/// `L·Rᵀ`: with `RᵀR = E·Λ·Eᵀ` the columns of `R·E·Λ^-½` are orthonormal, so that the singular values
/// are those of `L·E·Λ^½`.
fn of_stack(
    left: MatRef<'_, f64>,
    right: MatRef<'_, f64>,
    keep: usize,
    buffer: &mut Vec<f64>,
    eigen: &mut Eigen,
) -> Option<Spectrum> {
    let (out, inp, filled) = (left.nrows(), right.nrows(), left.ncols());
    let nothing = Spectrum {
        left: Mat::zeros(out, 0),
        sigma: Vec::new(),
        v: Mat::zeros(inp, 0),
        energy: 0.0,
    };
    if filled == 0 {
        return Some(nothing);
    }
    let (lambda, e) = eigen.leading(lower_gram(buffer, right), filled)?;
    let largest = lambda.first().copied().unwrap_or(0.0);
    let sound = |value: &&f64| **value > ROUNDING * largest;
    let count = lambda.iter().take_while(sound).count();
    if count == 0 {
        return Some(nothing);
    }
    let roots: Vec<f64> = lambda
        .iter()
        .take(count)
        .map(|value| value.sqrt())
        .collect();
    let e = e.get(.., ..count).to_owned();
    let up = scaled(&e, &roots);
    let half = product(whole_gram(buffer, left), up.as_ref());
    let core = product(up.transpose(), half.as_ref());
    let energy = (0..count).map(|j| core[(j, j)]).sum();
    let (_, w) = eigen.leading(core.as_ref(), keep)?;
    let turned = product(left, product(up.as_ref(), w.as_ref()).as_ref());
    let down = divided(&e, &roots);
    let v = product(right, product(down.as_ref(), w.as_ref()).as_ref());
    let sigma = norms(&turned);
    sorted(turned, sigma, v, energy)
}

/// The lower triangle of `MᵀM`; the rest is whatever the buffer held.
pub(super) fn lower_gram<'b>(buffer: &'b mut Vec<f64>, matrix: MatRef<'_, f64>) -> MatRef<'b, f64> {
    let size = matrix.ncols();
    touch(buffer, size * size);
    let gram = MatMut::from_column_major_slice_mut(&mut buffer[..size * size], size, size);
    triangular::matmul(
        gram,
        BlockStructure::TriangularLower,
        Accum::Replace,
        matrix.transpose(),
        BlockStructure::Rectangular,
        matrix,
        BlockStructure::Rectangular,
        1.0,
        Par::Seq,
    );
    MatRef::from_column_major_slice(&buffer[..size * size], size, size)
}

/// All of `MᵀM`.
fn whole_gram<'b>(buffer: &'b mut Vec<f64>, matrix: MatRef<'_, f64>) -> MatRef<'b, f64> {
    lower_gram(buffer, matrix);
    let size = matrix.ncols();
    let mut gram = MatMut::from_column_major_slice_mut(&mut buffer[..size * size], size, size);
    for column in 0..size {
        for row in 0..column {
            gram[(row, column)] = gram[(column, row)];
        }
    }
    MatRef::from_column_major_slice(&buffer[..size * size], size, size)
}

fn clear(buffer: &mut Vec<f64>, count: usize) {
    touch(buffer, count);
    buffer[..count].fill(0.0);
}

pub(super) fn product(left: MatRef<'_, f64>, right: MatRef<'_, f64>) -> Mat<f64> {
    let mut result = Mat::zeros(left.nrows(), right.ncols());
    matmul(&mut result, Accum::Replace, left, right, 1.0, Par::Seq);
    result
}

pub(super) fn norms(matrix: &Mat<f64>) -> Vec<f64> {
    (0..matrix.ncols())
        .map(|j| matrix.col(j).norm_l2())
        .collect()
}

fn scaled(matrix: &Mat<f64>, by: &[f64]) -> Mat<f64> {
    Mat::from_fn(matrix.nrows(), matrix.ncols(), |row, j| {
        matrix[(row, j)] * by[j]
    })
}

fn divided(matrix: &Mat<f64>, by: &[f64]) -> Mat<f64> {
    let inverse: Vec<f64> = by
        .iter()
        .map(|value| if *value > 0.0 { 1.0 / value } else { 0.0 })
        .collect();
    scaled(matrix, &inverse)
}

/// Directions by descending σ: eigenvalues that are nearly equal may stand the other way round.
fn sorted(left: Mat<f64>, sigma: Vec<f64>, v: Mat<f64>, energy: f64) -> Option<Spectrum> {
    if !sigma.iter().all(|value| value.is_finite()) {
        return None;
    }
    let mut order: Vec<usize> = (0..sigma.len()).collect();
    order.sort_by(|x, y| sigma[*y].total_cmp(&sigma[*x]));
    Some(Spectrum {
        left: Mat::from_fn(left.nrows(), order.len(), |row, j| left[(row, order[j])]),
        v: Mat::from_fn(v.nrows(), order.len(), |row, j| v[(row, order[j])]),
        sigma: order.iter().map(|j| sigma[*j]).collect(),
        energy,
    })
}
