//! One record, and the shapes a line may have.
//!
//! Keys beyond a shape's own are ignored; a turn's all reach the chat template, as in transformers. A label may be
//! written as a string, an integer or a boolean; every other value of a shape must be a string.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Reason;
use super::skipped::{ToolFault, Unread};
use crate::text::{BadTurn, Message, Tools};

/// What a data set's configuration may say of its file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Look at the file: JSON lines of the first readable line's shape, else plain text.
    #[default]
    Auto,
    /// JSON lines of the first readable line's shape.
    Jsonl,
    /// `{"text"}`
    Text,
    /// `{"prompt", "completion"}`
    Completion,
    /// `{"messages": [{"role", "content"}]}`, with `tools` beside them where turns have `tool_calls`
    Messages,
    /// `{"text", "label"}`
    Label,
    /// Plain text, cut into records of whole lines.
    Plain,
}

/// What every record of an open data set looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// `{"text"}`
    Text,
    /// `{"prompt", "completion"}`
    Completion,
    /// `{"messages"}`
    Messages,
    /// `{"text", "label"}`
    Label,
    /// Plain text.
    Plain,
}

/// One record.
#[derive(Clone, PartialEq, Eq)]
pub enum Record {
    /// Text to continue; of shape `text` or `plain`.
    Text {
        /// The text.
        text: String,
    },
    /// A prompt and what is to follow it.
    Completion {
        /// Read, not learned; may be empty.
        prompt: String,
        /// Learned, with the end-of-sequence token behind it.
        completion: String,
    },
    /// A conversation with at least one assistant turn.
    Messages {
        /// The turns.
        messages: Vec<Message>,
        /// What they may call.
        tools: Tools,
    },
    /// A text and the name of its class.
    Label {
        /// The text.
        text: String,
        /// The class.
        label: String,
    },
}

/// The keys that any shape uses.
#[derive(Deserialize)]
struct Line {
    text: Option<Value>,
    label: Option<Value>,
    prompt: Option<Value>,
    completion: Option<Value>,
    messages: Option<Vec<minijinja::Value>>,
    tools: Option<minijinja::Value>,
}

impl Format {
    /// The shape it names; `None` where the file has to tell.
    #[must_use]
    pub fn shape(self) -> Option<Shape> {
        match self {
            Self::Auto | Self::Jsonl => None,
            Self::Text => Some(Shape::Text),
            Self::Completion => Some(Shape::Completion),
            Self::Messages => Some(Shape::Messages),
            Self::Label => Some(Shape::Label),
            Self::Plain => Some(Shape::Plain),
        }
    }
}

impl Record {
    /// Reads a block; without a shape the line tells its own.
    pub(super) fn read(bytes: &[u8], shape: Option<Shape>) -> Result<(Self, Shape), Unread> {
        let text = str::from_utf8(bytes).map_err(|_| Reason::BadUtf8)?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim().is_empty() {
            return Err(Reason::Empty.into());
        }
        if shape == Some(Shape::Plain) {
            let text = text.to_owned();
            return Ok((Self::Text { text }, Shape::Plain));
        }
        // serde would also read an array as the struct's fields in their order.
        if !text.trim_start().starts_with('{') {
            return Err(Reason::BadJson.into());
        }
        let line: Line = serde_json::from_str(text).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => Reason::WrongShape,
            _ => Reason::BadJson,
        })?;
        let shape = shape.or_else(|| line.shape()).ok_or(Reason::WrongShape)?;
        let record = match shape {
            Shape::Messages => line.into_conversation()?,
            shape => line.into_record(shape).ok_or(Reason::WrongShape)?,
        };
        if record.teaches_nothing() {
            return Err(Reason::Empty.into());
        }
        Ok((record, shape))
    }

    /// The text that names this record's class: its completion or label.
    #[must_use]
    pub fn class(&self) -> Option<&str> {
        match self {
            Self::Completion { completion, .. } => Some(completion),
            Self::Label { label, .. } => Some(label),
            Self::Text { .. } | Self::Messages { .. } => None,
        }
    }

    /// Which of the choices this record's completion (or label) is: the same text, or the only one
    /// that is the same but for blanks around it.
    #[must_use]
    pub fn choice<S: AsRef<str>>(&self, choices: &[S]) -> Option<usize> {
        choose(self.class()?, choices)
    }

    /// Bytes of text in the record.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        match self {
            Self::Text { text } => text.len(),
            Self::Completion { prompt, completion } => prompt.len() + completion.len(),
            Self::Label { text, label } => text.len() + label.len(),
            Self::Messages { messages, .. } => messages.iter().map(|turn| turn.said().len()).sum(),
        }
    }

    fn teaches_nothing(&self) -> bool {
        match self {
            Self::Text { text } => text.trim().is_empty(),
            Self::Completion { completion, .. } => completion.is_empty(),
            Self::Label { label, .. } => label.trim().is_empty(),
            Self::Messages { messages, .. } => !messages.iter().any(Message::is_assistant),
        }
    }
}

impl Line {
    fn shape(&self) -> Option<Shape> {
        if self.messages.is_some() {
            return Some(Shape::Messages);
        }
        if self.prompt.is_some() && self.completion.is_some() {
            return Some(Shape::Completion);
        }
        self.text.as_ref()?;
        Some(match self.label {
            Some(_) => Shape::Label,
            None => Shape::Text,
        })
    }

    fn into_conversation(self) -> Result<Record, Unread> {
        let tools = self.tools.map(Tools::try_from).transpose();
        let tools = tools.map_err(|what| ToolFault { turn: None, what })?;
        let turns = self.messages.ok_or(Reason::WrongShape)?.into_iter();
        let turns = (1..).zip(turns).map(|(turn, value)| {
            Message::try_from(value).map_err(|bad| match bad {
                BadTurn::Shape => Unread::from(Reason::WrongShape),
                BadTurn::Tools(what) => Unread::from(ToolFault {
                    turn: Some(turn),
                    what,
                }),
            })
        });
        Ok(Record::Messages {
            messages: turns.collect::<Result<_, _>>()?,
            tools: tools.unwrap_or_default(),
        })
    }

    /// A record of any other shape.
    fn into_record(self, shape: Shape) -> Option<Record> {
        Some(match shape {
            Shape::Text | Shape::Plain => Record::Text {
                text: string(self.text?)?,
            },
            Shape::Completion => Record::Completion {
                prompt: string(self.prompt?)?,
                completion: string(self.completion?)?,
            },
            Shape::Label => Record::Label {
                text: string(self.text?)?,
                label: label(self.label?)?,
            },
            Shape::Messages => return None,
        })
    }
}

fn string(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

fn label(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    }
}

/// Which choice an answer is.
pub(super) fn choose<S: AsRef<str>>(answer: &str, choices: &[S]) -> Option<usize> {
    let same = |choice: &S| choice.as_ref() == answer;
    let alike = |choice: &S| choice.as_ref().trim() == answer.trim();
    if let Some(exact) = choices.iter().position(same) {
        return Some(exact);
    }
    let first = choices.iter().position(alike)?;
    let last = choices.iter().rposition(alike)?;
    (first == last).then_some(first)
}

/// Records are private: only sizes are shown.
impl fmt::Debug for Record {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = match self {
            Self::Text { .. } => "text",
            Self::Completion { .. } => "completion",
            Self::Messages { .. } => "messages",
            Self::Label { .. } => "label",
        };
        write!(formatter, "{shape} record of {} bytes", self.text_bytes())
    }
}
