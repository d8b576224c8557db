//! A step in either way of training, so that both are measured by the same rounds.

use std::path::Path;

use domain::adapter::RankTable;
use domain::job::aggregation::Trains;
use domain::job::spec::{Optimizer, Training};
use domain::zeroth::{Scalars, Steps};
use engine::control::Control;
use engine::model::Model;
use engine::train::{Emphasis, Options};

use crate::failure::Failure;
use crate::train::{self, How, Learner, Passes};

/// How a measured round computes, beside the base and the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// First- or zeroth-order; never `auto`.
    pub optimizer: Optimizer,
    /// Whether activations are recomputed block by block.
    pub checkpoint: bool,
}

impl Way {
    /// Gradients, activations kept.
    pub const PLAIN: Self = Self {
        optimizer: Optimizer::Adamw,
        checkpoint: false,
    };
    /// Gradients, activations recomputed.
    pub const CHECKPOINT: Self = Self {
        optimizer: Optimizer::Adamw,
        checkpoint: true,
    };
    /// Two forward passes.
    pub const ZEROTH: Self = Self {
        optimizer: Optimizer::Mezo,
        checkpoint: false,
    };

    /// The ways that the job leaves open, in the order in which they are measured. Recomputing changes no
    /// result, so it is always open beside gradients.
    #[must_use]
    pub fn open(asked: Optimizer) -> Vec<Self> {
        match asked {
            Optimizer::Auto => vec![Self::PLAIN, Self::CHECKPOINT, Self::ZEROTH],
            Optimizer::Adamw => vec![Self::PLAIN, Self::CHECKPOINT],
            Optimizer::Sgd => [Self::PLAIN, Self::CHECKPOINT]
                .map(|way| Self {
                    optimizer: Optimizer::Sgd,
                    ..way
                })
                .into(),
            Optimizer::Mezo => vec![Self::ZEROTH],
        }
    }
}

/// Starts from the leading slices of the adapter in `global`, at rate 0: a step costs what any step costs, and
/// the adapter stays the job's start.
pub fn begin<'m>(
    model: &'m Model,
    (global, ranks): (&Path, &RankTable),
    way: Way,
    training: &Training,
    control: &Control,
) -> Result<Learner<'m>, Failure> {
    let how = if way.optimizer == Optimizer::Mezo {
        let steps = Steps {
            rate: 0.0,
            // All directions: what a step takes at most.
            variance: 0.0,
            ..Steps::of(training, training.seed)
        };
        How::ZerothOrder(Passes {
            steps,
            first: 0,
            abreast: 1,
            emphasis: emphasis(training, &steps),
        })
    } else {
        let options = Options {
            // The copy that it pulls back to is the planner's to count, so that a measurement holds for
            // every job that asks the same otherwise.
            proximal: 0.0,
            ..train::options(training, (way.optimizer, way.checkpoint))
        };
        How::FirstOrder(options)
    };
    // The scale changes no cost; the fresh adapter's change is zero.
    Learner::begin(model, (global, 1.0), ranks, how, control)
}

/// One that costs what that of a round does: what is multiplied by has the size of the adapter, whatever it is.
fn emphasis(training: &Training, steps: &Steps) -> Emphasis {
    let mezo = &training.mezo;
    let mut emphasis = Emphasis::default();
    if mezo.scaling.is_some() || mezo.mask.is_some() {
        let past = Scalars::new(vec![1.0; usize::from(steps.perturbations)]);
        let steps = Steps {
            rate: 1.0,
            ..*steps
        };
        emphasis = emphasis.scaled(0.5, [(&steps, 0, &past)]);
    }
    emphasis
}

/// Makes what a round would send, at its largest: both factors, whichever the job's rule trains.
pub fn finish(learner: Learner<'_>, way: Way, training: &Training) -> Result<(), Failure> {
    if training.sends_scalars(way.optimizer) {
        drop(learner.scalars(!training.shares_directions())?);
    } else {
        drop(learner.tensors(Trains::Both)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_job_fixes_is_the_only_optimizer_that_is_measured() {
        assert_eq!(Way::open(Optimizer::Mezo), [Way::ZEROTH]);
        assert_eq!(Way::open(Optimizer::Auto).len(), 3);
        let first = Way::open(Optimizer::Adamw);
        assert_eq!(first, [Way::PLAIN, Way::CHECKPOINT]);
        let straight = Way::open(Optimizer::Sgd);
        assert_eq!(straight.len(), 2);
        assert!(straight.iter().all(|way| way.optimizer == Optimizer::Sgd));
    }
}
