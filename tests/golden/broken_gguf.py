#!/usr/bin/env python3
"""Writes 55 broken variants of a small valid llama file, and the valid one.

usage: broken_gguf.py FOLDER

manifest.json  {"valid": "valid.gguf", "broken": [{"file", "stage", "what"}]}: stage "open" means that reading the file must
fail, "load" that loading it as a model must fail at the latest.
"""
import argparse
import json
import pathlib
import random
import struct

import gguf_bytes
from gguf_bytes import ARRAY, I32, STRING, U8, U32, Gguf, Tensor, pack_string, pack_value

LAYERS, DIM, HEADS_Q, HEADS_KV, FFN, CONTEXT = 1, 32, 2, 1, 64, 64
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w"]
TOKENS = 3 + 256 + len(MERGES)
HUGE = (1 << 64) - 1

VARIANTS = []  # (name, stage, what, function of a valid Gguf that returns the bytes of the file)


def variant(stage, what):
    def register(function):
        VARIANTS.append((function.__name__, stage, what, function))
        return function
    return register


def valid():
    make = random.Random(1)
    file = Gguf()
    gguf_bytes.put_llama(file, "broken", LAYERS, DIM, HEADS_Q, HEADS_KV, FFN, CONTEXT, 10000.0, TOKENS)
    gguf_bytes.put_tokenizer(file, MERGES)
    for name, dims in gguf_bytes.llama_shapes(LAYERS, DIM, HEADS_Q, HEADS_KV, FFN, TOKENS, own_output=False):
        count = dims[0] * (dims[1] if len(dims) > 1 else 1)
        data = struct.pack(f"<{count}f", *(make.gauss(0, 0.2) for _ in range(count)))
        file.tensors.append(Tensor(name, dims, gguf_bytes.T_F32, data))
    return file


def cut(place):
    """A variant that ends at `place(bytes)`."""
    def function(file):
        raw = file.bytes()
        return raw[: place(raw)]
    return function


