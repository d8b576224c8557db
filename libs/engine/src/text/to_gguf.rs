//! A tokenizer as GGUF metadata.
//!
//! Of byte-level BPE, GGUF names how text is cut before the merges, and has no words for anything else. So the name is
//! found by trying: the metadata are read back with every name that is known here, and the first that gives the same ids
//! for texts of every kind is taken. What none of them gives is refused, never approximated.

use std::collections::HashMap;

use candle_core::quantized::gguf_file::{Content, Value, VersionedMagic};
use serde_json::Value as Json;

use super::gguf::{MERGES, MODEL, PRE, TOKEN_TYPE, TOKENS};
use super::likeness::Likeness;
use super::tokenizer::{Tokenizer, malformed};
use super::{Error, to_sentencepiece};

/// Ways of cutting that are tried, the commonest first.
const PRES: [&str; 4] = ["llama-bpe", "qwen2", "smollm", "gpt-2"];

/// `llama_token_type`
pub(super) const NORMAL: i32 = 1;
pub(super) const CONTROL: i32 = 3;
pub(super) const USER_DEFINED: i32 = 4;
pub(super) const UNUSED: i32 = 5;

impl Tokenizer {
    /// The metadata; `rows` is how many tokens the model's embedding has, of which the tokenizer may know fewer.
    ///
    /// # Errors
    /// [`Error::NotInGguf`] for a tokenizer that GGUF has no words for here.
    pub(crate) fn to_gguf(&self, rows: usize) -> Result<HashMap<String, Value>, Error> {
        let text = self.parts().tokenizer.to_string(false);
        let text = text.map_err(|source| malformed("tokenizer", source))?;
        let json: Json =
            serde_json::from_str(&text).map_err(|source| malformed("tokenizer", source))?;
        let names = self.names(rows)?;
        let mut about = self.around()?;
        if to_sentencepiece::is(&json) {
            return to_sentencepiece::say(self, (&json, &names), about);
        }
        if json.pointer("/model/type") != Some(&"BPE".into()) {
            return Err(Error::NotInGguf {
                what: "only byte-level BPE and SentencePiece's BPE are written",
            });
        }
        self.say_byte_level(names, &mut about, &json)?;
        for pre in PRES {
            about.insert(PRE.to_owned(), Value::String(pre.to_owned()));
            let found = self.likeness_to(&about);
            if found.is_some_and(|found| found.texts && found.begun_with_a_blank) {
                return Ok(about);
            }
        }
        Err(Error::NotInGguf {
            what: "no known way of cutting text gives the same token ids",
        })
    }

    /// Where a reader of the metadata makes the same ids of texts; nothing if it refuses them.
    pub(super) fn likeness_to(&self, about: &HashMap<String, Value>) -> Option<Likeness> {
        let content = Content {
            magic: VersionedMagic::GgufV3,
            metadata: about.clone(),
            tensor_infos: HashMap::new(),
            tensor_data_offset: 0,
        };
        let other = Self::from_gguf(&content).ok()?;
        Some(self.likeness(&other))
    }

    /// Every row's token, if it has one. Added tokens may lie behind the last row, as Gemma 3's for images: the model
    /// has no use for them, and llama.cpp's converter leaves them out too.
    fn names(&self, rows: usize) -> Result<Vec<Option<String>>, Error> {
        let added = self.parts().tokenizer.get_added_tokens_decoder();
        let mut names = vec![None; rows];
        for (token, id) in self.parts().tokenizer.get_vocab(true) {
            match names.get_mut(id as usize) {
                Some(place) => *place = Some(token),
                None if added.contains_key(&id) => {}
                None => {
                    return Err(Error::NotInGguf {
                        what: "it has more tokens than the model",
                    });
                }
            }
        }
        Ok(names)
    }

    fn say_byte_level(
        &self,
        names: Vec<Option<String>>,
        about: &mut HashMap<String, Value>,
        json: &Json,
    ) -> Result<(), Error> {
        let added = self.parts().tokenizer.get_added_tokens_decoder();
        let kinds = (0u32..).zip(&names).map(|(id, name)| {
            let kind = match (added.get(&id), name) {
                (Some(added), _) if added.special => CONTROL,
                (Some(_), _) => USER_DEFINED,
                (None, Some(_)) => NORMAL,
                (None, None) => UNUSED,
            };
            Value::I32(kind)
        });
        let kinds = Value::Array(kinds.collect());
        let names = names.into_iter().enumerate();
        let names = names.map(|(id, name)| name.unwrap_or_else(|| unused(id)));
        let names = Value::Array(names.map(Value::String).collect());
        let merges = pairs(json)?.into_iter();
        let merges = merges.map(|(left, right)| Value::String(format!("{left} {right}")));
        about.extend([
            (MODEL.to_owned(), Value::String("gpt2".to_owned())),
            (TOKENS.to_owned(), names),
            (TOKEN_TYPE.to_owned(), kinds),
            (MERGES.to_owned(), Value::Array(merges.collect())),
        ]);
        Ok(())
    }

    /// What stands around a text, where generation ends, and the chat template.
    fn around(&self) -> Result<HashMap<String, Value>, Error> {
        let parts = self.parts();
        let specials = &parts.specials;
        let bare = self.encode_with_special("")?;
        let mut about = HashMap::new();
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
}

/// The name of a row of the embedding that no token has; it is llama.cpp's.
pub(super) fn unused(id: usize) -> String {
    format!("[PAD{id}]")
}

/// The merges, in their order.
pub(super) fn pairs(json: &Json) -> Result<Vec<(&str, &str)>, Error> {
    let pairs = json.pointer("/model/merges").and_then(Json::as_array);
    let pairs = pairs.and_then(|pairs| pairs.iter().map(pair).collect());
    pairs.ok_or(Error::NotInGguf {
        what: "its merges cannot be read",
    })
}

/// One text, or a list of two.
fn pair(json: &Json) -> Option<(&str, &str)> {
    match json {
        Json::String(text) => text.split_once(' '),
        Json::Array(two) => match two.as_slice() {
            [Json::String(left), Json::String(right)] => Some((left, right)),
            _ => None,
        },
        _ => None,
    }
}
