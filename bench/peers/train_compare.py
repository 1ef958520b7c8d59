#!/usr/bin/env python3
"""A training step of a small GPT: `attn bench train` beside PyTorch eager on the CPU, alternating in one run.

usage: build/peers-venv/bin/python bench/peers/train_compare.py [--threads 1] [--repeat 5] [--attn build/bin/attn]
           [--layers 4] [--dim 128] [--heads 4] [--ffn 344] [--len 256] [--batch 16] [--vocab 96] [--json]

Both train the same model (train_torch.py says which). First both report the loss of tokens drawn at random, which an
untrained model must put near ln(vocab), and the number of parameters, which must be the same; when they are not, or
any run fails, nothing is printed but the reason. Times are milliseconds a step: forward, loss, backward, clipping, AdamW.
"""
import argparse
import json
import math
import os
import pathlib
import sys

from alternate import PROGRAM, Failed, best_and_median, guard, positive, run_json, table

SIZES = (("layers", 4), ("dim", 128), ("heads", 4), ("ffn", 344), ("len", 256), ("batch", 16), ("vocab", 96))
PEER = pathlib.Path(__file__).with_name("train_torch.py")


def measure(args):
    """(attn's, torch's) lists of (min, median), and what they said of the model."""
    sizes = [word for name, _ in SIZES for word in ("--" + name, getattr(args, name))]
    words = sizes + ["--threads", args.threads]
    commands = {"attn": [args.attn, "bench", "train", "--json"] + words,
                "torch": [sys.executable, PEER] + words}
    runs, said = {"attn": [], "torch": []}, {}
    for _ in range(args.repeat):
        for name, command in commands.items():
            record = run_json(command)
            times = record.get("ms", {})
            runs[name].append((positive(times, "min"), positive(times, "median")))
            said[name] = record
    return runs, said


def check_same(args, said):
    ours, theirs = (positive(said[name], "parameters") for name in ("attn", "torch"))
    if ours != theirs:
        raise Failed(f"attn trains {ours:.0f} parameters and PyTorch {theirs:.0f}: not the same model")
    for name in ("attn", "torch"):
        loss = positive(said[name], "loss")
        if loss > 2 * math.log(args.vocab):
            raise Failed(f"{name}'s loss is {loss:.3f}, but random guessing among {args.vocab} gives less than that")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, value in SIZES:
        parser.add_argument("--" + name, type=int, default=value)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--attn", default=PROGRAM, type=pathlib.Path)
    parser.add_argument("--json", action="store_true", help="one JSON line instead of the table")
    args = parser.parse_args()
    if not os.access(args.attn, os.X_OK):
        raise Failed(f"{args.attn} is not there; run ./dev build, or give --attn")
    runs, said = measure(args)
    check_same(args, said)
    result = {"threads": args.threads, "repeat": args.repeat}
    for name, times in runs.items():
        best, _ = best_and_median([low for low, _ in times], best=min)
        _, middle = best_and_median([median for _, median in times], best=min)
        result[name] = {"best_ms": round(best, 2), "median_ms": round(middle, 2)}
    result["speedup"] = {kind: round(result["torch"][kind + "_ms"] / result["attn"][kind + "_ms"], 3)
                         for kind in ("best", "median")}
    if args.json:
        print(json.dumps(result))
        return
    cell = lambda times: f"{times['best_ms']:.1f} ({times['median_ms']:.1f})"
    ratio = f"{result['speedup']['best']:.2f} ({result['speedup']['median']:.2f})"
    print(f"one training step, {args.threads} thread(s), {args.repeat} rounds; ms, best (median)")
    table([[f"{args.layers} layers x {args.dim}", cell(result["attn"]), cell(result["torch"]), ratio]],
          ["model", "attn", f"PyTorch {said['torch'].get('version', '')}", "speed-up"])


if __name__ == "__main__":
    guard(main)
