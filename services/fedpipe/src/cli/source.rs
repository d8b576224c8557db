//! The model that a command names: a path, or one of the Hub, which is brought here when it is first needed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context;
use artifacts::hub::{Config, Limits};
use artifacts::{CachedModel, Hub, ModelCache, Transfer};
use chassis::clock::Stopwatch;
use domain::hub::{self, Model};
use tokio_util::sync::CancellationToken;

use super::offline::quantized;
use crate::output;
use crate::units::bytes;

/// Bytes of all models of the Hub that are kept; the least recently used go first.
const CACHE_BYTES: u64 = 100 << 30;

/// Between two movements of the bar.
const TICK: Duration = Duration::from_millis(200);

/// Between two lines where there is no terminal.
const LINE_SECONDS: f64 = 10.0;

/// A model as a command names it.
#[derive(Debug, Clone)]
pub struct Source {
    named: Named,
    here: OnceLock<Here>,
}

#[derive(Debug, Clone)]
enum Named {
    Path(PathBuf),
    Hub(Model),
}

/// A model of the Hub on this machine.
#[derive(Debug, Clone)]
struct Here {
    pinned: Model,
    /// Kept from being dropped for as long as this process may read it.
    cached: CachedModel,
}

impl FromStr for Source {
    type Err = hub::ParseError;

    fn from_str(text: &str) -> Result<Self, hub::ParseError> {
        let named = if text.starts_with(hub::SCHEME) {
            Named::Hub(text.parse()?)
        } else {
            Named::Path(text.into())
        };
        let here = OnceLock::new();
        Ok(Self { named, here })
    }
}

impl Source {
    /// Its file or folder.
    ///
    /// # Errors
    /// If it is not there, or cannot be fetched.
    pub fn path(&self) -> anyhow::Result<&Path> {
        let model = match &self.named {
            Named::Path(path) => return Ok(path),
            Named::Hub(model) => model,
        };
        if let Some(here) = self.here.get() {
            return Ok(here.cached.path());
        }
        let fetched = fetched(model).with_context(|| format!("cannot fetch {model}"))?;
        Ok(self.here.get_or_init(|| fetched).cached.path())
    }

    /// What an adapter of it calls its base: a name that PEFT finds it by.
    pub fn base_model(&self) -> String {
        match &self.named {
            Named::Path(path) => path.display().to_string(),
            Named::Hub(model) => model.repository().to_owned(),
        }
    }

    /// A name without folders.
    pub fn short(&self) -> String {
        let (path, whole) = match &self.named {
            Named::Path(path) => (path.as_path(), path.display().to_string()),
            Named::Hub(model) => (Path::new(model.repository()), model.repository().to_owned()),
        };
        let name = match &self.named {
            Named::Path(_) => path.file_stem().or(path.file_name()),
            // A dot in it begins no extension.
            Named::Hub(_) => path.file_name(),
        };
        name.map_or(whole, |name| name.to_string_lossy().into_owned())
    }
}

/// As it was named; once it is here, by its commit.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.named, self.here.get()) {
            (Named::Path(path), _) => path.display().fmt(f),
            (Named::Hub(_), Some(here)) => here.pinned.fmt(f),
            (Named::Hub(model), None) => model.fmt(f),
        }
    }
}

/// On a thread of its own: commands that wait for others have a runtime already.
fn fetched(model: &Model) -> anyhow::Result<Here> {
    let fetch = || super::block_on(fetch(model));
    let done = std::thread::scope(|scope| scope.spawn(fetch).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

async fn fetch(model: &Model) -> anyhow::Result<Here> {
    let folder = quantized::of_user(|name| std::env::var_os(name));
    let folder = folder.context("there is no folder to keep it in: set XDG_CACHE_HOME or HOME")?;
    let cache = ModelCache::open(&folder.join("fedpipe/hub"), CACHE_BYTES)?;
    let config = Config::default().or_environment(|name| std::env::var(name).ok());
    let hub = Hub::open(&config, Limits::default())?;
    let pinned = hub.pin(model).await?;
    let transfer = Transfer::new(CancellationToken::new());
    let bar = super::model::progress("downloading", 0);
    let mut said = Stopwatch::start();
    let cached = {
        let fetch = cache.fetch_hub(&hub, &pinned, &transfer);
        tokio::pin!(fetch);
        loop {
            tokio::select! {
                fetched = &mut fetch => break fetched?,
                () = tokio::time::sleep(TICK) => {}
            }
            let (have, total) = (transfer.progress(), transfer.expected());
            bar.set_length(total);
            bar.set_position(have);
            if bar.is_hidden() && said.seconds() > LINE_SECONDS {
                said = Stopwatch::start();
                output::note(format!(
                    "downloading {pinned}: {} of {}",
                    bytes(have),
                    bytes(total)
                ));
            }
        }
    };
    bar.finish_and_clear();
    if transfer.moved() > 0 {
        output::note(format!(
            "{pinned}: {} downloaded to {}",
            bytes(transfer.moved()),
            cached.path().display()
        ));
    }
    Ok(Here { pinned, cached })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_a_path_unless_it_says_hub_and_then_it_is_spelled_right() {
        let source = |text: &str| text.parse::<Source>();
        let local = source("models/a.gguf").unwrap();
        assert_eq!(local.path().unwrap(), Path::new("models/a.gguf"));
        assert_eq!(
            (local.base_model(), local.short()),
            ("models/a.gguf".to_owned(), "a".to_owned())
        );
        let hub = source("hf://org/name-1.5@v2").unwrap();
        assert_eq!(hub.to_string(), "hf://org/name-1.5@v2");
        assert_eq!(
            (hub.base_model(), hub.short()),
            ("org/name-1.5".to_owned(), "name-1.5".to_owned())
        );
        assert!(
            source("hf://name")
                .unwrap_err()
                .to_string()
                .contains("hf://org/name@revision")
        );
    }
}
