#!/usr/bin/env python3
"""attn's model beside the float64 forward of llama_f64.py.

usage: test_model.py tiny|smollm2

tiny     tiny.gguf, which needs no network: logits and greedy tokens, prefill beside decode, 8-bit activations
smollm2  the default model: log-probabilities of five prompts within 1e-3 and the same 40 greedy tokens with f32 activations; mean
         Kullback-Leibler divergence over 544 positions at most 0.01 nats with 8-bit activations, in prefill and in decode
         through an f16 cache; 200 tokens one by one beside all at once
$ATTN_TEST_FRACTION shortens smollm2: fewer prompts and positions, the same bounds.
Greedy tokens are checked by giving the model the golden ones: it must prefer the same token at every step.
"""
import argparse
import json
import os
import struct

from support import HERE, Checks, fraction, model_path, program, run, skip

try:
    import numpy as np
except ImportError as error:
    skip(f"{error}; pip install -r requirements.txt")

LOGPROB_BOUND = 1e-3  # f32 activations against float64
REORDER_BOUND = 2e-3  # decode against prefill: twice the above, each being that close to the exact result
KL_BOUND = 0.01  # nats a token, 8-bit activations
KL_F32_BOUND = 1e-6
KL_TINY_BOUND = 0.03  # random weights amplify; llama.cpp's 8-bit run of tiny.gguf is at 0.006
DECODE_TOKENS = 200


def logits(model, vocab, texts, *options):
    """[rows of float64 logits] for texts of (ids, prefill length), as attn_model_logits gives them."""
    threads = len(os.sched_getaffinity(0))
    lines = "".join(f"{prefill} {' '.join(map(str, ids))}\n" for ids, prefill in texts)
    command = [program("attn_model_logits"), model, "--threads", threads, *options]
    done = run(command, input=lines.encode(), timeout=900)
    if done.returncode != 0:
        raise SystemExit(f"FAILED: {' '.join(map(str, command))}: {done.stderr.decode(errors='replace')}")
    rows = np.frombuffer(done.stdout, dtype="<f4").reshape(-1, vocab)
    counts = [len(ids) if prefill == len(ids) else len(ids) - prefill + 1 for ids, prefill in texts]
    if sum(counts) != len(rows):
        raise SystemExit(f"FAILED: {sum(counts)} rows of logits expected, {len(rows)} came")
    return [part.astype(np.float64) for part in np.split(rows, np.cumsum(counts)[:-1])]


def log_softmax(rows):
    shifted = rows - rows.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def check_greedy(checks, name, rows, expected):
    best = rows.argmax(axis=-1)
    wrong = [i for i, (a, b) in enumerate(zip(best, expected)) if a != b]
    checks.check(not wrong, lambda: f"{name}: greedy token {wrong[0]} is {best[wrong[0]]}, expected {expected[wrong[0]]}")


def continued(prompt, ids_field):
    """A golden prompt and its greedy tokens but for the last, as one text: the rows choose every greedy token."""
    ids = prompt[ids_field] + prompt["greedy_ids"][:-1]
    return ids, len(prompt[ids_field])


def check_same_text(checks, name, model, vocab, ids):
    """One by one through the cache, and all at once: the same log-probabilities within the order of additions."""
    options = ("--activations", "f32", "--kv", "f32")
    whole, single = logits(model, vocab, [(ids, len(ids)), (ids, 1)], *options)
    worst = np.abs(log_softmax(whole) - log_softmax(single)).max()
    print(f"{name}: {len(ids)} tokens decoded beside prefilled: log-probabilities within {worst:.2e}")
    checks.check(worst <= REORDER_BOUND, f"{name}: decode and prefill differ by {worst:.2e}, bound {REORDER_BOUND}")


def divergence(reference, other):
    """Mean KL(reference || other) in nats a row, both log-probabilities."""
    return float((np.exp(reference) * (reference - other)).sum(axis=-1).mean())


