#!/usr/bin/env python3
"""attn_sdpa beside PyTorch's scaled_dot_product_attention on the CPU, alternating in one run.

usage: build/peers-venv/bin/python bench/peers/sdpa_compare.py [SHAPE…] [--causal] [--backward]
           [--dtype f32|bf16|f16] [--threads 1] [--repeat 5] [--attn build/bin/attn] [--json]

SHAPE as for attn bench sdpa: batch x heads[/heads_kv] x len[,len_k] x dim. Causal is bottom-right, as there. Before a
shape is timed its f32 outputs (with --backward its gradients) are compared (attn sdpa on .npy files against PyTorch);
when they differ, or any run fails, nothing is printed but the reason. Times are milliseconds of one forward call, or
with --backward of one backward call alone.
"""
import argparse
import json
import os
import pathlib
import statistics
import tempfile
import time

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from alternate import PROGRAM, Failed, best_and_median, guard, positive, run, run_json, table

SHAPES = ["1x16x512x64", "1x16x2048x64", "1x16/4x2048x128", "1x32/8x1,4096x128"]
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
TOLERANCE = 1e-5  # f32 outputs of normal(0,1) inputs; both are within 2e-6 of the exact result
GRADIENT_TOLERANCE = 1e-4  # of the largest entry of a gradient: PyTorch's own error is about 1e-5 of it
QUIET_SECONDS = 0.3  # PyTorch's worker threads spin for a while after a call


def parse_shape(text):
    """(batch, heads_q, heads_kv, len_q, len_k, dim)"""
    try:
        batch, heads, length, dim = text.split("x")
        heads_q, _, heads_kv = heads.partition("/")
        len_q, _, len_k = length.partition(",")
        sizes = (batch, heads_q, heads_kv or heads_q, len_q, len_k or len_q, dim)
        return tuple(int(size) for size in sizes)
    except ValueError:
        raise Failed(f"shape {text!r}; give batch x heads[/heads_kv] x len[,len_k] x dim, as 1x16x2048x64")


class Torch:
    """One problem, its inputs made, its options chosen."""

    def __init__(self, shape, causal, dtype):
        batch, heads_q, heads_kv, len_q, len_k, dim = shape
        make = torch.Generator().manual_seed(1)
        normal = lambda heads, length: torch.randn(batch, heads, length, dim, generator=make)
        self.inputs = [normal(heads_q, len_q), normal(heads_kv, len_k), normal(heads_kv, len_k)]
        self.dout = normal(heads_q, len_q)
        self.typed = [x.to(dtype) for x in self.inputs]
        self.options = {"enable_gqa": heads_q != heads_kv}
        if causal and len_q == len_k:
            self.options["is_causal"] = True
        elif causal and len_q > 1:
            mask = torch.ones(len_q, len_k, dtype=torch.bool).tril(diagonal=len_k - len_q)
            self.options["attn_mask"] = mask

    def call(self, inputs):
        with torch.inference_mode():
            return scaled_dot_product_attention(*inputs, **self.options)

    def gradients(self, inputs, dout):
        """A call that runs backward alone, and returns dq, dk, dv; the forward has run once."""
        leaves = [x.detach().requires_grad_() for x in inputs]
        out = scaled_dot_product_attention(*leaves, **self.options)
        return lambda: torch.autograd.grad(out, leaves, dout, retain_graph=True)

    def milliseconds(self, backward, seconds=0.5):
        """(median, min) of calls that fill about `seconds`, at least 3."""
        call = lambda: self.call(self.typed)
        if backward:
            call = self.gradients(self.typed, self.dout.to(self.typed[0].dtype))
        call()
        times, end = [], time.perf_counter() + seconds
        while len(times) < 3 or time.perf_counter() < end:
            begin = time.perf_counter()
            call()
            times.append((time.perf_counter() - begin) * 1e3)
        return statistics.median(times), min(times)


