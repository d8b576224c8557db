//! What a record asks, for a model to answer in its own words, and the record's own answer.

use std::borrow::Cow;

use super::conversation::{later, starts};
use super::encode::Encoder;
use super::spans::Speech;
use super::{Record, Refusal};
use crate::text::{Message, Tools};

/// A question and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Token ids, at least one. With an answer of as many tokens as were asked for they fit the sequence, or at least
    /// half of it is left for the answer.
    pub prompt: Vec<u32>,
    /// The record's own answer.
    pub wanted: String,
}

impl Encoder {
    /// The question of a record with an answer: its prompt, or a conversation before the assistant's last turn. It is
    /// cut as for training, so that an answer of `tokens` fits the sequence.
    ///
    /// # Errors
    /// [`Refusal::NothingToLearn`] for a text, which asks nothing, and a conversation that does not end with the
    /// assistant; why the record cannot be encoded.
    pub fn question(&self, record: &Record, tokens: usize) -> Result<Question, Refusal> {
        let answer = tokens.min(self.options.sequence_length / 2);
        let (prompt, wanted) = match record {
            Record::Text { .. } => return Err(Refusal::NothingToLearn),
            Record::Messages { messages, tools } => self.turns_before(messages, tools, answer)?,
            Record::Completion { .. } | Record::Label { .. } => {
                let parts = self.parts(record)?;
                (self.prompt(&parts, answer)?, parts.completion.to_owned())
            }
        };
        if prompt.is_empty() || wanted.trim().is_empty() {
            return Err(Refusal::NothingToLearn);
        }
        Ok(Question { prompt, wanted })
    }

    /// A conversation as far as the assistant's last turn, and that turn's words, or its calls as the model writes them.
    /// What is too long loses its oldest exchanges first, then tokens.
    fn turns_before(
        &self,
        messages: &[Message],
        tools: &Tools,
        answer: usize,
    ) -> Result<(Vec<u32>, String), Refusal> {
        let (last, before) = messages.split_last().ok_or(Refusal::NothingToLearn)?;
        if !last.is_assistant() {
            return Err(Refusal::NothingToLearn);
        }
        let template = self.template()?;
        let template = template.as_ref();
        template.check_tools(messages, tools)?;
        let speech = Speech { template, tools };
        let room = self.options.sequence_length - answer;
        let whole = std::iter::once(Cow::Borrowed(before));
        let shorter = starts(before).into_iter();
        let mut shortest = Vec::new();
        for turns in whole.chain(shorter.map(|from| Cow::Owned(later(before, from)))) {
            shortest = self.tokenizer.encode(&speech.render(&turns, true)?)?;
            if shortest.len() <= room {
                break;
            }
        }
        let prompt = self.options.truncate.cut(shortest, room, 0)?;
        let wanted = match last.calls_tools() {
            // Read as the model's answer will be.
            true => {
                let called = self.tokenizer.encode(&speech.last(messages)?)?;
                self.tokenizer.decode_plain(&called)?.trim().to_owned()
            }
            false => last.said().to_owned(),
        };
        Ok((prompt, wanted))
    }
}
