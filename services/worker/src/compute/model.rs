//! The loaded model: kept between tasks and rounds, dropped before another is loaded.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use artifacts::CachedModel;
use chassis::failpoint::{self, Failpoint};
use chassis::memory;
use contract::message::task::ModelRef;
use domain::cause::Trouble;
use domain::job::spec::Base;
use engine::adapter::{Adapter, Head};
use engine::kernel::Kernel;
use engine::model::{Cache, Inspected, LoadOptions, Model};

use super::Bench;
use crate::failure::Failure;
use crate::size::mib;

/// What a loaded model was loaded from and for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Which model.
    pub model: ModelRef,
    /// Precision of the frozen base; never `auto`.
    pub base: Base,
    /// Arithmetic of the products with it.
    pub kernel: Kernel,
    /// Compute threads.
    pub threads: u16,
}

/// A model's files on this machine.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    path: PathBuf,
    /// Keeps the files in the cache while they are used.
    _cached: Option<CachedModel>,
}

impl ModelFiles {
    /// A file or folder of the site's own.
    #[must_use]
    pub const fn own(path: PathBuf) -> Self {
        let _cached = None;
        Self { path, _cached }
    }

    /// Where they are.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl From<CachedModel> for ModelFiles {
    fn from(cached: CachedModel) -> Self {
        Self {
            path: cached.path().to_owned(),
            _cached: Some(cached),
        }
    }
}

/// A model in memory.
#[derive(Debug)]
pub struct Loaded {
    key: Key,
    model: Model,
    base_memory_bytes: u64,
    /// The engine may read the files as long as the model lives.
    _files: ModelFiles,
}

impl Loaded {
    /// The model.
    #[must_use]
    pub const fn model(&self) -> &Model {
        &self.model
    }

    /// Has the model apply a merged adapter's side term as if it were part of the base, until it is asked
    /// for again.
    ///
    /// # Errors
    /// If the term does not fit the model.
    pub fn set_side(&mut self, side: &Adapter) -> Result<(), Failure> {
        Ok(self.model.set_side(Some(side))?)
    }

    /// Has an encoder classify by this head where an adapter brings none.
    ///
    /// # Errors
    /// If the head does not fit the model.
    pub fn set_head(&mut self, head: Head) -> Result<(), Failure> {
        Ok(self.model.set_head(head)?)
    }

    /// Bytes that counted against the limit when it was loaded and nothing computed yet.
    #[must_use]
    pub const fn base_memory_bytes(&self) -> u64 {
        self.base_memory_bytes
    }
}

impl Bench {
    /// Whether this model is in memory already.
    #[must_use]
    pub fn holds(&self, key: &Key) -> bool {
        self.loaded
            .as_ref()
            .is_some_and(|loaded| loaded.key == *key)
    }

    /// Drops the model that is loaded, with all its buffers.
    pub fn unload(&mut self) {
        self.loaded = None;
    }

    /// Drops the model that is loaded, if it is another, and looks whether this one can fit. Files that
    /// cannot be read are left to the loading to complain of.
    ///
    /// # Errors
    /// Out of memory, with what is missing at least.
    pub fn make_room(
        &mut self,
        key: &Key,
        files: &ModelFiles,
        limit_bytes: u64,
    ) -> Result<(), Failure> {
        if self.holds(key) {
            return Ok(());
        }
        self.loaded = None;
        let Ok(inspected) = Model::inspect(&files.path) else {
            return Ok(());
        };
        let loading = loading_bytes(&inspected, key.base);
        let needed = memory::data_bytes().saturating_add(loading);
        if needed <= limit_bytes {
            return Ok(());
        }
        let detail = format!(
            "the model alone needs {} with what the process has, and it may use {}: at least {} are missing",
            mib(needed),
            mib(limit_bytes),
            mib(needed - limit_bytes),
        );
        Err(Failure::new(Trouble::OutOfMemory, detail))
    }

    /// The model without any side term, loaded unless it is there.
    ///
    /// # Errors
    /// If its files cannot be used, or the plan asks for a precision or threads that are not there.
    pub fn model(&mut self, key: &Key, files: &ModelFiles) -> Result<&mut Loaded, Failure> {
        if !self.holds(key) {
            // Two models at once would need memory that no plan counts.
            self.loaded = None;
            self.loaded = Some(load(key, files, self.quantized.clone())?);
        }
        let missing = || Failure::new(Trouble::Internal, "the loaded model is gone");
        let loaded = self.loaded.as_mut().ok_or_else(missing)?;
        loaded.model.set_side(None)?;
        Ok(loaded)
    }
}

fn load(key: &Key, files: &ModelFiles, cache: Option<Cache>) -> Result<Loaded, Failure> {
    let base = held(key.base)?;
    let threads = NonZeroUsize::new(usize::from(key.threads))
        .ok_or_else(|| Failure::new(Trouble::PlanUnsupported, "0 threads"))?;
    failpoint::hit(Failpoint::WorkerModelWhileLoading);
    tracing::info!(path = %files.path.display(), ?base, threads, "loading the model");
    let options = LoadOptions {
        base,
        kernel: key.kernel,
        cache,
        threads,
    };
    let loaded = Model::load(&files.path, &options);
    let model = loaded.map_err(|error| match error {
        engine::model::Error::Threads(_) => Failure::of(Trouble::PlanUnsupported, &error),
        _ => Failure::of(Trouble::ModelUnusable, &error),
    })?;
    let base_memory_bytes = memory::data_bytes();
    tracing::info!(base_memory_bytes, "model loaded");
    Ok(Loaded {
        key: key.clone(),
        model,
        base_memory_bytes,
        _files: files.clone(),
    })
}

/// Bytes that a process takes more once it has loaded a model in this base.
#[must_use]
pub fn loading_bytes(inspected: &Inspected, base: Base) -> u64 {
    let held = held(base).unwrap_or_default();
    engine::memory::loading(&inspected.config, inspected.bytes, held)
}

/// How the engine holds a base.
fn held(base: Base) -> Result<engine::model::Base, Failure> {
    match base {
        Base::Source => Ok(engine::model::Base::Source),
        Base::F32 => Ok(engine::model::Base::F32),
        Base::Bf16 => Ok(engine::model::Base::Bf16),
        Base::Int8 => Ok(engine::model::Base::Int8),
        Base::Nf4 => Ok(engine::model::Base::Nf4),
        Base::Auto => {
            let detail = "a plan must name its base";
            Err(Failure::new(Trouble::PlanUnsupported, detail))
        }
    }
}
