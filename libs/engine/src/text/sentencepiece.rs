//! SentencePiece's vocabulary inside GGUF metadata (`tokenizer.ggml.model = llama`: Llama 2, Mistral, Gemma).
//!
//! Such a file has pieces and their scores, and no merges. llama.cpp joins the two neighbours whose piece has the best
//! score until no two make a piece. Byte-pair encoding does the same with a merge for every way in which a piece is made
//! of two others, in the order of their scores: what transformers makes of these files, and of SentencePiece's own. Blanks
//! are `▁`, what no piece covers becomes the pieces of its bytes, and a blank is put in front of every text between
//! special tokens, where the file does not say otherwise.
//!
//! transformers' reader of GGUF puts that blank in front of the first text alone, and not where one is there already:
//! with `add_space_prefix` its ids differ there from llama.cpp's, from the `tokenizer.json` of Llama 2, and from these.

use std::collections::HashSet;

use candle_core::quantized::gguf_file::Content;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::{NormalizerWrapper, Prepend, Replace, Sequence as Normalizers};

use super::Error;
use super::gguf::{TOKENS, UNKNOWN, added, flag, kinds, known_id, numbers};
use super::tokenizer::malformed;

/// The longest piece, in characters, whose ways of being made are looked for: far longer than SentencePiece makes (16 unless told
/// otherwise). They take the square of its length. What is longer is never made of others.
const LONGEST: usize = 256;

pub(super) const SCORES: &str = "tokenizer.ggml.scores";
pub(super) const SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";
pub(super) const UNKNOWN_ID: &str = "tokenizer.ggml.unknown_token_id";
/// What stands for a blank in a piece.
pub(super) const BLANK: &str = "▁";

/// The tokenizer of the metadata.
pub(super) fn assemble(content: &Content, tokens: &[&str]) -> Result<tokenizers::Tokenizer, Error> {
    let ids = (0u32..).zip(tokens);
    let vocabulary: Vocab = ids.map(|(id, token)| ((*token).to_owned(), id)).collect();
    let scores = numbers(content, SCORES)?;
    if scores.len() < tokens.len() {
        return Err(Error::Metadata { key: SCORES });
    }
    let merges = merges(tokens, &scores).into_iter();
    let merges = merges.map(|(left, right)| (left.to_owned(), right.to_owned()));
    let mut bpe = BPE::builder()
        .vocab_and_merges(vocabulary, merges.collect())
        .byte_fallback(true)
        .fuse_unk(true);
    let kinds = kinds(content)?;
    if let Some(unknown) = unknown(content, tokens, kinds.as_deref()) {
        bpe = bpe.unk_token(unknown.to_owned());
    }
    let bpe = bpe.build().map_err(|source| malformed(TOKENS, source))?;
    let mut tokenizer = tokenizers::Tokenizer::new(bpe);
    let in_front = flag(content, SPACE_PREFIX).unwrap_or(true);
    tokenizer
        .with_normalizer(Some(normalizer(in_front)?))
        .map_err(|source| malformed(SPACE_PREFIX, source))?;
    tokenizer.with_decoder(Some(decoder(in_front)?));
    tokenizer
        .add_tokens(added(tokens, kinds.as_deref()))
        .map_err(|source| malformed(TOKENS, source))?;
    Ok(tokenizer)
}

/// Every way in which a piece of [`LONGEST`] characters at most is made of two others, the best scores first; of one piece, or of equally good ones, the
/// longest left part first, as in transformers' `generate_merges`.
pub(super) fn merges<'a>(tokens: &[&'a str], scores: &[f32]) -> Vec<(&'a str, &'a str)> {
    let known: HashSet<&str> = tokens.iter().copied().collect();
    let mut made = Vec::new();
    for (token, score) in tokens.iter().zip(scores) {
        if token.chars().nth(LONGEST).is_some() {
            continue;
        }
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if known.contains(left) && known.contains(right) {
                let widths = (left.chars().count(), right.chars().count());
                made.push((*score, widths, left, right));
            }
        }
    }
    made.sort_by(|(score, widths, ..), (other, theirs, ..)| {
        other.total_cmp(score).then_with(|| theirs.cmp(widths))
    });
    made.into_iter()
        .map(|(_, _, left, right)| (left, right))
        .collect()
}

/// The token of what is not even known by its bytes.
fn unknown<'a>(content: &Content, tokens: &[&'a str], kinds: Option<&[i64]>) -> Option<&'a str> {
    let named = known_id(content, UNKNOWN_ID, tokens);
    let named = named.and_then(|id| tokens.get(usize::try_from(id).ok()?));
    let of_kind = || {
        let kind = kinds?.iter().position(|kind| *kind == UNKNOWN)?;
        tokens.get(kind)
    };
    named.or_else(of_kind).copied()
}

fn normalizer(in_front: bool) -> Result<NormalizerWrapper, Error> {
    let blanks = Replace::new(" ", BLANK).map_err(|source| malformed(SPACE_PREFIX, source))?;
    if !in_front {
        return Ok(blanks.into());
    }
    let first = Prepend::new(BLANK.to_owned());
    Ok(Normalizers::new(vec![first.into(), blanks.into()]).into())
}

fn decoder(in_front: bool) -> Result<DecoderWrapper, Error> {
    let blanks = Replace::new(BLANK, " ").map_err(|source| malformed(SPACE_PREFIX, source))?;
    let mut steps: Vec<DecoderWrapper> = vec![
        blanks.into(),
        ByteFallback::new().into(),
        Fuse::new().into(),
    ];
    if in_front {
        steps.push(Strip::new(' ', 1, 0).into());
    }
    Ok(Decoders::new(steps).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_that_is_longer_than_any_is_not_looked_through() {
        let [shorter, longest, longer] =
            [LONGEST - 1, LONGEST, LONGEST + 1].map(|count| "a".repeat(count));
        let tokens = ["a", shorter.as_str(), longest.as_str(), longer.as_str()];
        let made = merges(&tokens, &[0.0, -1.0, -2.0, -3.0]);
        let both = [("a", shorter.as_str()), (shorter.as_str(), "a")];
        assert_eq!(made.len(), both.len());
        assert!(both.iter().all(|way| made.contains(way)));
    }
}
