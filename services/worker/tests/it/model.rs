//! A Llama small enough for a test: two blocks, a byte-level tokenizer, weights from a fixed sequence.

use std::collections::BTreeMap;
use std::path::Path;

use artifacts::tensors::TensorWriter;
use serde_json::{Value, json};

const HIDDEN: usize = 16;
const INTERMEDIATE: usize = 32;
const KEYS: usize = 8;
const LAYERS: usize = 2;
const EOS: &str = "<|end|>";

/// Writes the model's folder.
pub fn write(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let tokens = tokens();
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE, "num_hidden_layers": LAYERS,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": tokens.len(),
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": true, "torch_dtype": "float32",
        "eos_token_id": 0, "bos_token_id": 0,
    });
    let write = |name: &str, value: &Value| {
        std::fs::write(folder.join(name), value.to_string()).unwrap();
    };
    write("config.json", &config);
    write("tokenizer.json", &tokenizer(&tokens));
    write("tokenizer_config.json", &json!({"eos_token": EOS}));
    weights(&folder.join("model.safetensors"), tokens.len());
}

fn weights(path: &Path, vocabulary: usize) {
    let mut shapes: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut add = |name: String, shape: &[usize]| shapes.insert(name, shape.to_vec());
    add(
        "model.embed_tokens.weight".to_owned(),
        &[vocabulary, HIDDEN],
    );
    add("model.norm.weight".to_owned(), &[HIDDEN]);
    for layer in 0..LAYERS {
        let name = |rest: &str| format!("model.layers.{layer}.{rest}.weight");
        add(name("input_layernorm"), &[HIDDEN]);
        add(name("post_attention_layernorm"), &[HIDDEN]);
        add(name("self_attn.q_proj"), &[HIDDEN, HIDDEN]);
        add(name("self_attn.k_proj"), &[KEYS, HIDDEN]);
        add(name("self_attn.v_proj"), &[KEYS, HIDDEN]);
        add(name("self_attn.o_proj"), &[HIDDEN, HIDDEN]);
        add(name("mlp.gate_proj"), &[INTERMEDIATE, HIDDEN]);
        add(name("mlp.up_proj"), &[INTERMEDIATE, HIDDEN]);
        add(name("mlp.down_proj"), &[HIDDEN, INTERMEDIATE]);
    }
    let format = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let mut writer = TensorWriter::create(path, shapes.clone(), format).unwrap();
    let mut state = 1u64;
    for (name, shape) in shapes {
        let count = shape.iter().product::<usize>();
        let mut value = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            if shape.len() == 1 {
                1.0
            } else {
                (state >> 40) as f32 / (1 << 24) as f32 - 0.5
            }
        };
        let values: Vec<f32> = (0..count).map(|_| value()).collect();
        writer.write(&name, &values).unwrap();
    }
    writer.finish().unwrap();
}

/// The end token, then the printable bytes as a byte-level tokenizer writes them.
fn tokens() -> Vec<String> {
    let printable = ('!'..='~').map(String::from);
    let blanks = ["Ġ", "Ċ"].map(str::to_owned);
    [EOS.to_owned()]
        .into_iter()
        .chain(blanks)
        .chain(printable)
        .collect()
}

fn tokenizer(tokens: &[String]) -> Value {
    let vocabulary: BTreeMap<&str, usize> = tokens.iter().map(String::as_str).zip(0..).collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{"id": 0, "content": EOS, "single_word": false, "lstrip": false,
                          "rstrip": false, "normalized": false, "special": true}],
        "normalizer": null, "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                  "ignore_merges": false, "vocab": vocabulary, "merges": []},
    })
}
