"""Makes tests/reference/encoder: a tiny random BertForSequenceClassification as transformers saves it, a WordPiece tokenizer of
63 entries, an adapter with its own head as PEFT saves it, and values.json with what they compute.

    python make_encoder.py

values.json: token ids of texts; the logits of rows that transformers computes as one padded batch, without the adapter and with
it; and with it the loss of the rows' classes and its gradient by autograd, of the head too.
With FEDPIPE_MINILM naming the folder of all-MiniLM-L6-v2 it also makes tests/reference/minilm.json: ids and logits of three texts
with a head of a formula on the real weights.
Made with torch 2.15.0, transformers 5.24.0, peft 0.21.2, tokenizers 0.23, float32, one thread.
"""
import json
import os

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from make_reference import HERE, rounded

FOLDER = os.path.join(HERE, "encoder")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOCABULARY = SPECIAL + list(LETTERS) + ["##" + letter for letter in LETTERS] + ["money", "meeting", "goal", "##ing", "!", "."]
TEXTS = ["Money, money!", "meeting at noon.", "a goal", "Scoring Ümlaut ab\u00adc", "x" * 120, ""]
ROWS = [([2, 57, 61, 30, 3], 0), ([2, 58, 5, 44, 18, 33, 33, 62, 3], 2), ([2, 5, 59, 3], 1), ([2, 3], 2)]
PARTS = ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense", "intermediate.dense",
         "output.dense"]


def tokenizer():
    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    # Whoever packages a model leaves such settings behind; they must not count.
    made.enable_truncation(8)
    made.enable_padding(length=8)
    made.save(os.path.join(FOLDER, "tokenizer.json"))
    made.no_truncation()
    made.no_padding()
    said = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]",
            "tokenizer_class": "BertTokenizer", "do_lower_case": True}
    json.dump(said, open(os.path.join(FOLDER, "tokenizer_config.json"), "w"), indent=2)
    return PreTrainedTokenizerFast(tokenizer_object=made, **{k: v for k, v in said.items() if k.endswith("_token")})


def shaken(model):
    """Biases and normalizations are zeros and ones in a fresh model, and would hide a mistake."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "LayerNorm.weight" in name:
                p.copy_(1 + 0.2 * torch.randn_like(p))
            elif name.endswith("bias"):
                p.copy_(0.3 * torch.randn_like(p))


def padded():
    longest = max(len(tokens) for tokens, _ in ROWS)
    ids = torch.tensor([tokens + [0] * (longest - len(tokens)) for tokens, _ in ROWS])
    mask = torch.tensor([[1] * len(tokens) + [0] * (longest - len(tokens)) for tokens, _ in ROWS])
    return {"input_ids": ids, "attention_mask": mask}


def adapted():
    base = BertForSequenceClassification.from_pretrained(FOLDER, dtype=torch.float32)
    targets = [f"bert.encoder.layer.{layer}.{part}" for layer in range(2) for part in PARTS]
    config = LoraConfig(r=2, lora_alpha=3, target_modules=targets, lora_dropout=0.0, task_type="SEQ_CLS", modules_to_save=["classifier"])
    lora = get_peft_model(base, config).eval()
    with torch.no_grad():
        for name, p in lora.named_parameters():
            i = torch.arange(p.numel(), dtype=torch.float64)
            if "lora_" in name:
                wave = torch.sin(0.37 * i) if "lora_A" in name else torch.cos(0.37 * i)
                p.copy_((0.3 * wave).float().reshape(p.shape))
            elif "modules_to_save" in name:
                p.copy_((0.4 * torch.sin(0.61 * i + 1)).float().reshape(p.shape))
    return lora


MAILS = ["Cheap pills, no prescription needed!!! Order now.",
         "Minutes of yesterday's meeting are attached; the next one is on Thursday at 10.", "Ümläute und 中文 too"]


def real(folder):
    words = AutoTokenizer.from_pretrained(folder)
    model = BertForSequenceClassification.from_pretrained(folder, num_labels=2, dtype=torch.float32).eval()
    with torch.no_grad():
        i = torch.arange(768, dtype=torch.float64)
        model.classifier.weight.copy_((0.4 * torch.sin(0.61 * i + 1)).float().reshape(2, 384))
        model.classifier.bias.copy_(torch.tensor([0.1, -0.2]))
        ids = [words(text, truncation=True, max_length=128)["input_ids"] for text in MAILS]
        logits = [rounded(model(torch.tensor([own])).logits[0]) for own in ids]
    json.dump({"ids": ids, "logits": logits}, open(os.path.join(HERE, "minilm.json"), "w"))


def main():
    torch.set_num_threads(1)
    if "FEDPIPE_MINILM" in os.environ:
        real(os.environ["FEDPIPE_MINILM"])
    torch.manual_seed(11)
    os.makedirs(FOLDER, exist_ok=True)
    words = tokenizer()
    config = BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=48, type_vocab_size=2, initializer_range=0.3, layer_norm_eps=1e-5, num_labels=3,
        id2label={0: "ham", 1: "sport", 2: "spam"}, label2id={"ham": 0, "sport": 1, "spam": 2})
    model = BertForSequenceClassification(config).float().eval()
    shaken(model)
    model.save_pretrained(FOLDER)
    values = {"texts": [{"text": text, "ids": words(text, truncation=True, max_length=48)["input_ids"]} for text in TEXTS]}
    with torch.no_grad():
        values["logits"] = [rounded(row) for row in model(**padded()).logits]
    lora = adapted()
    with torch.no_grad():
        values["adapted_logits"] = [rounded(row) for row in lora(**padded()).logits]
    loss = lora(**padded(), labels=torch.tensor([label for _, label in ROWS])).loss
    loss.backward()
    values["rows"] = [{"tokens": tokens, "class": label} for tokens, label in ROWS]
    values["loss"] = loss.item()
    name = lambda key: key.replace(".modules_to_save.default", "").replace(".default", "")
    values["gradients"] = {name(key): rounded(p.grad) for key, p in lora.named_parameters() if p.grad is not None}
    lora.save_pretrained(os.path.join(FOLDER, "adapter"))
    path = os.path.join(FOLDER, "adapter", "adapter_config.json")
    said = json.load(open(path))
    said["base_model_name_or_path"] = "encoder"
    said["target_modules"] = sorted(said["target_modules"])
    json.dump(said, open(path, "w"), indent=2, sort_keys=True)
    readme = os.path.join(FOLDER, "adapter", "README.md")
    os.path.exists(readme) and os.remove(readme)
    json.dump(values, open(os.path.join(FOLDER, "values.json"), "w"))


if __name__ == "__main__":
    main()
