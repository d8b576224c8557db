#!/usr/bin/env python3
"""The loss of each step of PyTorch + PEFT in float32, from a given adapter, records in file order: a line of JSON each.

The same work as `fedpipe train --order file --schedule constant --clip-norm 0 --weight-decay 0`: records of
{"prompt", "completion"}, the loss on the completion and the end-of-sequence token, no padding that contributes.

    torch_curve.py MODEL_DIR ADAPTER_DIR DATA.jsonl STEPS LEARNING_RATE SEQUENCE BATCH [THREADS]
"""

import json
import pathlib
import sys
from collections.abc import Iterator

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer


def encode(tokenizer, record: dict, length: int) -> tuple[list[int], int]:
    """Token ids, and how many of them are the prompt's."""
    prompt = tokenizer(record["prompt"], add_special_tokens=False).input_ids
    answer = tokenizer(record["completion"], add_special_tokens=False).input_ids + [tokenizer.eos_token_id]
    return (prompt + answer)[:length], len(prompt)


def padded(rows: list[tuple[list[int], int]], filler: int) -> dict[str, torch.Tensor]:
    """Rows of one width; what is filled in is neither seen nor predicted."""
    shape = (len(rows), max(len(ids) for ids, _ in rows))
    ids, labels = torch.full(shape, filler), torch.full(shape, -100)
    mask = torch.zeros(shape, dtype=torch.long)
    for i, (row, prompt) in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        labels[i, prompt : len(row)] = torch.tensor(row[prompt:])
        mask[i, : len(row)] = 1
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def read(path: pathlib.Path) -> list[dict]:
    """The records of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def losses(model, tokenizer, records: list[dict], steps: int, rate: float, length: int, batch: int) -> Iterator[float]:
    """The loss of each step, before its update."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate, weight_decay=0.0)
    for step in range(steps):
        chosen = [records[(step * batch + i) % len(records)] for i in range(batch)]
        rows = [encode(tokenizer, record, length) for record in chosen]
        loss = model(**padded(rows, tokenizer.eos_token_id)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield loss.item()


def main(arguments: list[str]) -> None:
    directory, adapter, data = arguments[:3]
    steps, rate, length, batch = int(arguments[3]), float(arguments[4]), int(arguments[5]), int(arguments[6])
    torch.set_num_threads(int(arguments[7]) if len(arguments) > 7 else 2)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, adapter, is_trainable=True)
    records = read(pathlib.Path(data))
    for step, loss in enumerate(losses(model, tokenizer, records, steps, rate, length, batch)):
        print(json.dumps({"step": step, "loss": loss}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
