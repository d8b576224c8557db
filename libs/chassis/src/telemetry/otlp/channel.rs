//! One signal's channel to its collector: where that is, whom TLS trusts there and what it is shown, and how long anything
//! may take.
//!
//! What can be judged at the start is judged then: a file that cannot be used would look like a collector that is away.
//! Files are read once, so a certificate that is renewed is shown from the next start on.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tonic::transport::{self, Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::environment::{Setting, Signal, milliseconds, setting};

/// How long each step of sending may take if no variable says so, as the standard has it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The largest file of certificates; those of whole systems are a quarter of it.
const LARGEST: u64 = 1 << 20;

/// Who is trusted if no file is named.
const SYSTEM: &str =
    "the authorities of this system (OTEL_EXPORTER_OTLP_CERTIFICATE names a file of others)";

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address that cannot be used.
    #[error("{said}: it must be http://host:port, or https://host:port for TLS")]
    Address {
        /// Which variable says what.
        said: Setting,
        /// Why it cannot be used, if it is an address at all.
        source: Option<transport::Error>,
    },
    /// A file that cannot be used.
    #[error("{said}: {why}")]
    File {
        /// Which variable names which file.
        said: Setting,
        /// Why it cannot be used.
        why: String,
    },
    /// A certificate without its key, or a key without its certificate.
    #[error("{said}: set {missing} too, or neither")]
    Half {
        /// The one that is named.
        said: Setting,
        /// The variable of the other one.
        missing: &'static str,
    },
    /// What was read does not fit together.
    #[error("{said}: no TLS with {used}")]
    Tls {
        /// Where the collector is.
        said: Setting,
        /// What was read.
        used: String,
        /// What does not fit.
        source: transport::Error,
    },
}

/// A channel, and how long a request over it may take.
#[derive(Debug, Clone)]
pub(super) struct Way {
    pub channel: Channel,
    pub timeout: Duration,
}

impl Way {
    /// Opens a signal's way to this address, within the runtime that is to drive it. It connects when there is something
    /// to send, and again after each loss.
    pub(super) fn open(
        said: impl Fn(&str) -> Option<String>,
        signal: Signal,
        address: Setting,
    ) -> Result<Self, Error> {
        let timeout = timeout(&said, signal);
        let address = with_scheme(&said, signal, address);
        let endpoint = match Endpoint::from_shared(address.value.clone()) {
            Ok(endpoint) => endpoint,
            Err(error) => {
                return Err(Error::Address {
                    said: address,
                    source: Some(error),
                });
            }
        };
        let is_tls = match endpoint.uri().scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => {
                return Err(Error::Address {
                    said: address,
                    source: None,
                });
            }
        };
        let endpoint = if is_tls {
            let (config, used) = tls(&said, signal)?;
            let secured = endpoint.tls_config(config.timeout(timeout));
            secured.map_err(|source| Error::Tls {
                said: address,
                used,
                source,
            })?
        } else {
            endpoint
        };
        // Only an answer has a limit by itself: connecting and its handshake would wait for as long as the other side is
        // silent. A connection that has died unheard is found out by the time its request is given up.
        let channel = endpoint
            .connect_timeout(timeout)
            .timeout(timeout)
            .http2_keep_alive_interval(timeout / 2)
            .keep_alive_timeout(timeout / 2)
            .connect_lazy();
        Ok(Self { channel, timeout })
    }
}

fn timeout(said: impl Fn(&str) -> Option<String>, signal: Signal) -> Duration {
    let asked = setting(said, signal, "TIMEOUT");
    asked
        .and_then(|asked| milliseconds(&asked.value))
        .unwrap_or(TIMEOUT)
}

