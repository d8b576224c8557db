//! PEFT's folder: the adapter as it is, under the name of its model.
//!
//! Ranks that differ stand in `rank_pattern` and `alpha_pattern`, so that PEFT's `alpha / r` is the
//! adapter's one scale for every weight.

use std::path::Path;

use super::Error;
use crate::adapter::{Adapter, Export};
use crate::model::Config;

/// Writes the two files.
pub(super) fn write(
    adapter: &Adapter,
    config: &Config,
    base_model: &str,
    folder: &Path,
) -> Result<(), Error> {
    let export = Export {
        base_model,
        layers: config.layers,
    };
    let encoder = config.architecture.encoder();
    Ok(adapter.save_for(folder, &export, encoder)?)
}

/// Reads them back: the same adapter, to the last bit.
pub(super) fn read_back(
    adapter: &Adapter,
    config: &Config,
    folder: &Path,
) -> Result<Adapter, Error> {
    let again = Adapter::load(folder, &config.weights())?;
    if again != *adapter {
        return Err(super::error::damaged("it is another adapter"));
    }
    Ok(again)
}
