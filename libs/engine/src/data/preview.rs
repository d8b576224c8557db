//! A row for a person's eyes: what the model reads and what it learns.
//!
//! This shows private text. It is for the data's owner at the site, never for a log.

use std::fmt;

use super::{EncodeOptions, Encoder, Refusal, Row};

/// A row, token by token.
#[derive(Clone, PartialEq, Eq)]
pub struct Preview {
    /// The row's text, special tokens spelled out.
    pub text: String,
    /// Its tokens.
    pub pieces: Vec<Piece>,
    /// The label of its class, where the whole row is classified: no token carries loss then.
    pub class: Option<String>,
}

/// One token.
#[derive(Clone, PartialEq, Eq)]
pub struct Piece {
    /// Its id.
    pub token: u32,
    /// Its text; U+FFFD where it is part of a character.
    pub text: String,
    /// Whether it carries loss.
    pub labelled: bool,
}

impl Encoder {
    /// Shows a row.
    ///
    /// # Errors
    /// A token outside the vocabulary.
    pub fn preview(&self, row: &Row) -> Result<Preview, Refusal> {
        let pieces = row.tokens.iter().zip(&row.labelled);
        let pieces = pieces.map(|(token, labelled)| {
            Ok(Piece {
                token: *token,
                text: self.tokenizer.decode(&[*token])?,
                labelled: *labelled,
            })
        });
        let class = row.class.as_ref().and_then(|class| {
            let EncodeOptions { labels, among, .. } = &self.options;
            let names = if self.classifies() { labels } else { among };
            names.get(usize::try_from(class.number).ok()?)
        });
        Ok(Preview {
            text: self.tokenizer.decode(&row.tokens)?,
            pieces: pieces.collect::<Result<_, Refusal>>()?,
            class: class.cloned(),
        })
    }
}

/// Tokens apart by `|`, those with loss within `[` and `]`, then the count, or the class of all.
impl fmt::Display for Preview {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut inside = false;
        for (place, piece) in self.pieces.iter().enumerate() {
            let mark = match (inside, piece.labelled) {
                (false, true) => "[",
                (true, false) => "]",
                _ if place == 0 => "",
                _ => "|",
            };
            inside = piece.labelled;
            write!(formatter, "{mark}{}", piece.text)?;
        }
        if inside {
            formatter.write_str("]")?;
        }
        let tokens = self.pieces.len();
        if let Some(class) = &self.class {
            return write!(formatter, "\n{tokens} tokens, class {class:?}");
        }
        let learned = self.pieces.iter().filter(|piece| piece.labelled).count();
        write!(formatter, "\n{tokens} tokens, {learned} carry loss")
    }
}

/// Previews hold private text: only sizes are shown to `{:?}`.
impl fmt::Debug for Preview {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "preview of {} tokens", self.pieces.len())
    }
}

/// As of [`Preview`].
impl fmt::Debug for Piece {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let loss = if self.labelled { " with loss" } else { "" };
        write!(formatter, "token{loss}")
    }
}
