//! A random sketch of a matrix that comes as a sum of products and is never held.
//!
//! Of `M` `[long, short]` two random products are kept: `Y = M·Ω` `[long, range]` and `Z = Ψ·M`
//! `[corange, short]`, with Ω and Ψ standard normal. Then `Q·X` is near `M`, with `Q` an orthonormal
//! basis of `Y`'s columns and `X = (ΨQ)⁺·Z`; so `X` `[range, short]` has its leading singular values.
//! Tropp, Yurtsever, Udell and Cevher, "Practical sketching algorithms for low-rank matrix
//! approximation", arXiv 1609.00048, algorithm 4.
//!
//! Ω and Ψ are made again at each use, so they are not held either.

use faer::linalg::matmul::matmul;
use faer::linalg::solvers::SolveLstsq;
use faer::{Accum, Mat, MatRef, Par};

use crate::compute::Workspace;
use crate::normal::Normals;
use crate::ops::product::{Into, View, ViewMut, multiply};

/// Columns of Y beyond the directions that are asked for.
const OVERSAMPLING: usize = 8;

/// Rows of Z for a column of Y. Two are the least that is stable; on slowly falling spectra two
/// overestimate the leading energies by a third, four are within five percent.
const COROWS: usize = 4;

/// The sizes of a sketch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    /// The larger and the smaller side of the matrix.
    long: usize,
    short: usize,
    /// Columns of Y, rows of Z.
    range: usize,
    corange: usize,
}

impl Size {
    /// For the leading `rank` directions of a matrix with these sides. The long side gets the thin
    /// factor, which is the smaller way round.
    pub(super) fn new(sides: (usize, usize), rank: usize) -> Self {
        let (long, short) = (sides.0.max(sides.1), sides.0.min(sides.1));
        let range = (rank + OVERSAMPLING).min(short);
        Self {
            long,
            short,
            range,
            corange: (COROWS * range).min(long),
        }
    }

    /// Values of Y and Z.
    pub(super) const fn values(self) -> usize {
        self.long * self.range + self.corange * self.short
    }

    /// Values of a random matrix and of its product, at most, while `tokens` are taken in.
    pub(super) fn passing(self, tokens: usize) -> usize {
        (self.short * self.range).max(self.long * self.corange) + tokens * self.corange
    }

    /// Bytes held beside the sketch while its energies are computed, about: the two and Ψ in 64 bits,
    /// and what QR and SVD make of them.
    pub(super) const fn solving_bytes(self) -> usize {
        let y = 3 * self.long * self.range;
        let z = self.corange * self.short + 2 * self.range * self.short;
        4 * self.corange * self.long + 8 * (y + z + self.corange * self.long)
    }
}

/// The sketch of one weight's gradient.
#[derive(Debug)]
pub(super) struct Sketch {
    size: Size,
    /// Whether the long side is that of the outputs.
    outputs_long: bool,
    /// The stream of Ω and that of Ψ, and the weight's number in both.
    random: [Normals; 2],
    weight: u32,
    /// `[long, range]`
    y: Vec<f32>,
    /// `[corange, short]`
    z: Vec<f32>,
}

impl Sketch {
    /// The empty sketch of a gradient `[outputs, inputs]`; `seed` and `weight` choose Ω and Ψ.
    pub(super) fn new(
        (outputs, inputs): (usize, usize),
        rank: usize,
        seed: u64,
        weight: u32,
    ) -> Self {
        let size = Size::new((outputs, inputs), rank);
        Self {
            size,
            outputs_long: outputs >= inputs,
            random: [Normals::sketch(seed, 0), Normals::sketch(seed, 1)],
            weight,
            y: vec![0.0; size.long * size.range],
            z: vec![0.0; size.corange * size.short],
        }
    }

    /// Adds `dyᵀ·x`: `dy` `[tokens, outputs]`, `x` `[tokens, inputs]`.
    pub(super) fn add(&mut self, dy: View<'_>, x: View<'_>, workspace: &mut Workspace) {
        let Size {
            long,
            short,
            range,
            corange,
        } = self.size;
        let (left, right) = if self.outputs_long { (dy, x) } else { (x, dy) };
        let tokens = left.rows();

        let omega = self.omega(workspace);
        let mut product = workspace.take(tokens * range);
        let to = ViewMut::new(&mut product, tokens, range);
        let matrix = View::new(&omega, short, range);
        multiply(to, right, matrix, 1.0, Into::Overwrite);
        let y = ViewMut::new(&mut self.y, long, range);
        let product_view = View::new(&product, tokens, range);
        multiply(y, left.t(), product_view, 1.0, Into::Add);
        workspace.give(omega);
        workspace.give(product);

        let psi = self.psi(workspace);
        let mut product = workspace.take(tokens * corange);
        let to = ViewMut::new(&mut product, tokens, corange);
        let matrix = View::new(&psi, corange, long);
        multiply(to, left, matrix.t(), 1.0, Into::Overwrite);
        let z = ViewMut::new(&mut self.z, corange, short);
        let product_view = View::new(&product, tokens, corange);
        multiply(z, product_view.t(), right, 1.0, Into::Add);
        workspace.give(psi);
        workspace.give(product);
    }

    /// The leading singular values of the mean of `count` matrices that were added, squared, the
    /// largest first; none where they are not finite.
    pub(super) fn energies(&self, rank: usize, count: usize) -> Option<Vec<f32>> {
        let Size {
            long,
            short,
            range,
            corange,
        } = self.size;
        if !self.y.iter().chain(&self.z).all(|value| value.is_finite()) {
            return None;
        }
        let basis = matrix(&self.y, long, range).qr().compute_thin_Q();
        let psi = matrix(&self.psi(&mut Workspace::default()), corange, long);
        let mut seen = Mat::zeros(corange, range);
        matmul(&mut seen, Accum::Replace, &psi, &basis, 1.0, Par::Seq);
        let x = seen.qr().solve_lstsq(matrix(&self.z, corange, short));
        let sigma = x.singular_values().ok()?;
        let energy = |sigma: f64| (sigma / count as f64).powi(2) as f32;
        let energies: Vec<f32> = sigma.into_iter().take(rank).map(energy).collect();
        energies
            .iter()
            .all(|energy| energy.is_finite())
            .then_some(energies)
    }

    /// Bytes that it holds.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        4 * (self.y.len() + self.z.len()) as u64
    }

    /// Ω `[short, range]`.
    fn omega(&self, workspace: &mut Workspace) -> Vec<f32> {
        let [omega, _] = &self.random;
        let mut values = workspace.take(self.size.short * self.size.range);
        values.fill(0.0);
        omega.add(self.weight, &mut values, 1.0);
        values
    }

    /// Ψ `[corange, long]`.
    fn psi(&self, workspace: &mut Workspace) -> Vec<f32> {
        let [_, psi] = &self.random;
        let mut values = workspace.take(self.size.corange * self.size.long);
        values.fill(0.0);
        psi.add(self.weight, &mut values, 1.0);
        values
    }
}

/// A row-major matrix in 64 bits.
fn matrix(values: &[f32], rows: usize, cols: usize) -> Mat<f64> {
    let values = MatRef::from_row_major_slice(values, rows, cols);
    Mat::from_fn(rows, cols, |i, j| f64::from(values[(i, j)]))
}
