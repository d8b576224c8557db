//! A tokenizer as GGUF metadata.
//!
//! GGUF names how text is cut before the merges, and has no words for anything else. So the name is found by
//! trying: the metadata are read back with every name that is known here, and the first that gives the same
//! ids for texts of every kind is taken. What none of them gives is refused, never approximated.

use std::collections::HashMap;

use candle_core::quantized::gguf_file::{Content, Value, VersionedMagic};
use serde_json::Value as Json;

use super::Error;
use super::gguf::{MERGES, MODEL, PRE, TOKEN_TYPE, TOKENS};
use super::tokenizer::{Tokenizer, malformed};

/// Ways of cutting that are tried, the commonest first.
const PRES: [&str; 4] = ["llama-bpe", "qwen2", "smollm", "gpt-2"];

/// Texts on which the ways of cutting part: contractions, digits, blanks, lines, letters of other scripts,
/// composed and decomposed accents, symbols, and code.
const PROBES: [&str; 8] = [
    "Hello World, it's the dog's; we'll see: I'VE, they're",
    "1 22 333 4444 55555 3.14159 2026-11-26 0x1F",
    "  two  blanks\tand a tab\n\n\nthree lines \n \n indented\r\n",
    "Ünïcödé cafe\u{301} naïve Straße — “quotes” … ½",
    "日本語のテキスト 한국어 текст العربية ไทย",
    "😀👍🏽 🇩🇪 ∑∂√ €£¥",
    "fn main() { let x_1 = [0; 16]; } // <b>&amp;</b> snake_case CamelCase",
    "",
];

/// `llama_token_type`
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

impl Tokenizer {
    /// The metadata; `rows` is how many tokens the model's embedding has, of which the tokenizer may know fewer.
    ///
    /// # Errors
    /// [`Error::NotInGguf`] for a tokenizer that GGUF has no words for here.
    pub(crate) fn to_gguf(&self, rows: usize) -> Result<HashMap<String, Value>, Error> {
        let mut about = self.without_pre(rows)?;
        for pre in PRES {
            about.insert(PRE.to_owned(), Value::String(pre.to_owned()));
            if self.reads_like(&about) {
                return Ok(about);
            }
        }
        Err(Error::NotInGguf {
            what: "no known way of cutting text gives the same token ids",
        })
    }

    fn without_pre(&self, rows: usize) -> Result<HashMap<String, Value>, Error> {
        let parts = self.parts();
        let text = parts.tokenizer.to_string(false);
        let text = text.map_err(|source| malformed("tokenizer", source))?;
        let json: Json =
            serde_json::from_str(&text).map_err(|source| malformed("tokenizer", source))?;
        if json.pointer("/model/type") != Some(&"BPE".into()) {
            return Err(Error::NotInGguf {
                what: "only byte-level BPE is written",
            });
        }
        let mut tokens = vec![None; rows.max(self.vocabulary_size())];
        for (token, id) in parts.tokenizer.get_vocab(true) {
            if let Some(place) = tokens.get_mut(id as usize) {
                *place = Some(token);
            }
        }
        if tokens.len() > rows {
            return Err(Error::NotInGguf {
                what: "it has more tokens than the model",
            });
        }
        let added = parts.tokenizer.get_added_tokens_decoder();
        let kinds = (0u32..).zip(&tokens).map(|(id, token)| {
            let kind = match (added.get(&id), token) {
                (Some(added), _) if added.special => CONTROL,
                (Some(_), _) => USER_DEFINED,
                (None, Some(_)) => NORMAL,
                (None, None) => UNUSED,
            };
            Value::I32(kind)
        });
        let kinds = Value::Array(kinds.collect());
        // Rows of the embedding that no token has; the name is llama.cpp's.
        let names = tokens.into_iter().enumerate();
        let names = names.map(|(id, token)| token.unwrap_or_else(|| format!("[PAD{id}]")));
        let names = Value::Array(names.map(Value::String).collect());
        let specials = &parts.specials;
        let bare = self.encode_with_special("")?;
        let mut about = HashMap::from([
            (MODEL.to_owned(), Value::String("gpt2".to_owned())),
            (TOKENS.to_owned(), names),
            (TOKEN_TYPE.to_owned(), kinds),
            (MERGES.to_owned(), merges(&json)?),
        ]);
        let mut say = |key: &str, value| about.insert(format!("tokenizer.{key}"), value);
        let first = bare.first().is_some_and(|id| specials.bos == Some(*id));
        let last = bare.len() > usize::from(first) && bare.last() == Some(&self.eos());
        say("ggml.add_bos_token", Value::Bool(first));
        say("ggml.add_eos_token", Value::Bool(last));
        let ids = [
            ("ggml.bos_token_id", specials.bos),
            ("ggml.eos_token_id", specials.eos),
            ("ggml.padding_token_id", specials.pad),
            // Where generation stops besides: the first other end is that of a turn.
            ("ggml.eot_token_id", self.other_end(0)),
            ("ggml.eom_token_id", self.other_end(1)),
        ];
        for (key, id) in ids {
            if let Some(id) = id {
                say(key, Value::U32(id));
            }
        }
        if let Some(template) = &parts.chat_template {
            say("chat_template", Value::String(template.clone()));
        }
        Ok(about)
    }

    /// An end that is not the end of the sequence.
    fn other_end(&self, index: usize) -> Option<u32> {
        let others = self.parts().specials.other_ends.iter().copied();
        others.filter(|id| *id != self.eos()).nth(index)
    }

    fn reads_like(&self, about: &HashMap<String, Value>) -> bool {
        let content = Content {
            magic: VersionedMagic::GgufV3,
            metadata: about.clone(),
            tensor_infos: HashMap::new(),
            tensor_data_offset: 0,
        };
        let Ok(other) = Self::from_gguf(&content) else {
            return false;
        };
        PROBES.iter().all(|text| {
            let (own, theirs) = (
                self.encode_with_special(text),
                other.encode_with_special(text),
            );
            matches!((own, theirs), (Ok(own), Ok(theirs)) if own == theirs)
        })
    }
}

/// Pairs, as one text each: `tokenizer.json` has them so, or as lists of two.
fn merges(json: &Json) -> Result<Value, Error> {
    let lost = Error::NotInGguf {
        what: "its merges cannot be read",
    };
    let Some(Json::Array(pairs)) = json.pointer("/model/merges") else {
        return Err(lost);
    };
    let text = |pair: &Json| match pair {
        Json::String(text) => Some(Value::String(text.clone())),
        Json::Array(two) => match two.as_slice() {
            [Json::String(left), Json::String(right)] => {
                Some(Value::String(format!("{left} {right}")))
            }
            _ => None,
        },
        _ => None,
    };
    let texts: Option<Vec<Value>> = pairs.iter().map(text).collect();
    texts.map(Value::Array).ok_or(lost)
}
