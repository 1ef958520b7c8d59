#!/usr/bin/env python3
"""One NaN or infinity in q, k, v, dout, dlse or bias of attention: what of outputs and gradients does not depend on that element has the
same bits as without it, and dq of the rows that do is no number.

usage: test_nonfinite.py [--seed 0] [--cases 500]
"""
import argparse
import ctypes

from support import Checks, fraction, skip

try:
    import numpy as np
except ImportError as error:
    skip(f"{error}; install python3-numpy")

from bindings import Attn, SdpaOptions, View, sizes

KINDS = ("q", "k", "v", "dout", "dlse", "bias")
VALUES = (np.nan, np.inf, -np.inf)


class Gradients(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t)] + [
        (name, View) for name in ("dlse", "dq", "dk", "dv", "dbias", "dsinks", "dalibi")]


class Case:
    """A random call: its arrays, its options, and which slots are attended."""

    def __init__(self, attn, rng):
        self.attn, self.rng, self.held = attn, rng, []
        self.dtype = rng.choice(["f4", "f8", "f2"])
        self.sums = "f8" if self.dtype == "f8" else "f4"
        batch, kv, self.group = int(rng.integers(1, 3)), int(rng.integers(1, 3)), int(rng.integers(1, 4))
        len_q, len_k = int(rng.choice([1, 2, 5, 17, 40, 70])), int(rng.choice([1, 3, 7, 30, 75, 130]))
        dim, dim_v = int(rng.choice([1, 4, 8, 17])), int(rng.choice([1, 4, 9]))
        heads = kv * self.group
        self.shape = (batch, heads, len_q, len_k)
        self.arrays = {"q": self.normal(batch, heads, len_q, dim), "k": self.normal(batch, kv, len_k, dim),
                       "v": self.normal(batch, kv, len_k, dim_v), "dout": self.normal(batch, heads, len_q, dim_v),
                       "dlse": rng.standard_normal((batch, heads, len_q)).astype(self.sums)}
        self.options = SdpaOptions(struct_size=ctypes.sizeof(SdpaOptions), causal=int(rng.integers(0, 3)))
        self.rules(*self.shape)

    def normal(self, *shape):
        return self.rng.standard_normal(shape).astype(self.dtype)

    def maybe(self, share):
        return self.rng.random() < share

    def give(self, name, array):
        view = self.attn.view(array)
        self.held += [array, view]
        setattr(self.options, name, ctypes.addressof(view))

    def rules(self, batch, heads, len_q, len_k):
        o, rng = self.options, self.rng
        i, j = np.arange(len_q)[:, None], np.arange(len_k)[None]
        place = i + (len_k - len_q if o.causal == 2 else 0)
        seen = np.broadcast_to(j <= place if o.causal else np.ones((len_q, len_k), bool), self.shape).copy()
        if self.maybe(0.4):
            o.has_window, o.window_left, o.window_right = True, int(rng.integers(0, 20)), int(rng.integers(0, 20))
            seen &= (place - j <= o.window_left) & (j - place <= o.window_right)
        if self.maybe(0.4):
            mask = rng.random((batch, 1, len_q, len_k)) < 0.6
            self.give("mask", mask)
            seen &= mask
        if self.maybe(0.4) and o.causal != 2:
            lengths = rng.integers(0, len_k + 1, batch)
            array = sizes(lengths.tolist())
            self.held.append(array)
            o.lengths_k = ctypes.addressof(array)
            seen &= j < lengths.reshape(-1, 1, 1, 1)
        if self.maybe(0.5):
            self.arrays["bias"] = self.normal(*((heads, len_q, len_k) if self.maybe(0.5) else (1, len_k)))
            self.give("bias", self.arrays["bias"])
        for name in ("sinks", "alibi"):
            if self.maybe(0.4):
                self.arrays[name] = (0.3 * rng.standard_normal(heads)).astype(self.sums)
                self.give(name, self.arrays[name])
        o.softcap = 2.0 if self.maybe(0.3) else 0.0
        o.dropout, o.dropout_seed = (0.3, 5) if self.maybe(0.3) else (0.0, 0)
        self.seen = seen

    def run(self):
        """Outputs and gradients by name."""
        a, attn, o = self.arrays, self.attn, self.options
        batch, heads, len_q, _ = self.shape
        done = {"out": np.empty((batch, heads, len_q, a["v"].shape[3]), self.sums),
                "lse": np.empty((batch, heads, len_q), self.sums)}
        view = {name: attn.view(array) for name, array in {**a, **done}.items()}
        q, k, v, dout, out, lse = (ctypes.byref(view[n]) for n in ("q", "k", "v", "dout", "out", "lse"))
        o.lse = ctypes.addressof(view["lse"])
        attn.ok(attn.core.attn_sdpa(attn.context, ctypes.byref(o), q, k, v, out))
        o.lse = None
        g = Gradients(struct_size=ctypes.sizeof(Gradients), dlse=view["dlse"])
        for name in ("q", "k", "v", "bias", "sinks", "alibi"):
            if name in a:
                done[f"d{name}"] = np.full(a[name].shape, 123, self.sums)
                setattr(g, f"d{name}", attn.view(done[f"d{name}"]))
        attn.ok(attn.core.attn_sdpa_backward(attn.context, ctypes.byref(o), q, k, v, out, lse, dout, ctypes.byref(g)))
        return done

    def rows(self, which, at):
        """The rows that depend on one element of an array: [batch, heads, len_q]."""
        rows = np.zeros(self.shape[:3], bool)
        if which in ("k", "v"):
            heads = slice(at[1] * self.group, (at[1] + 1) * self.group)
            rows[at[0], heads] = self.seen[at[0], heads, :, at[2]]
        elif which == "bias":
            cell = np.zeros(self.arrays["bias"].shape, bool)
            cell[at] = True
            rows = (cell & self.seen).any(-1)
        else:
            rows[at[:3]] = True
        return rows & self.seen.any(-1)

    def depends(self, which, rows):
        """What of each output may change when those rows do."""
        batch, _, _, len_k = self.shape
        cells = rows[..., None] & self.seen
        keys = cells.reshape(batch, -1, self.group * self.shape[2], len_k).any(2)[..., None]
        heads, none = rows.any((0, 2)), np.zeros(1, bool)
        may = {"dq": rows[..., None], "dk": keys, "dsinks": heads, "dalibi": heads,
               "dv": none if which in ("v", "dlse") else keys,
               "out": none if which in ("dout", "dlse") else rows[..., None],
               "lse": rows if which in ("q", "k", "bias") else none}
        if "bias" in self.arrays:
            own = self.arrays["bias"].ndim
            may["dbias"] = cells.any(0) if own == 3 else cells.any((0, 1, 2))[None]
        return may


