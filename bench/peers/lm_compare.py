#!/usr/bin/env python3
"""attn beside llama.cpp on one GGUF file: prefill and decode, alternating in one run.

usage: build/peers-venv/bin/python bench/peers/lm_compare.py FILE.gguf [--prompt 512] [--generate 128] [--depth 0]
           [--threads 1] [--repeat 5] [--attn build/bin/attn] [--json]

Each round measures attn (a fresh process: attn bench lm) and then llama.cpp (one process that keeps its filled cache
and waits), so that a slow spell of the machine meets both. Best, median and ratio of each; the ratio of bests is the
figure to report, llama.cpp counting with the faster of its two attention modes. Before anything is timed both must
continue a prompt with the same token; when that or any run fails nothing is printed but the reason.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys

import llama_cpp

from alternate import PROGRAM, Failed, best_and_median, guard, positive, run_json, table

HERE = pathlib.Path(__file__).resolve().parent
FIELDS = ("prompt_tokens_per_s", "generation_tokens_per_s")
CHECK = "The days of the week are Monday, Tuesday, Wednesday, Thursday,"  # no close call


class Peer:
    """llama_peer.py --serve: one JSON line for every line it is sent."""

    def __init__(self, args):
        command = [sys.executable, HERE / "llama_peer.py", args.file, "--serve"]
        for name in ("prompt", "generate", "depth", "threads"):
            command += [f"--{name}", getattr(args, name)]
        self.process = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if self.process.stdout.readline().strip() != "ready":
            raise Failed("llama_peer.py did not start")

    def measure(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"llama_peer.py ended with exit code {self.process.wait()}")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def check_same_token(args):
    """Both continue CHECK with the same greedy token, tokenised to the same ids."""
    words = [args.attn, "generate", CHECK, "--model", args.file, "--raw", "--temperature", 0]
    ours = run_json(words + ["--max-tokens", 1, "--threads", args.threads, "--json"])
    model = llama_cpp.Llama(args.file, n_ctx=64, n_threads=args.threads, verbose=False)
    ids = model.tokenize(CHECK.encode(), add_bos=False, special=True)
    if ours.get("prompt_ids") != ids:
        raise Failed(f"attn tokenised {CHECK!r} to {ours.get('prompt_ids')}, llama.cpp to {ids}")
    peer = next(model.generate(ids, temp=0.0, repeat_penalty=1.0))
    if ours.get("ids", [None])[:1] != [peer]:
        raise Failed(f"attn continues {CHECK!r} with token {ours.get('ids')}, llama.cpp with {peer}")


def measure(args):
    """{who: {field: [one value a round]}}"""
    command = [args.attn, "bench", "lm", args.file, "--json", "--repeat", 1]
    for name in ("prompt", "generate", "depth", "threads"):
        command += [f"--{name}", getattr(args, name)]
    runs = {"attn": [], "flash": [], "no_flash": []}
    peer = Peer(args)
    try:
        for round_number in range(args.repeat):
            runs["attn"].append(run_json(command))
            line = peer.measure()
            runs["flash"].append(line["flash"])
            runs["no_flash"].append(line["no_flash"])
            print(f"round {round_number + 1} of {args.repeat}", file=sys.stderr)
    finally:
        peer.close()
    return {
        who: {field: [positive(record, field) for record in records] for field in FIELDS}
        for who, records in runs.items()
    }


def summary(values):
    """Per field: best and median of each, and attn over the faster mode of llama.cpp."""
    result = {}
    for field in FIELDS:
        stats = {who: best_and_median(values[who][field]) for who in values}
        peer_best = max(stats["flash"][0], stats["no_flash"][0])
        peer_median = max(stats["flash"][1], stats["no_flash"][1])
        result[field] = {
            who: {"best": best, "median": median, "runs": values[who][field]}
            for who, (best, median) in stats.items()
        }
        result[field]["ratio"] = {
            "best": round(stats["attn"][0] / peer_best, 3),
            "median": round(stats["attn"][1] / peer_median, 3),
        }
    return result


def show(args, result):
    print(
        f"{pathlib.Path(args.file).name}: prompt {args.prompt}, generate {args.generate}, depth {args.depth},"
        f" {args.threads} thread(s), {args.repeat} rounds; tokens/s, best (median)"
    )
    cell = lambda stats: f"{stats['best']:.1f} ({stats['median']:.1f})"
    rows = []
    for field in FIELDS:
        line = result[field]
        ratio = f"{line['ratio']['best']:.2f} ({line['ratio']['median']:.2f})"
        name = field.split("_", maxsplit=1)[0]
        rows.append([name, cell(line["attn"]), cell(line["flash"]), cell(line["no_flash"]), ratio])
    table(rows, ["", "attn", "llama.cpp flash", "llama.cpp no flash", "attn / faster"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file")
    parser.add_argument("--attn", default=PROGRAM, type=pathlib.Path)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--generate", type=int, default=128)
    parser.add_argument("--depth", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    args = parser.parse_args()
    if args.repeat < 1:
        parser.error("--repeat must be at least 1")
    if not os.access(args.attn, os.X_OK):
        raise Failed(f"{args.attn} is not there; run ./dev build, or give --attn")
    check_same_token(args)
    result = summary(measure(args))
    if args.json:
        setting = {name: getattr(args, name) for name in ("prompt", "generate", "depth", "threads")}
        print(json.dumps({**setting, **result}))
    else:
        show(args, result)


if __name__ == "__main__":
    guard(main)
