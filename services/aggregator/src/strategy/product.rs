//! The product rule \[own; the pieces are known\]: what is merged is the change itself, `ΔW_{t+1}` of
//! [`super::merge`], which is then taken apart into its best approximation of the kept rank and turned to the basis
//! that the sites had.
//!
//! The global's slice j (counted from 1) stays with the weight `1 − Σ_{i: r_i ≥ j} c_i`. Averaging the
//! products instead would shrink the slices that only large workers hold, round after round
//! (raFLoRA, arXiv 2602.13486).

use super::Error;
use super::change::{Change, Space};
use super::merge::Merged;
use super::refactor::{Basis, refactor};
use super::stream::Purpose;
use super::weight::Weight;

pub(super) fn merge(weight: &Weight<'_>, space: &mut Space) -> Result<Merged, Error> {
    let live = weight.loaded()?.live;
    let staying = weight.stays().iter().filter(|share| **share != 0.0).count();
    let slices = staying + weight.updated();
    let mut change = Change::new(weight.shape.out, weight.shape.inp, slices, space);
    weight.gather(&live, &mut change)?;
    let spectrum = change
        .spectrum(weight.keep)
        .ok_or_else(|| weight.undecomposed())?;
    let mut stream = weight.stream(Purpose::Restart);
    let scale = weight.merge.scale;
    let basis = Basis {
        previous: live.a,
        cuts: &weight.cuts(),
    };
    let kept = refactor(&spectrum, weight.keep, scale, basis, &mut stream);
    Ok(Merged {
        whole: super::change::Factors {
            rank: weight.keep,
            a: kept.a,
            b: kept.b,
        },
        energies: kept.energies,
        energy: kept.energy,
        ..Merged::default()
    })
}