def one_case(checks, attn, seed):
    rng = np.random.default_rng(seed)
    case = Case(attn, rng)
    which = rng.choice([k for k in KINDS if k in case.arrays])
    value = float(rng.choice(VALUES))
    value = np.nan if which == "bias" and value == -np.inf else value  # that is a mask
    array = case.arrays[which]
    at = tuple(int(rng.integers(n)) for n in array.shape)
    clean = case.run()
    array[at] = value
    dirty = case.run()
    rows = case.rows(which, at)
    may = case.depends(which, rows)
    what = f"seed {seed}, {case.dtype}, {value} in {which}{list(at)}"
    for name, before in clean.items():
        differs = ~((before == dirty[name]) | (np.isnan(before) & np.isnan(dirty[name])))
        wrong = np.argwhere(differs & ~np.broadcast_to(may[name], before.shape))
        checks.check(len(wrong) == 0, lambda: f"{what}: reaches {name} at {wrong[:4].tolist()}")
    if which in ("q", "k", "v", "dout") and not case.options.softcap and not case.options.dropout:
        checks.check(not np.isfinite(dirty["dq"][rows]).all(-1).any(), lambda: f"{what}: dq of a row is finite")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=500)
    args = parser.parse_args()
    checks, attn = Checks(args.seed), Attn(np, tape=False)
    np.seterr(all="ignore")
    cases = max(1, args.cases // fraction())
    for i in range(cases):
        one_case(checks, attn, args.seed + i)
    checks.finish(f"{cases} calls with one number that is none")


if __name__ == "__main__":
    main()
