"""The digests of `src/train/zeroth/whole/tests.rs`: a model before and after steps over all its parameters, from the
definition alone.

    python3 make_whole.py          needs NumPy

A parameter's number: 2^31 for the embedding, one more for an output layer of its own, + 3 for the last normalization;
in layer l 2^31 + 64·(l + 1) + 0 to 6 for q, k, v, o, gate, up, down, + 32 and + 34 for the normalizations before attention and
before the feed-forward network. θ ← θ + (−η·g)·z, each product and each sum rounded to 32 bits.
"""

import hashlib
import json
import struct
from pathlib import Path

import numpy as np

from make_normals import F, normals

FOLDER = Path(__file__).parent / "tiny"
SEED, FIRST, RATE = 7, 11, 1e-4
SCALARS = [1.5, -0.25, None, 3.0, 0.125]
MODULES = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
           "mlp.up_proj", "mlp.down_proj"]


def tensors():
    data = (FOLDER / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    for name, about in header.items():
        begin, end = about["data_offsets"]
        raw = data[8 + length + begin:8 + length + end]
        if about["dtype"] == "BF16":
            values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(F)
        else:
            values = np.frombuffer(raw, {"F32": "<f4", "F16": "<f2"}[about["dtype"]]).astype(F)
        yield name, values


def number(name):
    first, layer = 2**31, None
    if name.startswith("model.layers."):
        _, _, layer, rest = name.split(".", 3)
        first += 64 * (int(layer) + 1)
        name = rest
    top = {"model.embed_tokens.weight": 0, "lm_head.weight": 1, "model.norm.weight": 3}
    own = {f"{module}.weight": at for at, module in enumerate(MODULES)}
    own |= {"input_layernorm.weight": 32, "post_attention_layernorm.weight": 34}
    return first + (top if layer is None else own)[name]


def digest(model):
    whole = hashlib.sha256()
    for at in sorted(model):
        whole.update(struct.pack("<I", at) + model[at].astype("<f4").tobytes())
    return whole.hexdigest()


model = {number(name): values.copy() for name, values in tensors()}
print("START", digest(model))
for step, scalar in enumerate(SCALARS, FIRST):
    if scalar is None:
        continue
    factor = F(-float(F(RATE)) * scalar)
    for at, values in model.items():
        values += factor * normals(SEED, step, 0, at)[:values.size]
print("END", digest(model))
