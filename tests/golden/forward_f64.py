#!/usr/bin/env python3
"""Writes the golden numbers of SmolLM2-135M-Instruct (Q4_1) from the float64 forward of llama_f64.py.

usage: forward_f64.py MODEL.gguf [--out FOLDER]

smollm2.json  five prompts: text, rendered text, prompt ids, 40 greedy ids, and for each of the 40 positions the 20
              best [id, log-probability] (natural log, 10 decimals). Greedy choice goes on after an end-of-turn token,
              so that all 40 positions exist; "margin" is the smallest lead of a best over a second-best token.
smollm2_kl.bin  kl_text.txt, for the mean Kullback-Leibler divergence of another run from this one. Little-endian:
                  char     magic[8]            "ATTNKL1\0"
                  int32    positions, top      n and 64
                  int32    ids[n + 1]          the text's tokens; row i predicts ids[i + 1]
                  int32    top_ids[n][64]      the 64 best tokens after ids[0 … i], best first
                  float64  top_logprob[n][64]
                  float64  rest_logprob[n]     log of the probability of all the others together
              Over these 65 outcomes, KL(reference || run) = sum_t p_t (log p_t - log r_t), the run's rest being what its
              own probabilities of the 64 leave; never larger than over the whole vocabulary, and close to it.
"""
import argparse
import json
import pathlib
import struct
import sys

import numpy as np

import gguf_tokenizer
from llama_f64 import LlamaF64, log_softmax, top

HERE = pathlib.Path(__file__).resolve().parent
GREEDY, TOP, KL_TOP = 40, 20, 64

PROMPTS = [  # name, whether the chat template is used, text
    ("france", True, "What is the capital of France?"),
    ("code", False, "def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n"),
    ("story", False, "Once upon a time, in a village between two rivers, there lived a"),
    ("multilingual", True, "Translate \"good morning\" to German, 日本語 and العربية, please 🙂 — merci!"),
    ("numbers", False, "2, 4, 8, 16, 32, 64, 128, 256,"),
]


def golden_prompt(model, tokenizer, name, chat, text):
    rendered = text
    if chat:
        rendered = gguf_tokenizer.render_chat(model.file, [{"role": "user", "content": text}])
    prompt_ids = gguf_tokenizer.encode(tokenizer, rendered)
    ids, rows = model.greedy(prompt_ids, GREEDY)
    best = np.sort(rows, axis=-1)
    margin = float((best[:, -1] - best[:, -2]).min())
    continuation = tokenizer.decode(ids, skip_special_tokens=False)
    print(f"{name}: {len(prompt_ids)} prompt tokens, margin {margin:.4f}: {continuation!r}")
    return {
        "name": name,
        "chat": chat,
        "prompt": text,
        "rendered": rendered,
        "prompt_ids": prompt_ids,
        "greedy_ids": ids,
        "greedy_text": continuation,
        "margin": round(margin, 6),
        "top": [top(row, TOP) for row in rows],
    }


def write_json(path, golden):
    """One line per prompt field, so that a change shows as a small diff."""
    head = {k: v for k, v in golden.items() if k != "prompts"}
    dump = lambda value: json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    with open(path, "w", encoding="ascii") as out:
        out.write("{\n")
        for key, value in head.items():
            out.write(f"{dump(key)}:{dump(value)},\n")
        out.write('"prompts":[\n')
        for index, prompt in enumerate(golden["prompts"]):
            fields = ",\n".join(f"{dump(k)}:{dump(v)}" for k, v in prompt.items())
            out.write(("," if index else "") + "{" + fields + "}\n")
        out.write("]}\n")


def write_kl(path, model, tokenizer):
    text = (HERE / "kl_text.txt").read_text(encoding="utf-8")
    ids = gguf_tokenizer.encode(tokenizer, text)
    model.reset()
    rows = log_softmax(model.eval(ids[:-1]))
    best = np.argsort(-rows, axis=-1, kind="stable")[:, :KL_TOP]
    logprob = np.take_along_axis(rows, best, axis=-1)
    others = rows.copy()
    np.put_along_axis(others, best, -np.inf, axis=-1)
    rest = np.log(np.exp(others).sum(axis=-1))
    perplexity = np.exp(-rows[np.arange(len(rows)), ids[1:]].mean())
    print(f"kl text: {len(ids)} tokens, perplexity {perplexity:.3f}, mean rest {np.exp(rest).mean():.4f}")
    with open(path, "wb") as out:
        out.write(b"ATTNKL1\0" + struct.pack("<ii", len(rows), KL_TOP))
        out.write(np.asarray(ids, dtype="<i4").tobytes())
        out.write(best.astype("<i4").tobytes())
        out.write(logprob.astype("<f8").tobytes())
        out.write(rest.astype("<f8").tobytes())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--out", type=pathlib.Path, default=HERE)
    args = parser.parse_args()
    model = LlamaF64(args.model)
    tokenizer = gguf_tokenizer.build(model.file, special=True)
    prompts = [golden_prompt(model, tokenizer, *prompt) for prompt in PROMPTS]
    if not prompts[0]["greedy_text"].startswith("The capital of France is Paris."):
        sys.exit("forward_f64: the model no longer knows the capital of France; nothing written")
    golden = {
        "model": pathlib.Path(args.model).name,
        "vocab": len(model.output),
        "greedy": GREEDY,
        "top_k": TOP,
        "prompts": prompts,
    }
    write_json(args.out / "smollm2.json", golden)
    write_kl(args.out / "smollm2_kl.bin", model, tokenizer)


if __name__ == "__main__":
    main()
