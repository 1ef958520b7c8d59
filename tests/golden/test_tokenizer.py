#!/usr/bin/env python3
"""attn's tokenizer beside its oracles, on the default model's vocabulary.

usage: test_tokenizer.py [--count 10000] [--seed 1]

Always: the committed lines of tokenizer_golden.json, plain and with special tokens, and arbitrary bytes that must come back.
With the packages of requirements.txt: `count` generated lines, ids equal to Hugging Face `tokenizers`.
With llama-cpp-python: the same lines, ids equal to llama.cpp, but for lines that hold a byte the vocabulary has no token for
(Hugging Face drops such a byte before merging, llama.cpp after; attn does as Hugging Face does).
"""
import argparse
import json
import random

import tokenizer_lines
from support import HERE, Checks, fraction, model_path, program, run


def attn_encode(model, lines, special=False):
    """[(ids, bytes they stand for)] for lines of bytes."""
    command = [program("attn_tokenize_lines"), model] + (["--special"] if special else [])
    done = run(command, input=b"".join(line + b"\n" for line in lines), timeout=300)
    if done.returncode != 0:
        raise SystemExit(f"FAILED: attn_tokenize_lines: {done.stderr.decode(errors='replace')}")
    rows = [row.split("\t") for row in done.stdout.decode().split("\n")[:-1]]
    if len(rows) != len(lines):
        raise SystemExit(f"FAILED: {len(lines)} lines in, {len(rows)} out")
    return [([int(i) for i in ids.split()], bytes.fromhex(text)) for ids, text in rows]


def compare(checks, oracle, texts, ours, theirs):
    for number, (text, (ids, _), expected) in enumerate(zip(texts, ours, theirs)):
        def message():
            at = next((i for i, (a, b) in enumerate(zip(ids, expected)) if a != b), min(len(ids), len(expected)))
            return (
                f"line {number} of {oracle}: {ascii(text[:200])}: token {at}: attn {ids[at : at + 5]},"
                f" expected {expected[at : at + 5]}"
            )
        checks.check(ids == expected, message)


def check_golden(checks, model):
    golden = json.loads((HERE / "tokenizer_golden.json").read_text(encoding="ascii"))
    texts = [row[0] for row in golden["lines"]]
    encoded = [text.encode() for text in texts]
    plain = attn_encode(model, encoded)
    compare(checks, "tokenizer_golden.json", texts, plain, [row[1] for row in golden["lines"]])
    special = attn_encode(model, encoded, special=True)
    compare(checks, "tokenizer_golden.json (special)", texts, special, [row[-1] for row in golden["lines"]])


def missing_bytes(model):
    """Bytes that no token stands for: what does not come back when it is encoded alone."""
    singles = [bytes([b]) for b in range(256) if b != 10]
    return {text[0] for text, (_, back) in zip(singles, attn_encode(model, singles)) if back != text}


def check_round_trip(checks, model, seed, count, missing):
    """Random bytes, mostly no UTF-8, and cut and spliced text: everything the vocabulary has comes back."""
    make = random.Random(seed)
    allowed = [b for b in range(256) if b != 10]
    texts = tokenizer_lines.lines(count, seed + 1)
    lines = [bytes(make.choices(allowed, k=make.randint(1, 60))) for _ in range(count)]
    for text in texts:
        raw = bytearray(text.encode()[make.randint(0, 3) :])
        for _ in range(make.randint(1, 4)):
            if raw:
                raw[make.randrange(len(raw))] = make.choice(allowed)
        lines.append(bytes(raw))
    for line, (_, back) in zip(lines, attn_encode(model, lines)):
        kept = bytes(b for b in line if b not in missing)
        checks.check(back == kept, lambda: f"bytes {line!r} came back as {back!r}")


def check_hugging_face(checks, model, texts):
    try:
        from gguf import GGUFReader

        import gguf_tokenizer
    except ImportError as error:
        print(f"not compared with Hugging Face tokenizers: {error}; pip install -r requirements.txt")
        return
    reader = GGUFReader(model)
    encoded = [text.encode() for text in texts]
    for special in (False, True):
        tokenizer = gguf_tokenizer.build(reader, special)
        expected = [gguf_tokenizer.encode(tokenizer, text) for text in texts]
        compare(checks, f"tokenizers, special={special}", texts, attn_encode(model, encoded, special), expected)


def check_llama_cpp(checks, model, texts, missing):
    try:
        from llama_cpp import Llama
    except ImportError:
        print("not compared with llama.cpp: llama-cpp-python is not here; see bench/peers/setup")
        return
    peer = Llama(str(model), n_ctx=8, vocab_only=True, verbose=False)
    texts = [text for text in texts if not missing.intersection(text.encode())]
    encoded = [text.encode() for text in texts]
    for special in (False, True):
        expected = [peer.tokenize(line, add_bos=False, special=special) for line in encoded]
        compare(checks, f"llama.cpp, special={special}", texts, attn_encode(model, encoded, special), expected)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=10000 // fraction())
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    model = model_path()
    checks = Checks(args.seed)
    missing = missing_bytes(model)
    texts = tokenizer_lines.lines(args.count, args.seed)
    check_golden(checks, model)
    check_round_trip(checks, model, args.seed, 1000, missing)
    check_hugging_face(checks, model, texts)
    check_llama_cpp(checks, model, texts, missing)
    checks.finish(f"tokenizer, seed {args.seed}, {args.count} lines")


if __name__ == "__main__":
    main()
