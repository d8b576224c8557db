//! The only user of the Hugging Face Hub's protocol, and of whatever speaks it.
//!
//! It promises: a revision becomes a commit before anything is fetched, and every file is asked for at that
//! commit; a file goes on where it broke off, is verified by the digest that the Hub gives, and has its name
//! only then; the token goes to the Hub and to nobody it sends us on to. It sends the names of model and
//! files, the token, and nothing else about this machine or its user.
//!
//! Where models are kept, and how many bytes, is [`crate::ModelCache`]'s work.

mod ask;
mod choose;
mod config;
mod digest;
mod download;
mod error;

use std::fs;

use domain::hub::Model;
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Url};
use serde::Deserialize;

use crate::config::Secret;
use ask::protocol;
use digest::Expected;

pub use config::{Config, Limits};
pub(crate) use download::Remote;
pub use error::Error;

/// Files of a model at most.
const FILES: usize = 1000;

/// The Hub; clones share the connections.
#[derive(Debug, Clone)]
pub struct Hub {
    client: Client,
    endpoint: Url,
    token: Option<Secret>,
    limits: Limits,
}

/// What is read of the Hub's answer about a revision.
#[derive(Deserialize)]
struct Revision {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Hub {
    /// Prepares connections; nothing is asked yet.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn open(config: &Config, limits: Limits) -> Result<Self, Error> {
        // The client has no TLS provider of its own; a second call changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let endpoint = config.endpoint()?;
        let mut builder = Client::builder()
            .user_agent("fedpipe")
            .redirect(Policy::none())
            .connect_timeout(limits.connect)
            .read_timeout(limits.silence);
        // A proxy reaches no address of this machine.
        if config::is_own(&endpoint) {
            builder = builder.no_proxy();
        }
        if let Some(path) = &config.ca_file {
            let refuse = |why: String| Error::Config {
                why: format!("ca_file {}: {why}", path.display()),
            };
            let pem = fs::read(path).map_err(|e| refuse(e.to_string()))?;
            let trusted = Certificate::from_pem_bundle(&pem).map_err(|e| refuse(e.to_string()))?;
            builder = builder.tls_certs_merge(trusted);
        }
        let client = builder
            .build()
            .map_err(|e| Error::Config { why: e.to_string() })?;
        Ok(Self {
            client,
            endpoint,
            token: config.token.clone(),
            limits,
        })
    }

    /// The model at the commit that its revision is now. Of one that names a commit nothing is asked.
    ///
    /// # Errors
    /// What the Hub answers.
    pub async fn pin(&self, model: &Model) -> Result<Model, Error> {
        if model.is_pinned() {
            return Ok(model.clone());
        }
        let found = self.revision(model).await?;
        model
            .at(&found.sha)
            .map_err(|e| protocol(&model.to_string(), e.to_string()))
    }

    /// The `config.json` of a pinned model, which says what it is; none if it has none.
    ///
    /// # Errors
    /// What the Hub answers.
    pub async fn description(&self, model: &Model) -> Result<Option<Vec<u8>>, Error> {
        let (repository, commit) = (model.repository(), model.revision());
        let url = self.url(&format!("{repository}/resolve/{commit}/config.json"))?;
        match self.text(&url, &format!("config.json of {model}")).await {
            Ok(text) => Ok(Some(text)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The bounds it keeps to.
    pub(crate) const fn limits(&self) -> Limits {
        self.limits
    }

    /// The files that make a pinned model, with their lengths and digests.
    pub(crate) async fn files(&self, model: &Model) -> Result<Vec<Remote>, Error> {
        let unpinned = || Error::Unpinned {
            model: model.clone(),
        };
        let pinned = Some(model)
            .filter(|model| model.is_pinned())
            .ok_or_else(unpinned)?;
        let there: Vec<String> = (self.revision(pinned).await?.siblings.into_iter())
            .map(|sibling| sibling.rfilename)
            .collect();
        let refused = |why| Error::NoModel {
            model: model.clone(),
            why,
        };
        let chosen = choose::choose(model, &there).map_err(refused)?;
        if chosen.len() > FILES {
            return Err(refused(format!("it has more than {FILES} files")));
        }
        let mut files = Vec::with_capacity(chosen.len());
        for path in chosen {
            files.push(self.file(pinned, &path).await?);
        }
        Ok(files)
    }

    async fn revision(&self, model: &Model) -> Result<Revision, Error> {
        let (repository, revision) = (model.repository(), model.revision());
        let url = self.url(&format!("api/models/{repository}/revision/{revision}"))?;
        let what = model.to_string();
        let text = self.text(&url, &what).await?;
        let read: Result<Revision, _> = serde_json::from_slice(&text);
        let found = read.map_err(|e| protocol(&what, format!("no list of files ({e})")))?;
        let another = model.is_pinned() && found.sha != revision;
        if another {
            return Err(protocol(
                &what,
                format!("it gives the commit {}", found.sha),
            ));
        }
        Ok(found)
    }

    async fn file(&self, model: &Model, path: &str) -> Result<Remote, Error> {
        let (repository, commit) = (model.repository(), model.revision());
        let url = self.url(&format!("{repository}/resolve/{commit}/{path}"))?;
        let what = format!("{path} of {model}");
        let about = self.about(&url, &what).await?;
        let wrong = |why: &str| protocol(&what, why.to_owned());
        if about.commit.as_deref().is_some_and(|found| found != commit) {
            return Err(wrong("the file is of another commit"));
        }
        let tag = about.tag.as_deref().and_then(Expected::of_tag);
        let expected = tag.ok_or_else(|| {
            wrong("neither X-Linked-Etag nor ETag is a digest, so nothing that comes could be verified")
        })?;
        let bytes = about.bytes.ok_or_else(|| {
            wrong("neither X-Linked-Size nor Content-Length says how long the file is")
        })?;
        // Alone in its folder, wherever it lies in the repository.
        let name = path.rsplit('/').next().unwrap_or(path).to_owned();
        Ok(Remote {
            name,
            bytes,
            url,
            what,
            expected,
        })
    }

    fn url(&self, path: &str) -> Result<Url, Error> {
        let base = self.endpoint.as_str().trim_end_matches('/');
        let text = format!("{base}/{path}");
        text.parse()
            .map_err(|_| protocol(&text, "it is no address".to_owned()))
    }
}
