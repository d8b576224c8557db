//! The merged slices, turned within each block of ranks towards the rows that the sites had \[own\].
//!
//! The factors of a change are not unique: `B·Qᵀ` and `Q·A` have the same product for every orthogonal Q. Singular
//! directions are the worst to train on: B's columns fall off with σ, so AdamW's steps, which are alike for all
//! entries of A, move the product along the first few directions alone. Within a block of slices that every site
//! takes whole or not at all, Q is therefore the one for which `Q·A` is nearest to the rows that the sites started
//! from (the orthogonal Procrustes problem: the polar factor of `A_before·Aᵀ`; Schönemann 1966). Sites go on in the
//! basis that they had, as under an average of factors, and what they go on from is exact. Blocks end at the ranks
//! of the plan's sites, so that the leading slices of each are still the best approximation of their rank.

use faer::{Mat, MatRef};

use super::refactor::Basis;

/// Turns `left` `[out, keep]` and `v` `[inp, keep]` block by block; a block whose turn cannot be found stays.
pub(super) fn turn(left: &mut Mat<f64>, v: &mut Mat<f64>, basis: &Basis<'_>) {
    let (inp, keep) = (v.nrows(), v.ncols());
    if basis.previous.len() != inp * keep {
        return;
    }
    // As columns: row-major rows of A are column-major columns of its transpose.
    let before = Mat::from_fn(inp, keep, |k, j| {
        let value = basis.previous.get(j * inp + k);
        value.copied().map_or(0.0, f64::from)
    });
    let mut from = 0;
    for to in basis.cuts.iter().copied().chain([keep]) {
        if to <= from || to > keep {
            continue;
        }
        let block = |matrix: &Mat<f64>| matrix.get(.., from..to).to_owned();
        let (own_left, own_v) = (block(left), block(v));
        if let Some(q) = towards(before.get(.., from..to), own_v.as_ref()) {
            // The columns of V·Qᵀ are the rows of Q·A.
            left.get_mut(.., from..to)
                .copy_from(own_left * q.transpose());
            v.get_mut(.., from..to).copy_from(own_v * q.transpose());
        }
        from = to;
    }
}

/// The orthogonal Q that makes `own·Qᵀ` nearest to `before`.
fn towards(before: MatRef<'_, f64>, own: MatRef<'_, f64>) -> Option<Mat<f64>> {
    let svd = (before.transpose() * own).svd().ok()?;
    let q = svd.U() * svd.V().transpose();
    q.as_ref().is_all_finite().then_some(q)
}