/// An address that does not say whether it means TLS means it, unless a variable says that it is insecure.
fn with_scheme(said: impl Fn(&str) -> Option<String>, signal: Signal, address: Setting) -> Setting {
    let scheme = address.value.split_once("://").map(|(scheme, _)| scheme);
    if scheme.is_some_and(|scheme| !scheme.contains(['/', '?', '#'])) {
        return address;
    }
    let is_insecure = setting(said, signal, "INSECURE")
        .is_some_and(|insecure| insecure.value.eq_ignore_ascii_case("true"));
    let scheme = if is_insecure { "http" } else { "https" };
    Setting {
        value: format!("{scheme}://{}", address.value),
        ..address
    }
}

/// Whom to trust and what to show; and in words what that follows from.
fn tls(
    said: impl Fn(&str) -> Option<String>,
    signal: Signal,
) -> Result<(ClientTlsConfig, String), Error> {
    let named = |what: &str| setting(&said, signal, what);
    let config = ClientTlsConfig::new();
    let (config, trusted) = match named("CERTIFICATE") {
        None => (config.with_native_roots(), SYSTEM.to_owned()),
        Some(file) => {
            let authorities = Certificate::from_pem(certificates(&file)?);
            (config.ca_certificate(authorities), file.to_string())
        }
    };
    match (named("CLIENT_CERTIFICATE"), named("CLIENT_KEY")) {
        (None, None) => Ok((config, trusted)),
        (Some(certificate), Some(key)) => {
            let shown = Identity::from_pem(certificates(&certificate)?, private_key(&key)?);
            let used = format!("{trusted}, {certificate} and {key}");
            Ok((config.identity(shown), used))
        }
        (Some(certificate), None) => Err(Error::Half {
            said: certificate,
            missing: "OTEL_EXPORTER_OTLP_CLIENT_KEY",
        }),
        (None, Some(key)) => Err(Error::Half {
            said: key,
            missing: "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
        }),
    }
}

/// A file of certificates. A system's own may hold some that nobody here can read.
fn certificates(file: &Setting) -> Result<Vec<u8>, Error> {
    let pem = read(file)?;
    let found = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let readable = found.map(|all| RootCertStore::empty().add_parsable_certificates(all).0);
    match readable {
        Ok(1..) => Ok(pem),
        _ => Err(unusable(file, "the file holds no certificates in PEM")),
    }
}

fn private_key(file: &Setting) -> Result<Vec<u8>, Error> {
    let pem = read(file)?;
    match PrivateKeyDer::from_pem_slice(&pem) {
        Ok(_) => Ok(pem),
        Err(_) => Err(unusable(file, "the file holds no private key in PEM")),
    }
}

fn read(file: &Setting) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read =
        File::open(&file.value).and_then(|opened| opened.take(LARGEST + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) if bytes.len() as u64 <= LARGEST => Ok(bytes),
        Ok(_) => Err(unusable(file, "the file is larger than 1 MiB")),
        Err(error) => Err(unusable(file, error)),
    }
}

