//! From a merged change back to two factors, so that the result is defined and nothing dies.
//!
//! `A = ρ·Vᵀ` and `B = U·Σ/(s·ρ)`, with ρ the row norm of a fresh A; the entry of largest magnitude in
//! each column of U is positive, ties going to the lowest index. A slice with σ_j < 1e-6·σ_1 would
//! give A a direction that is rounding noise and B nothing: it restarts as B = 0 and a seeded row of A
//! orthogonal to the others. Where every σ is zero, A is kept.
#![expect(
    clippy::indexing_slicing,
    reason = "numeric kernel: `a` holds keep · inp values and `b` out · keep, allocated here"
)]

use super::FRESH_ROW_NORM;
use super::change::Spectrum;
use super::stream::Stream;

/// Share of σ_1 under which a slice restarts.
pub(super) const DEAD: f64 = 1e-6;

/// Norm of what is left of a unit row under which it counts as dependent on the others.
const DEPENDENT: f64 = 1e-3;

/// Rows drawn for one restart at most.
const DRAWS: usize = 8;

/// The factors kept, row by row, and the energy (σ²) of each slice and of the whole change.
pub(super) struct Refactored {
    /// `[keep, inp]`.
    pub a: Vec<f32>,
    /// `[out, keep]`.
    pub b: Vec<f32>,
    pub energies: Vec<f64>,
    pub energy: f64,
}

/// Keeps `keep` slices. `previous` is the A that stays if there is no change at all.
pub(super) fn refactor(
    spectrum: &Spectrum,
    keep: usize,
    scale: f64,
    previous: Vec<f32>,
    stream: &mut Stream,
) -> Refactored {
    let (out, inp) = (spectrum.left.nrows(), spectrum.v.nrows());
    let largest = spectrum.sigma.first().copied().unwrap_or(0.0);
    let mut b = vec![0.0f32; out * keep];
    if largest == 0.0 {
        return Refactored {
            a: previous,
            b,
            energies: vec![0.0; keep],
            energy: 0.0,
        };
    }
    let alive = |sigma: &&f64| **sigma >= DEAD * largest;
    let kept = spectrum.sigma.iter().take(keep).take_while(alive).count();
    let mut rows: Vec<Vec<f64>> = Vec::with_capacity(keep);
    for j in 0..kept {
        let sign = sign_of_largest((0..out).map(|row| spectrum.left[(row, j)]));
        for row in 0..out {
            let value = sign * spectrum.left[(row, j)] / (scale * FRESH_ROW_NORM);
            b[row * keep + j] = value as f32;
        }
        rows.push((0..inp).map(|k| sign * spectrum.v[(k, j)]).collect());
    }
    for _ in kept..keep {
        let row = restart(&rows, inp, stream);
        rows.push(row);
    }
    let a = rows.iter().flatten().map(|v| (FRESH_ROW_NORM * v) as f32);
    let mut energies: Vec<f64> = spectrum.sigma.iter().take(kept).map(|s| s * s).collect();
    energies.resize(keep, 0.0);
    Refactored {
        a: a.collect(),
        b,
        energies,
        energy: spectrum.energy,
    }
}

/// −1 if the value of largest magnitude is negative, else 1; the first of equals decides.
fn sign_of_largest(values: impl Iterator<Item = f64>) -> f64 {
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
