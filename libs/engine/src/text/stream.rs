//! Generated ids to text, one at a time.
//!
//! A character may span several tokens: nothing is handed out until it is whole. The pieces joined
//! with what `finish` returns equal `decode_plain` of all ids.

use super::{Error, Tokenizer};

/// An incomplete character is at most three byte tokens, but a text may also hold U+FFFD itself, many
/// in a row, each of three; beyond this the bytes are no text.
const WITHHELD_TOKENS: usize = 64;

/// The incomplete tail of the text so far.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    /// Ids whose text may still change what follows: decoded together, since a decoder may treat
    /// the first token of a sequence in its own way.
    window: Vec<u32>,
    /// How many ids of the window have been handed out as text.
    given: usize,
}

impl<'a> TextStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Self {
        Self {
            tokenizer,
            window: Vec::new(),
            given: 0,
        }
    }

    /// The text that this id completes; `None` while a character is incomplete, or for a special
    /// token.
    ///
    /// # Errors
    /// [`Error::UnknownToken`] for an id outside the vocabulary; the stream stays usable.
    pub fn push(&mut self, id: u32) -> Result<Option<String>, Error> {
        self.tokenizer.check(&[id])?;
        self.window.push(id);
        let withheld = self.window.len().saturating_sub(self.given);
        let incomplete = self.tail()?.ends_with(char::REPLACEMENT_CHARACTER);
        if incomplete && withheld < WITHHELD_TOKENS {
            return Ok(None);
        }
        let piece = self.take()?;
        Ok((!piece.is_empty()).then_some(piece))
    }

    /// What is left when generation ends; incomplete bytes become U+FFFD.
    ///
    /// # Errors
    /// The tokenizer refuses the ids.
    pub fn finish(mut self) -> Result<String, Error> {
        self.take()
    }

    /// Text of the ids not yet handed out.
    fn tail(&self) -> Result<String, Error> {
        let whole = self.tokenizer.decode_plain(&self.window)?;
        let given = self.window.get(..self.given).unwrap_or_default();
        let given = self.tokenizer.decode_plain(given)?;
        match whole.strip_prefix(&given) {
            Some(tail) => Ok(tail.to_owned()),
            // SentencePiece's bytes in a row are decoded together: one character that is not whole makes none of them
            // text, those included that have been handed out.
            None => {
                let withheld = self.window.get(self.given..).unwrap_or_default();
                self.tokenizer.decode_plain(withheld)
            }
        }
    }

    fn take(&mut self) -> Result<String, Error> {
        let piece = self.tail()?;
        // Behind a token without text, a special one, the next would else be decoded as a sequence's first.
        if !piece.is_empty() || self.window.len() > WITHHELD_TOKENS {
            self.window.drain(..self.given);
        }
        self.given = self.window.len();
        Ok(piece)
    }
}