fn unusable(file: &Setting, why: impl ToString) -> Error {
    Error::File {
        said: file.clone(),
        why: why.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::path::Path;

    use testkit::tls::Authority;

    use super::*;

    const CA: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE";
    const SHOWN: &str = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE";
    const KEY: &str = "OTEL_EXPORTER_OTLP_CLIENT_KEY";

    /// The way of traces to an address; or why there is none, with its causes.
    fn open(address: &str, variables: &[(&str, &Path)]) -> Result<Way, String> {
        let said = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.display().to_string())
        };
        let address = Setting {
            variable: "OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(),
            value: address.to_owned(),
        };
        Way::open(said, Signal::Traces, address).map_err(|error| {
            let causes = std::iter::successors(error.source(), |cause| (**cause).source());
            causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
        })
    }

    #[track_caller]
    fn refused(address: &str, variables: &[(&str, &Path)], parts: &[&str]) {
        let why = open(address, variables).unwrap_err();
        for part in parts {
            assert!(why.contains(part), "{part:?} is not in {why:?}");
        }
    }

    #[tokio::test]
    async fn an_address_is_http_or_https_and_says_so() {
        let authority = Authority::new();
        let ca = authority.file();
        let trusted = (CA, ca.as_path());
        for legal in ["http://c:4317", "HTTPS://c:4317", "c:4317", "[::1]:4317"] {
            let opened = open(legal, &[trusted]);
            assert!(opened.is_ok(), "{legal}: {opened:?}");
        }
        for illegal in ["ftp://c:4317", "https://not an address", "https://"] {
            let said = format!("OTEL_EXPORTER_OTLP_ENDPOINT={illegal}: it must be http://");
            refused(illegal, &[trusted], &[&said]);
        }
        refused("no address", &[trusted], &["https://no address: it must"]);
        let with_password = "https://me:pass word@c:4317";
        refused(with_password, &[trusted], &["=https://***@c:4317: it must"]);
        assert!(
            !open(with_password, &[trusted])
                .unwrap_err()
                .contains("pass")
        );
    }

    #[tokio::test]
    async fn files_are_read_for_tls_alone_and_judged_at_the_start() {
        let authority = Authority::new();
        let own = authority.certify(&["c"]);
        let (ca, nowhere) = (authority.file(), authority.folder().join("nowhere"));
        let empty = authority.folder().join("empty");
        std::fs::write(&empty, "").unwrap();
        let large = authority.folder().join("large");
        std::fs::write(&large, vec![b'x'; (1 << 20) + 1]).unwrap();

        assert!(open("http://c:4317", &[(CA, &nowhere)]).is_ok());
        let insecure = ("OTEL_EXPORTER_OTLP_INSECURE", Path::new("True"));
        assert!(open("c:4317", &[(CA, &nowhere), insecure]).is_ok());
        let to = "https://c:4317";
        assert!(open(to, &[(CA, &ca)]).is_ok());
        refused(to, &[(CA, &nowhere)], &[CA, "nowhere: No such file"]);
        refused("c:4317", &[(CA, &nowhere)], &[CA, "nowhere"]);
        for file in [&empty, &own.key_file] {
            refused(to, &[(CA, file)], &[CA, "holds no certificates in PEM"]);
        }
        refused(to, &[(CA, &large)], &[CA, "larger than 1 MiB"]);
        // A signal's own variable is the one that counts.
        let traces = "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE";
        assert!(open(to, &[(CA, &nowhere), (traces, &ca)]).is_ok());
        refused(to, &[(CA, &ca), (traces, &nowhere)], &[traces, "nowhere"]);
    }

    #[tokio::test]
    async fn a_certificate_is_shown_with_its_own_key() {
        let authority = Authority::new();
        let ca = authority.file();
        let (own, other) = (authority.certify(&["own"]), authority.certify(&["other"]));
        let (shown, key) = (own.certificate_file.as_path(), own.key_file.as_path());
        let to = "https://c:4317";
        let trusted = (CA, ca.as_path());
        assert!(open(to, &[trusted, (SHOWN, shown), (KEY, key)]).is_ok());
        refused(
            to,
            &[trusted, (SHOWN, shown)],
            &[SHOWN, "own.pem: set", KEY],
        );
        refused(to, &[trusted, (KEY, key)], &[KEY, "own.key: set", SHOWN]);
        refused(
            to,
            &[trusted, (SHOWN, shown), (KEY, shown)],
            &[KEY, "holds no private key in PEM"],
        );
        refused(
            to,
            &[trusted, (SHOWN, shown), (KEY, &other.key_file)],
            &[
                "OTEL_EXPORTER_OTLP_ENDPOINT=https://c:4317",
                "other.key",
                "KeyMismatch",
            ],
        );
    }

    #[test]
    fn a_step_always_has_a_limit() {
        let of = |text: &'static str| {
            let said = move |name: &str| {
                (name == "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT").then(|| text.to_owned())
            };
            timeout(said, Signal::Traces)
        };
        assert_eq!(of("250"), Duration::from_millis(250));
        assert_eq!((of("0"), of("none")), (TIMEOUT, TIMEOUT));
    }
}
