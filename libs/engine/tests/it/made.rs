//! Models made for a test: any source type, sizes that every one of them can hold.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{self, Content, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::support::reference;

/// Multiples of 256, as K-quants need.
const HIDDEN: usize = 256;
const INTERMEDIATE: usize = 512;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
/// More than the tokenizer has, so that the table is read in several strips.
const VOCABULARY: usize = 600;

/// A tied Llama of one block whose matrices are all of `kind`, with the tiny model's tokenizer.
pub fn gguf(folder: &Path, kind: GgmlDType) -> PathBuf {
    let mut tiny = fs::File::open(reference("tiny.gguf")).unwrap();
    let mut metadata = Content::read(&mut tiny).unwrap().metadata;
    let sizes = [
        ("llama.block_count", 1),
        ("llama.embedding_length", HIDDEN),
        ("llama.feed_forward_length", INTERMEDIATE),
        ("llama.attention.head_count", HEADS),
        ("llama.attention.head_count_kv", KV_HEADS),
        ("llama.rope.dimension_count", HIDDEN / HEADS),
    ];
    for (key, size) in sizes {
        metadata.insert(key.to_owned(), Value::U32(size as u32));
    }
    let keys = HIDDEN / HEADS * KV_HEADS;
    let shapes: [(&str, &[usize]); 12] = [
        ("token_embd", &[VOCABULARY, HIDDEN]),
        ("output_norm", &[HIDDEN]),
        ("blk.0.attn_norm", &[HIDDEN]),
        ("blk.0.ffn_norm", &[HIDDEN]),
        ("blk.0.attn_q", &[HIDDEN, HIDDEN]),
        ("blk.0.attn_k", &[keys, HIDDEN]),
        ("blk.0.attn_v", &[keys, HIDDEN]),
        ("blk.0.attn_output", &[HIDDEN, HIDDEN]),
        ("blk.0.ffn_gate", &[INTERMEDIATE, HIDDEN]),
        ("blk.0.ffn_up", &[INTERMEDIATE, HIDDEN]),
        ("blk.0.ffn_down", &[HIDDEN, INTERMEDIATE]),
        ("unused", &[HIDDEN]),
    ];
    let mut tensors = Vec::new();
    for (seed, (name, shape)) in shapes.iter().enumerate() {
        let (kind, values) = if shape.len() == 1 {
            (GgmlDType::F32, vec![1.0; shape[0]])
        } else {
            (kind, noise(shape.iter().product(), seed as u64))
        };
        let tensor = Tensor::from_vec(values, *shape, &Device::Cpu).unwrap();
        let tensor = QTensor::quantize(&tensor, kind).unwrap();
        tensors.push((format!("{name}.weight"), tensor));
    }
    let metadata: Vec<_> = metadata.iter().map(|(key, v)| (key.as_str(), v)).collect();
    let tensors: Vec<_> = tensors.iter().map(|(key, v)| (key.as_str(), v)).collect();
    let path = folder.join(format!("{kind:?}.gguf"));
    let mut file = fs::File::create(&path).unwrap();
    gguf_file::write(&mut file, &metadata, &tensors).unwrap();
    path
}

/// About normal, as weights are: a sum of four uniform numbers of a linear congruence.
fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..len)
        .map(|_| 0.1 * (uniform() + uniform() + uniform() + uniform()))
        .collect()
}

/// The tiny Hugging Face folder in another type, its values changed by `change` first.
pub fn folder(into: &Path, kind: Dtype, change: impl Fn(&str, &mut [f32])) {
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(reference("tiny").join(name), into.join(name)).unwrap();
    }
    let data = fs::read(reference("tiny/model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&data).unwrap();
    let mut tensors = Vec::new();
    for (name, view) in file.tensors() {
        let (values, _) = view.data().as_chunks();
        let mut values: Vec<f32> = values.iter().map(|v| f32::from_le_bytes(*v)).collect();
        change(&name, &mut values);
        assert!(matches!(kind, Dtype::F32 | Dtype::BF16 | Dtype::F16));
        let bytes: Vec<u8> = match kind {
            Dtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Dtype::BF16 => values
                .iter()
                .flat_map(|v| bf16::from_f32(*v).to_le_bytes())
                .collect(),
            _ => values
                .iter()
                .flat_map(|v| f16::from_f32(*v).to_le_bytes())
                .collect(),
        };
        tensors.push((name, view.shape().to_vec(), bytes));
    }
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| (name, TensorView::new(kind, shape.clone(), bytes).unwrap()));
    fs::write(
        into.join("model.safetensors"),
        safetensors::serialize(views, None).unwrap(),
    )
    .unwrap();
}
