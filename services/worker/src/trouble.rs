//! What the engine's errors mean to the fleet. Nothing of a record goes into the words: neither text
//! nor token ids nor record numbers.

use domain::cause::Trouble;
use engine::{compute, train};

use crate::adapter_file;
use crate::failure::Failure;

impl From<train::Error> for Failure {
    fn from(error: train::Error) -> Self {
        match error {
            train::Error::Compute(error) => error.into(),
            train::Error::NotFinite {
                what,
                step,
                records,
            } => Self::new(
                Trouble::NotFinite,
                format!("the {what} of step {step} over {} records", records.len()),
            ),
            train::Error::NothingLabelled => Self::of(Trouble::DataUnusable, &error),
            other => Self::of(Trouble::PlanUnsupported, &other),
        }
    }
}

impl From<compute::Error> for Failure {
    fn from(error: compute::Error) -> Self {
        match error {
            compute::Error::Cancelled(_) => Self::Stopped,
            compute::Error::Token { vocabulary, .. } => Self::new(
                Trouble::ModelUnusable,
                format!("the tokenizer knows words that the model's {vocabulary} rows do not hold"),
            ),
            compute::Error::TooLong { .. } | compute::Error::Adapter { .. } => {
                Self::of(Trouble::PlanUnsupported, &error)
            }
            compute::Error::Row { .. } => Self::of(Trouble::DataUnusable, &error),
            other => Self::of(Trouble::ModelUnusable, &other),
        }
    }
}

impl From<adapter_file::Error> for Failure {
    fn from(error: adapter_file::Error) -> Self {
        let kind = match &error {
            adapter_file::Error::File(_) => Trouble::StorageUnavailable,
            _ => Trouble::PlanUnsupported,
        };
        Self::of(kind, &error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(failure: Failure, kind: Trouble, absent: &str) {
        let Failure::Site { trouble, detail } = failure else {
            panic!("a stop");
        };
        assert_eq!(trouble, kind);
        assert!(!detail.contains(absent), "{detail}");
    }

    #[test]
    fn neither_token_ids_nor_record_numbers_are_told() {
        let (row, token, vocabulary) = (0, 48_111, 100);
        let unknown = compute::Error::Token {
            row,
            token,
            vocabulary,
        };
        check(unknown.into(), Trouble::ModelUnusable, "48111");
        let (what, step, records) = ("loss", 3, vec![77_001, 77_002]);
        let not_finite = train::Error::NotFinite {
            what,
            step,
            records,
        };
        check(not_finite.into(), Trouble::NotFinite, "7700");
    }
}
