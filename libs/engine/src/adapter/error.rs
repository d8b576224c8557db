//! Why an adapter cannot be read, written or used.

use std::io;
use std::path::PathBuf;

use domain::adapter::WeightName;

/// Why an adapter cannot be read, written or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written.
    #[error("cannot access {}", path.display())]
    Access {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The tensor file is damaged.
    #[error("adapter_model.safetensors is damaged")]
    Tensors(#[source] safetensors::SafeTensorError),
    /// The configuration is not one of PEFT's.
    #[error("adapter_config.json is damaged")]
    Config(#[source] serde_json::Error),
    /// The configuration asks for something that this engine does not compute.
    #[error("unsupported adapter configuration: {what}")]
    Unsupported {
        /// What it asks for.
        what: String,
    },
    /// A tensor that must be there is not.
    #[error("adapter tensor {key} is missing")]
    Missing {
        /// PEFT's key.
        key: String,
    },
    /// A tensor that must not be there is.
    #[error("unexpected adapter tensor {key}")]
    Extra {
        /// Its key.
        key: String,
    },
    /// A tensor has the wrong shape.
    #[error("adapter tensor {key} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// PEFT's key.
        key: String,
        /// The shape it must have.
        expected: Vec<usize>,
        /// The shape it has.
        found: Vec<usize>,
    },
    /// A weight that the model does not have, or that is not adapted.
    #[error("there is no {name} to adapt")]
    UnknownWeight {
        /// The weight.
        name: WeightName,
    },
    /// More slices were asked for than there are.
    #[error("{name} has rank {available}, {asked} was asked for")]
    Rank {
        /// The weight.
        name: WeightName,
        /// The rank asked for.
        asked: u16,
        /// The rank it has.
        available: u16,
    },
    /// The scale is not one positive number for all weights.
    #[error("the adapter's scale must be one positive number for all weights")]
    Scale,
}
