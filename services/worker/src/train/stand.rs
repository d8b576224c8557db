//! Where a learner stands, written and read: tensors and moments of steps by gradients, the scalars alone of steps by
//! forward passes.

use std::path::Path;

use domain::adapter::WeightShape;
use domain::zeroth::Scalars;
use engine::train::checkpoint::Checkpoint;
use serde::{Deserialize, Serialize};

use super::{Learner, kept::Stood};
use crate::durable;
use crate::failure::explain;

/// Steps without gradients; the scalars by their bits.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Walk {
    stood: Stood,
    scalars: Vec<u32>,
}

/// An adapter and its two moments, each as numbers and as a file.
const COPIES: u64 = 2 * 3;

impl Learner<'_> {
    /// Gives back the buffers of its steps.
    pub fn release(&mut self) {
        if let Self::FirstOrder(trainer) = self {
            trainer.release();
        }
    }

    /// Bytes that [`Learner::keep`] needs besides those of the learner, for an adapter of so many.
    pub const fn keeping_bytes(&self, adapter: u64) -> u64 {
        match self {
            Self::FirstOrder(_) => COPIES * adapter,
            Self::ZerothOrder(_) => 0,
        }
    }

    /// Writes where it stands.
    ///
    /// # Errors
    /// Why it cannot, in words.
    pub fn keep(&mut self, file: &Path, stood: &Stood) -> Result<(), String> {
        match self {
            Self::FirstOrder(trainer) => {
                let asked = serde_json::to_value(stood).map_err(|error| explain(&error))?;
                let stands = trainer.checkpoint(asked).map_err(|error| explain(&error))?;
                stands.write(file).map_err(|error| explain(&error))
            }
            Self::ZerothOrder(trainer) => {
                let scalars = trainer.scalars();
                let walk = Walk {
                    stood: stood.clone(),
                    scalars: scalars.values().iter().map(|one| one.to_bits()).collect(),
                };
                let bytes = serde_json::to_vec(&walk).map_err(|error| explain(&error))?;
                durable::write(file, &bytes).map_err(|error| explain(&error))
            }
        }
    }

    /// Goes on from what is in a file, if that `fits`. Otherwise it stands where it stood.
    ///
    /// # Errors
    /// Why it cannot, in words.
    pub fn take_up(
        &mut self,
        file: &Path,
        shapes: &[WeightShape],
        fits: impl Fn(&Stood) -> bool,
    ) -> Result<Stood, String> {
        let other = || "it is of another round, program or data".to_owned();
        match self {
            Self::FirstOrder(trainer) => {
                let stands = Checkpoint::read(file, shapes).map_err(|error| explain(&error))?;
                let stood: Stood = serde_json::from_value(stands.asked.clone())
                    .map_err(|error| explain(&error))?;
                if !fits(&stood) || stands.steps != stood.steps.len() as u64 {
                    return Err(other());
                }
                trainer.resume(&stands).map_err(|error| explain(&error))?;
                Ok(stood)
            }
            Self::ZerothOrder(trainer) => {
                let bytes = std::fs::read(file).map_err(|error| explain(&error))?;
                let Walk { stood, scalars } =
                    serde_json::from_slice(&bytes).map_err(|error| explain(&error))?;
                let scalars = scalars.into_iter().map(f32::from_bits).collect();
                let fits = fits(&stood);
                if !fits || !trainer.resume(&Scalars::new(scalars), stood.steps.len()) {
                    return Err(other());
                }
                Ok(stood)
            }
        }
    }
}
