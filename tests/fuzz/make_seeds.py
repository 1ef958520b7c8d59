#!/usr/bin/env python3
"""Small valid inputs for the fuzzers to start from: make_seeds.py FOLDER writes FOLDER/<target>/…"""
import json
import struct
import sys
from pathlib import Path

U32, F32, BOOL, STRING, ARRAY, I32 = 4, 6, 7, 8, 9, 5
ALIGN = 32


def text(s):
    raw = s.encode()
    return struct.pack("<Q", len(raw)) + raw


def pair(key, kind, value):
    packed = {U32: lambda v: struct.pack("<I", v), F32: lambda v: struct.pack("<f", v),
              I32: lambda v: struct.pack("<i", v), BOOL: lambda v: struct.pack("<B", v), STRING: text}
    head = text(key)
    if isinstance(value, list):
        return (head + struct.pack("<IIQ", ARRAY, kind, len(value))
                + b"".join(packed[kind](v) for v in value))
    return head + struct.pack("<I", kind) + packed[kind](value)


def byte_alphabet():
    """The 256 characters that byte-level BPE writes bytes as."""
    plain = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
    others = [b for b in range(256) if b not in plain]
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(len(others))]


def gguf(tensors, with_tokenizer):
    pairs = [pair("general.architecture", STRING, "llama"), pair("general.name", STRING, "seed"),
             pair("llama.block_count", U32, 1), pair("llama.embedding_length", U32, 32),
             pair("llama.context_length", U32, 64), pair("llama.feed_forward_length", U32, 32),
             pair("llama.attention.head_count", U32, 2), pair("llama.attention.head_count_kv", U32, 1),
             pair("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
             pair("llama.rope.freq_base", F32, 1e4)]
    if with_tokenizer:
        tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + byte_alphabet() + ["He", "ll", "Hell"]
        kinds = [3, 3, 3] + [1] * (len(tokens) - 3)
        pairs += [pair("tokenizer.ggml.model", STRING, "gpt2"), pair("tokenizer.ggml.pre", STRING, "smollm"),
                  pair("tokenizer.ggml.tokens", STRING, tokens),
                  pair("tokenizer.ggml.token_type", I32, kinds),
                  pair("tokenizer.ggml.merges", STRING, ["H e", "l l", "He ll"]),
                  pair("tokenizer.ggml.bos_token_id", U32, 1), pair("tokenizer.ggml.eos_token_id", U32, 2),
                  pair("tokenizer.ggml.add_bos_token", BOOL, 0)]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)) + b"".join(pairs)
    data = b""
    for name, kind, dims, raw in tensors:
        data += b"\0" * (-len(data) % ALIGN)
        head += text(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims)
        head += struct.pack("<IQ", kind, len(data))
        data += raw
    return head + b"\0" * (-len(head) % ALIGN) + data


def safetensors(entries, metadata):
    """Entries of (name, dtype, shape, bytes), side by side in this order."""
    header, data = {"__metadata__": metadata} if metadata else {}, b""
    for name, dtype, shape, raw in entries:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    packed = json.dumps(header, separators=(",", ":")).encode()
    packed += b" " * (-len(packed) % 8)
    return struct.pack("<Q", len(packed)) + packed + data


