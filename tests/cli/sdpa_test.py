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
    return np.load(f"{folder}/out.npy") if os.path.exists(f"{folder}/out.npy") else None


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


def philox(seed, column, row, head, batch):
    """The word that decides about a slot: Philox4x32-10, counter (column/4, row, head, batch)."""
    low = np.uint64(0xFFFFFFFF)
    c = [np.asarray(x).astype(np.uint64) for x in np.broadcast_arrays(column // 4, row, head, batch)]
    k = [np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32)]
    for _ in range(10):
        a, b = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        shift = np.uint64(32)
        c = [(b >> shift) ^ c[1] ^ k[0], b & low, (a >> shift) ^ c[3] ^ k[1], a & low]
        k = [(k[0] + np.uint64(0x9E3779B9)) & low, (k[1] + np.uint64(0xBB67AE85)) & low]
    return np.choose(np.broadcast_to(column % 4, c[0].shape), c)


def keep(p, seed, shape):
    b, h, i, j = (np.arange(n).reshape([-1 if d == e else 1 for e in range(4)])
                  for d, n in enumerate(shape))
    return (philox(seed, j, i, h, b) >= int(p * 2**32)) / (1 - p)


def gradients(q, k, v, dout, p=0.0, seed=0, **meaning):
    """dq, dk, dv, dS in float64, for options without softcap."""
    out, _, weights = formula(q, k, v, **meaning)
    group = q.shape[1] // k.shape[1]
    scale = meaning.get("scale") or q.shape[3] ** -0.5
    wide = [np.repeat(a.astype(np.float64), group, axis=1) for a in (k, v)]
    z = keep(p, seed, weights.shape) if p else 1.0
    out = np.einsum("bhij,bhjd->bhid", weights * z, wide[1])
    ds = weights * (z * np.einsum("bhid,bhjd->bhij", dout, wide[1])
                    - (dout * out).sum(-1, keepdims=True))
    dq = scale * np.einsum("bhij,bhjd->bhid", ds, wide[0])
    dk = scale * np.einsum("bhij,bhid->bhjd", ds, q)
    dv = np.einsum("bhij,bhid->bhjd", weights * z, dout)
    fold = lambda a: a.reshape(a.shape[0], k.shape[1], group, *a.shape[2:]).sum(2)
    return out, dq, fold(dk), fold(dv), ds


def check_gradients(folder, rng):
    for dtype, bound in ((np.float32, 2e-5), (np.float64, 1e-12), (np.float16, 2e-3)):
        a = arrays(rng, (2, 4, 33, 16), dtype, heads_kv=2, len_k=41, dim_v=8)
        bias = rng.standard_normal((4, 1, 41)).astype(dtype)
        dout = rng.standard_normal((2, 4, 33, 8)).astype(dtype)
        wide = np.float64 if dtype == np.float64 else np.float32
        files = [w for n in ("dq", "dk", "dv", "dbias") for w in (f"--{n}", f"{folder}/{n}.npy")]
        for p in (0.0, 0.3):
            out = run(folder, {**a, "bias": bias, "dout": dout}, "--causal", "bottom-right",
                      "--dropout", str(p), "--seed", "12345678901", *files)
            want = gradients(a["q"], a["k"], a["v"], dout.astype(np.float64), p, 12345678901,
                             causal="bottom-right", bias=bias)
            assert out.dtype == dtype
            close(out, want[0], 4e-3 if dtype == np.float16 else bound, "out")
            got = [np.load(f"{folder}/{n}.npy") for n in ("dq", "dk", "dv", "dbias")]
            wanted = [*want[1:4], want[4].sum((0, 2), keepdims=True)[0]]
            for name, g, w in zip(("dq", "dk", "dv", "dbias"), got, wanted):
                assert g.dtype == wide, (name, g.dtype)
                close(g, w, bound * max(1, np.abs(w).max()), (name, dtype, p))
    # each in its input's shape, and without --out
    os.remove(f"{folder}/out.npy")
    b = {n: rng.standard_normal((7, 5)).astype(np.float32) for n in ("q", "k", "v", "dout")}
    command = [ATTN, "sdpa"]
    for name, value in b.items():
        np.save(f"{folder}/{name}.npy", value)
        command += [f"--{name}", f"{folder}/{name}.npy"]
    done = subprocess.run(command + ["--sinks", "0.5", "--dsinks", f"{folder}/ds.npy", "--alibi",
                                     "0.1", "--dalibi", f"{folder}/da.npy", "--dk",
                                     f"{folder}/dk.npy"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert np.load(f"{folder}/dk.npy").shape == (7, 5)
    assert np.load(f"{folder}/ds.npy").shape == np.load(f"{folder}/da.npy").shape == (1,)
    assert not os.path.exists(f"{folder}/out.npy")
    # one sink for all heads: the sum of theirs
    a = arrays(rng, (1, 3, 9, 8))
    a["dout"] = rng.standard_normal((1, 3, 9, 8)).astype(np.float32)
    run(folder, a, "--sinks", "0.5,0.5,0.5", "--dsinks", f"{folder}/three.npy")
    run(folder, a, "--sinks", "0.5", "--dsinks", f"{folder}/one.npy")
    close(np.load(f"{folder}/one.npy"), np.load(f"{folder}/three.npy").astype(float).sum(
        keepdims=True), 1e-6, "one sink")


def check_gradient_refusals(folder, rng):
    global CHECKS
    a = arrays(rng, (1, 2, 6, 8))
    dout = rng.standard_normal((1, 2, 6, 8)).astype(np.float32)
    dq = ["--dq", f"{folder}/dq.npy"]
    wrong = [
        ({**a, "dout": dout}, [], 2, "--dout: no gradient is asked for"),
        (a, dq, 2, "--dout FILE is missing"),
        ({**a, "dout": dout}, ["--dbias", f"{folder}/db.npy"], 2, "--dbias: needs --bias"),
        ({**a, "dout": dout}, ["--dsinks", f"{folder}/db.npy"], 2, "--dsinks: needs --sinks"),
        ({**a, "dout": dout}, [*dq, "--dk", f"{folder}/dq.npy"], 2, "dq.npy: is given for two results"),
        (a, ["--dropout", "1"], 2, "--dropout"),
        (a, ["--dropout", "-0.5"], 2, "--dropout"),
        (a, ["--seed", "-1"], 2, "--seed"),
        ({**a, "dout": dout[0]}, dq, 1, "has 3 dimensions but must have q's 4"),
        ({**a, "dout": dout[..., :4]}, dq, 1, "dout: shape"),
        ({**a, "dout": dout.astype(np.float64)}, dq, 1, "dout: type is f64"),
    ]
    for given, options, code, word in wrong:
        text = run(folder, given, *options, code=code)
        assert word in text, (options, text)
        assert not os.path.exists(f"{folder}/out.npy"), "wrote a result after a failure"
        assert not os.path.exists(f"{folder}/dq.npy"), "wrote a gradient after a failure"
        CHECKS += 1


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
    for check in (check_options, check_shapes, check_gradients, check_gradient_refusals,
                  check_refusals):
        with tempfile.TemporaryDirectory() as folder:
            check(folder, rng)
    print(f"attn sdpa: {CHECKS} checks passed")


if __name__ == "__main__":
    main()
