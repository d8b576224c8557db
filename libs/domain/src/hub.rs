//! A model on the Hugging Face Hub, as people name it: `hf://org/name@revision/file`.
//!
//! It says what is asked for and nothing of how it is fetched. A revision may move; a commit may not, and
//! only a model that is named by its commit is the same at every site ([`Model::is_pinned`]).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How such a name begins.
pub const SCHEME: &str = "hf://";

/// The revision of a model that names none.
const MAIN: &str = "main";

/// Longest owner or name, as the Hub has it.
const PART_BYTES: usize = 96;
/// Longest revision, and longest path of a file.
const TEXT_BYTES: usize = 255;

/// `hf://org/name`, with `@revision` (a branch, a tag or a commit; `main` if left out) and `/file`, a GGUF file of a
/// model that has several.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Model {
    repository: String,
    revision: String,
    file: Option<String>,
}

/// Why a text names no model of the Hub.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` names no model of the Hub ({why}): write hf://org/name@revision")]
pub struct ParseError {
    text: String,
    why: &'static str,
}

impl Model {
    /// `org/name`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// A branch, a tag or a commit; a `/` in it is written `%2F`, as in the Hub's own addresses.
    #[must_use]
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The one file of it that is meant, if it is one.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    /// Whether the revision is a commit, which never becomes another.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        is_commit(&self.revision)
    }

    /// The same at this commit.
    ///
    /// # Errors
    /// If it is none.
    pub fn at(&self, commit: &str) -> Result<Self, ParseError> {
        if !is_commit(commit) {
            return Err(ParseError {
                text: commit.to_owned(),
                why: "a commit has 40 hexadecimal digits",
            });
        }
        Ok(Self {
            revision: commit.to_owned(),
            ..self.clone()
        })
    }
}

/// Which models of the Hub a site fetches: `org/name`, `org/name@commit`, `org/*`, or `*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Allowed(String);

impl Allowed {
    /// Whether this model is one of them.
    #[must_use]
    pub fn admits(&self, model: &Model) -> bool {
        match (self.0.split_once('@'), self.0.strip_suffix('*')) {
            (Some((repository, revision)), _) => {
                (repository, revision) == (model.repository(), model.revision())
            }
            (None, Some(owner)) => model.repository.starts_with(owner),
            (None, None) => self.0 == model.repository,
        }
    }
}

impl FromStr for Allowed {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let owner = text.strip_suffix("/*");
        if text != "*" && !owner.is_some_and(is_part) {
            let model: Model = format!("{SCHEME}{text}").parse()?;
            if model.file.is_some() {
                return Err(refused(text, "a rule names no file"));
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for Model {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let refuse = |why| refused(text, why);
        let named = text
            .strip_prefix(SCHEME)
            .ok_or_else(|| refuse("it begins with hf://"))?;
        let (owner, rest) = named
            .split_once('/')
            .ok_or_else(|| refuse("the owner is missing"))?;
        let (rest, file) = match rest.split_once('/') {
            Some((rest, file)) => (rest, Some(file)),
            None => (rest, None),
        };
        let (name, revision) = rest.split_once('@').unwrap_or((rest, MAIN));
        if !is_part(owner) || !is_part(name) {
            return Err(refuse(
                "owner and name are letters, digits, `.`, `_` and `-`",
            ));
        }
        // The Hub's only other character in a revision is the slash of `refs/pr/1`.
        if revision.len() > TEXT_BYTES || !is_plain(&revision.replace("%2F", "_")) {
            return Err(refuse(
                "a revision is letters, digits, `.`, `_`, `-` and %2F for a slash",
            ));
        }
        if let Some(file) = file {
            let plain = file.len() <= TEXT_BYTES && file.split('/').all(is_plain);
            if !plain || !file.ends_with(".gguf") {
                return Err(refuse("only a GGUF file is named by its path"));
            }
        }
        Ok(Self {
            repository: format!("{owner}/{name}"),
            revision: revision.to_owned(),
            file: file.map(str::to_owned),
        })
    }
}

fn refused(text: &str, why: &'static str) -> ParseError {
    ParseError {
        text: text.chars().take(TEXT_BYTES).collect(),
        why,
    }
}

fn is_part(text: &str) -> bool {
    text.len() <= PART_BYTES && is_plain(text)
}

/// What can be a part of an address and of a path, and is neither `..` nor hidden nor a flag.
fn is_plain(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !text.is_empty() && text.chars().all(plain) && !text.starts_with(['.', '-'])
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}@{}", self.repository, self.revision)?;
        match &self.file {
            Some(file) => write!(f, "/{file}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Model {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl From<Model> for String {
    fn from(model: Model) -> Self {
        model.to_string()
    }
}

impl TryFrom<String> for Allowed {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl From<Allowed> for String {
    fn from(allowed: Allowed) -> Self {
        allowed.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn check(text: &str, expected: Option<(&str, &str, Option<&str>)>) {
        let read = text.parse::<Model>().ok();
        let found = read
            .as_ref()
            .map(|model| (model.repository(), model.revision(), model.file()));
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn a_name_is_taken_apart_and_nothing_can_leave_its_place() {
        check("hf://org/name", Some(("org/name", "main", None)));
        check("hf://org/n.a-m_e@v1", Some(("org/n.a-m_e", "v1", None)));
        check(
            "hf://org/name@refs%2Fpr%2F1/q4.gguf",
            Some(("org/name", "refs%2Fpr%2F1", Some("q4.gguf"))),
        );
        check(
            "hf://org/name/a/b.gguf",
            Some(("org/name", "main", Some("a/b.gguf"))),
        );
        for refused in [
            "org/name",
            "hf://name",
            "hf://org/",
            "hf:///name",
            "hf://../name",
            "hf://org/..",
            "hf://org/name@",
            "hf://org/name@a b",
            "hf://org/name@..",
            "hf://org/name@a?b",
            "hf://org/name@%2E%2E",
            "hf://org/name@v1/../x.gguf",
            "hf://org/name@v1/model.bin",
            "hf://org/name@v1/",
        ] {
            check(refused, None);
        }
    }

    #[test]
    fn only_a_commit_pins_a_model_and_it_is_written_as_it_is_read() {
        let model: Model = "hf://org/name/x.gguf".parse().unwrap();
        assert!(!model.is_pinned() && model.at("v1").is_err());
        let pinned = model.at(COMMIT).unwrap();
        assert!(pinned.is_pinned());
        assert_eq!(pinned.to_string(), format!("hf://org/name@{COMMIT}/x.gguf"));
        assert_eq!(pinned.to_string().parse(), Ok(pinned));
    }

    #[test]
    fn a_rule_admits_what_it_names_and_nothing_that_begins_alike() {
        let admits = |rule: &str, model: &str| {
            let rule: Allowed = rule.parse().unwrap();
            rule.admits(&model.parse().unwrap())
        };
        assert!(admits("*", "hf://org/name"));
        assert!(admits("org/*", "hf://org/name"));
        assert!(!admits("org/*", "hf://organ/name"));
        assert!(admits("org/name", "hf://org/name@v1"));
        assert!(!admits("org/name", "hf://org/name2"));
        let pinned = format!("hf://org/name@{COMMIT}");
        assert!(admits(&format!("org/name@{COMMIT}"), &pinned));
        assert!(!admits(&format!("org/name@{COMMIT}"), "hf://org/name@v1"));
        for refused in [
            "",
            "org",
            "or*/name",
            "org/na*",
            "../*",
            "org/name@v1/x.gguf",
        ] {
            assert!(refused.parse::<Allowed>().is_err(), "{refused}");
        }
    }
}
