//! Which object storage a command works with.

use std::path::PathBuf;

use anyhow::Context;
use artifacts::Store;
use clap::Args as Arguments;
use toml::Table;

use crate::up;

/// The storage of an `up` on this machine, or another.
#[derive(Debug, Arguments)]
pub struct Args {
    /// Storage file: TOML with url, endpoint, access_key, secret_key …
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "state"])]
    storage: Option<PathBuf>,
    /// Configuration of a service, whose [storage] is used
    #[arg(long, value_name = "FILE", conflicts_with = "state")]
    config: Option<PathBuf>,
    /// State folder of `fedpipe up`, whose storage is used
    #[arg(long, value_name = "DIR", default_value = up::DEFAULT_STATE, env = "FEDPIPE_STATE")]
    state: PathBuf,
}

impl Args {
    /// Opens it; nothing is sent yet.
    pub fn open(&self) -> anyhow::Result<Store> {
        let config = match (&self.storage, &self.config) {
            (Some(file), _) => up::storage_file(file)?.try_into()?,
            (None, Some(file)) => {
                let shown = file.display();
                let text = std::fs::read_to_string(file)
                    .with_context(|| format!("cannot read {shown}"))?;
                let table: Table =
                    toml::from_str(&text).with_context(|| format!("{shown} is not TOML"))?;
                let storage = table
                    .get("storage")
                    .with_context(|| format!("{shown} has no [storage]"))?;
                storage.clone().try_into()?
            }
            (None, None) => up::storage_of(&self.state)?,
        };
        Ok(Store::open(&config)?)
    }
}