def check_equal(args, problem, shape):
    """attn sdpa on the same arrays, or Failed."""
    with tempfile.TemporaryDirectory() as folder:
        path = lambda name: os.path.join(folder, name + ".npy")
        for name, array in zip("qkv", problem.inputs):
            np.save(path(name), array.numpy())
        command = [args.attn, "sdpa", "--threads", args.threads]
        for name in "qkv":
            command += [f"--{name}", path(name)]
        command += ["--out", path("out")]
        if args.causal:
            command += ["--causal", "bottom-right"]
        limit = TOLERANCE
        if args.backward:
            limit = GRADIENT_TOLERANCE
            np.save(path("dout"), problem.dout.numpy())
            command += ["--dout", path("dout")]
            for name in "qkv":
                command += [f"--d{name}", path("d" + name)]
        run(command)
        if args.backward:
            theirs = problem.gradients(problem.inputs, problem.dout)()
            error = max(np.abs(np.load(path("d" + name)) - g.numpy()).max() / np.abs(g.numpy()).max()
                        for name, g in zip("qkv", theirs))
        else:
            error = np.abs(np.load(path("out")) - problem.call(problem.inputs).numpy()).max()
    if not error <= limit:
        raise Failed(f"{shape}: attn and PyTorch differ by {error:.2e}, more than {limit:.0e}")
    return float(error)


def compare(args, text):
    problem = Torch(parse_shape(text), args.causal, DTYPES[args.dtype])
    error = check_equal(args, problem, text)
    command = [args.attn, "bench", "sdpa", text, "--dtype", args.dtype, "--threads", args.threads]
    command += ["--json"] + (["--causal"] if args.causal else [])
    command += ["--backward"] if args.backward else []
    ours, theirs = [], []
    for _ in range(args.repeat):
        record = run_json(command)
        times = record.get("ms", {})
        ours.append((positive(times, "median"), positive(times, "min")))
        theirs.append(problem.milliseconds(args.backward))
        time.sleep(QUIET_SECONDS)
    result = {"shape": text, "causal": args.causal, "dtype": args.dtype, "threads": args.threads}
    result["difference"] = error
    for name, runs in (("attn", ours), ("torch", theirs)):
        best, _ = best_and_median([low for _, low in runs], best=min)
        _, middle = best_and_median([median for median, _ in runs], best=min)
        result[name] = {"best_ms": round(best, 4), "median_ms": round(middle, 4)}
    result["speedup"] = {
        "best": round(result["torch"]["best_ms"] / result["attn"]["best_ms"], 3),
        "median": round(result["torch"]["median_ms"] / result["attn"]["median_ms"], 3),
    }
    return result


def show(args, results):
    causal = "causal" if args.causal else "full"
    what = "backward, " if args.backward else ""
    print(f"{args.dtype}, {what}{causal}, {args.threads} thread(s), {args.repeat} rounds; ms, best (median)")
    cell = lambda times: f"{times['best_ms']:.3f} ({times['median_ms']:.3f})"
    rows = []
    for result in results:
        ratio = f"{result['speedup']['best']:.2f} ({result['speedup']['median']:.2f})"
        rows.append([result["shape"], cell(result["attn"]), cell(result["torch"]), ratio])
    table(rows, ["shape", "attn", f"PyTorch {torch.__version__}", "speed-up"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("shapes", nargs="*", metavar="SHAPE")
    parser.add_argument("--causal", action="store_true")
    parser.add_argument("--backward", action="store_true", help="time the backward call")
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="f32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--attn", default=PROGRAM, type=pathlib.Path)
    parser.add_argument("--json", action="store_true", help="one JSON line a shape instead of the table")
    args = parser.parse_args()
    if not os.access(args.attn, os.X_OK):
        raise Failed(f"{args.attn} is not there; run ./dev build, or give --attn")
    torch.set_num_threads(args.threads)
    results = [compare(args, text) for text in args.shapes or SHAPES]
    if args.json:
        for result in results:
            print(json.dumps(result))
    else:
        show(args, results)


if __name__ == "__main__":
    guard(main)
