#!/usr/bin/env python3
"""attn_sdpa_backward beside PyTorch's autograd: the formula in torch's operations, float64, every option; and where
torch's own scaled_dot_product_attention can say the same, beside that too.

usage: test_gradients.py [--seed 20260] [--cases 200]
"""
import argparse
import json

from support import Checks, program, run, skip

try:
    import numpy as np
    import torch
    from torch.nn.functional import scaled_dot_product_attention
except ImportError as error:
    skip(f"{error}; pip install -r bench/peers/requirements-torch.txt (a test extra)")

LEAVES = ("q", "k", "v", "bias", "sinks", "alibi")


def tensor(entry, grad=False):
    """Unattended slots hold NaN, which attn must not read and torch would multiply with 0: zeros here."""
    values = np.nan_to_num(np.array(entry["data"], np.float64), nan=0.0, neginf=-np.inf)
    return torch.tensor(values.reshape(entry["shape"]), requires_grad=grad)


def philox(seed, column, row, head, batch):
    """The word that decides about a slot: Philox4x32-10, counter (column/4, row, head, batch)."""
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    c = [np.asarray(x).astype(np.uint64) for x in np.broadcast_arrays(column // 4, row, head, batch)]
    k = [np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32)]
    for _ in range(10):
        a, b = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(b >> shift) ^ c[1] ^ k[0], b & low, (a >> shift) ^ c[3] ^ k[1], a & low]
        k = [(k[0] + np.uint64(0x9E3779B9)) & low, (k[1] + np.uint64(0xBB67AE85)) & low]
    return np.choose(np.broadcast_to(column % 4, c[0].shape), c)


def grid(shape):
    return (np.arange(n).reshape([-1 if d == e else 1 for e in range(4)])
            for d, n in enumerate(shape))


def positions(case, batch, len_q, len_k):
    """p(i) of every row, [batch, 1, len_q, 1], and how many rows and keys each sequence has."""
    n = np.array(case.get("lengths_k", [len_k] * batch)).reshape(-1, 1, 1, 1)
    n_q = np.array(case.get("lengths_q", [len_q] * batch)).reshape(-1, 1, 1, 1)
    i = np.arange(len_q).reshape(1, 1, -1, 1)
    if "q_offset" in case:
        return i + np.broadcast_to(np.array(case["q_offset"]), (batch,)).reshape(-1, 1, 1, 1), n, n_q
    return i + (n - n_q if case["causal"] == 2 else 0 * n), n, n_q


def visible(case, bias, shape):
    """What the rules leave: [batch, heads, len_q, len_k]."""
    batch, heads, len_q, len_k = shape
    p, n, n_q = positions(case, batch, len_q, len_k)
    _, _, i, j = grid(shape)
    seen = np.broadcast_to((j < n) & (i < n_q), (batch, 1, len_q, len_k)).copy()
    if case["causal"]:
        seen &= j <= p
    left, right = case.get("window", (-1, -1))
    seen &= ((left < 0) | (p - j <= left)) & ((right < 0) | (j - p <= right))
    seen = torch.tensor(np.broadcast_to(seen, shape).copy())
    if "mask" in case:
        seen = seen & (tensor(case["mask"]) != 0)
    if bias is not None:
        seen = seen & (bias != -np.inf)
    distance = p - j
    return seen, torch.tensor(distance if case["causal"] else np.abs(distance))


def formula(case, leaf):
    """out and lse in torch's operations."""
    q, k, v = leaf["q"], leaf["k"], leaf["v"]
    group = q.shape[1] // k.shape[1]
    k, v = (a.repeat_interleave(group, 1) for a in (k, v))
    shape = (*q.shape[:3], k.shape[2])
    bias = leaf.get("bias")
    seen, distance = visible(case, bias, shape)
    s = case["scale"] * (q @ k.transpose(-1, -2))
    if case["softcap"]:
        s = case["softcap"] * torch.tanh(s / case["softcap"])
    if bias is not None:
        s = s + torch.where(bias == -np.inf, torch.zeros_like(bias), bias)
    if "alibi" in leaf:
        s = s - leaf["alibi"].reshape(-1, 1, 1) * distance
    any_seen = seen.any(-1, keepdim=True)
    s = torch.where(seen, s, -np.inf)
    terms = torch.where(any_seen, s, 0.0)
    if "sinks" in leaf:
        terms = torch.cat([terms, leaf["sinks"].reshape(1, -1, 1, 1).expand(*shape[:3], 1)], -1)
    lse = torch.logsumexp(terms, -1)
    weights = torch.where(seen, torch.exp(torch.where(seen, s, 0.0) - lse[..., None]), 0.0)
    if case["dropout"]:
        b, h, i, j = grid(shape)
        word = philox(case["seed"], j, i, h, b)
        kept = torch.tensor(word >= int(case["dropout"] * 2**32))
        weights = torch.where(kept, weights / (1 - case["dropout"]), 0.0)
    return weights @ v, torch.where(any_seen[..., 0], lse, 0.0)


def built_in(case, leaf):
    """The same from torch's own function, or None where it cannot say it (or calls empty rows NaN)."""
    if case["softcap"] or case["dropout"] or "sinks" in leaf or "alibi" in leaf or "dlse" in case:
        return None
    q, k, v = leaf["q"], leaf["k"], leaf["v"]
    shape = (*q.shape[:3], k.shape[2])
    seen, _ = visible(case, leaf.get("bias"), shape)
    if not seen.any(-1).all():
        return None
    if "bias" in leaf:
        seen = torch.where(seen, leaf["bias"].expand(shape), -np.inf)
    return scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=case["scale"],
                                        enable_gqa=True)


def compare(checks, case, leaf, what):
    for name in LEAVES:
        if name not in case:
            continue
        want = np.zeros(leaf[name].shape) if leaf[name].grad is None else leaf[name].grad.numpy()
        got = np.array(case[f"d{name}"]["data"]).reshape(case[f"d{name}"]["shape"])
        # both are float64: roundoff of a few sums, relative to the tensor and to what it was made of
        allowed = 1e-11 * max(np.abs(want).max(initial=0.0), case["flow"])
        error = np.abs(got - want).max(initial=0.0)
        checks.check(error <= allowed, lambda: f"case {case['case']}, {what}, d{name}: differs by {error:.3g} of"
                     f" {np.abs(want).max():.3g}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=20260)
    parser.add_argument("--cases", type=int, default=200)
    args = parser.parse_args()
    checks, own = Checks(args.seed), 0
    done = run([program("attn_grad_dump"), str(args.seed), str(args.cases)])
    checks.check(done.returncode == 0, lambda: done.stderr.decode())
    for line in done.stdout.decode().splitlines():
        case = json.loads(line)
        dout = tensor(case["dout"])
        case["flow"] = float(dout.abs().max())
        fresh = lambda: {name: tensor(case[name], True) for name in LEAVES if name in case}
        leaf = fresh()
        out, lse = formula(case, leaf)
        loss = (out * dout).sum()
        if "dlse" in case:
            loss = loss + (lse * tensor(case["dlse"])).sum()
        loss.backward()
        compare(checks, case, leaf, "the formula")
        leaf = fresh()
        out = built_in(case, leaf)
        if out is not None:
            (out * dout).sum().backward()
            compare(checks, case, leaf, "scaled_dot_product_attention")
            own += 1
    checks.finish(f"{args.cases} cases beside PyTorch {torch.__version__}, {own} of them beside its own attention too")


if __name__ == "__main__":
    main()
