"""The golden vectors of the zeroth-order direction (`src/normal.rs`), from the definition alone.

    python3 make_normals.py          needs NumPy

ChaCha12 keyed by SHA-256 of (purpose, seed, step), stream = perturbation * 2^32 + tensor; 32 words make 32
values by Box and Muller; every operation is one rounded operation in 32 bits. Signs: one bit each, from the lowest of the
first word on; 1 is +1.
"""

import hashlib
import struct

import numpy as np

COUNT = 1_000_003
CASES = [(0, 0, 0, 0), (7, 0, 0, 3), (7, 29, 1, 958), (2**64 - 1, 2**64 - 1, 2**32 - 1, 2**32 - 1)]
F = np.float32


def chacha12(key, stream, blocks):
    """`[blocks, 16]` words from the first block on."""
    state = np.zeros((16, blocks), np.uint32)
    state[:4] = np.frombuffer(b"expand 32-byte k", "<u4")[:, None]
    state[4:12] = np.frombuffer(key, "<u4")[:, None]
    state[12] = np.arange(blocks, dtype=np.uint64).astype(np.uint32)
    state[14], state[15] = stream & 0xFFFFFFFF, stream >> 32
    x = state.copy()

    def quarter(a, b, c, d):
        for add, xor, to, turn in ((b, d, a, 16), (d, b, c, 12), (b, d, a, 8), (d, b, c, 7)):
            x[to] += x[add]
            x[xor] ^= x[to]
            x[xor] = (x[xor] << np.uint32(turn)) | (x[xor] >> np.uint32(32 - turn))

    for _ in range(6):
        for i in range(4):
            quarter(i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return (x + state).T


def ln(x):
    shifted = x.view(np.uint32) - np.uint32(0x3F3504F3)
    exponent = (shifted.view(np.int32) >> 23).astype(F)
    r = ((shifted & np.uint32(0x007FFFFF)) + np.uint32(0x3F3504F3)).view(F) - F(1)
    p = np.full_like(r, F(7.0376836e-2))
    for term in (-1.151461e-1, 1.1676999e-1, -1.2420141e-1, 1.4249323e-1, -1.6668057e-1, 2.0000715e-1,
                 -2.4999994e-1, 3.333333e-1):
        p = p * r + F(term)
    square = r * r
    small = r * square * p + exponent * F(-2.1219444e-4) - F(0.5) * square
    return small + r + exponent * F(0.6933594)


def sine_cosine(turns):
    quarters = turns * F(4)
    quadrant = (quarters + F(0.5)).astype(np.int32)
    r = (quarters - quadrant.astype(F)) * F(np.pi / 2)
    z = r * r
    sine = ((F(-1.9515296e-4) * z + F(8.332161e-3)) * z - F(1.6666655e-1)) * z * r + r
    cosine = ((F(2.4433157e-5) * z - F(1.3887316e-3)) * z + F(4.1666646e-2)) * z * z - F(0.5) * z + F(1)
    odd = quadrant & 1 == 1
    sine, cosine = np.where(odd, cosine, sine), np.where(odd, sine, cosine)
    return np.where(quadrant & 2 == 0, sine, -sine), np.where((quadrant + 1) & 2 == 0, cosine, -cosine)


def normals(seed, step, perturbation, tensor):
    purpose = b"fedpipe zeroth-order direction"
    key = hashlib.sha256(purpose + struct.pack("<QQ", seed, step)).digest()
    words = chacha12(key, (perturbation << 32) + tensor, 2 * -(-COUNT // 32)).reshape(-1, 32)
    unit = F(2.0**-24)
    uniform = ((words[:, :16] >> 8) + np.uint32(1)).astype(F) * unit
    sine, cosine = sine_cosine((words[:, 16:] >> 8).astype(F) * unit)
    radius = np.sqrt(F(-2) * ln(uniform))
    return np.concatenate([radius * cosine, radius * sine], axis=1).reshape(-1)[:COUNT]


def signs(seed, step, perturbation, tensor):
    key = hashlib.sha256(b"fedpipe zeroth-order signs" + struct.pack("<QQ", seed, step)).digest()
    words = chacha12(key, (perturbation << 32) + tensor, -(-COUNT // 512)).reshape(-1)
    bits = np.unpackbits(words.astype("<u4").view(np.uint8), bitorder="little")
    return words[0], np.where(bits == 1, F(1), F(-1))[:COUNT]


if __name__ == "__main__":
    for case in CASES[1:3]:
        first, z = signs(*case)
        print(case, f"0x{first:08x}", hashlib.sha256(z.astype("<f4").tobytes()).hexdigest())

    for case in CASES:
        z = normals(*case).astype("<f4")
        first = [f"0x{bits:08x}" for bits in z[:4].view(np.uint32)]
        print(case, first, hashlib.sha256(z.tobytes()).hexdigest())
