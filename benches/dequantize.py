#!/usr/bin/env python3
"""A GGUF checkpoint as float32 safetensors with its tokenizer, so that both sides load the same values.

    dequantize.py GGUF_FILE OUT_DIR
"""

import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(arguments: list[str]) -> None:
    source, out = pathlib.Path(arguments[0]), pathlib.Path(arguments[1])
    out.mkdir(parents=True, exist_ok=True)
    folder, file = str(source.parent), source.name
    AutoTokenizer.from_pretrained(folder, gguf_file=file).save_pretrained(out)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.dtype = "float32"
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    tensors = {name: value.contiguous() for name, value in model.state_dict().items() if name not in tied}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    # Last, because the folder counts as finished when this file is there.
    model.config.save_pretrained(out)


if __name__ == "__main__":
    main(sys.argv[1:])
