//! Training as a plain composition of candle's operations and its autograd, on any device.
//!
//! It is what other devices than the CPU run, and a second, independent reference for our own ops:
//! it shares no kernel with them. Clear before fast: rows are computed one after another, without
//! padding, and a row's logits are held whole.
//!
//! Promises: the loss and the adapter's gradient of [`crate::train::Trainer`], up to rounding; no
//! gradient of a frozen matrix is formed. (Candle forms those of the normalizations' small vectors,
//! which are dropped.)
//!
//! Does not: checkpoint, promise the same bits on two devices, or evaluate.

mod forward;
mod frozen;
mod model;
mod trainer;

#[cfg(test)]
mod tests;

use candle_core::Device;

pub use trainer::Trainer;

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// The processor, through candle.
    Cpu,
    /// The first CUDA device; needs the Cargo feature `cuda`.
    Cuda,
}

impl Place {
    fn open(self) -> Result<Device, Error> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda => Device::new_cuda(0).map_err(Error::Open),
        }
    }
}

/// Why a plain computation did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such device, or this build cannot use it.
    #[error("the device cannot be used")]
    Open(#[source] candle_core::Error),
    /// The device failed while it computed, for example for want of memory.
    #[error("the device cannot compute this")]
    Device(#[from] candle_core::Error),
    /// A family of models, or a setting, that is computed by our own operations alone.
    #[error("plain operations compute the llama architecture without scaled rotations alone")]
    Architecture,
    /// A loss that is computed by our own operations alone.
    #[error(
        "plain operations learn words, not which of a few follows: leave the choices out, or compute without the device"
    )]
    Choices,
    /// What [`crate::train::Trainer`] would refuse too.
    #[error(transparent)]
    Train(#[from] crate::train::Error),
}
