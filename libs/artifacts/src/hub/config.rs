//! How the Hub is reached: what a configuration says, and what the environment says in its place.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::Error;
use crate::config::Secret;

/// The Hub itself.
const PUBLIC: &str = "https://huggingface.co";

/// Settings for models named `hf://…`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `https://host` of the Hub or of a mirror; absent: `HF_ENDPOINT`, else <https://huggingface.co>.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The token that is shown to it, and to nobody it sends us on to; absent: `HF_TOKEN`, else none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// PEM file of the authorities to trust besides the system's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

/// Bounds on time and attempts; on bytes the model cache has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Setting up a connection.
    pub connect: Duration,
    /// Silence of a server that was asked something, or stopped within an answer.
    pub silence: Duration,
    /// A whole model.
    pub whole: Duration,
    /// Attempts in a row that bring nothing.
    pub attempts: u32,
    /// Between two of them at first; it doubles.
    pub pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            silence: Duration::from_secs(60),
            whole: Duration::from_secs(24 * 3600),
            attempts: 6,
            pause: Duration::from_millis(500),
        }
    }
}

impl Config {
    /// What the field's variables say where the configuration says nothing; `variable` reads the environment.
    #[must_use]
    pub fn or_environment(&self, variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name| variable(name).filter(|value: &String| !value.is_empty());
        Self {
            endpoint: self.endpoint.clone().or_else(|| set("HF_ENDPOINT")),
            token: self
                .token
                .clone()
                .or_else(|| set("HF_TOKEN").map(Secret::from)),
            ca_file: self.ca_file.clone(),
        }
    }

    /// The endpoint without a slash at its end.
    pub(super) fn endpoint(&self) -> Result<Url, Error> {
        let text = self.endpoint.as_deref().unwrap_or(PUBLIC);
        let refuse = |why: String| Error::Config { why };
        let url: Url = text
            .trim_end_matches('/')
            .parse()
            .map_err(|source| refuse(format!("the endpoint `{text}` is no address ({source})")))?;
        let plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
        if !matches!(url.scheme(), "http" | "https") || !plain {
            return Err(refuse(format!(
                "the endpoint must be https://host, it is `{text}`"
            )));
        }
        if url.scheme() == "http" && self.token.is_some() && !is_own(&url) {
            return Err(refuse(format!(
                "a token would travel to {text} in the clear: use https://"
            )));
        }
        Ok(url)
    }
}

/// Whether it is this machine.
pub(super) fn is_own(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_comes_before_the_environment_and_that_before_the_public_hub() {
        let variable = |name: &str| match name {
            "HF_ENDPOINT" => Some("https://mirror.example.org/".to_owned()),
            "HF_TOKEN" => Some(String::new()),
            _ => None,
        };
        let of = |config: Config| config.endpoint().unwrap().to_string();
        let nothing = Config::default();
        assert_eq!(of(nothing.clone()), "https://huggingface.co/");
        let said = nothing.or_environment(variable);
        assert_eq!(of(said.clone()), "https://mirror.example.org/");
        assert_eq!(said.token, None, "an empty variable says nothing");
        let own = Config {
            endpoint: Some("https://own.example.org/hub".to_owned()),
            ..Config::default()
        };
        assert_eq!(
            of(own.or_environment(variable)),
            "https://own.example.org/hub"
        );
    }

    #[test]
    fn a_token_is_never_sent_in_the_clear_but_to_this_machine_and_never_shown() {
        let with = |endpoint: &str| Config {
            endpoint: Some(endpoint.to_owned()),
            token: Some(Secret::from("hf_secret".to_owned())),
            ca_file: None,
        };
        assert!(with("http://127.0.0.1:8080").endpoint().is_ok());
        assert!(with("http://[::1]:8080").endpoint().is_ok());
        assert!(with("https://hub.example.org").endpoint().is_ok());
        for refused in [
            "http://hub.example.org",
            "ftp://host",
            "host",
            "https://a@host",
            "https://h/?x",
        ] {
            assert!(with(refused).endpoint().is_err(), "{refused}");
        }
        let shown = format!(
            "{:?}{}",
            with("https://h"),
            serde_json::to_string(&with("https://h")).unwrap()
        );
        assert!(!shown.contains("hf_secret"));
    }
}
