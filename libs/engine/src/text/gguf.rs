//! The tokenizer inside GGUF metadata.
//!
//! SentencePiece's vocabularies (`tokenizer.ggml.model = llama`) are read by the module beside this one. Byte-level BPE
//! (`gpt2`) is read here, and only with a pre-tokenizer from the list below; llama.cpp's names for them are in its
//! `llama-vocab.cpp`. The published `tokenizer.json` of each family says what the name stands for.

use candle_core::quantized::gguf_file::{Content, Value};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::{NormalizerWrapper, unicode::NFC};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

use super::tokenizer::{Parts, Specials, malformed};
use super::{Error, sentencepiece};

pub(super) const MODEL: &str = "tokenizer.ggml.model";
pub(super) const PRE: &str = "tokenizer.ggml.pre";
pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
pub(super) const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";
pub(super) const MERGES: &str = "tokenizer.ggml.merges";

/// `llama_token_type`: unknown and control tokens are special, user-defined ones are plain words.
pub(super) const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

const LLAMA3_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How text is cut before the merges.
struct Pre {
    normalizer: Option<NormalizerWrapper>,
    cut: PreTokenizerWrapper,
    ignore_merges: bool,
    /// What llama.cpp assumes where the file does not say.
    bos_first: bool,
}

/// What llama.cpp takes as given where the file does not say it.
struct Unsaid {
    bos: Option<u32>,
    eos: Option<u32>,
    bos_first: bool,
}

/// Reads the metadata.
pub(super) fn read(content: &Content) -> Result<Parts, Error> {
    let tokens = strings(content, TOKENS)?;
    let (tokenizer, unsaid) = match string(content, MODEL)? {
        "gpt2" => byte_level(content, &tokens)?,
        "llama" => {
            let unsaid = Unsaid {
                bos: Some(1),
                eos: Some(2),
                bos_first: true,
            };
            (sentencepiece::assemble(content, &tokens)?, unsaid)
        }
        other => return Err(unsupported(MODEL, other)),
    };
    let known = |key: &str, unsaid: Option<u32>| {
        let unsaid = unsaid.filter(|_| !content.metadata.contains_key(key));
        known_id(content, key, &tokens).or_else(|| within(unsaid?, &tokens))
    };
    let bos_first = flag(content, "tokenizer.ggml.add_bos_token").unwrap_or(unsaid.bos_first);
    let eos_last = flag(content, "tokenizer.ggml.add_eos_token").unwrap_or(false);
    let bos = known("tokenizer.ggml.bos_token_id", unsaid.bos);
    let eos = known("tokenizer.ggml.eos_token_id", unsaid.eos);
    let end_of_turn = ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];
    let specials = Specials {
        bos,
        eos,
        pad: known("tokenizer.ggml.padding_token_id", None),
        other_ends: end_of_turn
            .iter()
            .filter_map(|key| known(key, None))
            .collect(),
        before: bos.filter(|_| bos_first),
        after: eos.filter(|_| eos_last),
    };
    let template = content.metadata.get("tokenizer.chat_template");
    let template = template.and_then(|value| value.to_string().ok());
    Ok(Parts {
        tokenizer,
        specials,
        chat_template: template.cloned(),
    })
}

fn byte_level(
    content: &Content,
    tokens: &[&str],
) -> Result<(tokenizers::Tokenizer, Unsaid), Error> {
    let pre = pre_tokenizer(content)?;
    let unsaid = Unsaid {
        bos: None,
        eos: None,
        bos_first: pre.bos_first,
    };
    Ok((assemble(content, tokens, pre)?, unsaid))
}

fn assemble(content: &Content, tokens: &[&str], pre: Pre) -> Result<tokenizers::Tokenizer, Error> {
    let ids = (0u32..).zip(tokens);
    let vocabulary: Vocab = ids.map(|(id, token)| ((*token).to_owned(), id)).collect();
    let bpe = BPE::builder()
        .vocab_and_merges(vocabulary, merges(content)?)
        .ignore_merges(pre.ignore_merges)
        .build()
        .map_err(|source| malformed(MERGES, source))?;
    let mut tokenizer = tokenizers::Tokenizer::new(bpe);
    tokenizer
        .with_normalizer(pre.normalizer)
        .map_err(|source| malformed(PRE, source))?;
    tokenizer.with_pre_tokenizer(Some(pre.cut));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    let kinds = kinds(content)?;
    tokenizer
        .add_tokens(added(tokens, kinds.as_deref()))
        .map_err(|source| malformed(TOKEN_TYPE, source))?;
    Ok(tokenizer)
}