def test_tiny(checks):
    model = HERE / "tiny.gguf"
    prompts = json.loads((HERE / "tiny.json").read_text(encoding="ascii"))["prompts"]
    vocab = len(prompts[0]["logits"])
    texts = [continued(prompt, "ids") for prompt in prompts]
    exact = logits(model, vocab, texts, "--activations", "f32")
    eight = logits(model, vocab, texts, "--activations", "auto")
    for prompt, rows in zip(prompts, exact):
        name = f"tiny {prompt['prompt'][:20]!r}"
        worst = np.abs(rows[0] - np.array(prompt["logits"])).max()
        checks.check(worst <= LOGPROB_BOUND, f"{name}: logits differ by {worst:.2e}, bound {LOGPROB_BOUND}")
        check_greedy(checks, name, rows, prompt["greedy_ids"])
    mean = divergence(log_softmax(np.concatenate(exact)), log_softmax(np.concatenate(eight)))
    print(f"tiny: 8-bit beside f32 activations: mean KL {mean:.2e} nats")
    checks.check(0 < mean <= KL_TINY_BOUND, f"tiny: mean KL of 8-bit activations is {mean:.3e}, bound {KL_TINY_BOUND}")
    check_same_text(checks, "tiny", model, vocab, max(prompts, key=lambda p: len(p["ids"]))["ids"])


def read_kl(path):
    """(ids, top ids [n, 64], their log-probabilities, log-probability of the rest [n]); format in forward_f64.py."""
    raw = path.read_bytes()
    count, top = struct.unpack_from("<ii", raw, 8)
    parts, at = [], 16
    for kind, size in (("<i4", count + 1), ("<i4", count * top), ("<f8", count * top), ("<f8", count)):
        parts.append(np.frombuffer(raw, dtype=kind, count=size, offset=at))
        at += parts[-1].nbytes
    ids, top_ids, top_logprob, rest = parts
    used = count // fraction()
    tops = [part.reshape(count, top)[:used] for part in (top_ids, top_logprob)]
    return ids[: used + 1].tolist(), *tops, rest[:used]


def mean_kl(golden, rows):
    """Mean KL(reference || rows) over the golden file's 65 outcomes a position."""
    _, top_ids, top_logprob, rest = golden
    ours = np.take_along_axis(log_softmax(rows), top_ids.astype(np.int64), axis=-1)
    ours_rest = np.log(np.maximum(1 - np.exp(ours).sum(axis=-1), 1e-300))
    inside = (np.exp(top_logprob) * (top_logprob - ours)).sum(axis=-1)
    return float((inside + np.exp(rest) * (rest - ours_rest)).mean())


def check_kl(checks, model, vocab):
    golden = read_kl(HERE / "smollm2_kl.bin")
    ids = golden[0][:-1]
    runs = [  # (name, prefill length, options, bound)
        ("f32 activations, prefill", len(ids), ("--activations", "f32"), KL_F32_BOUND),
        ("8-bit activations, f16 cache, prefill", len(ids), (), KL_BOUND),
        ("8-bit activations, f16 cache, decode", 1, (), KL_BOUND),
    ]
    for name, prefill, options, bound in runs:
        (rows,) = logits(model, vocab, [(ids, prefill)], *options)
        mean = mean_kl(golden, rows)
        print(f"smollm2: {name}: mean KL {mean:.2e} nats a token over {len(rows)} tokens")
        checks.check(mean <= bound, f"smollm2: {name}: mean KL {mean:.3e}, bound {bound}")


def test_smollm2(checks):
    model = model_path()
    golden = json.loads((HERE / "smollm2.json").read_text(encoding="ascii"))
    prompts, vocab = golden["prompts"][: 5 if fraction() == 1 else 1], golden["vocab"]
    texts = [continued(prompt, "prompt_ids") for prompt in prompts]
    for prompt, rows in zip(prompts, logits(model, vocab, texts, "--activations", "f32")):
        logprobs = log_softmax(rows)
        worst = max(abs(row[i] - value) for row, top in zip(logprobs, prompt["top"]) for i, value in top)
        print(f"smollm2 {prompt['name']}: log-probabilities within {worst:.2e}")
        checks.check(worst <= LOGPROB_BOUND, f"{prompt['name']}: differ by {worst:.2e}, bound {LOGPROB_BOUND}")
        check_greedy(checks, prompt["name"], rows, prompt["greedy_ids"])
    check_kl(checks, model, vocab)
    check_same_text(checks, "smollm2", model, vocab, read_kl(HERE / "smollm2_kl.bin")[0][:DECODE_TOKENS])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", choices=["tiny", "smollm2"])
    args = parser.parse_args()
    checks = Checks()
    {"tiny": test_tiny, "smollm2": test_smollm2}[args.model](checks)
    checks.finish(f"model {args.model}")


if __name__ == "__main__":
    main()
