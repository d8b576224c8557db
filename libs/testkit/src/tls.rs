//! Authorities and certificates that live as long as a test.

#![expect(
    clippy::expect_used,
    reason = "a test without its certificates cannot go on"
)]

use std::fmt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tempfile::TempDir;

/// Somebody who signs certificates. Its files go with it.
pub struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as files in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate.
    pub certificate_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
}

impl Authority {
    /// Makes one that nobody has heard of.
    ///
    /// # Panics
    /// If its file cannot be written.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let key = KeyPair::generate().expect("a key");
        let mut about = CertificateParams::new(Vec::<String>::new()).expect("no names");
        about.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        about.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        about
            .distinguished_name
            .push(DnType::CommonName, "an authority of a test");
        let own = about.self_signed(&key).expect("signed by itself");
        std::fs::write(folder.path().join("ca.pem"), own.pem()).expect("ca.pem is written");
        let issuer = Issuer::new(about, key);
        Self { folder, issuer }
    }

    /// Its own certificate, for those who trust it.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Signs a certificate for these hosts, good for servers and for clients; the first host names
    /// its files.
    ///
    /// # Panics
    /// If a host is none, or the files cannot be written.
    #[must_use]
    pub fn certify(&self, hosts: &[&str]) -> Certificate {
        let names: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let first = names.first().expect("a host").clone();
        let mut about = CertificateParams::new(names).expect("hosts");
        about.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        about.distinguished_name.push(DnType::CommonName, &first);
        let key = KeyPair::generate().expect("a key");
        let signed = about.signed_by(&key, &self.issuer).expect("signed");
        let write = |name: String, text: String| {
            let path = self.folder.path().join(name);
            std::fs::write(&path, text).expect("a file of a certificate is written");
            path
        };
        Certificate {
            certificate_file: write(format!("{first}.pem"), signed.pem()),
            key_file: write(format!("{first}.key"), key.serialize_pem()),
        }
    }

    /// The folder of its files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}
