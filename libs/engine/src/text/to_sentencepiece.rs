//! SentencePiece's vocabulary as GGUF metadata.
//!
//! A `tokenizer.json` has merges in their order where GGUF has a score for each piece. The score is what the piece's
//! first merge says: the earlier, the better; pieces whose merges are mixed share one. That says the same as the merges
//! if there is one for every way in which a piece is made of two others, in the order in which the scores are read; what
//! is converted from SentencePiece is so. Other merges are refused, never approximated.
//!
//! Readers of GGUF put a blank in front of every text between special tokens, or of none. A tokenizer that puts it in
//! front of the first alone, or not where one is already, is written with it, and whoever exports is told.

use std::collections::{BTreeSet, HashMap, HashSet};

use candle_core::quantized::gguf_file::Value;
use serde_json::Value as Json;

use super::gguf::{MODEL, PRE, TOKEN_TYPE, TOKENS};
use super::sentencepiece::{self, BLANK, SCORES, SPACE_PREFIX, UNKNOWN_ID};
use super::to_gguf::{CONTROL, NORMAL, UNUSED, USER_DEFINED, pairs, unused};
use super::{Error, Tokenizer};

/// `llama_token_type`
const UNKNOWN: i32 = 2;
const BYTE: i32 = 6;

/// Whether a `tokenizer.json` is of this kind.
pub(super) fn is(json: &Json) -> bool {
    json.pointer("/model/type") == Some(&"BPE".into())
        && json.pointer("/model/byte_fallback") == Some(&true.into())
}

/// Adds the vocabulary to `about`; `names` are its tokens, one for each of the model's rows.
pub(super) fn say(
    own: &Tokenizer,
    (json, names): (&Json, &[Option<String>]),
    mut about: HashMap<String, Value>,
) -> Result<HashMap<String, Value>, Error> {
    let kinds = kinds(own, (json, names));
    let tokens: Vec<String> = names
        .iter()
        .zip(&kinds)
        .enumerate()
        .map(|(id, (name, kind))| match name {
            // llama.cpp looks for these in the text as it comes, where a blank is a blank.
            Some(name) if *kind == USER_DEFINED => name.replace(BLANK, " "),
            Some(name) => name.clone(),
            None => unused(id),
        })
        .collect();
    if !has_every_byte(&tokens) {
        return Err(Error::NotInGguf {
            what: "it has no token for some bytes",
        });
    }
    let normal = tokens.iter().map(String::as_str).zip(&kinds);
    let normal: HashSet<&str> = normal
        .filter_map(|(token, kind)| (*kind == NORMAL).then_some(token))
        .collect();
    let merges = pairs(json)?;
    let merges = made(&merges, &normal);
    let scores = scores(&tokens, &kinds, &merges);
    let spelled: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let read = sentencepiece::merges(&spelled, &scores);
    if ways(&made(&read, &normal)) != ways(&merges) {
        return Err(Error::NotInGguf {
            what: "no scores say the order of its merges",
        });
    }
    if let Some(id) = kinds.iter().position(|kind| *kind == UNKNOWN) {
        about.insert(UNKNOWN_ID.to_owned(), Value::U32(id as u32));
    }
    let mut list =
        |key: &str, values: Vec<Value>| about.insert(key.to_owned(), Value::Array(values));
    list(TOKENS, tokens.into_iter().map(Value::String).collect());
    list(SCORES, scores.into_iter().map(Value::F32).collect());
    list(TOKEN_TYPE, kinds.into_iter().map(Value::I32).collect());
    about.insert(MODEL.to_owned(), Value::String("llama".to_owned()));
    about.insert(PRE.to_owned(), Value::String("default".to_owned()));
    let mut near = None;
    for in_front in [true, false] {
        about.insert(SPACE_PREFIX.to_owned(), Value::Bool(in_front));
        match own.likeness_to(&about) {
            Some(found) if found.is_whole() => return Ok(about),
            Some(found) if found.texts => near = Some(in_front),
            _ => {}
        }
    }
    let in_front = near.ok_or(Error::NotInGguf {
        what: "SentencePiece's rule gives other token ids",
    })?;
    about.insert(SPACE_PREFIX.to_owned(), Value::Bool(in_front));
    Ok(about)
}

