//! A byte-level tokenizer small enough to read: one token per byte, a few merges, three specials.

use std::collections::HashMap;
use std::path::Path;

use candle_core::quantized::gguf_file::{Content, Value, VersionedMagic};
use serde_json::json;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::Tokenizer;

pub(crate) const EOS: &str = "<|im_end|>";
const SPECIALS: [&str; 3] = ["<|endoftext|>", "<|im_start|>", EOS];
const MERGES: [(&str, &str); 5] = [
    ("Ġ", "y"),
    ("e", "s"),
    ("Ġy", "es"),
    ("Ġ", "n"),
    ("Ġn", "o"),
];
/// SmolLM2's own.
pub(crate) const TEMPLATE: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe kind<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// Specials first, then bytes in their order, then merges.
pub(crate) fn tokens() -> Vec<String> {
    let mut bytes: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    bytes.sort_unstable();
    let specials = SPECIALS.map(str::to_owned).into_iter();
    let merged = MERGES.iter().map(|(left, right)| format!("{left}{right}"));
    specials
        .chain(bytes.iter().map(char::to_string))
        .chain(merged)
        .collect()
}

/// Writes the Hugging Face files of the tokenizer.
pub(crate) fn write_folder(folder: &Path) {
    let vocabulary: HashMap<String, usize> = tokens().into_iter().zip(0..).collect();
    let added: Vec<_> = (0..SPECIALS.len())
        .map(|id| {
            json!({"id": id, "content": SPECIALS[id], "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let digits = json!({"type": "Digits", "individual_digits": true});
    let tokenizer = json!({
        "version": "1.0",
        // Somebody else's limits, which must not apply.
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": null,
                    "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>"},
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, byte_level]},
        "post_processor": null,
        "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                  "ignore_merges": false, "vocab": vocabulary, "merges": MERGES},
    });
    let config = json!({"eos_token": {"content": EOS}, "bos_token": "<|im_start|>", "pad_token": EOS,
                        "chat_template": TEMPLATE});
    let generation = json!({"eos_token_id": [2, 0]});
    let write = |name: &str, value: &serde_json::Value| {
        std::fs::write(folder.join(name), value.to_string()).unwrap();
    };
    write("tokenizer.json", &tokenizer);
    write("tokenizer_config.json", &config);
    write("generation_config.json", &generation);
}

/// The tokenizer, read from a folder.
pub(crate) fn tokenizer() -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    write_folder(folder.path());
    Tokenizer::from_folder(folder.path()).unwrap()
}

/// The same with a bos before every text, as Llama's and Gemma's put it.
pub(crate) fn tokenizer_with_bos() -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    write_folder(folder.path());
    let path = folder.path().join("tokenizer.json");
    let mut file: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let bos = json!({"SpecialToken": {"id": "<|im_start|>", "type_id": 0}});
    let text = |id: &str, kind: u8| json!({"Sequence": {"id": id, "type_id": kind}});
    file["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [bos, text("A", 0)],
        "pair": [bos, text("A", 0), bos, text("B", 1)],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}},
    });
    std::fs::write(&path, file.to_string()).unwrap();
    Tokenizer::from_folder(folder.path()).unwrap()
}

/// The same tokenizer as GGUF metadata.
pub(crate) fn gguf() -> Content {
    let strings = |texts: Vec<String>| Value::Array(texts.into_iter().map(Value::String).collect());
    let types = (0..tokens().len()).map(|id| Value::I32(if id < SPECIALS.len() { 3 } else { 1 }));
    let merges = MERGES.iter().map(|(left, right)| format!("{left} {right}"));
    let text = |text: &str| Value::String(text.to_owned());
    let metadata = [
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text("smollm")),
        ("tokenizer.ggml.tokens", strings(tokens())),
        ("tokenizer.ggml.token_type", Value::Array(types.collect())),
        ("tokenizer.ggml.merges", strings(merges.collect())),
        ("tokenizer.ggml.bos_token_id", Value::U32(1)),
        ("tokenizer.ggml.eos_token_id", Value::U32(2)),
        ("tokenizer.chat_template", text(TEMPLATE)),
    ];
    Content {
        magic: VersionedMagic::GgufV3,
        metadata: metadata.map(|(key, value)| (key.to_owned(), value)).into(),
        tensor_infos: HashMap::new(),
        tensor_data_offset: 0,
    }
}
