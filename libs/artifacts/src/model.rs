//! Models in storage: `models/<digest>/manifest` and `models/<digest>/parts/…`.
//!
//! A model is a file (GGUF) or a folder (Hugging Face); its name is the digest of its manifest, so
//! the same files are the same model wherever they were pushed from. Fetching is
//! [`crate::ModelCache`]'s work.

use std::path::{Path, PathBuf};

use domain::artifact::Digest;
use domain::object::model_prefix;
use futures::{StreamExt, TryStreamExt, stream};

use crate::manifest::{MANIFEST_BYTES, Manifest};
use crate::source::{Content, blocking, digest_of};
use crate::upload::invalid;
use crate::{Error, Store, Transfer, key, manifest};

/// Where all models lie.
const MODELS: &str = "models";
/// Manifests that are read at the same time for a list.
const READ_AT_ONCE: usize = 4;

/// A model in storage.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ModelRef {
    /// Its name: the digest of its manifest.
    pub digest: Digest,
    /// Length of its files together.
    pub bytes: u64,
    /// The paths of its files.
    pub files: Vec<String>,
}

impl ModelRef {
    fn of(digest: Digest, manifest: &Manifest) -> Self {
        let files = manifest
            .files()
            .iter()
            .map(|file| file.path.clone())
            .collect();
        Self {
            digest,
            bytes: manifest.bytes(),
            files,
        }
    }
}

impl Store {
    /// Stores a model: one file, or all files below a folder, links followed, hidden ones (`.git`)
    /// left out. Calling it again sends only what is missing.
    ///
    /// # Errors
    /// Whatever storage or the local files refuse; [`Error::Manifest`] if there are no files, too
    /// many, or one whose name cannot travel.
    pub async fn push_model(&self, path: &Path, transfer: &Transfer) -> Result<ModelRef, Error> {
        let root = path.to_owned();
        let mut found = blocking(move || files_below(&root)).await?;
        found.sort();
        let mut files = Vec::with_capacity(found.len());
        let mut contents = Vec::with_capacity(found.len());
        for (name, path) in found {
            let content = Content::File(path);
            files.push(content.describe(name, transfer).await?);
            contents.push(content);
        }
        let what = path.display().to_string();
        let manifest = Manifest::new(files).map_err(|e| invalid(&what, e))?;
        let digest = manifest.digest().map_err(|e| invalid(&what, e))?;
        let prefix = model_prefix(&digest);
        let key = manifest_key(&digest);
        self.seal(&key, &prefix, &manifest, &contents, transfer)
            .await?;
        Ok(ModelRef::of(digest, &manifest))
    }

    /// Every sealed model, in the order of their digests.
    ///
    /// # Errors
    /// Whatever keeps the storage from answering. A model whose manifest is corrupt is logged and
    /// left out.
    pub async fn list_models(&self) -> Result<Vec<ModelRef>, Error> {
        let models = object_store::path::Path::from(MODELS);
        let listed = match self.reads.list_with_delimiter(Some(&models)).await {
            Ok(listed) => listed.common_prefixes,
            Err(object_store::Error::NotFound { .. }) => Vec::new(),
            Err(e) => return Err(Error::storage(&self.place, MODELS, e)),
        };
        // A plain loop first: a lazy closure across an await hides that this can change threads.
        let mut digests = Vec::new();
        for prefix in listed {
            let hex = prefix.filename().unwrap_or_default();
            digests.extend(format!("sha256:{hex}").parse::<Digest>().ok());
        }
        let listed: Vec<Option<ModelRef>> = stream::iter(digests)
            .map(|digest| self.listed_model(digest))
            .buffer_unordered(READ_AT_ONCE)
            .try_collect()
            .await?;
        let mut models: Vec<ModelRef> = listed.into_iter().flatten().collect();
        models.sort_by(|a, b| a.digest.cmp(&b.digest));
        Ok(models)
    }

