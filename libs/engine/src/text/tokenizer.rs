//! The tokenizer of one model: text to ids and back.
//!
//! Special tokens spelled out in a text (`<|im_end|>`) become their ids, as in `transformers`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::quantized::gguf_file::Content;

use super::{ChatTemplate, Error, TextStream, folder, gguf};

/// A model's tokenizer with its special tokens and chat template; cheap to clone.
#[derive(Clone)]
pub struct Tokenizer {
    parts: Arc<Parts>,
}

/// What the two sources (folder and GGUF) provide.
pub(super) struct Parts {
    pub(super) tokenizer: tokenizers::Tokenizer,
    pub(super) specials: Specials,
    /// Jinja source, when the model has one.
    pub(super) chat_template: Option<String>,
}

/// Ids with a meaning.
#[derive(Debug, Default)]
pub(super) struct Specials {
    pub(super) bos: Option<u32>,
    /// The sequence's end, as the tokenizer's own configuration names it.
    pub(super) eos: Option<u32>,
    pub(super) pad: Option<u32>,
    /// Further ids at which generation stops.
    pub(super) other_ends: Vec<u32>,
    /// Ids that `encode_with_special` puts around a text itself, because no post-processor does.
    pub(super) before: Option<u32>,
    pub(super) after: Option<u32>,
}

/// A token with the bytes of the text it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Located {
    pub(crate) id: u32,
    /// Offset of its first byte in the text.
    pub(crate) start: usize,
    /// Offset behind its last byte.
    pub(crate) end: usize,
}

impl Tokenizer {
    /// Reads `tokenizer.json` of a Hugging Face folder; special tokens and chat template come from
    /// the files beside it (`tokenizer_config.json`, `chat_template.jinja`,
    /// `special_tokens_map.json`, `generation_config.json`, `config.json`), each optional.
    ///
    /// # Errors
    /// An unreadable or malformed file, or no end-of-sequence token in any of them.
    pub fn from_folder(folder: &Path) -> Result<Self, Error> {
        Self::new(folder::read(folder)?)
    }

    /// The files that [`Tokenizer::from_folder`] reads beside `config.json`, as far as they are there, in a fixed order.
    pub(crate) fn files_of(folder: &Path) -> Vec<PathBuf> {
        folder::files(folder)
    }

    /// Builds the tokenizer from the metadata of a GGUF file.
    ///
    /// # Errors
    /// Missing metadata, or a kind of tokenizer whose ids cannot be promised.
    pub fn from_gguf(content: &Content) -> Result<Self, Error> {
        Self::new(gguf::read(content)?)
    }

    fn new(mut parts: Parts) -> Result<Self, Error> {
        // A tokenizer.json may carry somebody's truncation or padding; data decides that here.
        parts.tokenizer.with_padding(None);
        let untruncated = parts.tokenizer.with_truncation(None);
        untruncated.map_err(|source| malformed("tokenizer", source))?;
        if parts.specials.eos.is_none() {
            return Err(Error::NoEndToken);
        }
        Ok(Self {
            parts: Arc::new(parts),
        })
    }

