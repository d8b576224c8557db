#!/usr/bin/env python3
"""Makes losses.json: ten training steps of PyTorch + PEFT on SmolLM2-135M-Instruct and records.jsonl.

    make_losses.py MODEL_DIR      # the folder that benches/dequantize.py makes; environment as benches/requirements.txt

Made with torch 2.15.0, transformers 5.24.0, peft 0.21.2, float32, one thread. Rank 8 and alpha 16 on every linear
layer; the start needs no file: element i of a factor is 0.02·sin(0.37·i) in A, 0.02·cos(0.37·i) in B.
"""

import json
import pathlib
import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "benches"))

import torch_curve  # noqa: E402
import torch_step  # noqa: E402

STEPS, RATE, LENGTH, BATCH = 10, 1e-3, 128, 2


def main(directory: str) -> None:
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=torch_step.TARGETS, lora_dropout=0.0))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                i = torch.arange(p.numel(), dtype=torch.float64)
                wave = torch.sin(0.37 * i) if "lora_A" in name else torch.cos(0.37 * i)
                p.copy_((0.02 * wave).float().reshape(p.shape))
    tokenizer = AutoTokenizer.from_pretrained(directory)
    records = torch_curve.read(HERE / "records.jsonl")
    losses = list(torch_curve.losses(model, tokenizer, records, STEPS, RATE, LENGTH, BATCH))
    about = {"learning_rate": RATE, "sequence_length": LENGTH, "batch": BATCH, "losses": losses}
    (HERE / "losses.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
