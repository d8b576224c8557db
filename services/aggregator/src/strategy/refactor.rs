//! From a merged change back to two factors, so that the result is defined and nothing dies.
//!
//! `A = ρ·Vᵀ` and `B = U·Σ/(s·ρ)`, with ρ the row norm of a fresh A; the entry of largest magnitude in
//! each column of U is positive, ties going to the lowest index. A slice with σ_j < 1e-6·σ_1 would
//! give A a direction that is rounding noise and B nothing: it restarts as B = 0 and a seeded row of A
//! orthogonal to the others. Where every σ is zero, A is kept. Sites train on from the factors, which
//! are turned for it ([`super::turn`]).

use faer::Mat;

use super::FRESH_ROW_NORM;
use super::change::Spectrum;
use super::stream::Stream;
use super::turn::turn;

/// Share of σ_1 under which a slice restarts.
pub(super) const DEAD: f64 = 1e-6;

/// Norm of what is left of a unit row under which it counts as dependent on the others.
const DEPENDENT: f64 = 1e-3;

/// Rows drawn for one restart at most.
const DRAWS: usize = 8;

/// What the sites had, and will have.
pub(super) struct Basis<'a> {
    /// A `[keep, inp]` that they started from: it stays if there is no change at all.
    pub previous: Vec<f32>,
    /// Ranks at which they take their leading slices, ascending, below `keep`.
    pub cuts: &'a [usize],
}

/// The factors kept, row by row, and the energy (σ²) of each slice and of the whole change.
pub(super) struct Refactored {
    /// `[keep, inp]`.
    pub a: Vec<f32>,
    /// `[out, keep]`.
    pub b: Vec<f32>,
    /// Those of the leading slices up to a cut add up to what these slices hold.
    pub energies: Vec<f64>,
    pub energy: f64,
}

/// Keeps `keep` slices: the singular directions, turned within the basis for sites to go on from.
pub(super) fn refactor(
    spectrum: &Spectrum,
    keep: usize,
    scale: f64,
    basis: Basis<'_>,
    stream: &mut Stream,
) -> Refactored {
    let (out, inp) = (spectrum.left.nrows(), spectrum.v.nrows());
    let largest = spectrum.sigma.first().copied().unwrap_or(0.0);
    if largest == 0.0 {
        return Refactored {
            a: basis.previous,
            b: vec![0.0; out * keep],
            energies: vec![0.0; keep],
            energy: 0.0,
        };
    }
    let alive = |sigma: &&f64| **sigma >= DEAD * largest;
    let kept = spectrum.sigma.iter().take(keep).take_while(alive).count();
    let mut left = Mat::zeros(out, keep);
    let mut rows: Vec<Vec<f64>> = Vec::with_capacity(keep);
    for j in 0..kept {
        let sign = sign_of_largest(spectrum.left.col(j).iter().copied());
        left.col_mut(j)
            .copy_from(faer::Scale(sign) * spectrum.left.col(j));
        rows.push(spectrum.v.col(j).iter().map(|value| sign * value).collect());
    }
    for _ in kept..keep {
        let row = restart(&rows, inp, stream);
        rows.push(row);
    }
    let mut v = Mat::from_fn(inp, keep, |k, j| value(&rows, j, k));
    turn(&mut left, &mut v, &basis);
    let by_row = |matrix: &Mat<f64>, factor: f64| -> Vec<f32> {
        let rows = matrix.row_iter();
        rows.flat_map(|row| {
            row.iter()
                .map(|value| (factor * value) as f32)
                .collect::<Vec<_>>()
        })
        .collect()
    };
    Refactored {
        a: by_row(&v.transpose().to_owned(), FRESH_ROW_NORM),
        b: by_row(&left, 1.0 / (scale * FRESH_ROW_NORM)),
        energies: left
            .col_iter()
            .map(|column| column.squared_norm_l2())
            .collect(),
        energy: spectrum.energy,
    }
}

fn value(rows: &[Vec<f64>], row: usize, at: usize) -> f64 {
    let value = rows.get(row).and_then(|row| row.get(at));
    value.copied().unwrap_or(0.0)
}

/// −1 if the value of largest magnitude is negative, else 1; the first of equals decides.
pub(super) fn sign_of_largest(values: impl Iterator<Item = f64>) -> f64 {
    let mut largest = 0.0f64;
    for value in values {
        if value.abs() > largest.abs() {
            largest = value;
        }
    }
    if largest < 0.0 { -1.0 } else { 1.0 }
}

/// A unit row orthogonal to `rows`; where they span everything already, any unit row.
fn restart(rows: &[Vec<f64>], inp: usize, stream: &mut Stream) -> Vec<f64> {
    for _ in 0..DRAWS {
        let drawn = unit(stream.row(inp));
        if rows.len() >= inp {
            return drawn;
        }
        // Twice, because one pass leaves rounding errors of the size of what was taken away.
        let rest = without(rows, without(rows, drawn));
        if norm(&rest) > DEPENDENT {
            return unit(rest);
        }
    }
    unit(stream.row(inp))
}

fn without(rows: &[Vec<f64>], mut vector: Vec<f64>) -> Vec<f64> {
    for row in rows {
        let along: f64 = row.iter().zip(&vector).map(|(r, v)| r * v).sum();
        for (value, r) in vector.iter_mut().zip(row) {
            *value -= along * r;
        }
    }
    vector
}

fn norm(vector: &[f64]) -> f64 {
    vector.iter().map(|value| value * value).sum::<f64>().sqrt()
}

fn unit(vector: Vec<f64>) -> Vec<f64> {
    let length = norm(&vector);
    if length > 0.0 {
        vector.into_iter().map(|value| value / length).collect()
    } else {
        vector
    }
}
