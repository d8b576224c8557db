//! Configuration in four layers: defaults < TOML file < environment < flags.
//!
//! The caller's type is one struct with `#[serde(default, deny_unknown_fields)]` at every level; a
//! key it does not have is refused, and the error names the key and the layer it came from.
//!
//! Environment: `FEDPIPE_NATS__URL` is the key `nats.url`. A variable without `__` is read only if
//! it names a top-level key that is not a table (`FEDPIPE_CACHE_BYTES` is `cache_bytes`); any other
//! is not configuration (`FEDPIPE_TOOLS`, `FEDPIPE_FAILPOINT`) and is left alone. A value is plain
//! text read as the field's type, so a password of digits stays a text; where the default is a list
//! or a table it is written `[a, b]` or `{a=b}`.
//!
//! Flags: any serializable value; what is `None` was not given. A type of flags carries secrets as
//! `String`, because a [`Secret`] serializes as `***`.

mod layer;
mod shared;

use std::path::{Path, PathBuf};

use figment::{Figment, error::Kind};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use domain::secret::Secret;
pub use shared::{Format, Health, Liveness, Telemetry};

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("the configuration file {path} is not valid TOML")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A key that does not exist, or a value that does not fit.
    #[error("{place}: {key}: {reason}")]
    Invalid {
        /// The layer: the file's path, the environment variable, the command line.
        place: String,
        /// The key with dots, `nats.url`.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// The configuration cannot be written as TOML.
    #[error("the configuration cannot be written as TOML")]
    Dump(#[source] toml::ser::Error),
}

/// Reads the four layers.
///
/// # Errors
/// [`Error`]: an unreadable file, an unknown key, a value of the wrong type.
pub fn load<T>(file: Option<&Path>, flags: &impl Serialize) -> Result<T, Error>
where
    T: Serialize + DeserializeOwned + Default,
{
    // A variable that is not UTF-8 cannot be one of ours, whose names and values are text.
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    load_from(file, variables, flags)
}

/// [`load`] with the environment as a parameter.
///
/// # Errors
/// As [`load`].
pub fn load_from<T>(
    file: Option<&Path>,
    variables: impl IntoIterator<Item = (String, String)>,
    flags: &impl Serialize,
) -> Result<T, Error>
where
    T: Serialize + DeserializeOwned + Default,
{
    let defaults = layer::defaults(&T::default())?;
    let shape = defaults.dict.clone();
    let mut figment = Figment::from(defaults);
    if let Some(path) = file {
        figment = figment.merge(layer::file(path)?);
    }
    for variable in layer::environment(variables, &shape) {
        figment = figment.merge(variable);
    }
    figment = figment.merge(layer::flags(flags)?);
    // Lossy: text of the environment becomes the number or the bool that the field asks for.
    figment
        .extract_lossy()
        .map_err(|error| explain(error, &figment))
}

/// The configuration as TOML, secrets as `***`.
///
/// # Errors
/// [`Error::Dump`] for a value TOML has no form for, such as a number above 2^63.
pub fn dump<T: Serialize>(config: &T) -> Result<String, Error> {
    toml::to_string(config).map_err(Error::Dump)
}

fn explain(error: figment::Error, figment: &Figment) -> Error {
    let mut path = error.path.clone();
    if let Kind::UnknownField(name, _) = &error.kind
        && path.last() != Some(name)
    {
        path.push(name.clone());
    }
    let key = path.join(".");
    let place = figment
        .find_metadata(&key)
        .or(error.metadata.as_ref())
        .map_or_else(|| "configuration".to_owned(), |m| m.name.to_string());
    let reason = match error.kind {
        Kind::UnknownField(_, known) => format!("no such key; known are {}", known.join(", ")),
        kind => kind.to_string(),
    };
    Error::Invalid { place, key, reason }
}

#[cfg(test)]
mod tests;
