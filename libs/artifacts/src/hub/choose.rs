//! Which files of a repository make the model: what the engine reads, and nothing else of what lies beside it.

use domain::hub::Model;

/// The weights in one file.
const WHOLE: &str = "model.safetensors";
/// Which tensor is in which of several files.
const INDEX: &str = "model.safetensors.index.json";
/// What makes a folder of weights a model.
const CONFIG: &str = "config.json";
/// What describes model, tokenizer and conversations, as far as it is there.
const BESIDE: [&str; 9] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "vocab.json",
    "vocab.txt",
];
/// GGUF files that are named to choose from.
const SHOWN: usize = 8;

/// The files to fetch, in order: small ones first, so that what cannot be used shows early.
pub(super) fn choose(model: &Model, there: &[String]) -> Result<Vec<String>, String> {
    let has = |name: &str| there.iter().any(|file| file == name);
    if let Some(file) = model.file() {
        return if has(file) {
            Ok(vec![file.to_owned()])
        } else {
            Err(format!(
                "it has no {file}; its GGUF files: {}",
                named(&ggufs(there))
            ))
        };
    }
    let weights = if has(WHOLE) {
        vec![WHOLE.to_owned()]
    } else {
        shards(there)
    };
    if has(CONFIG) && !weights.is_empty() {
        let beside = BESIDE.into_iter().filter(|name| has(name));
        let index = Some(INDEX).filter(|name| weights.len() > 1 && has(name));
        let small = [CONFIG].into_iter().chain(beside).chain(index);
        return Ok(small.map(str::to_owned).chain(weights).collect());
    }
    match ggufs(there).as_slice() {
        [only] => Ok(vec![only.clone()]),
        [] => Err(format!(
            "it has neither {CONFIG} with {WHOLE}, nor a GGUF file"
        )),
        many => Err(format!(
            "it has several GGUF files, name one as {model}/FILE: {}",
            named(many)
        )),
    }
}

/// `model-00001-of-00003.safetensors` and so on.
fn shards(there: &[String]) -> Vec<String> {
    let is_shard = |name: &&String| {
        let inner = name
            .strip_prefix("model-")
            .and_then(|name| name.strip_suffix(".safetensors"));
        let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        inner
            .and_then(|inner| inner.split_once("-of-"))
            .is_some_and(|(place, count)| number(place) && number(count))
    };
    let mut shards: Vec<String> = there.iter().filter(is_shard).cloned().collect();
    shards.sort();
    shards
}

/// Only such as can be named.
fn ggufs(there: &[String]) -> Vec<String> {
    let nameable = |file: &&String| {
        let one = format!("hf://a/b/{file}");
        one.parse::<Model>()
            .is_ok_and(|model| model.file().is_some())
    };
    let mut found: Vec<String> = there.iter().filter(nameable).cloned().collect();
    found.sort();
    found
}

fn named(files: &[String]) -> String {
    let mut text = files
        .iter()
        .take(SHOWN)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if files.len() > SHOWN {
        text.push_str(&format!(" and {} more", files.len() - SHOWN));
    }
    if text.is_empty() {
        "none".to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(model: &str, there: &[&str], expected: Result<&[&str], &str>) {
        let there: Vec<String> = there.iter().map(|&name| name.to_owned()).collect();
        match (choose(&model.parse().unwrap(), &there), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{model}"),
            (Err(why), Err(part)) => assert!(why.contains(part), "{why}"),
            (found, _) => panic!("{model}: {found:?}"),
        }
    }

    #[test]
    fn a_folder_is_what_the_engine_reads_of_it() {
        check(
            "hf://a/b",
            &[
                "README.md",
                "model.safetensors",
                "pytorch_model.bin",
                "onnx/model.onnx",
                "tokenizer.json",
                "config.json",
                "consolidated.safetensors",
                "../config.json",
            ],
            Ok(&["config.json", "tokenizer.json", "model.safetensors"]),
        );
        check(
            "hf://a/b",
            &[
                "model-00002-of-00002.safetensors",
                "model-00001-of-00002.safetensors",
                "model-extra.safetensors",
                "model.safetensors.index.json",
                "config.json",
            ],
            Ok(&[
                "config.json",
                "model.safetensors.index.json",
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
            ]),
        );
    }

    #[test]
    fn of_several_gguf_files_one_is_named() {
        let both = ["q8.gguf", "sub/q4.gguf", "../x.gguf"];
        check("hf://a/b", &["config.json", "q8.gguf"], Ok(&["q8.gguf"]));
        check(
            "hf://a/b",
            &both,
            Err("hf://a/b@main/FILE: q8.gguf, sub/q4.gguf"),
        );
        check("hf://a/b/sub/q4.gguf", &both, Ok(&["sub/q4.gguf"]));
        check("hf://a/b/q5.gguf", &both, Err("no q5.gguf"));
        check(
            "hf://a/b",
            &["pytorch_model.bin"],
            Err("neither config.json"),
        );
    }
}
