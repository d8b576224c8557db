//! Which of a few answers a model prefers: rows to compare, and the record's own answer.

use super::encode::{Encoder, finished};
use super::record::choose;
use super::{Record, Refusal, Row};

/// One row for each choice, all with the same prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choices {
    /// In the choices' order; exactly the choice's own tokens are labelled, without an end token.
    /// The preferred choice is that of the highest sum of log-probabilities.
    pub rows: Vec<Row>,
    /// Which choice the record holds; `None` if it holds another answer.
    pub answer: Option<usize>,
}

impl Encoder {
    /// Rows for measuring how often the model prefers the record's answer.
    ///
    /// # Errors
    /// [`Refusal::NoChoices`] for text and conversations, and why a record has no row.
    pub fn choices(
        &self,
        number: usize,
        record: &Record,
        choices: &[String],
    ) -> Result<Choices, Refusal> {
        let parts = self.parts(record)?;
        let encode = |choice: &String| self.tokenizer.encode(choice);
        let encoded: Vec<Vec<u32>> = choices.iter().map(encode).collect::<Result<_, _>>()?;
        let longest = encoded.iter().map(Vec::len).max().unwrap_or_default();
        let prompt = self.prompt(&parts, longest)?;
        let rows = encoded.into_iter().map(|choice| {
            let mut labelled = vec![false; prompt.len()];
            labelled.resize(prompt.len() + choice.len(), true);
            finished(number, [prompt.clone(), choice].concat(), labelled)
        });
        Ok(Choices {
            rows: rows.collect::<Result<_, _>>()?,
            answer: choose(parts.completion, choices),
        })
    }
}
