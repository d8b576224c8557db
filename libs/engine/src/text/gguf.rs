//! The tokenizer inside GGUF metadata.
//!
//! Only byte-level BPE (`tokenizer.ggml.model = gpt2`) is read, and only with a pre-tokenizer from
//! the list below; llama.cpp's names for them are in its `llama-vocab.cpp`. The published
//! `tokenizer.json` of each family says what the name stands for.

use candle_core::quantized::gguf_file::{Content, Value};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::{NormalizerWrapper, unicode::NFC};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

use super::Error;
use super::tokenizer::{Parts, Specials, malformed};

pub(super) const MODEL: &str = "tokenizer.ggml.model";
pub(super) const PRE: &str = "tokenizer.ggml.pre";
pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
pub(super) const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";
pub(super) const MERGES: &str = "tokenizer.ggml.merges";

/// `llama_token_type`: unknown and control tokens are special, user-defined ones are plain words.
const UNKNOWN: i64 = 2;
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

/// Reads the metadata.
pub(super) fn read(content: &Content) -> Result<Parts, Error> {
    let model = string(content, MODEL)?;
    if model != "gpt2" {
        return Err(unsupported(MODEL, model));
    }
    let pre = pre_tokenizer(content)?;
    let tokens = strings(content, TOKENS)?;
    let bos_first = flag(content, "tokenizer.ggml.add_bos_token").unwrap_or(pre.bos_first);
    let eos_last = flag(content, "tokenizer.ggml.add_eos_token").unwrap_or(false);
    let bos = known_id(content, "tokenizer.ggml.bos_token_id", &tokens);
    let eos = known_id(content, "tokenizer.ggml.eos_token_id", &tokens);
    let end_of_turn = ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];
    let specials = Specials {
        bos,
        eos,
        pad: known_id(content, "tokenizer.ggml.padding_token_id", &tokens),
        other_ends: end_of_turn
            .iter()
            .filter_map(|key| known_id(content, key, &tokens))
            .collect(),
        before: bos.filter(|_| bos_first),
        after: eos.filter(|_| eos_last),
    };
    let template = content.metadata.get("tokenizer.chat_template");
    let template = template.and_then(|value| value.to_string().ok());
    Ok(Parts {
        tokenizer: assemble(content, &tokens, pre)?,
        specials,
        chat_template: template.cloned(),
    })
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
    tokenizer
        .add_tokens(added(content, tokens)?)
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
fn added(content: &Content, tokens: &[&str]) -> Result<Vec<AddedToken>, Error> {
    let Some(types) = content.metadata.get(TOKEN_TYPE) else {
        return Ok(Vec::new());
    };
    let wrong = |_| Error::Metadata { key: TOKEN_TYPE };
    let mut added = Vec::new();
    for (token, kind) in tokens.iter().zip(types.to_vec().map_err(wrong)?) {
        match integer(kind) {
            Some(UNKNOWN | CONTROL) => added.push(AddedToken::from(*token, true)),
            Some(USER_DEFINED) => added.push(AddedToken::from(*token, false).normalized(false)),
            Some(_) => {}
            None => return Err(Error::Metadata { key: TOKEN_TYPE }),
        }
    }
    Ok(added)
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

fn flag(content: &Content, key: &str) -> Option<bool> {
    content.metadata.get(key)?.to_bool().ok()
}

/// An id that the vocabulary holds.
fn known_id(content: &Content, key: &str, tokens: &[&str]) -> Option<u32> {
    let id = u32::try_from(integer(content.metadata.get(key)?)?).ok()?;
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
