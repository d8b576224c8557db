"""Makes the reference values of the engine's tests with PyTorch, transformers, PEFT and gguf.

    python make_reference.py tiny                 # rewrites the files beside this script
    python make_reference.py smollm2 HF_DIR       # rewrites smollm2.json from a dequantized SmolLM2-135M-Instruct
    python make_reference.py nf4                  # rewrites nf4.json

Made with torch 2.15.0, transformers 5.23.0, peft 0.21.2, gguf 0.19.0, bitsandbytes 0.50.2, float32, one thread.
"""
import json
import math
import os
import sys

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
VOCABULARY = 64


def rounded(tensor):
    return [float(f"{v:.7g}") for v in tensor.flatten().tolist()]


def formula_adapter(model):
    """Sets A and B to values that need no file: element i of a factor is 0.02·sin or cos(0.37·i)."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                i = torch.arange(p.numel(), dtype=torch.float64)
                wave = torch.sin(0.37 * i) if "lora_A" in name else torch.cos(0.37 * i)
                p.copy_((0.02 * wave).float().reshape(p.shape))


def train(model, batches, rate, decay, clip):
    """Losses of AdamW steps on rows of (tokens, labelled), padded and masked as usual."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
    losses = []
    for rows in batches:
        width = max(len(tokens) for tokens, _ in rows)
        ids = torch.zeros((len(rows), width), dtype=torch.long)
        labels = torch.full((len(rows), width), -100)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for i, (tokens, labelled) in enumerate(rows):
            ids[i, : len(tokens)] = torch.tensor(tokens)
            mask[i, : len(tokens)] = 1
            for j, wanted in enumerate(labelled):
                if wanted:
                    labels[i, j] = tokens[j]
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    return losses


def batches_of(vocabulary, count, lengths, seed):
    generator = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        rows = []
        for length in lengths:
            tokens = generator.integers(1, vocabulary, length).tolist()
            rows.append((tokens, [j >= length // 2 for j in range(length)]))
        out.append(rows)
    return out


def tokenizer_files(folder):
    tokens = [chr(c) for c in range(33, 33 + VOCABULARY - 3)] + ["Ġ", "!!", "<eos>"]
    vocab = {t: i for i, t in enumerate(tokens)}
    data = {
        "version": "1.0",
        "added_tokens": [{"id": VOCABULARY - 1, "content": "<eos>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "fuse_unk": False, "vocab": vocab, "merges": [["!", "!"]]},
    }
    json.dump(data, open(os.path.join(folder, "tokenizer.json"), "w"))
    json.dump({"eos_token": "<eos>"}, open(os.path.join(folder, "tokenizer_config.json"), "w"))
    return tokens


def permute(w, heads):
    """llama.cpp's reordering of query and key rows (convert_hf_to_gguf.py, LlamaModel.permute)."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def write_gguf(model, tokens, path):
    """A mixed-precision GGUF as llama.cpp's converter writes it; returns the values it decodes to."""
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (len(tokens) - 1) + [3])
    writer.add_token_merges(["! !"])
    writer.add_eos_token_id(VOCABULARY - 1)
    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
             "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
             "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    top = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}
    kinds = {"attn_q": "Q8_0", "attn_k": "Q4_1", "attn_v": "Q4_0", "attn_output": "F16", "ffn_gate": "Q5_0", "ffn_up": "Q5_1", "ffn_down": "BF16",
             "token_embd.weight": "Q8_0", "output.weight": "F32"}
    decoded = {}
    for name, tensor in model.state_dict().items():
        value = tensor.numpy()
        if name in top:
            target, kind, heads = top[name], kinds.get(top[name], "F32"), 0
        else:
            _, _, layer, rest = name.split(".", 3)
            module = names[rest.removesuffix(".weight")]
            target, kind = f"blk.{layer}.{module}.weight", kinds.get(module, "F32")
            heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(module, 0)
        kind = gguf.GGMLQuantizationType[kind]
        stored = np.ascontiguousarray(permute(value, heads) if heads else value)
        data = gguf.quants.quantize(stored, kind)
        writer.add_tensor(target, data, raw_dtype=kind)
        # Rows are quantized one by one, so their order does not matter here.
        decoded[name] = torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(value, kind), kind).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return decoded


def tiny():
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, max_position_embeddings=128, rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=VOCABULARY - 1, initializer_range=0.3, attention_dropout=0.0,
    )
    model = LlamaForCausalLM(config).float().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                p.copy_(1 + 0.2 * torch.randn_like(p))
    folder = os.path.join(HERE, "tiny")
    model.save_pretrained(folder)
    os.path.exists(os.path.join(folder, "generation_config.json")) and os.remove(os.path.join(folder, "generation_config.json"))
    tokens = tokenizer_files(folder)
    prompt = [5, 17, 3, 60, 8, 8, 41, 2, 33, 12, 50]
    ids = torch.tensor([prompt])
    out = {"prompt": prompt, "logits": rounded(model(ids).logits[0])}

    quantized = LlamaForCausalLM(config).float().eval()
    quantized.load_state_dict(write_gguf(model, tokens, os.path.join(HERE, "tiny.gguf")))
    out["gguf_logits"] = rounded(quantized(ids).logits[0])

    # One rank for all weights, and different ranks at one scale, both as PEFT saves them.
    def adapted(**more):
        base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        lora = get_peft_model(base, LoraConfig(r=4, lora_alpha=6, target_modules=ALL, lora_dropout=0.0, task_type="CAUSAL_LM", **more))
        with torch.no_grad():
            for name, p in lora.named_parameters():
                if "lora_B" in name:
                    p.copy_(0.05 * torch.randn_like(p))
        return lora

    uneven = adapted(rank_pattern={"model.layers.0.self_attn.q_proj": 2, "model.layers.1.mlp.down_proj": 1},
                     alpha_pattern={"model.layers.0.self_attn.q_proj": 3, "model.layers.1.mlp.down_proj": 1.5})
    uneven.save_pretrained(os.path.join(HERE, "tiny-uneven"))
    out["uneven_logits"] = rounded(uneven(ids).logits[0])

    lora = adapted()
    lora.save_pretrained(os.path.join(HERE, "tiny-adapter"))
    out["adapter_logits"] = rounded(lora(ids).logits[0])
    batches = batches_of(VOCABULARY, 10, [9, 1, 14, 5], 3)
    for rows in batches:
        rows[1] = (rows[1][0], [False])
    out["batches"] = [[{"tokens": t, "labelled": l} for t, l in rows] for rows in batches]
    out["plain"] = {"rate": 5e-3, "losses": train(lora, batches, 5e-3, 0.0, 0.0)}
    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), os.path.join(HERE, "tiny-adapter"), is_trainable=True)
    out["decayed"] = {"rate": 5e-3, "weight_decay": 0.1, "clip_norm": 0.5, "losses": train(again, batches, 5e-3, 0.1, 0.5)}
    json.dump(out, open(os.path.join(HERE, "tiny.json"), "w"))
    for name in ("tiny-adapter", "tiny-uneven"):
        readme = os.path.join(HERE, name, "README.md")
        os.path.exists(readme) and os.remove(readme)
        path = os.path.join(HERE, name, "adapter_config.json")
        config = json.load(open(path))
        config["base_model_name_or_path"] = "tiny"
        json.dump(config, open(path, "w"), indent=2, sort_keys=True)


