//! A record to a row of tokens, some of which carry loss.
//!
//! Prompt and completion are encoded apart and the end-of-sequence token is put behind: short
//! records give exactly the ids that `tokenizer(prompt) + tokenizer(completion) + [eos]` gives in
//! Python, the model's bos only before the prompt: it stands first where the tokenizer puts it first.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::choices::words;
use super::{Record, Refusal, Row, Truncate};
use crate::text::{ChatTemplate, Error, Tokenizer};

/// Which tokens are learned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossOn {
    /// The completion, or the assistant's turns, each with the token that ends it. Text without a
    /// prompt is learned whole.
    #[default]
    Completion,
    /// Every token but the first.
    All,
}

/// How classes are said: turns `{"text", "label"}` into a prompt and a completion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verbalizer {
    /// What follows the text, such as `"\nIs this spam? Answer:"`; never cut.
    pub suffix: String,
    /// Label to completion, such as `1` to `" yes"`.
    pub completions: BTreeMap<String, String>,
}

/// How records become rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodeOptions {
    /// The most tokens in a row; at least 2.
    pub sequence_length: usize,
    /// Which tokens are learned.
    pub loss_on: LossOn,
    /// What is cut from a prompt that is too long.
    pub truncate: Truncate,
    /// Needed for records with labels.
    pub verbalizer: Option<Verbalizer>,
    /// The classes of an encoder's head, in its order: rows are classified, and no token carries loss. Empty: words
    /// are learned.
    pub labels: Vec<String>,
    /// The answers that a decoder's loss is among, each a single token: of a row the prompt is read, and which of them
    /// follows is learned, as `MeZO` (arXiv 2305.17333) trains classification. Empty: words are learned.
    pub among: Vec<String>,
}

/// Encodes the records of one data set for one model.
#[derive(Clone, Debug)]
pub struct Encoder {
    pub(super) tokenizer: Tokenizer,
    pub(super) options: EncodeOptions,
    /// The tokens of the answers that the loss is among.
    pub(super) among: Arc<[u32]>,
    template: Option<ChatTemplate>,
    /// What the model reads before a text or a prompt. A conversation begins as the chat template says.
    bos: Option<u32>,
}

/// A prompt and its answer in text.
pub(super) struct Parts<'a> {
    pub(super) prompt: Cow<'a, str>,
    pub(super) completion: &'a str,
    /// The prompt's end that must stay.
    pub(super) suffix: &'a str,
}

impl Verbalizer {
    /// Says each label as itself after a blank.
    #[must_use]
    pub fn plain(suffix: impl Into<String>, labels: &[String]) -> Self {
        let say = |label: &String| (label.clone(), format!(" {label}"));
        Self {
            suffix: suffix.into(),
            completions: labels.iter().map(say).collect(),
        }
    }
}

impl EncodeOptions {
    /// Loss on completions, prompts cut in the middle.
    #[must_use]
    pub fn new(sequence_length: usize) -> Self {
        Self {
            sequence_length,
            loss_on: LossOn::default(),
            truncate: Truncate::default(),
            verbalizer: None,
            labels: Vec::new(),
            among: Vec::new(),
        }
    }
}

impl Encoder {
    /// # Errors
    /// [`Refusal::SequenceTooShort`] below 2 tokens; a tokenizer that refuses an empty text; an answer to choose among
    /// that is not a token of its own.
    pub fn new(tokenizer: Tokenizer, options: EncodeOptions) -> Result<Self, Refusal> {
        let sequence_length = options.sequence_length;
        if sequence_length < 2 {
            return Err(Refusal::SequenceTooShort { sequence_length });
        }
        // A template that does not compile matters only to conversations, which ask again.
        let template = tokenizer.chat_template().ok();
        let bos = tokenizer.first()?;
        Ok(Self {
            bos,
            among: words(&tokenizer, &options.among)?,
            tokenizer,
            options,
            template,
        })
    }

    /// The row of a record; of a long text, its beginning.
    ///
    /// # Errors
    /// Why the record has no row.
    pub fn row(&self, number: usize, record: &Record) -> Result<Row, Refusal> {
        self.row_of_pass(number, record, 0)
    }

    /// The row of a record in the given pass over the data: a text longer than the sequence shows
    /// its next window in each pass, beginning anew after the last.
    ///
    /// # Errors
    /// Why the record has no row.
    pub fn row_of_pass(&self, number: usize, record: &Record, pass: u64) -> Result<Row, Refusal> {
        if self.classifies() {
            return self.classified(number, record);
        }
        if !self.among.is_empty() {
            return self.chosen(number, record);
        }
        let (tokens, labelled) = match record {
            Record::Text { text } => {
                let tokens = self.begun(self.tokenizer.encode(text)?);
                let windows = self.windows_of(&tokens)?;
                let count = u64::try_from(windows.len()).unwrap_or(u64::MAX).max(1);
                let window = usize::try_from(pass % count).unwrap_or(0);
                let window = windows.get(window).ok_or(Refusal::NothingToLearn)?;
                (window.to_vec(), vec![true; window.len()])
            }
            Record::Messages { messages, tools } => self.conversation(messages, tools)?,
            Record::Completion { .. } | Record::Label { .. } => {
                let parts = self.parts(record)?;
                let mut answer = self.tokenizer.encode(parts.completion)?;
                answer.push(self.tokenizer.eos());
                let prompt = self.prompt(&parts, answer.len())?;
                self.join(prompt, answer)
            }
        };
        finished(number, tokens, labelled)
    }

