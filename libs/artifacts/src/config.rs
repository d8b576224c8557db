//! Where objects lie and how to get in.
//!
//! A [`Config`] is what a configuration file says; it is judged by [`crate::Store::open`]. The
//! secret never leaves it in words: both `Debug` and `Serialize` print three asterisks.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize, Serializer};

/// Storage settings. Without a url (a worker's site.toml with no `[storage]`) storage is reached
/// through URLs that the control plane signs; `ca_file` and `allow_http` then say whom to trust.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `file:///absolute/folder` (taken letter by letter, no percent-decoding) or
    /// `s3://bucket` or `s3://bucket/prefix`.
    pub url: String,
    /// S3 only: `https://host:port`; absent means Amazon's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// S3 only: the bucket's region; absent means `us-east-1`, which most other servers expect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// S3 only: who we are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_key: Option<String>,
    /// S3 only: the proof.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_key: Option<Secret>,
    /// S3 only: PEM file of the authorities to trust besides the system's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// S3 only: accept an endpoint without TLS.
    pub allow_http: bool,
    /// S3 only: the URLs that the api signs for workers without credentials.
    #[serde(skip_serializing_if = "Urls::is_default")]
    pub urls: Urls,
}

/// URLs signed for others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Urls {
    /// `https://host:port` under which the others reach storage; absent: as we do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// How long a request may begin with a URL, in seconds; a transfer that takes longer asks again.
    pub valid_seconds: u32,
}

impl Default for Urls {
    fn default() -> Self {
        Self {
            endpoint: None,
            valid_seconds: 300,
        }
    }
}

impl Urls {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A text that is read from configuration and never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for the one who signs with it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            url: "s3://bucket".into(),
            access_key: Some("id".into()),
            secret_key: Some(Secret::from("hunter2".to_owned())),
            ..Config::default()
        }
    }

    #[test]
    fn the_secret_is_in_neither_debug_nor_serialized_text() {
        assert!(!format!("{:?}", config()).contains("hunter2"));
        assert!(
            !serde_json::to_string(&config())
                .unwrap()
                .contains("hunter2")
        );
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let text = r#"{"url":"file:///tmp","secret":"x"}"#;
        assert!(serde_json::from_str::<Config>(text).is_err());
    }
}
