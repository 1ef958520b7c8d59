#!/usr/bin/env python3
"""Writes GGUF files with a tensor of every type that attn reads, and the floats the `gguf` package makes of them.

usage: dequant.py FOLDER [--seed 1]

dequant.gguf   tensors named <type>.<shape>, blocks of random bytes: every nibble, normal and subnormal scales, both zeros, and
               for F32, F16 and BF16 infinities too
refused.gguf   one Q6_K tensor: attn names it and its type
manifest.json  {"file", "tensors": [{"name", "type", "elements", "floats": file of little-endian float32}], "refused": {…}}
"""
import argparse
import json
import pathlib

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

import gguf_bytes

SHAPES = [(32,), (64, 3), (256, 17), (96, 5, 2), (32, 2, 3, 2)]  # fastest first
SCALES = {"Q8_0": 1, "Q4_0": 1, "Q4_1": 2}  # f16 numbers that a block begins with


def random_half(random, count):
    """Finite f16: mostly of the size real scales have, some tiny, zero, subnormal or huge."""
    usual = random.standard_normal(count) * 0.02
    odd = random.choice([0.0, -0.0, 6e-8, -5.9e-5, 1.0, -65504.0], count)
    return np.where(random.random(count) < 0.15, odd, usual).astype("<f2")


def random_bytes(random, kind, elements):
    """`elements` values of a type, as the bytes of a file."""
    if kind == "F32":
        values = random.standard_normal(elements).astype("<f4")
        values[:4] = [np.inf, -np.inf, 1e-42, -0.0]
        return values.tobytes()
    if kind in ("F16", "BF16"):
        bits = random.integers(0, 1 << 16, elements).astype("<u2")
        nan = 0x7C00 if kind == "F16" else 0x7F80
        bits[((bits & nan) == nan) & ((bits & 0x7FFF) != nan)] = nan  # NaNs become infinities: those compare
        return bits.tobytes()
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    blocks = random.integers(0, 256, (elements // block, size), dtype=np.uint8)
    heads = SCALES[kind]
    scales = random_half(random, len(blocks) * heads).reshape(len(blocks), heads)
    blocks[:, : 2 * heads] = scales.view(np.uint8)
    return blocks.tobytes()


def expected(kind, dims, data):
    """float32 through the gguf package."""
    raw = np.frombuffer(data, dtype=np.uint8)
    simple = {"F32": "<f4", "F16": "<f2"}
    if kind in simple:
        return raw.view(simple[kind]).astype("<f4")
    return dequantize(raw.reshape(-1, len(raw) // int(np.prod(dims[1:]))), GGMLQuantizationType[kind]).ravel()


def put_general(file):
    file.put("general.architecture", gguf_bytes.STRING, "llama")
    file.put("general.alignment", gguf_bytes.U32, 32)


def write(folder, seed):
    random = np.random.default_rng(seed)
    file = gguf_bytes.Gguf()
    put_general(file)
    entries = []
    for kind in ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"):
        for dims in SHAPES:
            name = f"{kind.lower()}.{'x'.join(map(str, dims))}"
            elements = int(np.prod(dims))
            data = random_bytes(random, kind, elements)
            file.tensors.append(gguf_bytes.Tensor(name, dims, int(GGMLQuantizationType[kind]), data))
            floats = expected(kind, dims, data)
            (folder / f"{name}.f32").write_bytes(floats.astype("<f4").tobytes())
            entries.append({"name": name, "type": kind, "elements": elements, "floats": f"{name}.f32"})
    (folder / "dequant.gguf").write_bytes(file.bytes())

    file = gguf_bytes.Gguf()
    put_general(file)
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType.Q6_K]
    file.tensors.append(gguf_bytes.Tensor("six", (block, 2), gguf_bytes.T_Q6_K, bytes(2 * size)))
    (folder / "refused.gguf").write_bytes(file.bytes())

    refused = {"file": "refused.gguf", "name": "six", "type": "Q6_K"}
    manifest = {"file": "dequant.gguf", "tensors": entries, "refused": refused}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="ascii")
    return manifest


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    write(args.folder, args.seed)


if __name__ == "__main__":
    main()
