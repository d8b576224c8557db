//! The tokenizer that was written, read back and held to the model's own.

use std::path::Path;

use super::Error;
use super::error::damaged;
use crate::source::Source;
use crate::text::Tokenizer;

/// Compares the ids of texts of every kind. Gives where they differ because the format has no words for what the
/// model's tokenizer does: at a text's first blank, and around special tokens. Elsewhere they may not differ.
pub(super) fn compare(own: &Tokenizer, written: &Path) -> Result<Option<&'static str>, Error> {
    like(own, &Source::open(written)?.tokenizer()?)
}

/// The same of one that is there.
pub(super) fn like(own: &Tokenizer, again: &Tokenizer) -> Result<Option<&'static str>, Error> {
    let found = own.likeness(again);
    if !found.texts {
        return Err(damaged("its tokenizer makes other ids of a text"));
    }
    Ok(match (found.begun_with_a_blank, found.around_special) {
        (true, true) => None,
        (false, true) => Some("texts that begin with a blank"),
        (true, false) => Some("texts with special tokens in them"),
        (false, false) => Some("texts that begin with a blank, or with special tokens in them"),
    })
}
