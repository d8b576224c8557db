//! A tiny Llama in the layout of Hugging Face, so that a test trains in milliseconds what production
//! trains in hours.
//!
//! Two blocks, width 32, four query heads on two key heads, tied output, a vocabulary of 264: every
//! byte, " yes" and " no" whole, and three special tokens. Any text can be written with it. It has
//! learned nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use crate::random::Random;

const LAYERS: usize = 2;
const HIDDEN: usize = 32;
const INTERMEDIATE: usize = 64;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const CONTEXT: usize = 256;
/// Standard deviation of the weights: large, so that a forward pass of so few weights says something.
const DEVIATION: f32 = 0.2;

/// Pairs that are written as one token, in the order in which they are merged. `Ġ` is the space.
const MERGES: [(&str, &str); 5] = [
    ("Ġ", "y"),
    ("e", "s"),
    ("Ġy", "es"),
    ("Ġ", "n"),
    ("Ġn", "o"),
];
const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
const VOCABULARY: usize = 256 + MERGES.len() + SPECIAL.len();

const CHAT_TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// Where a real model lies, by the variable that names it (`FEDPIPE_SMOLLM2`, `FEDPIPE_MINILM`; `./run test` sets both). `None`, with
/// a notice, only where `FEDPIPE_TEST_NO_MODELS` says that the tests of real weights are to be left out.
///
/// # Panics
/// If neither is set: a test that compared nothing must not count as one that passed.
#[must_use]
pub fn real(variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    if path.is_none() {
        assert!(
            std::env::var_os("FEDPIPE_TEST_NO_MODELS").is_some(),
            "no real model is compared: set {variable}, or run ./run test, which does; FEDPIPE_TEST_NO_MODELS=1 leaves such tests out"
        );
        eprintln!("skipped: {variable} does not name a model");
    }
    path
}

/// Writes `config.json`, `model.safetensors`, `tokenizer.json` and `tokenizer_config.json` into the
/// folder, which is made if need be. The same seed gives the same bytes.
///
/// # Errors
/// If a file cannot be written.
pub fn tiny(folder: &Path, seed: u64) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let write = |name: &str, value: Value| fs::write(folder.join(name), format!("{value:#}\n"));
    write("config.json", config())?;
    write("tokenizer.json", tokenizer())?;
    write("tokenizer_config.json", tokenizer_config())?;
    fs::write(folder.join("model.safetensors"), weights(seed)?)
}

fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": true,
        "attention_bias": false,
        "mlp_bias": false,
        "bos_token_id": null,
        "eos_token_id": VOCABULARY - 1,
        "vocab_size": VOCABULARY,
    })
}

fn weights(seed: u64) -> io::Result<Vec<u8>> {
    let kv = HIDDEN / HEADS * KV_HEADS;
    let mut shapes = vec![
        (
            "model.embed_tokens.weight".to_owned(),
            vec![VOCABULARY, HIDDEN],
        ),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
    ];
    for layer in 0..LAYERS {
        let mut block = |name: &str, shape: Vec<usize>| {
            shapes.push((format!("model.layers.{layer}.{name}.weight"), shape));
        };
        block("input_layernorm", vec![HIDDEN]);
        block("post_attention_layernorm", vec![HIDDEN]);
        block("self_attn.q_proj", vec![HIDDEN, HIDDEN]);
        block("self_attn.k_proj", vec![kv, HIDDEN]);
        block("self_attn.v_proj", vec![kv, HIDDEN]);
        block("self_attn.o_proj", vec![HIDDEN, HIDDEN]);
        block("mlp.gate_proj", vec![INTERMEDIATE, HIDDEN]);
        block("mlp.up_proj", vec![INTERMEDIATE, HIDDEN]);
        block("mlp.down_proj", vec![HIDDEN, INTERMEDIATE]);
    }
    let mut random = Random::new(seed);
    let mut tensor = |(name, shape): (String, Vec<usize>)| {
        // A norm's gain is 1; everything else is random.
        let is_norm = shape.len() == 1;
        let value = |_| {
            if is_norm {
                1.0
            } else {
                DEVIATION * random.normal()
            }
        };
        let values = (0..shape.iter().product()).map(value);
        let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
        (name, shape, bytes)
    };
    let tensors: Vec<_> = shapes.into_iter().map(&mut tensor).collect();
    let mut views = BTreeMap::new();
    for (name, shape, bytes) in &tensors {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        views.insert(name.as_str(), view.map_err(io::Error::other)?);
    }
    safetensors::serialize(views, None).map_err(io::Error::other)
}

fn tokenizer() -> Value {
    let merged = MERGES.iter().map(|(left, right)| format!("{left}{right}"));
    let tokens = (0..=u8::MAX)
        .map(|byte| letter(byte).to_string())
        .chain(merged);
    let vocabulary: serde_json::Map<String, Value> = tokens
        .enumerate()
        .map(|(id, token)| (token, id.into()))
        .collect();
    let first_special = 256 + MERGES.len();
    let special = |(index, text): (usize, &&str)| {
        json!({
            "id": first_special + index, "content": text, "special": true, "normalized": false,
            "single_word": false, "lstrip": false, "rstrip": false,
        })
    };
    let added: Vec<Value> = SPECIAL.iter().enumerate().map(special).collect();
    let merges: Vec<[&str; 2]> = MERGES.iter().map(|(left, right)| [*left, *right]).collect();
    let bytes = |trim: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": trim, "use_regex": true });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": bytes(false),
        "post_processor": null,
        "decoder": bytes(true),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": false, "vocab": vocabulary, "merges": merges,
        },
    })
}

fn tokenizer_config() -> Value {
    let [padding, _, end] = SPECIAL;
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": end,
        "pad_token": padding,
        "clean_up_tokenization_spaces": false,
        "chat_template": CHAT_TEMPLATE,
    })
}

/// The letter that stands for a byte in byte-level vocabularies: printable ones for themselves, the
/// others from U+0100 on, in order.
fn letter(byte: u8) -> char {
    let stands_for_itself = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    if stands_for_itself(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|byte| !stands_for_itself(*byte)).count();
    let code = u32::try_from(256 + before).unwrap_or_default();
    char::from_u32(code).unwrap_or_default()
}
