//! One turn of a conversation: who speaks, what is said, which tools are called.
//!
//! A turn is read as `transformers` reads it: a key whose value is null is as if it were absent, every other key reaches
//! the chat template, and a thought is there under each name that templates know it by.

use std::fmt;

use minijinja::Value;
use minijinja::value::ValueKind;
use serde::Deserialize;

use super::tools::{Arguments, BadTools, Call, is_shallow};

/// Under which names a thought is written, the first of them winning, and under which templates look for it.
const WRITTEN: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];
const LOOKED_FOR: [&str; 2] = ["reasoning_content", "thinking"];

/// One turn of a conversation.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool`, or what else the template knows.
    pub role: String,
    /// What was said; none where a turn only calls tools.
    pub content: Option<String>,
    calls: Vec<Call>,
    /// What else the record holds of the turn, such as the name of the tool that answers.
    more: Vec<(String, Value)>,
}

/// Why an object is no turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTurn {
    /// Neither who speaks nor what is said can be read.
    #[error("a turn has a role, and a content that is text, or null beside tool_calls")]
    Shape,
    /// Its calls cannot be read.
    #[error(transparent)]
    Tools(#[from] BadTools),
}

impl Message {
    /// A turn in which only words are said.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: Some(content.into()),
            calls: Vec::new(),
            more: Vec::new(),
        }
    }

    /// Whether the model is to learn this turn.
    #[must_use]
    pub fn is_assistant(&self) -> bool {
        self.role == "assistant"
    }

    /// Whether the turn calls tools.
    #[must_use]
    pub fn calls_tools(&self) -> bool {
        !self.calls.is_empty()
    }

    /// What was said, empty where nothing was.
    #[must_use]
    pub fn said(&self) -> &str {
        self.content.as_deref().unwrap_or_default()
    }

    /// Each call as JSON.
    pub(crate) fn calls_json(&self) -> impl Iterator<Item = String> + '_ {
        self.calls.iter().map(Call::json)
    }

    /// Whether a text holds the names of all that was called, or where nothing was called, what was said.
    pub(crate) fn is_within(&self, text: &str) -> bool {
        let words = (!self.calls_tools()).then(|| self.said().trim());
        let mut names = self.calls.iter().map(Call::name);
        names.all(|name| text.contains(name)) && words.is_none_or(|words| text.contains(words))
    }

    /// A turn of the same role that says something else, from the first byte on.
    pub(crate) fn otherwise(&self) -> Self {
        let other = if self.said().trim_start().starts_with('#') {
            "@"
        } else {
            "#"
        };
        Self {
            calls: Vec::new(),
            content: Some(other.to_owned()),
            ..self.clone()
        }
    }

    /// The turn with the names of what it calls, and the answer of a tool, replaced, and what they are replaced by.
    pub(super) fn marked(&self, place: usize) -> (Self, Vec<String>) {
        let mark = |number: usize| format!("mark{place}x{number}y");
        let marks: Vec<String> = (0..self.calls.len()).map(mark).collect();
        let calls = self.calls.iter().zip(&marks);
        let calls = calls.map(|(call, mark)| call.named(mark)).collect();
        let mut marked = Self {
            calls,
            ..self.clone()
        };
        if self.role != "tool" {
            return (marked, marks);
        }
        marked.content = Some(mark(0));
        (marked, vec![mark(0)])
    }

    /// As templates see it.
    pub(super) fn value(&self, arguments: Arguments) -> Value {
        let role = ("role", Value::from(self.role.as_str()));
        let content = self.content.as_deref().map(Value::from);
        let calls = self.calls.iter().map(|call| call.value(arguments));
        let calls = self.calls_tools().then(|| calls.collect::<Value>());
        let said = [("content", content), ("tool_calls", calls)];
        let said = said
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)));
        let more = self.more.iter();
        let more = more.map(|(key, value)| (key.as_str(), value.clone()));
        Value::from_pairs(std::iter::once(role).chain(said).chain(more))
    }

    fn with_thoughts_under_every_name(mut self) -> Self {
        let under = |name: &str| self.more.iter().find(|(key, _)| key == name);
        let thought = WRITTEN.into_iter().find_map(under);
        let Some(thought) = thought.map(|(_, thought)| thought.clone()) else {
            return self;
        };
        for name in LOOKED_FOR {
            if !self.more.iter().any(|(key, _)| key == name) {
                self.more.push((name.to_owned(), thought.clone()));
            }
        }
        self
    }
}

impl TryFrom<Value> for Message {
    type Error = BadTurn;

    fn try_from(turn: Value) -> Result<Self, BadTurn> {
        if turn.kind() != ValueKind::Map {
            return Err(BadTurn::Shape);
        }
        let text = |value: &Value| value.as_str().map(str::to_owned).ok_or(BadTurn::Shape);
        let (mut role, mut content) = (None, None);
        let (mut calls, mut more) = (Vec::new(), Vec::new());
        for key in turn.try_iter().map_err(|_| BadTurn::Shape)? {
            let value = turn.get_item(&key).map_err(|_| BadTurn::Shape)?;
            if value.is_none() {
                continue;
            }
            match key.as_str().ok_or(BadTurn::Shape)? {
                "role" => role = Some(text(&value)?),
                "content" => content = Some(text(&value)?),
                "tool_calls" => calls = Call::all(&value)?,
                "function_call" => return Err(BadTools::FunctionCall.into()),
                name if is_shallow(&value) => more.push((name.to_owned(), value)),
                _ => return Err(BadTools::TooDeep.into()),
            }
        }
        let turn = Self {
            role: role.ok_or(BadTurn::Shape)?,
            content,
            calls,
            more,
        };
        if turn.calls_tools() && !turn.is_assistant() {
            return Err(BadTools::NotAssistant.into());
        }
        if turn.content.is_none() && !turn.calls_tools() {
            return Err(BadTurn::Shape);
        }
        Ok(turn.with_thoughts_under_every_name())
    }
}

/// What was said is private: only its size is shown.
impl fmt::Debug for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, calls) = (self.said().len(), self.calls.len());
        write!(
            formatter,
            "{} of {bytes} bytes and {calls} calls",
            self.role
        )
    }
}
