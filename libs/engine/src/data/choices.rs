//! Which of a few answers a model prefers: rows to compare, and the record's own answer.

use std::sync::Arc;

use super::encode::{Encoder, finished};
use super::record::choose;
use super::{Class, Record, Refusal, Row};
use crate::text::Tokenizer;

/// One row for each choice, all with the same prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choices {
    /// In the choices' order; exactly the choice's own tokens are labelled, without an end token.
    /// The preferred choice is that of the highest sum of log-probabilities.
    pub rows: Vec<Row>,
    /// Which choice the record holds; `None` if it holds another answer.
    pub answer: Option<usize>,
}

/// The one token of each answer that a loss is among.
pub(super) fn words(tokenizer: &Tokenizer, answers: &[String]) -> Result<Arc<[u32]>, Refusal> {
    let mut found = Vec::with_capacity(answers.len());
    for answer in answers {
        let own = tokenizer.encode(answer)?;
        let refused = |tokens| Refusal::Choice {
            choice: answer.clone(),
            tokens,
        };
        let [token] = own.as_slice() else {
            return Err(refused(own.len()));
        };
        if found.contains(token) {
            return Err(refused(0));
        }
        found.push(*token);
    }
    Ok(found.into())
}

impl Encoder {
    /// The row of a record whose answer is learned among a few: its prompt, and which of them follows.
    pub(super) fn chosen(&self, number: usize, record: &Record) -> Result<Row, Refusal> {
        let parts = self.parts(record)?;
        let answer = choose(parts.completion, &self.options.among).ok_or(Refusal::OtherAnswer)?;
        let class = Class {
            number: u32::try_from(answer).map_err(|_| Refusal::OtherAnswer)?,
            words: Arc::clone(&self.among),
        };
        let tokens = self.prompt(&parts, 1)?;
        if tokens.is_empty() {
            return Err(Refusal::NothingToLearn);
        }
        Ok(Row {
            labelled: vec![false; tokens.len()],
            tokens,
            class: Some(class),
            record: number,
        })
    }

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
