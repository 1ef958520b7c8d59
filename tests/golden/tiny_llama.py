#!/usr/bin/env python3
"""Writes tiny.gguf, a random llama that needs no network, and tiny.json, what float64 makes of it.

usage: tiny_llama.py [--out FOLDER]

tiny.gguf: 2 layers, dim 64, 4 query and 2 KV heads of 16, FFN 128, vocabulary 300 (3 special tokens, 256 bytes, 41 merges), its
own output matrix, every tensor type that attn reads, ChatML. tiny.json: for each prompt its ids (special tokens parsed), the
300 float64 logits after its last token, 24 greedy ids, and "margin", the smallest lead of a best over a second-best logit.
"""
import argparse
import json
import pathlib

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import quantize

import gguf_bytes
import gguf_tokenizer
from llama_f64 import LlamaF64

HERE = pathlib.Path(__file__).resolve().parent
SEED, GREEDY = 7, 24
LAYERS, DIM, HEADS_Q, HEADS_KV, FFN, CONTEXT, THETA = 2, 64, 4, 2, 128, 512, 10000.0
MERGES = (
    "Ġ t|Ġ a|h e|i n|r e|o n|Ġt he|e r|Ġ s|a t|Ġ w|Ġ o|e n|i t|o r|i s|e s|a n|Ġ c|n d|Ġ b|Ġ f|o u|Ġ p|Ġo f|in g|e d|a l|Ġ m|a r|Ġa nd|Ġ in|"
    "Ġt o|Ġ Ġ|ĠĠ ĠĠ|o m|l l|l e|s t|r o|i c"
).split("|")

PROMPTS = [
    "Hello, world!",
    "<|im_start|>user\nWhat is attention?<|im_end|>\n<|im_start|>assistant\n",
    "naïve 😀 42 + 17 = 59\n\n    return x;",
    "The rain in the west of the town and the sea to the north of it were of one colour in the morning. " * 3,
]


def kind_of(name):
    """Tensor types: layer 0 as SmolLM2 has them, layer 1 all the others."""
    kinds = {
        "token_embd.weight": "Q8_0", "output.weight": "Q8_0", "blk.0.ffn_down.weight": "Q4_0", "blk.1.attn_q.weight": "F16",
        "blk.1.attn_k.weight": "BF16", "blk.1.attn_v.weight": "Q8_0", "blk.1.attn_output.weight": "F32",
        "blk.1.ffn_gate.weight": "Q4_0", "blk.1.ffn_down.weight": "Q8_0",
    }
    return "F32" if "norm" in name else kinds.get(name, "Q4_1")


def weights(name, dims, random):
    """float32, slowest dimension first; scaled so that the texts are neither constant nor coin flips."""
    shape = dims[::-1]
    if "norm" in name:
        return random.uniform(0.5, 1.5, shape).astype(np.float32)
    gain = 4.0 if name == "output.weight" else 1.5
    return (random.standard_normal(shape) * gain / np.sqrt(dims[0])).astype(np.float32)


def model_bytes():
    file = gguf_bytes.Gguf()
    tokens = 3 + 256 + len(MERGES)
    gguf_bytes.put_llama(file, "tiny", LAYERS, DIM, HEADS_Q, HEADS_KV, FFN, CONTEXT, THETA, tokens)
    gguf_bytes.put_tokenizer(file, MERGES)
    random = np.random.default_rng(SEED)
    for name, dims in gguf_bytes.llama_shapes(LAYERS, DIM, HEADS_Q, HEADS_KV, FFN, tokens, own_output=True):
        kind = GGMLQuantizationType[kind_of(name)]
        data = quantize(weights(name, dims, random), kind)
        file.tensors.append(gguf_bytes.Tensor(name, dims, int(kind), np.ascontiguousarray(data).tobytes()))
    return file.bytes()


def golden_prompt(model, tokenizer, text):
    ids = gguf_tokenizer.encode(tokenizer, text)
    greedy, rows = model.greedy(ids, GREEDY)
    best = np.sort(rows, axis=-1)
    model.reset()
    logits = model.eval(ids)[-1]
    margin = float((best[:, -1] - best[:, -2]).min())
    print(f"{len(ids)} ids, margin {margin:.4f}, {tokenizer.decode(greedy, skip_special_tokens=False)!r}")
    return {
        "prompt": text,
        "ids": ids,
        "logits": [round(float(x), 10) for x in logits],
        "greedy_ids": greedy,
        "margin": round(margin, 6),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default=HERE)
    args = parser.parse_args()
    path = args.out / "tiny.gguf"
    path.write_bytes(model_bytes())
    model = LlamaF64(path)
    tokenizer = gguf_tokenizer.build(model.file, special=True)
    prompts = [golden_prompt(model, tokenizer, text) for text in PROMPTS]
    dump = lambda value: json.dumps(value, separators=(",", ":"))
    body = ",\n".join("{" + ",\n".join(f"{dump(k)}:{dump(v)}" for k, v in p.items()) + "}" for p in prompts)
    (args.out / "tiny.json").write_text(f'{{"model":"tiny.gguf","prompts":[\n{body}\n]}}\n', encoding="ascii")


if __name__ == "__main__":
    main()