for _name, _what, _place in [
    ("cut_empty", "no byte at all", lambda raw: 0),
    ("cut_magic", "ends inside the magic", lambda raw: 3),
    ("cut_header", "ends inside the counts", lambda raw: 17),
    ("cut_after_header", "ends after the header", lambda raw: 24),
    ("cut_key", "ends inside the first key", lambda raw: 24 + 8 + 5),
    ("cut_value", "ends inside the first value", lambda raw: raw.index(b"llama") + 2),
    ("cut_array", "ends inside the vocabulary", lambda raw: raw.index(b"tokenizer.ggml.tokens") + 900),
    ("cut_tensor_info", "ends inside a tensor's description", lambda raw: raw.index(b"blk.0.ffn_up.weight") + 30),
    ("cut_before_data", "ends where the data should begin", lambda raw: raw.index(b"output_norm.weight") + 18 + 4 + 8 + 4 + 8),
    ("cut_data", "ends in the middle of the data", lambda raw: len(raw) - (len(raw) - raw.index(b"output_norm.weight")) // 2),
    ("cut_last_byte", "one byte short", lambda raw: len(raw) - 1),
]:
    VARIANTS.append((_name, "open", _what, cut(_place)))


@variant("open", "another magic")
def magic(file):
    file.magic = b"GGML"
    return file.bytes()


@variant("open", "version 0")
def version_0(file):
    file.version = 0
    return file.bytes()


@variant("open", "version 99")
def version_99(file):
    file.version = 99
    return file.bytes()


@variant("open", "big-endian header")
def big_endian(file):
    return b"GGUF" + struct.pack(">IQQ", 3, len(file.tensors), len(file.pairs)) + file.bytes()[24:]


@variant("open", "2^64 - 1 tensors")
def tensor_count_huge(file):
    file.tensor_count = HUGE
    return file.bytes()


@variant("open", "2^40 tensors")
def tensor_count_large(file):
    file.tensor_count = 1 << 40
    return file.bytes()


@variant("open", "2^64 - 1 metadata pairs")
def pair_count_huge(file):
    file.pair_count = HUGE
    return file.bytes()


@variant("open", "one metadata pair more than there is")
def pair_count_plus_one(file):
    file.pair_count = len(file.pairs) + 1
    return file.bytes()


@variant("load", "one tensor fewer than there is: the last one is not read")
def tensor_count_minus_one(file):
    file.tensor_count = len(file.tensors) - 1
    return file.bytes()


@variant("open", "a key of 2^63 bytes")
def key_length_huge(file):
    file.extra_pairs.append(struct.pack("<Q", 1 << 63) + b"key")
    return file.bytes()


@variant("open", "a string of 2^64 - 9 bytes: its end wraps around")
def string_length_wraps(file):
    file.pairs["general.name"] = struct.pack("<IQ", STRING, HUGE - 8) + b"wrap"
    return file.bytes()


@variant("open", "an array of 2^62 numbers of 4 bytes: its size wraps around")
def array_count_wraps(file):
    file.pairs["tokenizer.ggml.token_type"] = struct.pack("<IIQ", ARRAY, I32, 1 << 62)
    return file.bytes()


@variant("open", "an array that claims 2^32 strings")
def array_of_strings_huge(file):
    file.pairs["tokenizer.ggml.tokens"] = struct.pack("<IIQ", ARRAY, STRING, 1 << 32) + pack_string("a")
    return file.bytes()


@variant("open", "metadata of type 13")
def value_type_unknown(file):
    file.pairs["general.name"] = struct.pack("<I", 13) + b"\0" * 8
    return file.bytes()


@variant("open", "an array of type 77")
def array_type_unknown(file):
    file.pairs["general.name"] = struct.pack("<IIQ", ARRAY, 77, 1) + b"\0" * 8
    return file.bytes()


@variant("open", "arrays in arrays, ten thousand deep")
def array_nested_deep(file):
    file.pairs["general.name"] = struct.pack("<I", ARRAY) + struct.pack("<IQ", ARRAY, 1) * 10000 + struct.pack("<IQ", U8, 0)
    return file.bytes()


@variant("open", "an array of two arrays")
def array_nested(file):
    inner = pack_value(U8, [1, 2, 3])
    file.pairs["general.name"] = struct.pack("<IIQ", ARRAY, ARRAY, 2) + inner + inner
    return file.bytes()


@variant("open", "the same key twice")
def key_twice(file):
    file.extra_pairs.append(pack_string("llama.block_count") + struct.pack("<II", U32, 2))
    return file.bytes()


@variant("open", "the same tensor name twice")
def tensor_twice(file):
    file.tensor("blk.0.attn_k.weight").name = "blk.0.attn_v.weight"
    return file.bytes()


@variant("open", "a tensor of no dimensions")
def ndim_0(file):
    file.tensor("output_norm.weight").dims = []
    return file.bytes()


@variant("open", "a tensor of 2^32 - 1 dimensions")
def ndim_huge(file):
    file.tensor("output_norm.weight").ndim = 0xFFFFFFFF
    return file.bytes()


@variant("open", "a dimension of 0")
def dim_0(file):
    file.tensor("blk.0.ffn_up.weight").dims[1] = 0
    return file.bytes()


@variant("open", "a dimension of 2^62 elements")
def dim_huge(file):
    file.tensor("blk.0.ffn_up.weight").dims[1] = 1 << 62
    return file.bytes()


@variant("open", "a dimension above 2^63")
def dim_negative(file):
    file.tensor("blk.0.ffn_up.weight").dims[1] = HUGE - 5
    return file.bytes()


@variant("open", "dimensions whose product is 2^64, which wraps to 0")
def dims_product_wraps(file):
    file.tensor("blk.0.ffn_up.weight").dims = [1 << 16] * 4
    return file.bytes()


@variant("open", "dimensions whose bytes wrap to exactly the bytes that are there")
def dims_bytes_wrap(file):
    tensor = file.tensor("blk.0.ffn_up.weight")
    tensor.dims = [DIM, FFN + (1 << 57)]  # 32·4·2^57 = 2^64
    return file.bytes()


@variant("open", "more rows than the file has")
def dim_too_large(file):
    file.tensor("output_norm.weight").dims = [DIM, 1000]
    return file.bytes()


@variant("load", "tensor type 99")
def tensor_type_unknown(file):
    file.tensor("blk.0.ffn_up.weight").kind = 99
    return file.bytes()


@variant("load", "a Q6_K tensor, a type that is not read")
def tensor_type_refused(file):
    tensor = file.tensor("blk.0.ffn_down.weight")
    tensor.kind, tensor.dims, tensor.data = gguf_bytes.T_Q6_K, [256, 8], bytes(210 * 8)
    return file.bytes()


@variant("open", "a Q4_1 tensor whose rows are no multiple of 32")
def row_not_whole_blocks(file):
    tensor = file.tensor("blk.0.ffn_up.weight")
    tensor.kind, tensor.dims = gguf_bytes.T_Q4_1, [33, 32]
    return file.bytes()


@variant("open", "an offset past the end of the file")
def offset_past_end(file):
    file.tensor("blk.0.ffn_up.weight").offset = 1 << 40
    return file.bytes()


@variant("open", "an offset whose end wraps around")
def offset_wraps(file):
    file.tensor("blk.0.ffn_up.weight").offset = HUGE - 31
    return file.bytes()


@variant("open", "an offset that is not aligned")
def offset_unaligned(file):
    file.tensor("blk.0.attn_norm.weight").offset = 36
    return file.bytes()


@variant("open", "two tensors over the same bytes")
def tensors_overlap(file):
    file.tensor("blk.0.ffn_up.weight").offset = 64
    return file.bytes()


@variant("open", "alignment 0")
def alignment_0(file):
    file.put("general.alignment", U32, 0)
    return file.bytes()


@variant("open", "alignment 24, no power of two")
def alignment_24(file):
    file.put("general.alignment", U32, 24)
    return file.bytes()


@variant("open", "alignment given as a string")
def alignment_string(file):
    file.put("general.alignment", STRING, "32")
    return file.bytes()


@variant("load", "no architecture")
def no_architecture(file):
    del file.pairs["general.architecture"]
    return file.bytes()


@variant("load", "no head count")
def no_head_count(file):
    del file.pairs["llama.attention.head_count"]
    return file.bytes()


@variant("load", "2^31 layers")
def layers_huge(file):
    file.put("llama.block_count", U32, 1 << 31)
    return file.bytes()


@variant("load", "0 KV heads")
def heads_kv_0(file):
    file.put("llama.attention.head_count_kv", U32, 0)
    return file.bytes()


@variant("load", "more tokens than the embedding has rows")
def vocab_too_large(file):
    kind, tokens = file.pairs["tokenizer.ggml.tokens"]
    file.put("tokenizer.ggml.tokens", kind, tokens + [f"extra{i}" for i in range(7)])
    return file.bytes()


@variant("load", "a bos id outside the vocabulary")
def bos_out_of_range(file):
    file.put("tokenizer.ggml.bos_token_id", U32, 1 << 30)
    return file.bytes()


@variant("load", "a weight of another shape than the metadata says")
def tensor_shape(file):
    tensor = file.tensor("blk.0.attn_k.weight")
    tensor.dims = [tensor.dims[0] // 2, tensor.dims[1] * 2]
    return file.bytes()


def write(folder):
    """Writes valid.gguf, the broken ones and manifest.json; returns the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "valid.gguf").write_bytes(valid().bytes())
    broken = []
    for number, (name, stage, what, make) in enumerate(VARIANTS):
        file = f"{number:02d}_{name}.gguf"
        (folder / file).write_bytes(make(valid()))
        broken.append({"file": file, "stage": stage, "what": what})
    manifest = {"valid": "valid.gguf", "broken": broken}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="ascii")
    return manifest


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    args = parser.parse_args()
    print(f"{len(write(args.folder)['broken'])} broken files")


if __name__ == "__main__":
    main()