def trained_model():
    """(entries, metadata) of one layer of width 4 with a tokenizer of a few bytes."""
    shapes = {"model.embed_tokens": [5, 4], "model.norm": [4]}
    for part, shape in {"self_attn.q_proj": [4, 4], "self_attn.k_proj": [2, 4], "self_attn.v_proj": [2, 4],
                        "self_attn.o_proj": [4, 4], "mlp.gate_proj": [6, 4], "mlp.up_proj": [6, 4], "mlp.down_proj": [4, 6],
                        "input_layernorm": [4], "post_attention_layernorm": [4]}.items():
        shapes["model.layers.0." + part] = shape
    entries = [(f"{name}.weight", "BF16", shape, bytes(2 * shape[0] * (shape + [1])[1])) for name, shape in shapes.items()]
    config = {"model_type": "llama", "hidden_size": 4, "intermediate_size": 6, "num_hidden_layers": 1, "num_attention_heads": 2,
              "num_key_value_heads": 1, "max_position_embeddings": 8, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
              "eos_token_id": 0}
    tokenizer = {"added_tokens": [{"id": 0, "content": "<|endoftext|>", "special": True}],
                 "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
                 "model": {"type": "BPE", "vocab": {"<|endoftext|>": 0, "l": 1, "o": 2, "lo": 3, "H": 4}, "merges": [["l", "o"]]}}
    return entries, {"attn.config": json.dumps(config), "attn.tokenizer": json.dumps(tokenizer)}


def write_safetensors(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "empty.safetensors").write_bytes(safetensors([], {}))
    kinds = [("F64", 8), ("F32", 4), ("BF16", 2), ("F16", 2), ("I64", 8), ("BOOL", 1)]
    entries = [(f"t{i}", dtype, [2, 3], bytes(range(6 * size))) for i, (dtype, size) in enumerate(kinds)]
    (folder / "kinds.safetensors").write_bytes(safetensors(entries, {"k": "v"}))
    (folder / "model.safetensors").write_bytes(safetensors(*trained_model()))
    adapter = {"base": "x", "base_sha256": "0" * 64, "rank": 1, "scale": 1.0}
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_%s.weight"
    parts = [(name % "A", "F32", [1, 2], bytes(8)), (name % "B", "F32", [2, 1], bytes(8))]
    (folder / "adapter.safetensors").write_bytes(safetensors(parts, {"attn.adapter": json.dumps(adapter)}))
    scalar = [("s", "F32", [], b"\0\0\0\0"), ("none", "F32", [0, 3], b"")]
    (folder / "scalar.safetensors").write_bytes(safetensors(scalar, {}))


def write_tokenizers(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bpe.json").write_text(trained_model()[1]["attn.tokenizer"])
    letters = {letter: i for i, letter in enumerate("Helo")}
    split = [{"type": "Split", "pattern": {"Regex": "[\\s\\S]"}, "behavior": "Isolated", "invert": False},
             {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}]
    characters = {"version": "1.0", "added_tokens": [], "normalizer": None, "post_processor": None,
                  "pre_tokenizer": {"type": "Sequence", "pretokenizers": split},
                  "model": {"type": "BPE", "ignore_merges": True, "vocab": letters, "merges": []}}
    (folder / "characters.json").write_text(json.dumps(characters))
    digits = {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "add_prefix_space": False}]},
              "model": {"type": "BPE", "vocab": {"l": 0, "o": 1, "lo": 2}, "merges": ["l o"]}}
    (folder / "digits.json").write_text(json.dumps(digits))


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    write_safetensors(Path(sys.argv[1]) / "fuzz_safetensors")
    write_tokenizers(Path(sys.argv[1]) / "fuzz_tokenizer_json")
    folder = Path(sys.argv[1]) / "fuzz_gguf"
    folder.mkdir(parents=True, exist_ok=True)
    f32 = ("output_norm.weight", 0, [32], struct.pack("<32f", *[1.0] * 32))
    f16 = ("blk.0.attn_q.weight", 1, [32, 2], b"\0\x3c" * 64)
    q8 = ("token_embd.weight", 8, [32, 2], (b"\0\x3c" + bytes(range(32))) * 2)
    q41 = ("blk.0.ffn_up.weight", 3, [32, 1], b"\0\x3c\0\x38" + bytes(range(16)))
    (folder / "empty.gguf").write_bytes(gguf([], False))
    (folder / "tensors.gguf").write_bytes(gguf([f32, f16, q8, q41], False))
    (folder / "tokenizer.gguf").write_bytes(gguf([f32], True))
    return 0


sys.exit(main())
