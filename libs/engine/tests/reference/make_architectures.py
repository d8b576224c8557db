"""Makes tests/reference/architectures: for each family a tiny random checkpoint as transformers saves it, and what it computes.

    python make_architectures.py [FAMILY...]

Each folder has config.json, model.safetensors, a tokenizer, and values.json: the logits of a prompt; and with an adapter whose
every value is from a formula, the loss of two rows and its gradient by autograd. Where a family has settings of its
own that its checkpoint leaves as usual, "other" has the logits under others, and "scaled" those of a long text with scaled rotations.
Made with torch 2.15.0, transformers 5.24.0, peft 0.21.2, float32, one thread.
"""
import json
import os
import shutil
import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Gemma3TextConfig, GPT2Config, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from make_reference import ALL, HERE, VOCABULARY, rounded

PROMPT = [5, 17, 3, 60, 8, 8, 41, 2, 33, 12, 50]
ROWS = [([7, 1, 44, 20, 9, 31, 62, 5], 4), ([30, 2, 2, 58, 11], 2)]  # tokens, and from where on they are labelled
SHARED = dict(
    vocab_size=VOCABULARY, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=96, rms_norm_eps=1e-5, bos_token_id=None, eos_token_id=VOCABULARY - 1, initializer_range=0.3,
    attention_dropout=0.0,
)
LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}
FAMILIES = {
    # Heads of eight, so that scaling leaves one frequency, divides one, and has two between.
    "llama3": LlamaConfig(**SHARED, head_dim=8, tie_word_embeddings=True, rope_parameters=LLAMA3),
    "mistral": MistralConfig(**SHARED, head_dim=6, tie_word_embeddings=False, rope_theta=10000.0, sliding_window=64),
    "qwen2": Qwen2Config(**SHARED, tie_word_embeddings=True, rope_theta=1000000.0),
    "qwen3": Qwen3Config(**SHARED, head_dim=8, tie_word_embeddings=True, rope_theta=1000000.0),
    "gpt2": GPT2Config(
        vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=4, n_positions=96, bos_token_id=None, eos_token_id=VOCABULARY - 1,
        initializer_range=0.3, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    ),
    # Six layers, so that one sees everything; a window that is shorter than every row.
    "gemma3": Gemma3TextConfig(
        **{**SHARED, "num_hidden_layers": 6}, head_dim=8, query_pre_attn_scalar=8, sliding_window=6, pad_token_id=None,
        rope_parameters={"full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
                         "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}},
    ),
}
# Settings under which the same checkpoint computes something else, as its config.json would say them.
OTHER = {
    "gemma3": {"query_pre_attn_scalar": 12, "layer_types": ["sliding_attention", "full_attention"] * 3, "sliding_window": 4,
               "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 500000.0},
                                   "sliding_attention": {"rope_type": "default", "rope_theta": 20000.0}}},
}
# As of 4B and larger: in the layers that see everything, positions are divided by eight.
SCALED = {
    "gemma3": {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
                                   "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
}
TARGETS = {"gpt2": ["c_attn", "c_proj", "c_fc"]}


def shaken(model):
    """Biases and normalizations are zeros and ones in a fresh model, and would hide a mistake."""
    with torch.no_grad():
        # Gemma's weights of normalizations are what one is added to.
        one = 0 if model.config.model_type.startswith("gemma") else 1
        for name, p in model.named_parameters():
            if name.endswith("bias"):
                p.copy_(0.3 * torch.randn_like(p))
            elif "norm" in name or ".ln_" in name:
                p.copy_(one + 0.2 * torch.randn_like(p))


def adapted(folder, name):
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    lora = get_peft_model(base, LoraConfig(r=2, lora_alpha=3, target_modules=TARGETS.get(name, ALL), lora_dropout=0.0,
                                           fan_in_fan_out=name == "gpt2", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, p in lora.named_parameters():
            if "lora_" in name:
                i = torch.arange(p.numel(), dtype=torch.float64)
                wave = torch.sin(0.37 * i) if "lora_A" in name else torch.cos(0.37 * i)
                p.copy_((0.3 * wave).float().reshape(p.shape))
    return lora


def gradients(lora):
    total, count = 0.0, 0
    for tokens, first in ROWS:
        logits = lora(torch.tensor([tokens])).logits[0]
        wanted = torch.tensor(tokens[first:])
        total = total + torch.nn.functional.cross_entropy(logits[first - 1:-1], wanted, reduction="sum")
        count += len(wanted)
    loss = total / count
    loss.backward()
    keys = {name.replace(".default", ""): rounded(p.grad) for name, p in lora.named_parameters() if "lora_" in name}
    return loss.item(), keys


def main():
    torch.set_num_threads(1)
    for name, config in FAMILIES.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        torch.manual_seed(11)
        folder = os.path.join(HERE, "architectures", name)
        os.makedirs(folder, exist_ok=True)
        model = AutoModelForCausalLM.from_config(config).float().eval()
        shaken(model)
        model.save_pretrained(folder)
        for other in ("generation_config.json",):
            path = os.path.join(folder, other)
            os.path.exists(path) and os.remove(path)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(os.path.join(HERE, "tiny", file), folder)
        # Beyond the original context of the scaled one, and within the window of the other.
        long = [(i * 7 + 3) % 63 for i in range(60)]
        with torch.no_grad():
            values = {"prompt": PROMPT, "logits": rounded(model(torch.tensor([PROMPT])).logits[0]),
                      "long": long, "long_last": rounded(model(torch.tensor([long])).logits[0, -1])}
        if name in OTHER:
            other = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **OTHER[name]).eval()
            with torch.no_grad():
                values["other"] = {"config": OTHER[name], "logits": rounded(other(torch.tensor([PROMPT])).logits[0])}
        if name in SCALED:
            scaled = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **SCALED[name]).eval()
            with torch.no_grad():
                values["scaled"] = {"config": SCALED[name], "long_last": rounded(scaled(torch.tensor([long])).logits[0, -1])}
        lora = adapted(folder, name)
        values["rows"] = [{"tokens": tokens, "labelled": [i >= first for i in range(len(tokens))]} for tokens, first in ROWS]
        values["loss"], values["gradients"] = gradients(lora)
        lora.save_pretrained(os.path.join(folder, "adapter"))
        path = os.path.join(folder, "adapter", "adapter_config.json")
        said = json.load(open(path))
        said["base_model_name_or_path"] = name
        said["target_modules"] = sorted(said["target_modules"])
        json.dump(said, open(path, "w"), indent=2, sort_keys=True)
        readme = os.path.join(folder, "adapter", "README.md")
        os.path.exists(readme) and os.remove(readme)
        json.dump(values, open(os.path.join(folder, "values.json"), "w"))


if __name__ == "__main__":
    main()
