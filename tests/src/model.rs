//! A model of a few thousand numbers that behaves like a large one: Llama's layout, a byte-level
//! tokenizer, Hugging Face's files. The same bytes each time.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

const HIDDEN: usize = 32;
const INTERMEDIATE: usize = 64;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const LAYERS: usize = 2;
const CONTEXT: usize = 128;
const SPECIALS: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
const MERGES: [(&str, &str); 5] = [
    ("Ġ", "y"),
    ("e", "s"),
    ("Ġy", "es"),
    ("Ġ", "n"),
    ("Ġn", "o"),
];

/// Writes the model's folder.
pub fn write(folder: &Path) {
    std::fs::create_dir_all(folder).expect("a folder for the model");
    let file = |name: &str, value: &Value| {
        std::fs::write(folder.join(name), value.to_string()).expect("a file of the model");
    };
    let vocabulary = tokens();
    file("config.json", &configuration(vocabulary.len()));
    file("tokenizer.json", &tokenizer(&vocabulary));
    file("tokenizer_config.json", &json!({"eos_token": SPECIALS[2]}));
    weights(vocabulary.len(), &folder.join("model.safetensors"));
}

fn configuration(vocabulary: usize) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HIDDEN / HEADS,
        "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": true, "vocab_size": vocabulary, "eos_token_id": 2,
        "attention_bias": false, "mlp_bias": false, "torch_dtype": "float32",
    })
}

/// Specials, then the 256 letters that stand for bytes, then what merges make.
fn tokens() -> Vec<String> {
    let printable = |byte: &u32| {
        (0x21..=0x7e).contains(byte) || (0xa1..=0xac).contains(byte) || (0xae..=0xff).contains(byte)
    };
    let shown = (0_u32..256).filter(printable);
    let hidden = (0_u32..256).filter(|byte| !printable(byte));
    let letters = shown.chain((256..).zip(hidden).map(|(stand_in, _)| stand_in));
    let specials = SPECIALS.iter().map(|&special| special.to_owned());
    let merged = MERGES.iter().map(|(left, right)| format!("{left}{right}"));
    specials
        .chain(letters.filter_map(char::from_u32).map(String::from))
        .chain(merged)
        .collect()
}

fn tokenizer(vocabulary: &[String]) -> Value {
    let ids: HashMap<&String, usize> = vocabulary.iter().zip(0..).collect();
    let special = |(id, content): (usize, &&str)| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": false, "special": true})
    };
    let added: Vec<Value> = SPECIALS
        .iter()
        .enumerate()
        .map(|(id, text)| special((id, text)))
        .collect();
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "pre_tokenizer": bytes, "post_processor": null, "decoder": bytes,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                  "ignore_merges": false, "vocab": ids, "merges": MERGES},
    })
}

fn weights(vocabulary: usize, path: &Path) {
    let head = HIDDEN / HEADS;
    let mut shapes = vec![
        (
            "model.embed_tokens.weight".to_owned(),
            vec![vocabulary, HIDDEN],
        ),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
    ];
    for layer in 0..LAYERS {
        let of = |name: &str, shape: &[usize]| {
            (
                format!("model.layers.{layer}.{name}.weight"),
                shape.to_vec(),
            )
        };
        shapes.extend([
            of("input_layernorm", &[HIDDEN]),
            of("post_attention_layernorm", &[HIDDEN]),
            of("self_attn.q_proj", &[HIDDEN, HIDDEN]),
            of("self_attn.k_proj", &[KV_HEADS * head, HIDDEN]),
            of("self_attn.v_proj", &[KV_HEADS * head, HIDDEN]),
            of("self_attn.o_proj", &[HIDDEN, HIDDEN]),
            of("mlp.gate_proj", &[INTERMEDIATE, HIDDEN]),
            of("mlp.up_proj", &[INTERMEDIATE, HIDDEN]),
            of("mlp.down_proj", &[HIDDEN, INTERMEDIATE]),
        ]);
    }
    let mut numbers = Numbers(0x5eed);
    let filled: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let count: usize = shape.iter().product();
            let is_norm = shape.len() == 1;
            let value = |numbers: &mut Numbers| if is_norm { 1.0 } else { 0.2 * numbers.next() };
            let bytes = (0..count)
                .flat_map(|_| value(&mut numbers).to_le_bytes())
                .collect();
            (name, shape, bytes)
        })
        .collect();
    let views = filled.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a tensor");
        (name.clone(), view)
    });
    safetensors::serialize_to_file(views, None, path).expect("the model's weights");
}

/// Numbers between -1 and 1 that look like chance.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let high = (self.0 >> 40) as f32;
        high / 8_388_608.0 - 1.0
    }
}
