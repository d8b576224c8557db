//! How one process reaches NATS: the `[nats]` table of its configuration.
//!
//! What can be judged before the first attempt is judged then. The client tries again and again in the
//! background, and a file that it cannot use would look like a server that is away.

use std::path::{Path, PathBuf};

use async_nats::ConnectOptions;
use domain::secret::Secret;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};

use crate::{Error, Key};

/// How to reach the server, and what to prove oneself with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Connect {
    /// `nats://host:port` or `tls://host:port`.
    pub url: String,
    /// User name, where the server asks for a password.
    pub user: Option<String>,
    /// Password of `user`.
    pub password: Option<Secret>,
    /// A NATS credentials file, of a server whose users are signed by an operator.
    pub credentials_file: Option<PathBuf>,
    /// A file with the seed of this process's nkey (`SU…`); the server knows its public half.
    pub seed_file: Option<PathBuf>,
    /// PEM file of the authorities to trust instead of the system's own. With it only TLS is spoken.
    pub ca_file: Option<PathBuf>,
    /// PEM file of this process's own certificate, where the server asks for one.
    pub certificate_file: Option<PathBuf>,
    /// PEM file of the key of `certificate_file`.
    pub key_file: Option<PathBuf>,
}

impl Default for Connect {
    fn default() -> Self {
        Self {
            url: "nats://127.0.0.1:4222".to_owned(),
            user: None,
            password: None,
            credentials_file: None,
            seed_file: None,
            ca_file: None,
            certificate_file: None,
            key_file: None,
        }
    }
}

impl Connect {
    /// The client's options, its files read and judged.
    pub(crate) async fn options(&self) -> Result<ConnectOptions, Error> {
        let options = self.proof().await?;
        self.trust(options).await
    }

    /// Who the process is.
    async fn proof(&self) -> Result<ConnectOptions, Error> {
        let proofs = [
            ("credentials_file", self.credentials_file.is_some()),
            ("seed_file", self.seed_file.is_some()),
            ("password", self.password.is_some()),
        ];
        let given: Vec<&str> = proofs.iter().filter(|one| one.1).map(|one| one.0).collect();
        if given.len() > 1 {
            let why = format!("nats.{}: keep one of them", given.join(" and nats."));
            return Err(Error::Config { why });
        }
        let options = ConnectOptions::new();
        if let Some(path) = &self.credentials_file {
            let read = options.credentials_file(path).await;
            return read.map_err(|error| unusable("credentials_file", path, error));
        }
        if let Some(path) = &self.seed_file {
            let text = String::from_utf8_lossy(&read("seed_file", path).await?).into_owned();
            let key = Key::from_seed(&text);
            let key = key.map_err(|error| unusable("seed_file", path, error))?;
            return Ok(options.nkey(key.seed().expose().to_owned()));
        }
        match (&self.user, &self.password) {
            (Some(user), Some(password)) => {
                Ok(options.user_and_password(user.clone(), password.expose().to_owned()))
            }
            (None, None) => Ok(options),
            (Some(_), None) => Err(missing("user", "password, or nats.seed_file alone")),
            (None, Some(_)) => Err(missing("password", "user")),
        }
    }

    /// Whom the process trusts, and what it shows of itself.
    async fn trust(&self, mut options: ConnectOptions) -> Result<ConnectOptions, Error> {
        // Servers name others of their cluster before they speak TLS: those must speak it too.
        if self.url.contains("tls://") {
            options = options.require_tls(true);
        }
        if let Some(path) = &self.ca_file {
            certificates("ca_file", path).await?;
            options = options
                .add_root_certificates(path.clone())
                .require_tls(true);
        }
        match (&self.certificate_file, &self.key_file) {
            (None, None) => Ok(options),
            (Some(certificate), Some(key)) => {
                certificates("certificate_file", certificate).await?;
                let bytes = read("key_file", key).await?;
                PrivateKeyDer::from_pem_slice(&bytes)
                    .map_err(|_| unusable("key_file", key, "it holds no private key in PEM"))?;
                let shown = options.add_client_certificate(certificate.clone(), key.clone());
                Ok(shown.require_tls(true))
            }
            (Some(_), None) => Err(missing("certificate_file", "key_file")),
            (None, Some(_)) => Err(missing("key_file", "certificate_file")),
        }
    }
}

