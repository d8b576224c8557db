//! Tokenizer files of a Hugging Face folder.
//!
//! Where two files disagree the tokenizer's own configuration wins over the generation's, and that
//! over the model's: it is what `AutoTokenizer` says that data sets were made with.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Error;
use super::tokenizer::{Parts, Specials, malformed};

const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const SPECIAL_TOKENS: &str = "special_tokens_map.json";
const GENERATION: &str = "generation_config.json";
const TEMPLATE: &str = "chat_template.jinja";

/// A written limit: the largest tokenizer.json seen is 35 MB.
const FILE_LIMIT_BYTES: u64 = 256 << 20;

/// The files that are read of a folder beside the model's `config.json`, as far as they are there, in a fixed order.
pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let all = [
        TOKENIZER,
        TOKENIZER_CONFIG,
        SPECIAL_TOKENS,
        GENERATION,
        TEMPLATE,
    ];
    let paths = all.into_iter().map(|name| folder.join(name));
    paths.filter(|path| path.is_file()).collect()
}

/// Reads the folder.
pub(super) fn read(folder: &Path) -> Result<Parts, Error> {
    let path = folder.join(TOKENIZER);
    let bytes = bounded(&path).map_err(|source| Error::Read { path, source })?;
    let tokenizer =
        tokenizers::Tokenizer::from_bytes(bytes).map_err(|source| malformed(TOKENIZER, source))?;

    let config = optional_json(folder, TOKENIZER_CONFIG)?;
    let map = optional_json(folder, SPECIAL_TOKENS)?;
    let generation = optional_json(folder, GENERATION)?;
    let model = optional_json(folder, "config.json")?;

    let spelled = |name: &str| {
        [&config, &map]
            .into_iter()
            .find_map(|file| token_text(file.get(name)?))
            .and_then(|text| tokenizer.token_to_id(text))
    };
    let numbered = |name: &str| -> Vec<u32> {
        let files = [&generation, &model].into_iter();
        files.flat_map(|file| ids(file.get(name))).collect()
    };
    // BERT's first checkpoints name none: these are the names in transformers' class.
    let family = model.get("model_type").and_then(Value::as_str);
    let is_bert = matches!(family, Some("bert" | "distilbert"));
    let unsaid = |token: &str| tokenizer.token_to_id(token).filter(|_| is_bert);
    let ends = numbered("eos_token_id");
    let specials = Specials {
        // An encoder's texts stand between two tokens of other names.
        bos: spelled("bos_token")
            .or_else(|| numbered("bos_token_id").first().copied())
            .or_else(|| spelled("cls_token"))
            .or_else(|| unsaid("[CLS]")),
        eos: spelled("eos_token")
            .or_else(|| ends.first().copied())
            .or_else(|| spelled("sep_token"))
            .or_else(|| unsaid("[SEP]")),
        pad: spelled("pad_token").or_else(|| numbered("pad_token_id").first().copied()),
        other_ends: ends,
        before: None,
        after: None,
    };
    Ok(Parts {
        chat_template: chat_template(folder, &config)?,
        tokenizer,
        specials,
    })
}

/// The newer place is a file of its own; the older a string, or a list of named templates.
fn chat_template(folder: &Path, config: &Value) -> Result<Option<String>, Error> {
    let path = folder.join(TEMPLATE);
    match bounded(&path) {
        Ok(bytes) => {
            let text = String::from_utf8(bytes);
            let text = text.map_err(|source| malformed(TEMPLATE, source))?;
            return Ok(Some(text));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(Error::Read { path, source }),
    }
    let inside = config.get("chat_template");
    let named = |list: &Vec<Value>| {
        let of = |name: &str| {
            let mut entries = list.iter();
            let entry = entries.find(|entry| entry.get("name") == Some(&Value::from(name)))?;
            entry.get("template")?.as_str().map(str::to_owned)
        };
        let default = of("default")?;
        Some(match of("tool_use") {
            Some(with_tools) => either(&with_tools, &default),
            None => default,
        })
    };
    Ok(match inside {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Array(list)) => named(list),
        _ => None,
    })
}

/// One template that is the first where there are tools and the other where there are none: transformers chooses so. The
/// empty texts keep the blanks at both ends, of which a template loses only its last line's end.
fn either(with_tools: &str, without: &str) -> String {
    let whole = |template: &str| {
        let template = template.strip_suffix('\n').unwrap_or(template);
        format!("{{{{ '' }}}}{template}{{{{ '' }}}}")
    };
    let (with_tools, without) = (whole(with_tools), whole(without));
    format!("{{% if tools %}}{with_tools}{{% else %}}{without}{{% endif %}}")
}

/// A token is written as a string or as `{"content": …}`.
fn token_text(value: &Value) -> Option<&str> {
    value
        .as_str()
        .or_else(|| value.get("content").and_then(Value::as_str))
}

/// One id, or a list of them.
fn ids(value: Option<&Value>) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Some(Value::Array(list)) => list.iter().filter_map(id).collect(),
        Some(value) => id(value).into_iter().collect(),
        None => Vec::new(),
    }
}

/// The file's JSON; `null` where there is no such file.
fn optional_json(folder: &Path, name: &str) -> Result<Value, Error> {
    let path = folder.join(name);
    match bounded(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| malformed(name, source)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Value::Null),
        Err(source) => Err(Error::Read { path, source }),
    }
}

fn bounded(path: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(path)?.len() > FILE_LIMIT_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    fs::read(path)
}