def smollm2(directory):
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    prompt = [504, 3575, 282, 4649, 314]  # "The capital of France is"
    with torch.no_grad():
        logits = model(torch.tensor([prompt])).logits[0]
    out = {"prompt": prompt, "first_logits": [rounded(row[:16]) for row in logits], "normalizers": rounded(torch.logsumexp(logits, 1))}
    out["greedy"] = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)[0, len(prompt):].tolist()
    lora = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=ALL, lora_dropout=0.0, task_type="CAUSAL_LM"))
    formula_adapter(lora)
    batches = batches_of(49152, 3, [23, 40], 5)
    out["batches"] = [[{"tokens": t, "labelled": l} for t, l in rows] for rows in batches]
    out["training"] = {"rate": 1e-3, "losses": train(lora, batches, 1e-3, 0.0, 0.0)}
    json.dump(out, open(os.path.join(HERE, "smollm2.json"), "w"))


def nf4():
    """A matrix given by a formula, as bitsandbytes quantizes it: the codes, and each block's magnitude after double quantization."""
    import bitsandbytes.functional as bnb

    rows, columns = 40, 512
    i = torch.arange(rows * columns, dtype=torch.float64)
    x = (0.02 * torch.sin(0.37 * i) * (1 + (i // 64) % 7)).float().reshape(rows, columns)
    packed, state = bnb.quantize_4bit(x, quant_type="nf4", compress_statistics=True, blocksize=64)
    magnitudes = bnb.dequantize_blockwise(state.absmax, state.state2) + state.offset
    out = {"rows": rows, "columns": columns, "codes": packed.flatten().numpy().tobytes().hex(), "magnitudes": rounded(magnitudes)}
    json.dump(out, open(os.path.join(HERE, "nf4.json"), "w"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"tiny": tiny, "smollm2": lambda: smollm2(sys.argv[2]), "nf4": nf4}[sys.argv[1]]()