async fn certificates(key: &str, path: &Path) -> Result<(), Error> {
    let bytes = read(key, path).await?;
    let mut found = CertificateDer::pem_slice_iter(&bytes).peekable();
    let legal = found.peek().is_some() && found.all(|one| one.is_ok());
    if legal {
        return Ok(());
    }
    Err(unusable(key, path, "it holds no certificates in PEM"))
}

async fn read(key: &str, path: &Path) -> Result<Vec<u8>, Error> {
    let read = tokio::fs::read(path).await;
    read.map_err(|error| unusable(key, path, error))
}

fn unusable(key: &str, path: &Path, why: impl std::fmt::Display) -> Error {
    let why = format!("nats.{key}: {}: {why}", path.display());
    Error::Config { why }
}

fn missing(given: &str, wanted: &str) -> Error {
    let why = format!("nats.{given} is set: set nats.{wanted}");
    Error::Config { why }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(change: impl FnOnce(&mut Connect), expected: Result<(), &str>) {
        let mut connect = Connect::default();
        change(&mut connect);
        match (connect.options().await.map(drop), expected) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(part)) => {
                assert!(error.to_string().contains(part), "{error}");
                assert_eq!(error.retry(), crate::Retry::Never);
            }
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }

    #[tokio::test]
    async fn one_proof_is_enough_and_two_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let seed = folder.path().join("site.nk");
        let key = Key::new([7; 32]).unwrap();
        std::fs::write(&seed, format!("{}\n", key.seed().expose())).unwrap();
        check(|_| {}, Ok(())).await;
        check(|one| one.seed_file = Some(seed.clone()), Ok(())).await;
        let password = |one: &mut Connect| {
            one.user = Some("api".to_owned());
            one.password = Some("secret".into());
        };
        check(password, Ok(())).await;
        let both = |one: &mut Connect| {
            password(one);
            one.seed_file = Some(seed.clone());
        };
        check(both, Err("nats.seed_file and nats.password")).await;
        let user = |one: &mut Connect| one.user = Some("api".to_owned());
        check(user, Err("set nats.password")).await;
        let nameless = |one: &mut Connect| one.password = Some("secret".into());
        check(nameless, Err("set nats.user")).await;
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_used_is_named_with_its_key_before_anything_is_tried() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = folder.path().join("nowhere");
        let other = folder.path().join("other");
        std::fs::write(&other, "hello").unwrap();
        for (path, why) in [(&nowhere, "No such file"), (&other, "it holds no")] {
            let seed = |one: &mut Connect| one.seed_file = Some(path.clone());
            check(seed, Err(why)).await;
            let authority = |one: &mut Connect| one.ca_file = Some(path.clone());
            check(authority, Err(why)).await;
            let shown = |one: &mut Connect| {
                one.certificate_file = Some(path.clone());
                one.key_file = Some(path.clone());
            };
            check(shown, Err(why)).await;
        }
        let account = folder.path().join("account.nk");
        let of_an_account = "SAANJIBNEKGCRUWJCPIWUXFBFJLR36FJTFKGBGKAT7AQXH2LVFNQWZJMQU";
        std::fs::write(&account, of_an_account).unwrap();
        let seed = |one: &mut Connect| one.seed_file = Some(account.clone());
        check(seed, Err("nats.seed_file")).await;
        let half = |one: &mut Connect| one.key_file = Some(other.clone());
        check(half, Err("set nats.certificate_file")).await;
    }

    #[test]
    fn a_dump_shows_no_password() {
        let connect = Connect {
            password: Some("hunter2".into()),
            ..Connect::default()
        };
        let shown = format!("{connect:?}{}", serde_json::to_string(&connect).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
