//! The tokens that callers show: read once, kept as digests, compared in constant time.
//!
//! A token is 128 random bits or more (`fedpipe admin add-token`), so that a plain digest of it cannot be
//! turned back; passwords that people think up would need more than that, and are not what this is for.

use std::path::PathBuf;

use chassis::config::Secret;
use domain::id::Submitter;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::Error;
use crate::access::{Caller, Role};

/// Shortest token that is accepted, in bytes: shorter ones can be guessed.
const TOKEN_BYTES: usize = 16;

/// Longest token that is read, in bytes.
const MOST_BYTES: usize = 4096;

/// One `[[tokens]]` table: a token, whose it is, and what whoever shows it may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Whose; a submitter's jobs carry this name, as sites' policies know it.
    pub name: Submitter,
    /// `viewer`, `submitter` or `admin`.
    pub role: Role,
    /// SHA-256 of the token, 64 hexadecimal digits, as `fedpipe admin add-token` prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Or a file that holds the token itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

/// Every token that is let in.
#[derive(Debug, Clone, Default)]
pub struct Tokens(Vec<Known>);

#[derive(Debug, Clone)]
struct Known {
    digest: [u8; 32],
    caller: Caller,
}

impl Tokens {
    /// Reads what is configured: the one token without a name, an administrator's, and those with one.
    ///
    /// # Errors
    /// [`Error::ShortToken`], [`Error::Token`].
    pub fn read(nameless: Option<&Secret>, named: &[Token]) -> Result<Self, Error> {
        let mut all = Vec::new();
        if let Some(token) = nameless {
            let digest =
                judge(token.expose()).map_err(|_| Error::ShortToken { least: TOKEN_BYTES })?;
            let caller = Caller::ADMIN;
            all.push(Known { digest, caller });
        }
        for token in named {
            let digest = token.digest().map_err(|why| Error::Token {
                name: token.name.to_string(),
                why,
            })?;
            let twice = |known: &&Known| {
                known.digest == digest || known.caller.name.as_ref() == Some(&token.name)
            };
            if all.iter().any(|known| twice(&known)) {
                return Err(Error::Token {
                    name: token.name.to_string(),
                    why: "another has this name, or is the same token".to_owned(),
                });
            }
            let caller = Caller {
                name: Some(token.name.clone()),
                role: token.role,
            };
            all.push(Known { digest, caller });
        }
        Ok(Self(all))
    }

    /// Whether nobody is asked for one.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whose token this is. Each known one is compared whole, so that the time it takes says nothing of
    /// where a wrong one differs, nor which it resembles.
    pub fn find(&self, shown: &str) -> Option<&Caller> {
        let digest: [u8; 32] = Sha256::digest(shown).into();
        let mut found = None;
        for known in &self.0 {
            if bool::from(known.digest.ct_eq(&digest)) {
                found = Some(&known.caller);
            }
        }
        found
    }
}

impl Token {
    fn digest(&self) -> Result<[u8; 32], String> {
        match (&self.sha256, &self.file) {
            (Some(hex), None) => hex::decode(hex)
                .ok()
                .and_then(|bytes| bytes.try_into().ok())
                .ok_or_else(|| "sha256: use 64 hexadecimal digits".to_owned()),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| format!("file: cannot read {}: {error}", path.display()))?;
                judge(text.trim())
            }
            _ => Err("give either sha256 or file; `fedpipe admin add-token` makes both".to_owned()),
        }
    }
}

/// A token's digest, if it is long enough not to be guessed.
fn judge(token: &str) -> Result<[u8; 32], String> {
    if !(TOKEN_BYTES..=MOST_BYTES).contains(&token.len()) {
        return Err(format!(
            "it has {} bytes: use {TOKEN_BYTES} or more",
            token.len()
        ));
    }
    Ok(Sha256::digest(token).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef";

    fn token(name: &str, role: Role) -> Token {
        Token {
            name: name.parse().expect("a name"),
            role,
            sha256: Some(hex::encode(Sha256::digest(format!("{name}-{SECRET}")))),
            file: None,
        }
    }

    fn refused(named: &[Token], part: &str) {
        let error = Tokens::read(None, named).expect_err("refused").to_string();
        assert!(error.contains(part), "{error}");
        assert!(!error.contains(SECRET), "{error}");
    }

    #[test]
    fn each_token_is_its_own_callers_and_no_other_is_let_in() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("token");
        std::fs::write(&file, format!("from-a-file-{SECRET}\n")).expect("written");
        let in_file = Token {
            sha256: None,
            file: Some(file),
            ..token("reader", Role::Viewer)
        };
        let nameless = Secret::from(SECRET);
        let named = [token("alice", Role::Submitter), in_file];
        let tokens = Tokens::read(Some(&nameless), &named).expect("legal");
        let who = |shown: &str| {
            let caller = tokens.find(shown)?;
            let name = caller.name.as_ref().map(ToString::to_string);
            Some((name, caller.role))
        };
        assert_eq!(who(SECRET), Some((None, Role::Admin)));
        let alice = who(&format!("alice-{SECRET}"));
        assert_eq!(alice, Some((Some("alice".to_owned()), Role::Submitter)));
        let reader = who(&format!("from-a-file-{SECRET}"));
        assert_eq!(reader, Some((Some("reader".to_owned()), Role::Viewer)));
        for wrong in ["", "alice", "0123456789abcdee", "0123456789abcdef0"] {
            assert_eq!(who(wrong), None, "{wrong}");
        }
        assert!(!format!("{tokens:?}").contains(SECRET));
    }

    #[test]
    fn a_token_that_is_none_is_refused_with_its_name() {
        let nowhere = Token {
            sha256: None,
            file: Some("/nowhere/token".into()),
            ..token("a", Role::Viewer)
        };
        refused(
            std::slice::from_ref(&nowhere),
            "token a: file: cannot read /nowhere/token",
        );
        let both = Token {
            sha256: token("a", Role::Viewer).sha256,
            ..nowhere
        };
        refused(&[both], "either sha256 or file");
        let short = Token {
            sha256: Some("ab".repeat(31)),
            ..token("a", Role::Viewer)
        };
        refused(&[short], "64 hexadecimal digits");
        let twice = [token("a", Role::Viewer), token("a", Role::Admin)];
        refused(&twice, "another has this name");
        let error = Tokens::read(Some(&Secret::from("short")), &[]).expect_err("refused");
        assert!(error.to_string().contains("16"), "{error}");
    }
}
