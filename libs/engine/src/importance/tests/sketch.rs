//! Sketches against the matrices that they stand for.

use faer::Mat;

use crate::compute::Workspace;
use crate::importance::sketch::Sketch;
use crate::ops::check::random;
use crate::ops::product::View;

/// `[rows, cols]` with the given singular values, row by row.
fn with_spectrum(rows: usize, cols: usize, sigma: &[f64]) -> Vec<f32> {
    let turn = |rows: usize, seed| {
        let values = random(rows * sigma.len(), seed);
        let random = Mat::from_fn(rows, sigma.len(), |i, j| {
            f64::from(values[i * sigma.len() + j])
        });
        random.qr().compute_thin_Q()
    };
    let (left, right) = (turn(rows, 1), turn(cols, 2));
    let scaled = Mat::from_fn(rows, sigma.len(), |i, j| left[(i, j)] * sigma[j]);
    let whole = scaled * right.transpose();
    let cells = (0..rows * cols).map(|at| whole[(at / cols, at % cols)] as f32);
    cells.collect()
}

/// The energies of a sketch of rank `rank` that saw the matrix in three parts.
fn sketched(matrix: &[f32], (rows, cols): (usize, usize), rank: usize) -> Vec<f32> {
    let mut sketch = Sketch::new((rows, cols), rank, 3, 5);
    let mut workspace = Workspace::default();
    let mut first = 0;
    for tokens in [1, rows / 3, rows - 1 - rows / 3] {
        // Some rows of the identity pick their rows of the matrix.
        let mut pick = vec![0.0; tokens * rows];
        for (token, row) in pick.chunks_exact_mut(rows).enumerate() {
            row[first + token] = 1.0;
        }
        let part = &matrix[first * cols..][..tokens * cols];
        let (dy, x) = (
            View::new(&pick, tokens, rows),
            View::new(part, tokens, cols),
        );
        sketch.add(dy, x, &mut workspace);
        first += tokens;
    }
    sketch.energies(rank, 1).unwrap()
}

fn sum(energies: &[f32]) -> f64 {
    energies.iter().copied().map(f64::from).sum()
}

#[test]
fn a_sketch_of_a_matrix_of_low_rank_is_exact() {
    for (rows, cols) in [(64, 300), (300, 64), (100, 100)] {
        let sigma = [5.0, 3.0, 2.9, 0.5, 0.02];
        let energies = sketched(&with_spectrum(rows, cols, &sigma), (rows, cols), 8);
        assert_eq!(energies.len(), 8);
        for (got, sigma) in energies.iter().zip(sigma.iter().chain([0.0; 3].iter())) {
            let want = sigma * sigma;
            let error = (f64::from(*got) - want).abs();
            assert!(error < 1e-4 * want + 1e-9, "{rows}: {got}, want {want}");
        }
    }
}

/// A gradient falls like one of these or faster; the slowest is the worst for a sketch.
#[test]
fn a_sketch_of_a_matrix_of_full_rank_tells_its_leading_energy() {
    type Spectrum = fn(f64) -> f64;
    let spectra: [(f64, Spectrum); 3] = [
        (0.06, |j| (-j / 16.0).exp()),
        (0.03, |j| 1.0 / j),
        (0.12, |j| 1.0 / j.sqrt()),
    ];
    for (tolerance, spectrum) in spectra {
        let sigma: Vec<f64> = (1..=192).map(|j| spectrum(f64::from(j))).collect();
        for (rows, cols) in [(192, 576), (576, 192)] {
            let energies = sketched(&with_spectrum(rows, cols, &sigma), (rows, cols), 32);
            for rank in [1, 4, 16, 32] {
                let want: f64 = sigma.iter().take(rank).map(|sigma| sigma * sigma).sum();
                let error = (sum(&energies[..rank]) / want - 1.0).abs();
                assert!(error < tolerance, "{rows} rank {rank}: off by {error}");
            }
        }
    }
}

#[test]
fn a_sketch_of_nothing_is_worth_nothing() {
    assert_eq!(sketched(&vec![0.0; 40 * 30], (40, 30), 4), [0.0; 4]);
}
