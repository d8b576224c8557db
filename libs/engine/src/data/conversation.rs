//! Conversations: rendered by the model's chat template, learned where the assistant speaks.
//!
//! An assistant's turn reaches from where the template's generation prompt ends to the token that
//! ends the turn. The ids are those of the rendered text as a whole.

use super::encode::{Encoder, LossOn};
use super::spans::Speech;
use super::{Refusal, Truncate};
use crate::text::{Message, Tools};

type Labelled = (Vec<u32>, Vec<bool>);

impl Encoder {
    /// Tokens and labels. What is too long loses its oldest exchanges first (the system's words
    /// stay), then tokens of the prompt before the last answer.
    pub(super) fn conversation(
        &self,
        messages: &[Message],
        tools: &Tools,
    ) -> Result<Labelled, Refusal> {
        let (tokens, mut labelled) = self.fitted(messages, tools)?;
        if self.options.loss_on == LossOn::All {
            labelled.fill(true);
        }
        Ok((tokens, labelled))
    }

    fn fitted(&self, messages: &[Message], tools: &Tools) -> Result<Labelled, Refusal> {
        let template = self.template()?;
        let template = template.as_ref();
        let speech = Speech { template, tools };
        let last = messages.iter().rposition(Message::is_assistant);
        let last = last.ok_or(Refusal::NothingToLearn)?;
        // What is said after the last answer teaches nothing.
        let messages = messages.get(..=last).unwrap_or_default();
        template.check_tools(messages, tools)?;
        let whole = self.labelled(&speech, messages)?;
        let length = self.options.sequence_length;
        if whole.0.len() <= length {
            return Ok(whole);
        }
        if self.options.truncate == Truncate::Refuse {
            return Err(Refusal::TooLong {
                tokens: whole.0.len(),
                sequence_length: length,
            });
        }
        let shorter = |from: usize| self.labelled(&speech, &later(messages, from));
        let mut starts = starts(messages);
        // The fewest exchanges dropped that suffice: fewer turns never make a longer text.
        while starts.len() > 1 {
            let middle = (starts.len() - 1) / 2;
            let start = starts.get(middle).copied().unwrap_or_default();
            if shorter(start)?.0.len() <= length {
                starts.truncate(middle + 1);
            } else {
                starts.drain(..=middle);
            }
        }
        let shortest = match starts.first() {
            Some(start) => shorter(*start)?,
            None => whole,
        };
        if shortest.0.len() <= length {
            return Ok(shortest);
        }
        self.cut_prompt(shortest)
    }

    /// Cuts before the last answer, which must fit.
    fn cut_prompt(&self, (tokens, labelled): Labelled) -> Result<Labelled, Refusal> {
        // A turn's labels are in one piece: the last unlabelled token ends the prompt.
        let answer = labelled.iter().rev().take_while(|label| **label).count();
        let sequence_length = self.options.sequence_length;
        if answer + 1 > sequence_length {
            return Err(Refusal::AnswerTooLong {
                answer,
                sequence_length,
            });
        }
        let (prompt, answer) = tokens.split_at(tokens.len() - answer);
        let room = sequence_length - answer.len();
        let prompt = self.options.truncate.cut(prompt.to_vec(), room, 0)?;
        Ok(self.join(prompt, answer.to_vec()))
    }

    /// The whole conversation, its last token being the end of the last answer.
    fn labelled(&self, speech: &Speech<'_>, messages: &[Message]) -> Result<Labelled, Refusal> {
        let text = speech.render(messages, false)?;
        let spans = speech.spans(messages, &text)?;
        let located = self.tokenizer.encode_located(&text)?;
        let mut labelled = vec![false; located.len()];
        for span in spans {
            // An empty token is a blank whose place was trimmed away.
            let inside: Vec<usize> = (0..)
                .zip(&located)
                .filter(|(_, token)| token.start < span.to && token.end > span.from)
                .map(|(place, _)| place)
                .collect();
            let is_end = |place: &&usize| {
                let token = located.get(**place);
                token.is_some_and(|token| self.tokenizer.is_end(token.id))
            };
            let (first, last) = (inside.first(), inside.iter().rfind(is_end));
            let last = last.or(inside.last().filter(|_| !span.open));
            if let (Some(first), Some(last)) = (first, last) {
                labelled
                    .iter_mut()
                    .take(last + 1)
                    .skip(*first)
                    .for_each(|label| *label = true);
            }
        }
        let mut tokens: Vec<u32> = located.iter().map(|token| token.id).collect();
        let end = labelled.iter().rposition(|label| *label);
        tokens.truncate(end.map_or(0, |end| end + 1));
        labelled.truncate(tokens.len());
        Ok((tokens, labelled))
    }
}

/// Where a conversation may begin anew: at a user's turn after the first that an answer follows.
pub(super) fn starts(messages: &[Message]) -> Vec<usize> {
    let users = messages.iter().enumerate();
    let users = users.filter(|(_, message)| message.role == "user");
    users.map(|(place, _)| place).skip(1).collect()
}

/// The system's words and everything from a turn on.
pub(super) fn later(messages: &[Message], from: usize) -> Vec<Message> {
    let system = messages
        .iter()
        .take_while(|message| message.role == "system");
    let rest = messages.get(from..).unwrap_or_default();
    system.chain(rest).cloned().collect()
}
