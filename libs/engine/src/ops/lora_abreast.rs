//! A frozen linear layer over rows in equal parts, each with a low-rank change of its own: several passes of a
//! zeroth-order step as one.

use super::Table;
use super::frozen::{self, Frozen, Scratch};
use super::lora_linear::Change;
use super::product::{View, ViewMut};

/// As [`super::lora_linear::forward`] of rows in equal parts, one after the other, each with a change of its own and all of one rank:
/// the product with the frozen weight takes them together.
///
/// # Errors
/// The frozen weight cannot be decoded.
///
/// # Panics
/// The slices' lengths do not match.
pub fn forward<T: Table>(
    y: &mut [f32],
    low: &mut [f32],
    x: &[f32],
    frozen: Frozen<'_, T>,
    changes: &[Change<'_>],
    scratch: &mut Scratch,
) -> Result<(), T::Error> {
    let (inputs, outputs) = (frozen.weight.width(), frozen.weight.count());
    let tokens = x.len() / inputs;
    let whole = ViewMut::new(y, tokens, outputs);
    frozen::forward(
        whole,
        View::new(x, tokens, inputs),
        frozen,
        0..outputs,
        scratch,
    )?;
    let each = tokens / changes.len().max(1);
    let rank = changes.first().map_or(0, |change| change.factors.rank());
    if each * rank == 0 {
        return Ok(());
    }
    let rows = y.chunks_exact_mut(each * outputs);
    let rows = rows.zip(low.chunks_exact_mut(each * rank));
    let rows = rows.zip(x.chunks_exact(each * inputs));
    for (change, ((y, low), x)) in changes.iter().zip(rows) {
        change.add(y, outputs, low, View::new(x, each, inputs));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::lora_linear::{self, Factors, Part};
    use super::*;
    use crate::kernel::{Compute, Kernel};
    use crate::ops::Dense;
    use crate::ops::check::random;

    /// Five rows a part, three parts.
    #[test]
    fn each_part_is_what_it_would_be_alone() {
        let (inputs, outputs, tokens, parts) = (32, 7, 5, 3);
        let weight = random(outputs * inputs, 1);
        let weight = Dense {
            data: &weight,
            width: inputs,
        };
        let frozen = Frozen {
            weight: &weight,
            kernel: Kernel::best(Compute::F32),
        };
        let factors: Vec<Factors> = (0..parts as u64)
            .map(|part| Factors {
                a: random(2 * inputs, 10 + part),
                parts: vec![Part {
                    column: 3,
                    outputs: 4,
                    first: 0,
                    rank: 2,
                    b: random(8, 20 + part),
                }],
            })
            .collect();
        let changes = |factors| Change {
            factors,
            scale: 0.7,
        };
        let all: Vec<Change<'_>> = factors.iter().map(changes).collect();
        let x = random(parts * tokens * inputs, 2);
        let (mut y, mut low) = (
            vec![9.0; parts * tokens * outputs],
            vec![9.0; parts * tokens * 2],
        );
        let mut scratch = Scratch::default();
        forward(&mut y, &mut low, &x, frozen, &all, &mut scratch).unwrap();
        for (part, change) in all.iter().enumerate() {
            let x = &x[part * tokens * inputs..(part + 1) * tokens * inputs];
            let (mut own, mut own_low) = (vec![9.0; tokens * outputs], vec![9.0; tokens * 2]);
            let change = Some(*change);
            lora_linear::forward(&mut own, &mut own_low, x, frozen, change, &mut scratch).unwrap();
            let got = &y[part * tokens * outputs..(part + 1) * tokens * outputs];
            for (got, own) in got.iter().zip(&own) {
                assert!((got - own).abs() < 1e-5, "part {part}: {got}, alone {own}");
            }
            assert_eq!(low[part * tokens * 2..(part + 1) * tokens * 2], own_low);
        }
    }
}
