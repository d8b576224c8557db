//! Whether a chat template says all that a conversation holds of tools.
//!
//! A template that knows no tools renders such a conversation without a word of them, and a model would learn empty
//! answers. So the text is made once more with every tool, call and tool's answer under a mark, and the marks are looked for.

use std::fmt;

use super::{ChatTemplate, Error, Message, Tools};

/// What a template leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// What may be called.
    Tools,
    /// A call of the turn with this number, from 1.
    Call {
        /// The turn.
        turn: usize,
    },
    /// A tool's answer, which is the turn with this number, from 1.
    Answer {
        /// The turn.
        turn: usize,
    },
}

impl ChatTemplate {
    /// Whether the conversation's text has its tools, calls and tools' answers.
    ///
    /// # Errors
    /// [`Error::LeftOut`] where it lacks one; as [`ChatTemplate::render`].
    pub fn check_tools(&self, messages: &[Message], tools: &Tools) -> Result<(), Error> {
        let speaks_of_tools = |turn: &Message| turn.calls_tools() || turn.role == "tool";
        if tools.is_empty() && !messages.iter().any(speaks_of_tools) {
            return Ok(());
        }
        if let Err(error) = self.render_with_tools(messages, tools, false) {
            return Err(self.why_not(messages, error));
        }
        let (marked_tools, names) = tools.marked();
        let (marked, marks): (Vec<Message>, Vec<Vec<String>>) = messages
            .iter()
            .enumerate()
            .map(|(place, turn)| turn.marked(place))
            .unzip();
        // A template that looks into a name or an answer may refuse a mark: then it does not leave it out.
        let Some(text) = self.attempt(&marked, &marked_tools, false) else {
            return Ok(());
        };
        let is_missing = |marks: &Vec<String>| marks.iter().any(|mark| !text.contains(mark));
        if is_missing(&names) {
            return Err(Error::LeftOut(LeftOut::Tools));
        }
        match marks.iter().position(is_missing) {
            None => Ok(()),
            Some(place) => Err(Error::LeftOut(of_turn(messages, place))),
        }
    }

    /// A template that never asks for calls stumbles over a turn without words: that is not the turn's fault.
    fn why_not(&self, messages: &[Message], error: Error) -> Error {
        match messages.iter().position(Message::calls_tools) {
            Some(place) if !self.asks_for_calls() => Error::LeftOut(of_turn(messages, place)),
            _ => error,
        }
    }
}

fn of_turn(messages: &[Message], place: usize) -> LeftOut {
    let turn = place + 1;
    match messages.get(place).is_some_and(Message::calls_tools) {
        true => LeftOut::Call { turn },
        false => LeftOut::Answer { turn },
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tools => formatter.write_str("the conversation's tools"),
            Self::Call { turn } => write!(formatter, "a tool call of turn {turn}"),
            Self::Answer { turn } => write!(formatter, "the tool's answer in turn {turn}"),
        }
    }
}
