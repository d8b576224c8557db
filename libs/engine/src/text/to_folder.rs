//! A tokenizer as the files of a Hugging Face folder.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::Error;
use super::tokenizer::{Tokenizer, malformed};

impl Tokenizer {
    /// Writes `tokenizer.json`, `tokenizer_config.json` and, if there is one, `chat_template.jinja`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn write_folder(&self, folder: &Path) -> Result<(), Error> {
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            fs::write(&path, text).map_err(|source| Error::Write { path, source })
        };
        let parts = self.parts();
        let specials = &parts.specials;
        let text = parts.tokenizer.to_string(false);
        let text = text.map_err(|source| malformed("tokenizer", source))?;
        let mut json: Value =
            serde_json::from_str(&text).map_err(|source| malformed("tokenizer", source))?;
        let spelled = |id: Option<u32>| id.and_then(|id| parts.tokenizer.id_to_token(id));
        if specials.before.is_some() || specials.after.is_some() {
            let around = [spelled(specials.before), spelled(specials.after)];
            let ids = [specials.before, specials.after];
            if let Some(json) = json.as_object_mut() {
                json.insert("post_processor".to_owned(), around_text(&around, &ids));
            }
        }
        write("tokenizer.json", format!("{json}\n"))?;

        let mut config = Map::new();
        let mut say = |key: &str, id: Option<u32>| {
            if let Some(token) = spelled(id) {
                config.insert(key.to_owned(), token.into());
            }
        };
        say("bos_token", specials.bos);
        say("eos_token", specials.eos);
        say("pad_token", specials.pad);
        config.insert(
            "tokenizer_class".to_owned(),
            "PreTrainedTokenizerFast".into(),
        );
        config.insert("clean_up_tokenization_spaces".to_owned(), false.into());
        write(
            "tokenizer_config.json",
            format!("{:#}\n", Value::Object(config)),
        )?;

        let ends: Vec<u32> = [specials.eos.unwrap_or_default()]
            .into_iter()
            .chain(specials.other_ends.iter().copied())
            .collect();
        let generation = json!({ "eos_token_id": ends });
        write("generation_config.json", format!("{generation:#}\n"))?;
        match &parts.chat_template {
            Some(template) => write("chat_template.jinja", template.clone()),
            None => Ok(()),
        }
    }
}

/// A post-processor that puts tokens before and behind a text.
fn around_text([before, after]: &[Option<String>; 2], ids: &[Option<u32>; 2]) -> Value {
    let token = |text: &String| json!({ "SpecialToken": { "id": text, "type_id": 0 } });
    let sequence = |id: &str, kind: u8| json!({ "Sequence": { "id": id, "type_id": kind } });
    let wrap = |inside: Vec<Value>| -> Value {
        let before = before.iter().map(token);
        let after = after.iter().map(token);
        before.chain(inside).chain(after).collect()
    };
    let specials: Map<String, Value> = [before, after]
        .into_iter()
        .zip(ids)
        .filter_map(|(text, id)| {
            let (text, id) = (text.as_ref()?, (*id)?);
            let about = json!({ "id": text, "ids": [id], "tokens": [text] });
            Some((text.clone(), about))
        })
        .collect();
    json!({
        "type": "TemplateProcessing",
        "single": wrap(vec![sequence("A", 0)]),
        "pair": wrap(vec![sequence("A", 0), sequence("B", 1)]),
        "special_tokens": specials,
    })
}
