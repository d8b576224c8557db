//! What a model is asked: a text, or a line of a file, as token ids.

use anyhow::{Context, ensure};
use engine::text::{Message, Tokenizer, Tools};
use serde::Deserialize;

/// Puts a text into the model's chat template, as a user's turn after the system's.
fn chat(tokenizer: &Tokenizer, text: &str, system: Option<&str>) -> anyhow::Result<Vec<u32>> {
    let system = system.map(|text| Message::new("system", text));
    let user = Message::new("user", text);
    turns(
        tokenizer,
        &system.into_iter().chain([user]).collect::<Vec<_>>(),
        &Tools::default(),
    )
}

/// The conversation, as far as the assistant's next turn. A template writes the model's own first token, if it wants one.
fn turns(tokenizer: &Tokenizer, turns: &[Message], tools: &Tools) -> anyhow::Result<Vec<u32>> {
    let template = tokenizer.chat_template()?;
    template.check_tools(turns, tools)?;
    Ok(tokenizer.encode(&template.render_with_tools(turns, tools, true)?)?)
}

/// A line of a file of prompts.
#[derive(Deserialize)]
struct Line {
    prompt: Option<String>,
    text: Option<String>,
    messages: Option<Vec<Message>>,
    tools: Option<Tools>,
}

/// How texts are asked.
#[derive(Debug, Clone, Copy)]
pub struct Manner<'a> {
    /// Whether they go through the model's chat template.
    pub chat: bool,
    /// What the system says before them there.
    pub system: Option<&'a str>,
}

impl Manner<'_> {
    /// The ids of a text.
    pub fn ask(self, tokenizer: &Tokenizer, text: &str) -> anyhow::Result<Vec<u32>> {
        if self.chat {
            chat(tokenizer, text, self.system)
        } else {
            // As the tokenizer begins it: with the bos, of models that have learned with one.
            Ok(tokenizer.encode_begun(text)?)
        }
    }

    /// The ids of a line of a file: an object with `prompt`, `text` or `messages` (and the `tools` that they may call), or
    /// else a text itself. An answer that is there already, such as the assistant's last turn, is not part of the question.
    pub fn ask_line(self, tokenizer: &Tokenizer, line: &str) -> anyhow::Result<Vec<u32>> {
        let prompt = if line.trim_start().starts_with('{') {
            let line: Line = serde_json::from_str(line)
                .context("it is no JSON object with prompt, text or messages")?;
            match (line.messages, line.prompt.or(line.text)) {
                (Some(messages), _) => {
                    let answered = messages.last().is_some_and(Message::is_assistant);
                    let asked = messages.len() - usize::from(answered);
                    let asked = messages.get(..asked).unwrap_or_default();
                    turns(tokenizer, asked, &line.tools.unwrap_or_default())?
                }
                (None, Some(text)) => self.ask(tokenizer, &text)?,
                (None, None) => Vec::new(),
            }
        } else {
            self.ask(tokenizer, line)?
        };
        ensure!(!prompt.is_empty(), "it asks nothing");
        Ok(prompt)
    }
}

/// The ids at which an answer ends.
pub fn ends(tokenizer: &Tokenizer) -> Vec<u32> {
    tokenizer.ends()
}