fn pre_tokenizer(content: &Content) -> Result<Pre, Error> {
    let byte_level = |use_regex| ByteLevel::new(false, true, use_regex);
    let split = |pattern: &str| -> Result<PreTokenizerWrapper, Error> {
        let pattern = SplitPattern::Regex(pattern.to_owned());
        let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
            .map_err(|source| malformed(PRE, source))?;
        Ok(Sequence::new(vec![split.into(), byte_level(false).into()]).into())
    };
    let plain = |cut| Pre {
        normalizer: None,
        cut,
        ignore_merges: false,
        bos_first: false,
    };
    let name = string(content, PRE)?;
    Ok(match name {
        // Each digit alone, then GPT-2's own rule, and no space in front of the first word.
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" => {
            let digits = Digits::new(true);
            plain(Sequence::new(vec![digits.into(), byte_level(true).into()]).into())
        }
        "gpt-2" | "gpt2" => plain(byte_level(true).into()),
        "llama-bpe" | "llama3" | "llama-v3" => Pre {
            ignore_merges: true,
            bos_first: true,
            ..plain(split(LLAMA3_PATTERN)?)
        },
        "qwen2" => Pre {
            normalizer: Some(NFC.into()),
            ..plain(split(QWEN2_PATTERN)?)
        },
        other => return Err(unsupported(PRE, other)),
    })
}

/// Tokens that are recognized in a text before anything else.
pub(super) fn added(tokens: &[&str], kinds: Option<&[i64]>) -> Vec<AddedToken> {
    let kinds = kinds.unwrap_or_default();
    let added = tokens
        .iter()
        .zip(kinds)
        .filter_map(|(token, kind)| match *kind {
            UNKNOWN | CONTROL => Some(AddedToken::from(*token, true)),
            USER_DEFINED => Some(AddedToken::from(*token, false).normalized(false)),
            _ => None,
        });
    added.collect()
}

/// What kind each token is of; nothing where the file does not say.
pub(super) fn kinds(content: &Content) -> Result<Option<Vec<i64>>, Error> {
    let Some(kinds) = content.metadata.get(TOKEN_TYPE) else {
        return Ok(None);
    };
    let wrong = Error::Metadata { key: TOKEN_TYPE };
    let kinds = kinds.to_vec().ok();
    let kinds = kinds.and_then(|kinds| kinds.iter().map(integer).collect());
    kinds.map(Some).ok_or(wrong)
}

fn merges(content: &Content) -> Result<Vec<(String, String)>, Error> {
    let pairs = strings(content, MERGES)?.into_iter().map(|merge| {
        let (left, right) = merge.split_once(' ')?;
        Some((left.to_owned(), right.to_owned()))
    });
    let pairs: Option<Vec<_>> = pairs.collect();
    pairs.ok_or(Error::Metadata { key: MERGES })
}

fn string<'a>(content: &'a Content, key: &'static str) -> Result<&'a str, Error> {
    match content.metadata.get(key) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(Error::Metadata { key }),
    }
}

fn strings<'a>(content: &'a Content, key: &'static str) -> Result<Vec<&'a str>, Error> {
    let Some(Value::Array(values)) = content.metadata.get(key) else {
        return Err(Error::Metadata { key });
    };
    let texts = values.iter().map(|value| match value {
        Value::String(text) => Some(text.as_str()),
        _ => None,
    });
    let texts: Option<Vec<_>> = texts.collect();
    texts.ok_or(Error::Metadata { key })
}

/// A list of numbers, whole ones or not.
pub(super) fn numbers(content: &Content, key: &'static str) -> Result<Vec<f32>, Error> {
    let Some(Value::Array(values)) = content.metadata.get(key) else {
        return Err(Error::Metadata { key });
    };
    let number = |value: &Value| match value {
        Value::F32(number) => Some(*number),
        Value::F64(number) => Some(*number as f32),
        other => integer(other).map(|number| number as f32),
    };
    let numbers: Option<Vec<f32>> = values.iter().map(number).collect();
    numbers.ok_or(Error::Metadata { key })
}

pub(super) fn flag(content: &Content, key: &str) -> Option<bool> {
    content.metadata.get(key)?.to_bool().ok()
}

/// An id that the vocabulary holds.
pub(super) fn known_id(content: &Content, key: &str, tokens: &[&str]) -> Option<u32> {
    let id = integer(content.metadata.get(key)?)?;
    within(u32::try_from(id).ok()?, tokens)
}

fn within(id: u32, tokens: &[&str]) -> Option<u32> {
    let index = usize::try_from(id).ok()?;
    (index < tokens.len()).then_some(id)
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::U8(number) => Some(i64::from(*number)),
        Value::I8(number) => Some(i64::from(*number)),
        Value::U16(number) => Some(i64::from(*number)),
        Value::I16(number) => Some(i64::from(*number)),
        Value::U32(number) => Some(i64::from(*number)),
        Value::I32(number) => Some(i64::from(*number)),
        Value::U64(number) => i64::try_from(*number).ok(),
        Value::I64(number) => Some(*number),
        _ => None,
    }
}

fn unsupported(key: &'static str, value: &str) -> Error {
    Error::Unsupported {
        key,
        value: value.to_owned(),
    }
}