fn kinds(own: &Tokenizer, (json, names): (&Json, &[Option<String>])) -> Vec<i32> {
    let added = own.parts().tokenizer.get_added_tokens_decoder();
    let unknown = json.pointer("/model/unk_token").and_then(Json::as_str);
    let unknown = unknown.unwrap_or("<unk>");
    let kind = |(id, name): (u32, &Option<String>)| match (name.as_deref(), added.get(&id)) {
        (None, _) => UNUSED,
        (Some(name), _) if name == unknown => UNKNOWN,
        (Some(_), Some(added)) if added.special => CONTROL,
        (Some(_), Some(_)) => USER_DEFINED,
        (Some(name), None) if is_byte(name) => BYTE,
        (Some(_), None) => NORMAL,
    };
    (0u32..).zip(names).map(kind).collect()
}

/// `<0x0A>`
fn is_byte(name: &str) -> bool {
    let digits = name.strip_prefix("<0x").and_then(|n| n.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

/// What no piece covers is spelled in bytes: llama.cpp ends where one has no token, neither its own nor as a character.
fn has_every_byte(tokens: &[String]) -> bool {
    let known: HashSet<&str> = tokens.iter().map(String::as_str).collect();
    (0..=u8::MAX).all(|byte| {
        let spelled = known.contains(format!("<0x{byte:02X}>").as_str());
        spelled || byte.is_ascii() && known.contains(char::from(byte).to_string().as_str())
    })
}

/// A merge with the piece that it makes.
type Made<'a> = (String, &'a str);

/// The merges that a text can come to, each as the piece and what it begins with. Added tokens are cut out of a text
/// before, and no merge makes them.
fn made<'a>(merges: &[(&'a str, &'a str)], normal: &HashSet<&str>) -> Vec<Made<'a>> {
    let made = merges.iter().map(|(left, right)| {
        let piece = format!("{left}{right}");
        let all = [*left, *right, piece.as_str()];
        let all = all.iter().all(|part| normal.contains(part));
        all.then_some((piece, *left))
    });
    made.flatten().collect()
}

fn scores(tokens: &[String], kinds: &[i32], merges: &[Made<'_>]) -> Vec<f32> {
    let mut spans: HashMap<&str, (usize, usize)> = HashMap::new();
    for (rank, (piece, _)) in merges.iter().enumerate() {
        spans.entry(piece.as_str()).or_insert((rank, rank)).1 = rank;
    }
    let mut spans: Vec<_> = spans.into_iter().collect();
    spans.sort_unstable_by_key(|(_, (first, _))| *first);
    let mut ranks: HashMap<&str, usize> = HashMap::new();
    let mut mixed: Option<(usize, usize)> = None;
    for (piece, (first, last)) in spans {
        let (rank, end) = mixed
            .filter(|(_, end)| first < *end)
            .unwrap_or((first, last));
        mixed = Some((rank, end.max(last)));
        ranks.insert(piece, rank);
    }
    let worst = 0.0 - merges.len() as f32;
    let score = |(token, kind): (&String, &i32)| match (*kind, ranks.get(token.as_str())) {
        (NORMAL, Some(rank)) => 0.0 - *rank as f32,
        (NORMAL | UNUSED, _) => worst,
        _ => 0.0,
    };
    tokens.iter().zip(kinds).map(score).collect()
}

/// Pieces in their order, each with what it can begin with: in which order the same piece is tried to be made says
/// nothing.
fn ways<'a>(merges: &'a [Made<'_>]) -> Vec<(&'a str, BTreeSet<&'a str>)> {
    let mut ways: Vec<(&str, BTreeSet<&str>)> = Vec::new();
    for (piece, begin) in merges {
        match ways.last_mut() {
            Some((last, begins)) if *last == piece.as_str() => {
                begins.insert(*begin);
            }
            _ => ways.push((piece.as_str(), BTreeSet::from([*begin]))),
        }
    }
    ways
}
