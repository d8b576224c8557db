//! How a task ends without a result, and what is said of it to the fleet.

use std::error::Error as StdError;

use domain::cause::{DETAIL_LIMIT, Trouble};

/// A task without a result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Cancelled by an order, or the process is stopping: nothing is reported.
    #[error("the task was stopped")]
    Stopped,
    /// It cannot be done here: reported.
    #[error("the site {trouble} ({detail})")]
    Site {
        /// What kind of trouble.
        trouble: Trouble,
        /// One sentence for a person; never data, tokens or paths of records.
        detail: String,
    },
}

impl Failure {
    /// A failure of this kind.
    #[must_use]
    pub fn new(trouble: Trouble, detail: impl Into<String>) -> Self {
        let detail: String = detail.into();
        let detail = detail.chars().take(DETAIL_LIMIT).collect();
        Self::Site { trouble, detail }
    }

    /// A failure of this kind, explained by an error and what lies below it.
    #[must_use]
    pub fn of(trouble: Trouble, error: &dyn StdError) -> Self {
        Self::new(trouble, explain(error))
    }

    /// A defect of this program.
    #[must_use]
    pub fn internal(error: &dyn StdError) -> Self {
        Self::of(Trouble::Internal, error)
    }
}

/// An error and the errors below it in one line.
#[must_use]
pub fn explain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(error) = below {
        let more = error.to_string();
        // Transparent wrappers repeat what lies below them.
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        below = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn an_error_is_explained_down_to_its_root() {
        let error = Outer(std::io::Error::other("root"));
        assert_eq!(explain(&error), "outer: root");
    }

    #[test]
    fn a_detail_has_a_limit() {
        let Failure::Site { detail, .. } = Failure::new(Trouble::Internal, "x".repeat(5000)) else {
            panic!("not a stop");
        };
        assert_eq!(detail.len(), DETAIL_LIMIT);
    }
}
