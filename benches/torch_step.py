#!/usr/bin/env python3
"""One training step of PyTorch + PEFT: tokens per second, peak memory and loss as one JSON object.

The same work as `fedpipe bench train`: LoRA of rank 16 on every linear layer, a batch of random tokens, AdamW.

    torch_step.py MODEL_DIR MODE BATCH SEQUENCE STEPS [THREADS]

MODE: fo (gradients and AdamW) or zo (two forwards along a random direction), then -f32 or -bf16 (the type of
the weights), then optionally -ckpt (gradient checkpointing).
"""

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def load(directory: str, mode: str) -> torch.nn.Module:
    """The model with a fresh adapter."""
    dtype = torch.bfloat16 if "bf16" in mode else torch.float32
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype)
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=TARGETS, lora_dropout=0.0))
    if mode.endswith("-ckpt"):
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
    return model.train()


def first_order(model: torch.nn.Module, tokens: torch.Tensor) -> Callable[[int], float]:
    """A step of AdamW."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def step(_: int) -> float:
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def zeroth_order(model: torch.nn.Module, tokens: torch.Tensor) -> Callable[[int], float]:
    """A step of MeZO: the adapter is moved in place, by numbers that are drawn again each time."""
    trained, shift, rate = [p for p in model.parameters() if p.requires_grad], 1e-3, 1e-5

    def move(seed: int, scale: float) -> None:
        torch.manual_seed(seed)
        for p in trained:
            p.data.add_(torch.randn_like(p), alpha=scale)

    @torch.inference_mode()
    def step(seed: int) -> float:
        move(seed, shift)
        plus = model(input_ids=tokens, labels=tokens).loss
        move(seed, -2 * shift)
        minus = model(input_ids=tokens, labels=tokens).loss
        move(seed, shift)
        move(seed, -rate * ((plus - minus) / (2 * shift)).item())
        return plus.item()

    return step


def main(arguments: list[str]) -> None:
    directory, mode = arguments[:2]
    batch, sequence, steps = map(int, arguments[2:5])
    torch.manual_seed(0)
    torch.set_num_threads(int(arguments[5]) if len(arguments) > 5 else 2)
    model = load(directory, mode)
    tokens = torch.randint(0, model.config.vocab_size - 100, (batch, sequence))
    step = zeroth_order(model, tokens) if mode.startswith("zo") else first_order(model, tokens)
    loss, times = step(0), []
    for number in range(1, steps + 1):
        began = time.perf_counter()
        loss = step(number)
        times.append(time.perf_counter() - began)
    seconds = statistics.median(times)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = {"mode": mode, "tokens_per_second": batch * sequence / seconds, "peak_mib": peak, "loss": loss}
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1:])
