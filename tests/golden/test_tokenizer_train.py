#!/usr/bin/env python3
"""Tokenizers trained by attn beside those that `tokenizers` trains on the same text: the same vocabulary, the same merges, the same ids.

usage: test_tokenizer_train.py [--seed 1] [--cases 30]

Made-up texts, many of them with equally frequent pairs, and the novels where `attn fetch novels` has put them. What attn writes as JSON is read by `tokenizers`
and must encode the text equally.
"""
import argparse
import json
import os
import pathlib
import random
import tempfile

from support import Checks, fraction, program, run, skip

try:
    import numpy as np
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
except ImportError as error:
    skip(f"{error}; pip install -r requirements.txt")

END = "<|endoftext|>"


def novels():
    folder = os.environ.get("ATTN_CACHE") or os.path.expanduser("~/.cache/attn")
    path = pathlib.Path(folder) / "novels" / "novels.txt"
    return path if path.is_file() else None


def reference(text, vocab, least):
    """What `tokenizers` learns: (vocabulary, merges)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab, min_frequency=least, special_tokens=[END], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([text], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(m) for m in model["merges"]]


def train(folder, kind, vocab, least, text):
    """(what attn wrote as JSON, ids), or (None, what it said)."""
    path, out = folder / "text.txt", folder / "out.json"
    path.write_bytes(text.encode())
    done = run([program("attn_tokenizer_train"), kind, vocab, least, path, out])
    if done.returncode != 0:
        return None, done.stderr.decode()
    return out.read_text(), np.frombuffer(done.stdout, "<i4")


def check_ids(checks, name, text, written, ids):
    theirs = Tokenizer.from_str(written)
    part = text[:200_000]  # `tokenizers` takes most of a minute for all of the novels
    expected = np.array(theirs.encode(part).ids, "<i4")
    if len(part) < len(text):
        expected = expected[:-5]  # a cut word has other tokens
    checks.check(np.array_equal(ids[: len(expected)] if len(part) < len(text) else ids, expected),
                 lambda: f"{name}: attn {ids[:50]}, tokenizers {expected[:50]}")
    if len(part) == len(text):
        checks.check(theirs.decode(list(ids), skip_special_tokens=False) == text, f"{name}: tokenizers decodes another text")


def check_bpe(checks, folder, name, text, vocab, least):
    written, ids = train(folder, "bpe", vocab, least, text)
    if written is None:
        checks.check(False, f"{name}: {ids}")
        return
    words, merges = reference(text, vocab, least)
    model = json.loads(written)["model"]
    got = [tuple(m) for m in model["merges"]]
    first = next((i for i, (a, b) in enumerate(zip(got, merges)) if a != b), min(len(got), len(merges)))
    checks.check(got == merges, lambda: f"{name}: {len(got)} merges, tokenizers {len(merges)}, first other one {first}: "
                 f"{got[first:first + 1]}, {merges[first:first + 1]}")
    checks.check(model["vocab"] == words, f"{name}: another vocabulary")
    check_ids(checks, name, text, written, ids)


def check_chars(checks, folder, name, text):
    written, ids = train(folder, "chars", 0, 0, text)
    if written is None:
        checks.check(False, f"{name}: {ids}")
        return
    order = {c: i + 1 for i, c in enumerate(sorted(set(text)))}
    checks.check([order[c] for c in text] == list(ids), f"{name}: characters are not numbered in their order")
    check_ids(checks, name, text, written, ids)


def made_up(seed):
    """Words over few letters, so that equally frequent pairs abound, with all kinds of space and signs."""
    make = random.Random(seed)
    letters = make.choice(["ab", "abc", "abcdefgh", "aAé漢🙂", "a'st re", "01ab"])
    words = ["".join(make.choice(letters) for _ in range(make.randrange(1, 12))) for _ in range(make.choice([3, 30, 300]))]
    gaps = [" ", " ", " ", "  ", "\n", "\r\n", "\t", ", ", "!?", "'s ", " \u00a0"]
    return "".join(make.choice(words) + make.choice(gaps) for _ in range(make.choice([5, 200, 2000])))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=int, default=30 // fraction())
    args = parser.parse_args()
    checks = Checks(args.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for seed in range(args.seed, args.seed + args.cases):
            text = made_up(seed)
            make = random.Random(seed)
            check_bpe(checks, folder, f"case {seed}", text, make.choice([257, 260, 300, 1000]), make.choice([1, 2, 5]))
            check_chars(checks, folder, f"case {seed}, characters", text)
        if novels():
            text = novels().read_text()
            check_bpe(checks, folder, "the novels", text, 2304, 2)
            check_chars(checks, folder, "the novels' characters", text)
        else:
            print("without the novels: attn fetch novels")
    checks.finish(f"trained tokenizers, seed {args.seed}")


if __name__ == "__main__":
    main()
