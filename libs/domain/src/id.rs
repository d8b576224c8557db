//! Identities. Each is a newtype that prints with its kind and is legal as a NATS subject token.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not an identity of the asked kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {kind}: {rule}")]
pub struct Invalid {
    kind: &'static str,
    rule: &'static str,
    text: String,
}

const NAME_RULE: &str = "use 1 to 63 lower-case letters, digits and hyphens, starting and ending with a letter or digit";

fn is_name(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let inner = text
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    inner && text.len() <= 63 && edge(text.chars().next()) && edge(text.chars().last())
}

/// A text newtype with one rule, checked when it is made.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $rule:expr, $legal:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let legal: fn(&str) -> bool = $legal;
                if legal(text) {
                    return Ok(Self(text.to_owned()));
                }
                let shown = text.chars().take(80).collect();
                Err(Invalid { kind: $kind, rule: $rule, text: shown })
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// A job, printed as `job_<16 hex digits>`.
    JobId,
    "job id",
    "use `job_` and 16 hexadecimal digits",
    |text| {
        let hex = text.strip_prefix("job_").unwrap_or_default();
        hex.len() == 16 && hex.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
    }
);

impl JobId {
    /// The job of 64 random bits.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self(format!("job_{bits:016x}"))
    }
}

text_id!(
    /// A worker's name, unique in the fleet; one site may run several.
    WorkerName,
    "worker name",
    NAME_RULE,
    is_name
);

text_id!(
    /// The name by which jobs ask for a data set; each worker maps it to its own files.
    DatasetName,
    "data set name",
    NAME_RULE,
    is_name
);

text_id!(
    /// Who submitted a job; sites' policies name them.
    Submitter,
    "submitter",
    NAME_RULE,
    is_name
);

text_id!(
    /// One running process of a control service, as holder of leases.
    InstanceId,
    "instance id",
    NAME_RULE,
    is_name
);

/// Raised by every transition of a job and every plan; part of every message's identity.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch after the next transition.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Raised when a job's lease changes hands; guards writes to the key-value store, nothing else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fence(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_legal_subject_tokens() {
        for text in ["a", "mail-1", "0x"] {
            assert!(text.parse::<WorkerName>().is_ok(), "{text}");
        }
        for text in [
            "",
            "-a",
            "a-",
            "a.b",
            "a*",
            "a>",
            "A",
            "a b",
            "ä",
            &"a".repeat(64),
            "../x",
        ] {
            assert!(text.parse::<WorkerName>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_job_id_prints_with_its_kind() {
        let id = JobId::from_bits(0xfeed);
        assert_eq!(id.to_string(), "job_000000000000feed");
        assert_eq!(id.to_string().parse(), Ok(id));
    }
}
