//! A real S3 server for a fleet, and who owns everything on it.

use std::path::PathBuf;

use artifacts::{Config, Store, Transfer};
use tempfile::TempDir;
use testkit::s3::S3Server;

use crate::{Fleet, Setup};

/// A server, and the file that tells `fedpipe up` of it.
#[derive(Debug)]
pub struct Cloud {
    /// The server.
    pub server: S3Server,
    folder: TempDir,
}

impl Cloud {
    /// Starts a server; `more` are further lines of the storage file, such as `[urls]`.
    #[must_use]
    pub fn start(more: &str) -> Self {
        let server = S3Server::start();
        let folder = tempfile::tempdir().expect("a folder for the storage file");
        let text = format!(
            "url = \"s3://{}\"\nendpoint = \"{}\"\nallow_http = true\naccess_key = \"{}\"\nsecret_key = \"{}\"\n{more}\n",
            server.bucket, server.endpoint, server.access_key, server.secret_key
        );
        std::fs::write(folder.path().join("s3.toml"), text).expect("a storage file");
        Self { server, folder }
    }

    /// The storage file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("s3.toml")
    }

    /// The setup with this storage.
    #[must_use]
    pub fn under(&self, mut setup: Setup) -> Setup {
        let argument = self.file().display().to_string();
        setup.arguments.extend(["--storage".to_owned(), argument]);
        setup
    }

    /// The storage with every right.
    #[must_use]
    pub fn owner(&self) -> Store {
        let text = std::fs::read_to_string(self.file()).expect("the storage file");
        let config: Config = toml::from_str(&text).expect("a storage file");
        Store::open(&config).expect("the storage")
    }

    /// Stores the fleet's tiny model as `fedpipe model push` does; returns its digest.
    pub async fn push_model(&self, fleet: &Fleet) -> String {
        let transfer = Transfer::default();
        let pushed = self.owner().push_model(&fleet.model(), &transfer).await;
        pushed.expect("the model is stored").digest.to_string()
    }
}
