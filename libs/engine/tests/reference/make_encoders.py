"""Makes tests/reference/encoders: a tiny random RobertaForSequenceClassification and DistilBertForSequenceClassification as
transformers saves them, each with a tokenizer, an adapter with its head as PEFT saves it, and values.json with what they compute.

    python make_encoders.py

values.json is as that of make_encoder.py. One row of RoBERTa holds the token that fills texts up, which transformers gives no
position of its own; the script refuses to go on if XLMRobertaForSequenceClassification does not say of the same folder what
RobertaForSequenceClassification says, or if PEFT's own choice of modules (`task_type` alone) saves others than ours.
Made with torch 2.15.0, transformers 5.24.0, peft 0.21.2, tokenizers 0.23, float32, one thread.
"""
import json
import os

import torch
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

import make_encoder
from make_reference import HERE, rounded

FOLDER = os.path.join(HERE, "encoders")
TEXTS = make_encoder.TEXTS
LABELS = {0: "ham", 1: "sport", 2: "spam"}
SIZES = {"num_labels": 3, "id2label": LABELS, "label2id": {label: i for i, label in LABELS.items()}, "initializer_range": 0.3}
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
MERGES = [("o", "n"), ("m", "on"), ("e", "y"), ("mon", "ey"), ("g", "o"), ("a", "l"), ("go", "al"), ("\u0120", "goal"), ("\u0120", "mon")]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def byte_level(folder):
    """RoBERTa's: GPT-2's way of cutting, between <s> and </s>."""
    pieces = SPECIAL + BYTES + ["".join(pair) for pair in MERGES]
    made = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=MERGES))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), True, False)
    made.add_special_tokens(SPECIAL)
    made.save(os.path.join(folder, "tokenizer.json"))
    said = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>",
            "mask_token": "<mask>", "tokenizer_class": "RobertaTokenizer", "add_prefix_space": False}
    json.dump(said, open(os.path.join(folder, "tokenizer_config.json"), "w"), indent=2)
    return PreTrainedTokenizerFast(tokenizer_object=made, **{k: v for k, v in said.items() if k.endswith("_token")}), len(pieces)


def word_pieces(folder):
    make_encoder.FOLDER = folder
    return make_encoder.tokenizer(), len(make_encoder.VOCABULARY)


def roberta(vocabulary):
    config = RobertaConfig(
        vocab_size=vocabulary, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=50, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1, bos_token_id=0, eos_token_id=2, **SIZES)
    return RobertaForSequenceClassification(config)


def distilbert(vocabulary):
    config = DistilBertConfig(
        vocab_size=vocabulary, dim=16, hidden_dim=24, n_layers=2, n_heads=4, max_position_embeddings=48, pad_token_id=0, **SIZES)
    return DistilBertForSequenceClassification(config)