    /// Every row of a record, for measuring: the windows of a long text, of which each begins with
    /// the last token of the one before, so that every token but the first is predicted once.
    ///
    /// # Errors
    /// Why the record has no row.
    pub fn windows(&self, number: usize, record: &Record) -> Result<Vec<Row>, Refusal> {
        let Record::Text { text } = record else {
            return Ok(vec![self.row(number, record)?]);
        };
        let tokens = self.begun(self.tokenizer.encode(text)?);
        let windows = self.windows_of(&tokens)?.into_iter();
        windows
            .map(|window| finished(number, window.to_vec(), vec![true; window.len()]))
            .collect()
    }

    fn windows_of<'a>(&self, tokens: &'a [u32]) -> Result<Vec<&'a [u32]>, Refusal> {
        let length = self.options.sequence_length;
        if self.options.truncate == Truncate::Refuse && tokens.len() > length {
            return Err(Refusal::TooLong {
                tokens: tokens.len(),
                sequence_length: length,
            });
        }
        let starts = (0..tokens.len().saturating_sub(1)).step_by(length - 1);
        let windows = starts.map(|start| {
            let end = tokens.len().min(start + length);
            tokens.get(start..end).unwrap_or_default()
        });
        Ok(windows.collect())
    }

    /// Prompt, completion and the part of the prompt that asks.
    pub(super) fn parts<'a>(&'a self, record: &'a Record) -> Result<Parts<'a>, Refusal> {
        match record {
            Record::Completion { prompt, completion } => Ok(Parts {
                prompt: Cow::Borrowed(prompt),
                completion,
                suffix: "",
            }),
            Record::Label { text, label } => {
                let verbalizer = self.options.verbalizer.as_ref();
                let verbalizer = verbalizer.ok_or(Refusal::NoVerbalizer)?;
                let completion = verbalizer.completions.get(label);
                Ok(Parts {
                    prompt: Cow::Owned(format!("{text}{}", verbalizer.suffix)),
                    completion: completion.ok_or(Refusal::UnknownLabel)?,
                    suffix: &verbalizer.suffix,
                })
            }
            Record::Text { .. } | Record::Messages { .. } => Err(Refusal::NoChoices),
        }
    }

    /// The prompt's tokens, cut so that an answer of this many tokens fits behind.
    pub(super) fn prompt(&self, parts: &Parts<'_>, answer: usize) -> Result<Vec<u32>, Refusal> {
        let mut prompt = self.tokenizer.encode(&parts.prompt)?;
        let before = usize::from(self.bos.is_some());
        // A prompt needs a token left, for the answer's first is predicted from it.
        let needed = before.max(usize::from(!prompt.is_empty())) + answer;
        let sequence_length = self.options.sequence_length;
        if needed > sequence_length {
            return Err(Refusal::AnswerTooLong {
                answer,
                sequence_length,
            });
        }
        let suffix = self.tokenizer.encode(parts.suffix)?.len();
        let room = sequence_length - answer - before;
        prompt = self.options.truncate.cut(prompt, room, suffix)?;
        Ok(self.begun(prompt))
    }

    /// Tokens and labels of a prompt with its answer.
    pub(super) fn join(&self, prompt: Vec<u32>, answer: Vec<u32>) -> (Vec<u32>, Vec<bool>) {
        let all = self.options.loss_on == LossOn::All;
        let mut labelled = vec![all; prompt.len()];
        labelled.resize(prompt.len() + answer.len(), true);
        ([prompt, answer].concat(), labelled)
    }

    pub(super) fn template(&self) -> Result<Cow<'_, ChatTemplate>, Error> {
        match &self.template {
            Some(template) => Ok(Cow::Borrowed(template)),
            None => self.tokenizer.chat_template().map(Cow::Owned),
        }
    }

    fn begun(&self, tokens: Vec<u32>) -> Vec<u32> {
        self.bos.into_iter().chain(tokens).collect()
    }
}

/// A row whose first token is no target, if any target is left.
pub(super) fn finished(
    record: usize,
    tokens: Vec<u32>,
    mut labelled: Vec<bool>,
) -> Result<Row, Refusal> {
    if let Some(first) = labelled.first_mut() {
        *first = false;
    }
    if !labelled.contains(&true) {
        return Err(Refusal::NothingToLearn);
    }
    Ok(Row {
        tokens,
        labelled,
        class: None,
        record,
    })
}
