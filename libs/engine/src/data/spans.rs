//! Where in a conversation's text the assistant speaks.

use super::Refusal;
use crate::text::{ChatTemplate, Message, Tools};

/// What makes text of a record's turns.
pub(super) struct Speech<'a> {
    pub(super) template: &'a ChatTemplate,
    pub(super) tools: &'a Tools,
}

/// Bytes of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: usize,
    pub(super) to: usize,
    /// Whether the beginning of the turn behind it is within: only a token that ends turns tells the two apart.
    pub(super) open: bool,
}

impl Speech<'_> {
    pub(super) fn render(&self, messages: &[Message], prompt: bool) -> Result<String, Refusal> {
        let text = self
            .template
            .render_with_tools(messages, self.tools, prompt);
        Ok(text?)
    }

    /// The same where a refusal says enough.
    fn attempt(&self, messages: &[Message], prompt: bool) -> Option<String> {
        self.template.attempt(messages, self.tools, prompt)
    }

    /// What the assistant's last turn adds to the prompt for it.
    pub(super) fn last(&self, messages: &[Message]) -> Result<String, Refusal> {
        let (_, before) = messages.split_last().ok_or(Refusal::NothingToLearn)?;
        let mut text = self.render(messages, false)?;
        let prompt = shared(&self.render(before, true)?, &text);
        Ok(text.split_off(text.floor_char_boundary(prompt)))
    }

    /// Where in `text`, which is that of all the turns, the assistant speaks.
    pub(super) fn spans(&self, messages: &[Message], text: &str) -> Result<Vec<Span>, Refusal> {
        let mut spans = Vec::new();
        for (place, message) in messages.iter().enumerate() {
            if !message.is_assistant() {
                continue;
            }
            let until = self.attempt(messages.get(..=place).unwrap_or_default(), false);
            let Some(until) = until.filter(|until| text.starts_with(until)) else {
                spans.extend(self.rewritten(messages, place, text));
                continue;
            };
            // A generation prompt may open what an answer does not contain, such as a thought.
            let prompt = self.render(messages.get(..place).unwrap_or_default(), true)?;
            spans.push(Span {
                from: shared(&prompt, &until),
                to: until.len(),
                open: false,
            });
        }
        Ok(spans)
    }

    /// Some templates write a turn otherwise once more turns follow, most often without its thought. Then it reaches from
    /// where the text begins to depend on it to where it begins to depend on the turn behind it. A turn that is not there
    /// any more is not learned.
    fn rewritten(&self, messages: &[Message], place: usize, text: &str) -> Option<Span> {
        let begins = shared(&self.otherwise(messages, place)?, text);
        let before = text.get(..text.floor_char_boundary(begins))?;
        let lead = self.lead(messages.get(..=place)?).unwrap_or_default();
        let from = before.strip_suffix(&lead).unwrap_or(before).len();
        let to = shared(&self.otherwise(messages, place + 1)?, text);
        let said = text.get(from..text.floor_char_boundary(to))?;
        let open = true;
        let is_whole = messages.get(place)?.is_within(said);
        is_whole.then_some(Span { from, to, open })
    }

    /// What the last turn has before its own words and behind the prompt, such as a blank.
    fn lead(&self, messages: &[Message]) -> Option<String> {
        let (_, before) = messages.split_last()?;
        let text = self.attempt(messages, false)?;
        let from = shared(&self.attempt(before, true)?, &text);
        let to = shared(&self.otherwise(messages, before.len())?, &text);
        Some(text.get(from..to)?.to_owned())
    }

    /// The conversation's text if something else were said in a turn.
    fn otherwise(&self, messages: &[Message], place: usize) -> Option<String> {
        let mut others = messages.to_vec();
        let turn = others.get_mut(place)?;
        *turn = turn.otherwise();
        self.attempt(&others, false)
    }
}

/// Bytes that two texts have in common at their beginnings.
fn shared(one: &str, other: &str) -> usize {
    let pairs = one.bytes().zip(other.bytes());
    pairs.take_while(|(one, other)| one == other).count()
}