FAMILIES = {
    "roberta": {
        "tokenizer": byte_level, "make": roberta, "class": RobertaForSequenceClassification, "pad": 1,
        "parts": [f"roberta.encoder.layer.{{}}.{part}" for part in make_encoder.PARTS], "saved": ["classifier"],
        "rows": [([0, 80, 77, 266, 44, 2], 0), ([0, 95, 1, 92, 100, 61, 70, 2], 2), ([0, 268, 2], 1), ([0, 2], 2)],
    },
    "distilbert": {
        "tokenizer": word_pieces, "make": distilbert, "class": DistilBertForSequenceClassification, "pad": 0,
        "parts": [f"distilbert.transformer.layer.{{}}.{part}" for part in (
            "attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "ffn.lin1", "ffn.lin2")],
        "saved": ["pre_classifier", "classifier"],
        "rows": make_encoder.ROWS,
    },
}


def shaken(model):
    """Biases, normalizations and what belongs to fillers are zeros and ones in a fresh model, and would hide a mistake."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm.weight" in name.lower():
                p.copy_(1 + 0.2 * torch.randn_like(p))
            elif name.endswith("bias"):
                p.copy_(0.3 * torch.randn_like(p))
            elif "_embeddings" in name:
                p.copy_(0.3 * torch.randn_like(p))


def padded(rows, pad):
    longest = max(len(tokens) for tokens, _ in rows)
    ids = torch.tensor([tokens + [pad] * (longest - len(tokens)) for tokens, _ in rows])
    mask = torch.tensor([[1] * len(tokens) + [0] * (longest - len(tokens)) for tokens, _ in rows])
    return {"input_ids": ids, "attention_mask": mask}


def adapted(family, folder):
    base = family["class"].from_pretrained(folder, dtype=torch.float32)
    targets = [part.format(layer) for layer in range(2) for part in family["parts"]]
    settings = {"r": 2, "lora_alpha": 3, "target_modules": targets, "lora_dropout": 0.0, "task_type": "SEQ_CLS"}
    lora = get_peft_model(base, LoraConfig(modules_to_save=family["saved"], **settings)).eval()
    own = get_peft_model(family["class"].from_pretrained(folder), LoraConfig(**settings))
    assert set(get_peft_model_state_dict(own)) == set(get_peft_model_state_dict(lora)), "PEFT saves other modules"
    with torch.no_grad():
        for name, p in lora.named_parameters():
            i = torch.arange(p.numel(), dtype=torch.float64)
            if "lora_" in name:
                wave = torch.sin(0.37 * i) if "lora_A" in name else torch.cos(0.37 * i)
                p.copy_((0.3 * wave).float().reshape(p.shape))
            elif "modules_to_save" in name:
                p.copy_((0.4 * torch.sin(0.61 * i + 1)).float().reshape(p.shape))
    return lora


def made(name, family):
    torch.manual_seed(13)
    folder = os.path.join(FOLDER, name)
    os.makedirs(folder, exist_ok=True)
    words, vocabulary = family["tokenizer"](folder)
    model = family["make"](vocabulary).float().eval()
    shaken(model)
    model.save_pretrained(folder)
    values = {"texts": [{"text": text, "ids": words(text, truncation=True, max_length=48)["input_ids"]} for text in TEXTS]}
    batch = padded(family["rows"], family["pad"])
    with torch.no_grad():
        values["logits"] = [rounded(row) for row in model(**batch).logits]
        if name == "roberta":
            said = {k: v for k, v in model.config.to_dict().items() if k not in ("model_type", "architectures")}
            other = XLMRobertaForSequenceClassification.from_pretrained(folder, config=XLMRobertaConfig(**said)).eval()
            assert torch.equal(other(**batch).logits, model(**batch).logits), "XLM-RoBERTa is another model"
    lora = adapted(family, folder)
    with torch.no_grad():
        values["adapted_logits"] = [rounded(row) for row in lora(**batch).logits]
    loss = lora(**batch, labels=torch.tensor([label for _, label in family["rows"]])).loss
    loss.backward()
    values["rows"] = [{"tokens": tokens, "class": label} for tokens, label in family["rows"]]
    values["loss"] = loss.item()
    plain = lambda key: key.replace(".modules_to_save.default", "").replace(".default", "")
    values["gradients"] = {plain(key): rounded(p.grad) for key, p in lora.named_parameters() if p.grad is not None}
    lora.save_pretrained(os.path.join(folder, "adapter"))
    path = os.path.join(folder, "adapter", "adapter_config.json")
    said = json.load(open(path))
    said["base_model_name_or_path"] = name
    said["target_modules"] = sorted(said["target_modules"])
    json.dump(said, open(path, "w"), indent=2, sort_keys=True)
    readme = os.path.join(folder, "adapter", "README.md")
    os.path.exists(readme) and os.remove(readme)
    json.dump(values, open(os.path.join(folder, "values.json"), "w"))


def main():
    torch.set_num_threads(1)
    for name, family in FAMILIES.items():
        made(name, family)


if __name__ == "__main__":
    main()