    async fn listed_model(&self, digest: Digest) -> Result<Option<ModelRef>, Error> {
        match self.model_manifest(&digest).await {
            Ok(manifest) => Ok(Some(ModelRef::of(digest, &manifest))),
            // Not sealed: a push that is under way or was given up.
            Err(Error::NotFound { .. }) => Ok(None),
            Err(
                error @ (Error::Manifest { .. } | Error::Corrupt { .. } | Error::TooLarge { .. }),
            ) => {
                tracing::warn!(%digest, %error, "model left out of the list");
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// The manifest of this model, verified against its name.
    ///
    /// # Errors
    /// [`Error::NotFound`] if no such model was pushed; [`Error::Corrupt`] or [`Error::Manifest`]
    /// if storage lies.
    pub async fn model_manifest(&self, digest: &Digest) -> Result<Manifest, Error> {
        let key = manifest_key(digest);
        let text = self.get_small(&key, MANIFEST_BYTES).await?;
        let found = digest_of(&text);
        if found != *digest {
            return Err(Error::Corrupt {
                key,
                expected: digest.clone(),
                found,
            });
        }
        Manifest::parse(&text).map_err(|e| invalid(&key, e))
    }

    /// The beginning of one of a model's files: whole parts until there are `least` bytes, or all of a shorter file.
    /// It is what describes a model, without the model.
    ///
    /// # Errors
    /// Whatever storage refuses; [`Error::Corrupt`] if it lies.
    pub async fn model_file_start(
        &self,
        digest: &Digest,
        file: &manifest::File,
        least: u64,
        transfer: &Transfer,
    ) -> Result<Vec<u8>, Error> {
        let prefix = model_prefix(digest);
        let mut start = Vec::new();
        for part in &file.parts {
            if start.len() as u64 >= least {
                break;
            }
            start.extend_from_slice(&self.fetch_part(&prefix, part, transfer).await?);
        }
        Ok(start)
    }

    /// Deletes a model; deleting one that is not there is a success.
    ///
    /// # Errors
    /// Whatever keeps the storage from answering.
    pub async fn delete_model(&self, digest: &Digest) -> Result<(), Error> {
        self.delete_prefix(&model_prefix(digest)).await.map(drop)
    }
}

fn manifest_key(digest: &Digest) -> String {
    key::join(&model_prefix(digest), "manifest")
}

/// Every file of a model: its path in the manifest, and where it lies.
fn files_below(root: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let is_file = root.metadata().map_err(|e| Error::io(root, e))?.is_file();
    if is_file {
        let name = root.file_name().unwrap_or_default();
        return Ok(vec![(name_of(root, name)?, root.to_owned())]);
    }
    let mut found = Vec::new();
    // A folder that links to itself ends at the limit.
    let mut folders = vec![(String::new(), root.to_owned())];
    while let Some((prefix, folder)) = folders.pop() {
        for entry in folder.read_dir().map_err(|e| Error::io(&folder, e))? {
            let path = entry.map_err(|e| Error::io(&folder, e))?.path();
            let name = name_of(&path, path.file_name().unwrap_or_default())?;
            if name.starts_with('.') {
                continue;
            }
            let name = format!("{prefix}{name}");
            if path.metadata().map_err(|e| Error::io(&path, e))?.is_dir() {
                folders.push((format!("{name}/"), path));
            } else {
                found.push((name, path));
            }
            let count = found.len().max(folders.len());
            if count > manifest::FILES {
                let (count, limit) = (count as u64, manifest::FILES as u64);
                let source = manifest::Error::Limit {
                    what: "files",
                    count,
                    limit,
                };
                return Err(invalid(&root.display().to_string(), source));
            }
        }
    }
    Ok(found)
}

fn name_of(path: &Path, name: &std::ffi::OsStr) -> Result<String, Error> {
    let text = name.to_str().map(str::to_owned);
    text.ok_or_else(|| {
        let shown = path.display().to_string();
        invalid(
            &shown,
            manifest::Error::Path(name.to_string_lossy().into_owned()),
        )
    })
}
