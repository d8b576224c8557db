#!/usr/bin/env python3
"""A small language model, made in minutes: a few blocks of SmolLM2 with its embeddings, trained to be one again.

Promises: the same source, data and program give the same model; nothing of the data that sites will hold goes into it.
How: the outermost blocks are kept as they are (GGUF tensors, not decoded). What the missing ones leave behind is
repaired by our own engine: `fedpipe train` learns an adapter of high rank on every projection, which is then added to
the weights, and that twice, since two such changes reach what one of their rank cannot (ReLoRA, arXiv 2307.05695).
Does not: become as good as its source. It is for runs that must be many; its loss is printed where it is used.

    benches/small.py --fedpipe BINARY --source GGUF --data TRAIN.jsonl --out small.gguf
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import gguf
import numpy as np
from gguf.quants import dequantize

# Blocks kept of SmolLM2's 30: the first ones make features, the last ones make words; those between change least.
BLOCKS = (0, 1, 2, 3, 28, 29)
RANK = 64
ALPHA = 64
PASSES = 2
STEPS = 200
BATCH = 8
SEQUENCE = 160
LEARNING_RATE = 2e-3
MODULES = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output",
           "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}  # fmt: skip


def tensors(reader: gguf.GGUFReader) -> dict[str, gguf.ReaderTensor]:
    """The file's tensors by name."""
    return {tensor.name: tensor for tensor in reader.tensors}


def copy(reader: gguf.GGUFReader, out: pathlib.Path, blocks: int) -> gguf.GGUFWriter:
    """A new file with the same settings and tokenizer, and another number of blocks."""
    writer = gguf.GGUFWriter(str(out), "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "llama.block_count"):
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, inner)
    writer.add_uint32("llama.block_count", blocks)
    return writer


def finish(writer: gguf.GGUFWriter) -> None:
    """Write everything."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def prune(source: pathlib.Path, out: pathlib.Path) -> None:
    """Keep some blocks, as they are stored."""
    reader = gguf.GGUFReader(source)
    writer = copy(reader, out, len(BLOCKS))
    for name, tensor in tensors(reader).items():
        kept = name
        if name.startswith("blk."):
            _, block, rest = name.split(".", 2)
            if int(block) not in BLOCKS:
                continue
            kept = f"blk.{BLOCKS.index(int(block))}.{rest}"
        writer.add_tensor(kept, tensor.data, raw_dtype=tensor.tensor_type)
    finish(writer)


def adapter(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """The factors of a PEFT adapter, by key."""
    raw = (folder / "adapter_model.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    found = {}
    for key, about in header.items():
        if key != "__metadata__":
            begin, end = about["data_offsets"]
            found[key] = np.frombuffer(raw[8 + length + begin : 8 + length + end], "<f4").reshape(about["shape"])
    return found


def merge(source: pathlib.Path, folder: pathlib.Path, out: pathlib.Path) -> None:
    """Add an adapter to the weights it was trained on; those are stored in 16 bits from then on."""
    reader = gguf.GGUFReader(source)
    factors, scale = adapter(folder), np.float32(ALPHA / RANK)
    heads = {"attn_q": reader.fields["llama.attention.head_count"].contents(),
             "attn_k": reader.fields["llama.attention.head_count_kv"].contents()}  # fmt: skip
    changes = {}
    for key, b in factors.items():
        if not key.endswith(".lora_B.weight"):
            continue
        path = key.split(".")
        block, module = path[path.index("layers") + 1], MODULES[path[-3]]
        change = scale * (b @ factors[key.replace("lora_B", "lora_A")])
        if module in heads:
            change = reordered(change, heads[module])
        changes[f"blk.{block}.{module}.weight"] = change
    writer = copy(reader, out, len(BLOCKS))
    for name, tensor in tensors(reader).items():
        if name in changes:
            merged = dequantize(tensor.data, tensor.tensor_type) + changes.pop(name)
            writer.add_tensor(name, merged.astype(np.float16))
        else:
            writer.add_tensor(name, tensor.data, raw_dtype=tensor.tensor_type)
    if changes:
        raise ValueError(f"the model has no {', '.join(sorted(changes))}")
    finish(writer)


def reordered(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys in the order of llama.cpp, which rotates adjacent pairs."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def make(fedpipe: pathlib.Path, source: pathlib.Path, data: pathlib.Path, out: pathlib.Path, steps: int = STEPS) -> None:
    """Prune, then train and merge; the model is there once it is whole."""
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        work = pathlib.Path(folder)
        model = work / "pruned.gguf"
        prune(source, model)
        for number in range(PASSES):
            learned, merged = work / f"adapter-{number}", work / f"merged-{number}.gguf"
            command = [str(fedpipe), "train", "--model", str(model), "--data", str(data), "--out", str(learned), "--json"]
            command += ["--steps", str(steps), "--batch", str(BATCH), "--sequence-length", str(SEQUENCE), "--seed", str(number)]
            command += ["--rank", str(RANK), "--alpha", str(ALPHA), "--targets", "all-linear", "--compute", "bf16"]
            command += ["--learning-rate", str(LEARNING_RATE), "--schedule", "linear"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise RuntimeError(f"`{' '.join(command)}`: {done.stderr.strip()[-500:]}")
            print(f"small model: pass {number + 1} of {PASSES}: {brief(done.stdout)}", file=sys.stderr, flush=True)
            merge(model, learned, merged)
            model = merged
        model.rename(out)


def brief(answer: str) -> str:
    """The last step in words."""
    figures = json.loads(answer)
    return f"loss {figures['loss']:.3f} after {figures['steps']} steps, {figures['seconds']:.0f} s"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fedpipe", type=pathlib.Path, required=True)
    parser.add_argument("--source", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="JSONL records {\"text\"} to repair it with")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS, help="of each pass (default %(default)s)")
    options = parser.parse_args(arguments)
    make(options.fedpipe, options.source, options.data, options.out, options.steps)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
