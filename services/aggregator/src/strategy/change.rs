//! The merged change of one weight, gathered as scaled products `coefficient · B · A` and taken apart
//! into its singular values.
//!
//! Few slices are stacked: QR of both stacks, then the decomposition of the small core. Where the
//! stack would pass half of the weight's smaller width, the weight is accumulated densely instead,
//! which is then cheaper and holds memory still, however many workers there are.
#![expect(
    clippy::indexing_slicing,
    reason = "numeric kernel: `a` holds rank · inp values and `b` out · rank, as `Factors` states"
)]

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};

/// Two factors in 32 bits, row by row: `a` `[rank, inp]`, `b` `[out, rank]`.
pub(super) struct Factors {
    pub rank: usize,
    pub a: Vec<f32>,
    pub b: Vec<f32>,
}

/// `u · diag(sigma) · vᵀ`, sigma descending and complete; `u` `[out, k]` and `v` `[inp, k]` hold the
/// leading k directions that were asked for.
pub(super) struct Spectrum {
    pub u: Mat<f64>,
    pub sigma: Vec<f64>,
    pub v: Mat<f64>,
}

pub(super) enum Change {
    /// Columns of both stacks that are filled so far: `left` `[out, n]`, `right` `[inp, n]`.
    Stack {
        left: Mat<f64>,
        right: Mat<f64>,
        filled: usize,
    },
    /// The weight itself, `[out, inp]`.
    Dense(Mat<f64>),
}

impl Change {
    /// Room for `slices` rank-1 terms of a weight `[out, inp]`.
    pub(super) fn new(out: usize, inp: usize, slices: usize) -> Self {
        if 2 * slices > out.min(inp) {
            Self::dense(out, inp)
        } else {
            Self::stack(out, inp, slices)
        }
    }

    pub(super) fn dense(out: usize, inp: usize) -> Self {
        Self::Dense(Mat::zeros(out, inp))
    }

    pub(super) fn stack(out: usize, inp: usize, slices: usize) -> Self {
        Self::Stack {
            left: Mat::zeros(out, slices),
            right: Mat::zeros(inp, slices),
            filled: 0,
        }
    }

    /// Adds `coefficient[j] · b[:, j] · a[j, :]` for every slice j; a coefficient of 0 skips it.
    pub(super) fn add(&mut self, factors: &Factors, coefficients: &[f64]) {
        let rank = factors.rank;
        let used: Vec<usize> = (0..rank).filter(|j| coefficients[*j] != 0.0).collect();
        match self {
            Self::Stack {
                left,
                right,
                filled,
            } => {
                let (out, inp) = (left.nrows(), right.nrows());
                for j in used {
                    for row in 0..out {
                        let value = f64::from(factors.b[row * rank + j]);
                        left[(row, *filled)] = coefficients[j] * value;
                    }
                    for column in 0..inp {
                        right[(column, *filled)] = f64::from(factors.a[j * inp + column]);
                    }
                    *filled += 1;
                }
            }
            Self::Dense(weight) => {
                let (out, inp) = (weight.nrows(), weight.ncols());
                let b = Mat::from_fn(out, used.len(), |row, k| {
                    coefficients[used[k]] * f64::from(factors.b[row * rank + used[k]])
                });
                let a = Mat::from_fn(used.len(), inp, |k, column| {
                    f64::from(factors.a[used[k] * inp + column])
                });
                matmul(weight, Accum::Add, &b, &a, 1.0, Par::Seq);
            }
        }
    }

    /// Takes the change apart, with at most `keep` directions; `None` if the decomposition does not
    /// converge.
    pub(super) fn spectrum(&self, keep: usize) -> Option<Spectrum> {
        match self {
            Self::Dense(weight) => decompose(weight.as_ref(), keep),
            Self::Stack {
                left,
                right,
                filled,
            } if *filled == 0 => Some(Spectrum {
                u: Mat::zeros(left.nrows(), 0),
                sigma: Vec::new(),
                v: Mat::zeros(right.nrows(), 0),
            }),
            Self::Stack {
                left,
                right,
                filled,
            } => {
                let left = left.get(.., ..*filled).qr();
                let right = right.get(.., ..*filled).qr();
                let core = product(left.thin_R(), right.thin_R().transpose());
                let core = decompose(core.as_ref(), keep)?;
                Some(Spectrum {
                    u: product(left.compute_thin_Q().as_ref(), core.u.as_ref()),
                    v: product(right.compute_thin_Q().as_ref(), core.v.as_ref()),
                    sigma: core.sigma,
                })
            }
        }
    }
}

fn product(left: MatRef<'_, f64>, right: MatRef<'_, f64>) -> Mat<f64> {
    let mut result = Mat::zeros(left.nrows(), right.ncols());
    matmul(&mut result, Accum::Replace, left, right, 1.0, Par::Seq);
    result
}

fn decompose(matrix: MatRef<'_, f64>, keep: usize) -> Option<Spectrum> {
    // QR and SVD take their parallelism from faer's global setting, which is sequential in a build
    // without its `rayon` feature; a test holds that down.
    let svd = matrix.thin_svd().ok()?;
    let diagonal = svd.S().column_vector();
    let sigma: Vec<f64> = (0..diagonal.nrows()).map(|j| diagonal[j]).collect();
    let leading = keep.min(sigma.len());
    let finite = sigma.iter().all(|value| value.is_finite());
    finite.then(|| Spectrum {
        u: svd.U().get(.., ..leading).to_owned(),
        v: svd.V().get(.., ..leading).to_owned(),
        sigma,
    })
}