    pub(super) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Ids of the text alone, without the tokens a model wants around a sequence.
    ///
    /// # Errors
    /// The tokenizer refuses the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        let encoding = self.parts.tokenizer.encode_fast(text, false);
        Ok(encoding.map_err(Error::Encode)?.get_ids().to_vec())
    }

    /// Ids of the text within the tokens the model wants around a sequence (often a leading bos).
    ///
    /// # Errors
    /// The tokenizer refuses the text.
    pub fn encode_with_special(&self, text: &str) -> Result<Vec<u32>, Error> {
        let encoding = self.parts.tokenizer.encode_fast(text, true);
        let encoding = encoding.map_err(Error::Encode)?;
        let specials = &self.parts.specials;
        let body = encoding.get_ids().iter().copied();
        Ok(specials
            .before
            .into_iter()
            .chain(body)
            .chain(specials.after)
            .collect())
    }

    /// The bos id, if the tokenizer itself puts it before every text: what its model has always read first. A chat
    /// template writes its own.
    ///
    /// # Errors
    /// The tokenizer refuses an empty text.
    pub fn first(&self) -> Result<Option<u32>, Error> {
        let around = self.encode_with_special("")?;
        Ok(self.bos().filter(|bos| around.first() == Some(bos)))
    }

    /// Ids of the text behind [`Tokenizer::first`].
    ///
    /// # Errors
    /// The tokenizer refuses the text.
    pub fn encode_begun(&self, text: &str) -> Result<Vec<u32>, Error> {
        Ok(self
            .first()?
            .into_iter()
            .chain(self.encode(text)?)
            .collect())
    }

    /// Ids of the text, each with the bytes it covers.
    pub(crate) fn encode_located(&self, text: &str) -> Result<Vec<Located>, Error> {
        let encoding = self.parts.tokenizer.encode(text, false);
        let encoding = encoding.map_err(Error::Encode)?;
        let ids = encoding.get_ids().iter();
        Ok(ids
            .zip(encoding.get_offsets())
            .map(|(id, (start, end))| Located {
                id: *id,
                start: *start,
                end: *end,
            })
            .collect())
    }

    /// The text of the ids, special tokens spelled out.
    ///
    /// # Errors
    /// [`Error::UnknownToken`] for an id outside the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        self.check(ids)?;
        let text = self.parts.tokenizer.decode(ids, false);
        text.map_err(Error::Decode)
    }

    /// The text of the ids without special tokens: what a reader of generated text wants.
    ///
    /// # Errors
    /// [`Error::UnknownToken`] for an id outside the vocabulary.
    pub fn decode_plain(&self, ids: &[u32]) -> Result<String, Error> {
        self.check(ids)?;
        let text = self.parts.tokenizer.decode(ids, true);
        text.map_err(Error::Decode)
    }

    /// Turns generated ids into text one at a time, without special tokens.
    #[must_use]
    pub fn stream(&self) -> TextStream<'_> {
        TextStream::new(self)
    }

    /// The model's chat template.
    ///
    /// # Errors
    /// [`Error::NoChatTemplate`] if it has none; [`Error::Template`] if it does not compile.
    pub fn chat_template(&self) -> Result<ChatTemplate, Error> {
        let source = self.parts.chat_template.as_deref();
        let source = source.ok_or(Error::NoChatTemplate)?;
        let name = |id: Option<u32>| id.and_then(|id| self.parts.tokenizer.id_to_token(id));
        let specials = &self.parts.specials;
        ChatTemplate::new(source, name(specials.bos), name(specials.eos))
    }

    /// The end-of-sequence id.
    #[must_use]
    pub fn eos(&self) -> u32 {
        // Invariant: `new` refuses a tokenizer without one.
        self.parts.specials.eos.unwrap_or_default()
    }

    /// The begin-of-sequence id, if the model has one.
    #[must_use]
    pub fn bos(&self) -> Option<u32> {
        self.parts.specials.bos
    }

    /// The padding id; the end-of-sequence id where the model names none.
    #[must_use]
    pub fn pad(&self) -> u32 {
        self.parts.specials.pad.unwrap_or(self.eos())
    }

    /// Whether generation stops at this id: end of sequence or end of turn.
    #[must_use]
    pub fn is_end(&self, id: u32) -> bool {
        id == self.eos() || self.parts.specials.other_ends.contains(&id)
    }

    /// The ids at which generation stops.
    #[must_use]
    pub fn ends(&self) -> Vec<u32> {
        let vocabulary = u32::try_from(self.vocabulary_size()).unwrap_or(u32::MAX);
        (0..vocabulary).filter(|id| self.is_end(*id)).collect()
    }

    /// How many ids there are, special tokens included; a model's embedding may have more rows.
    #[must_use]
    pub fn vocabulary_size(&self) -> usize {
        self.parts.tokenizer.get_vocab_size(true)
    }

    /// # Errors
    /// [`Error::UnknownToken`] for the first id that the vocabulary does not hold.
    pub fn check(&self, ids: &[u32]) -> Result<(), Error> {
        let unknown = |id: &&u32| self.parts.tokenizer.id_to_token(**id).is_none();
        match ids.iter().find(unknown) {
            None => Ok(()),
            Some(id) => Err(Error::UnknownToken {
                id: *id,
                vocabulary: self.vocabulary_size(),
            }),
        }
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Tokenizer")
            .field("vocabulary", &self.vocabulary_size())
            .field("specials", &self.parts.specials)
            .field("chat_template", &self.parts.chat_template.is_some())
            .finish()
    }
}

/// [`Error::Malformed`] of a named thing.
pub(super) fn malformed(what: impl Into<String>, source: impl Into<super::Cause>) -> Error {
    Error::Malformed {
        what: what.into(),
        source: source.into(),
    }
}
