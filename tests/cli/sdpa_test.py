"""`attn sdpa` against the formula in NumPy: every option, every array shape, and what it refuses."""
import os
import subprocess
import sys
import tempfile

try:
    import numpy as np
except ImportError:
    print("skipped: needs numpy (./dev setup makes a virtual environment with it)")
    sys.exit(77)

ATTN = os.environ.get("ATTN_PROGRAM", "build/bin/attn")
CHECKS = 0


def run(folder, arrays, *options, code=0):
    """Saves arrays, calls the program, gives (out, lse, weights) or, on failure, standard error."""
    command = [ATTN, "sdpa", "--out", f"{folder}/out.npy"]
    for name, value in arrays.items():
        np.save(f"{folder}/{name}.npy", value)
        command += [f"--{name}", f"{folder}/{name}.npy"]
    done = subprocess.run(command + list(options), capture_output=True, text=True)
    assert done.returncode == code, (command, options, done.returncode, done.stderr)
    if code:
        assert done.stderr.count("\n") == 1, f"not one sentence: {done.stderr!r}"
        return done.stderr
    return np.load(f"{folder}/out.npy")


def formula(q, k, v, *, causal="none", window=None, mask=None, bias=None, scale=None, softcap=None,
            sinks=None, alibi=None, lengths=None, lengths_q=None, offset=None):
    """softmax(cap(scale·QKᵀ) + bias)·V in float64, 4-D; returns out, lse, weights."""
    q, k, v = (a.astype(np.float64) for a in (q, k, v))
    batch, heads, len_q, dim = q.shape
    len_k = k.shape[2]
    group = heads // k.shape[1]
    k, v = (np.repeat(a, group, axis=1) for a in (k, v))
    s = np.einsum("bhid,bhjd->bhij", q, k) * (dim ** -0.5 if scale is None else scale)
    if softcap:
        s = softcap * np.tanh(s / softcap)
    if bias is not None:
        s = s + bias
    n = np.full(batch, len_k) if lengths is None else np.asarray(lengths)
    n_q = np.full(batch, len_q) if lengths_q is None else np.asarray(lengths_q)
    i, j = np.arange(len_q)[:, None], np.arange(len_k)[None, :]
    seen = np.ones((batch, 1, len_q, len_k), bool)
    for b in range(batch):
        p = i + (n[b] - n_q[b] if causal == "bottom-right" else 0)
        if offset is not None:
            p = i + offset[b % len(offset)]
        if causal != "none":
            seen[b, 0] &= j <= p
        if window is not None:
            left, right = window
            seen[b, 0] &= (left < 0) | (j >= p - left)
            seen[b, 0] &= (right < 0) | (j <= p + right)
        seen[b, 0] &= (j < n[b]) & (i < n_q[b])
        if alibi is not None:
            distance = p - j if causal != "none" else np.abs(p - j)
            s[b] -= np.asarray(alibi, np.float64)[:, None, None] * distance
    if mask is not None:
        seen = seen & mask.astype(bool)
    s = np.where(seen, s, -np.inf)
    top = s.max(axis=-1, keepdims=True)
    top = np.where(np.isinf(top), 0, top)
    e = np.exp(s - top)
    total = e.sum(axis=-1, keepdims=True)
    if sinks is not None:
        extra = np.exp(np.asarray(sinks, np.float64)[None, :, None, None] - top)
        total = np.where(total > 0, total + extra, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.where(total > 0, e / total, 0)
        lse = (top + np.log(total))[..., 0]
    return np.einsum("bhij,bhjd->bhid", weights, v), lse, weights


def close(got, want, bound, what):
    global CHECKS
    CHECKS += 1
    assert got.shape == want.shape, (what, got.shape, want.shape)
    same = np.isinf(want) & (got == want)
    error = np.max(np.abs(np.where(same, 0, got.astype(np.float64) - np.where(same, 0, want))),
                   initial=0)
    assert error <= bound, (what, error)


def arrays(rng, shape, dtype=np.float32, heads_kv=None, len_k=None, dim_v=None):
    batch, heads, length, dim = shape
    k_shape = (batch, heads_kv or heads, len_k or length, dim)
    v_shape = k_shape[:3] + (dim_v or dim,)
    return {n: rng.standard_normal(s).astype(dtype)
            for n, s in (("q", shape), ("k", k_shape), ("v", v_shape))}


def check_options(folder, rng):
    a = arrays(rng, (2, 4, 70, 32), heads_kv=2, len_k=90, dim_v=24)
    mask = rng.random((2, 1, 70, 90)) < 0.7
    bias = rng.standard_normal((4, 70, 90)).astype(np.float32)
    np.save(f"{folder}/lengths.npy", np.array([90, 33]))
    np.save(f"{folder}/slopes.npy", np.array([.5, .25, .125, .0625], np.float32))
    cases = [
        ([], {}),
        (["--causal", "top-left"], {"causal": "top-left"}),
        (["--causal", "bottom-right"], {"causal": "bottom-right"}),
        (["--causal", "bottom-right", "--window", "5,0"],
         {"causal": "bottom-right", "window": (5, 0)}),
        (["--window", "-1,3"], {"window": (-1, 3)}),
        (["--scale", "-0.3"], {"scale": -0.3}),
        (["--softcap", "1.5"], {"softcap": 1.5}),
        (["--sinks", "1,0,-1,2"], {"sinks": [1, 0, -1, 2]}),
        (["--alibi", f"{folder}/slopes.npy"], {"alibi": [.5, .25, .125, .0625]}),
        (["--lengths", f"{folder}/lengths.npy"], {"lengths": [90, 33]}),
        (["--lengths", "90,0", "--lengths-q", "7,70"], {"lengths": [90, 0], "lengths_q": [7, 70]}),
        (["--causal", "top-left", "--q-offset", "11"], {"causal": "top-left", "offset": [11]}),
        (["--causal", "top-left", "--q-offset", "3,40"], {"causal": "top-left", "offset": [3, 40]}),
        (["--threads", "1", "--lengths", "80,60", "--causal", "bottom-right", "--softcap", "3",
          "--window", "30,2", "--sinks", "0.5,0.5,0.5,0.5"],
         {"lengths": [80, 60], "causal": "bottom-right", "softcap": 3, "window": (30, 2),
          "sinks": [.5] * 4}),
    ]
    for options, meaning in cases:
        for extra in ({}, {"mask": mask}, {"bias": bias}, {"mask": mask, "bias": bias}):
            out = run(folder, {**a, **extra}, *options, "--lse", f"{folder}/lse.npy", "--weights",
                      f"{folder}/w.npy")
            want, lse, weights = formula(a["q"], a["k"], a["v"], **meaning, **extra)
            close(out, want, 1e-5, options)
            close(np.load(f"{folder}/lse.npy"), lse, 1e-5, options + ["lse"])
            close(np.load(f"{folder}/w.npy"), weights, 1e-5, options + ["weights"])


def check_shapes(folder, rng):
    for dtype, bound in ((np.float32, 1e-5), (np.float64, 1e-12), (np.float16, 4e-3)):
        a = arrays(rng, (1, 3, 20, 16), dtype)
        want = formula(a["q"], a["k"], a["v"])[0]
        for drop in range(3):
            if drop == 2:
                a = {n: x[:, :1] for n, x in a.items()}
                want = formula(a["q"], a["k"], a["v"])[0]
            small = {n: x.reshape(x.shape[drop:]) if drop < 2 else x[0, 0] for n, x in a.items()}
            out = run(folder, small)
            assert out.dtype == dtype
            close(out, want.reshape(want.shape[drop:]) if drop < 2 else want[0, 0], bound, drop)
    empty = run(folder, arrays(rng, (2, 2, 0, 8), len_k=5))
    assert empty.shape == (2, 2, 0, 8)


def check_refusals(folder, rng):
    global CHECKS
    a = arrays(rng, (1, 2, 6, 8))
    wrong = [
        ({**a, "q": np.asfortranarray(a["q"])}, [], "ascontiguousarray"),
        ({**a, "q": a["q"].astype(">f4")}, [], "astype('<f4')"),
        ({**a, "q": a["q"].astype(np.int32)}, [], "float32"),
        ({**a, "q": a["q"].astype(np.complex64)}, [], "float32"),
        ({**a, "q": a["q"][0, 0, 0]}, [], "dimensions"),
        ({**a, "k": a["k"][..., :4]}, [], "8"),
        ({**a, "mask": np.ones((5, 6), bool)}, [], "mask"),
        ({**a, "mask": np.ones((6, 6), np.float32)}, [], "--bias"),
        (a, ["--lengths", "7"], "7"),
        (a, ["--lengths", "1,2,3"], "3"),
        (a, ["--sinks", "1,x"], "--sinks"),
        (a, ["--window", "-2,0"], None),
    ]
    for given, options, word in wrong:
        code = 2 if word is None else 1
        text = run(folder, given, *options, code=code)
        assert word is None or word in text, (options, text)
        assert not os.path.exists(f"{folder}/out.npy"), "wrote a result after a failure"
        CHECKS += 1
    for options in (["--q"], ["--causal", "sideways"], ["--frobnicate"], ["stray"]):
        run(folder, {}, *options, code=2)
        CHECKS += 1
    np.save(f"{folder}/k.npy", a["k"])
    missing = subprocess.run([ATTN, "sdpa", "--q", f"{folder}/nowhere.npy", "--k",
                              f"{folder}/k.npy", "--v", f"{folder}/k.npy", "--out",
                              f"{folder}/out.npy"], capture_output=True, text=True)
    assert missing.returncode == 1 and "nowhere.npy" in missing.stderr
    run(folder, a)
    before = open(f"{folder}/out.npy", "rb").read()
    full = subprocess.run([ATTN, "sdpa", *(w for n in "qkv" for w in (f"--{n}", f"{folder}/{n}.npy")),
                           "--out", "/dev/full"], capture_output=True, text=True)
    assert full.returncode == 1 and "/dev/full" in full.stderr, full
    assert open(f"{folder}/out.npy", "rb").read() == before
    CHECKS += 2


def main():
    rng = np.random.default_rng(20261122)
    for check in (check_options, check_shapes, check_refusals):
        with tempfile.TemporaryDirectory() as folder:
            check(folder, rng)
    print(f"attn sdpa: {CHECKS} checks passed")


if __name__ == "__main__":
    main()
