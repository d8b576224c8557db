//! How strongly the loss pulls at each weight that is trained, by what the optimizer holds anyway.
//!
//! AdamW's first moment of B is the mean of the last gradients, smoothed by β₁. What it tells of the frozen
//! weight's own gradient: [`domain::energy`].

use domain::adapter::WeightName;
use domain::energy::EnergyTable;

use crate::compute::Changes;
use crate::model::Model;
use crate::ops::lora_linear::{Factors, Part};

/// Energies of the weights of `now`, whose B have these first moments; `corrected` is what AdamW divides them by
/// to make up for their start at zero.
pub(super) fn energies(
    model: &Model,
    now: &Changes,
    first: &Changes,
    corrected: f64,
) -> EnergyTable {
    let scale = f64::from(now.scale) * corrected;
    let mut table = Vec::new();
    let blocks = (0u16..)
        .zip(model.blocks())
        .zip(&now.blocks)
        .zip(&first.blocks);
    for (((layer, block), now), first) in blocks {
        for ((stack, now), first) in block.stacks.iter().zip(now).zip(first) {
            for (part, moment) in now.parts.iter().zip(&first.parts) {
                let place = stack.parts.iter().find(|place| place.first == part.column);
                if let Some(place) = place {
                    let name = WeightName::new(layer, place.projection);
                    let energy = squares(&moment.b) / (scale * scale * mean_row(now, part));
                    table.push((
                        name,
                        if energy.is_finite() {
                            energy as f32
                        } else {
                            0.0
                        },
                    ));
                }
            }
        }
    }
    table.into_iter().collect()
}

/// `‖A‖²/in` of one weight; 0 without an A.
fn mean_row(factors: &Factors, part: &Part) -> f64 {
    let inp = factors.a.len() / factors.rank().max(1);
    let own = factors.a.chunks_exact(inp.max(1));
    let own = own.skip(part.first).take(part.rank);
    own.map(squares).sum::<f64>() / inp as f64
}

fn squares(values: &[f32]) -> f64 {
    values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum()
}
