#!/usr/bin/env python3
"""safetensors files beside the `safetensors` package: what it writes attn reads and writes again byte for byte, and the other way round.

usage: test_safetensors.py [--seed 1] [--cases 100]

The package writes metadata in random order, so files with several strings are compared by their meaning and their tensors' bytes.
"""
import argparse
import json
import pathlib
import random
import tempfile

from support import Checks, fraction, program, run, skip

try:
    import numpy as np
    import safetensors
    import safetensors.numpy
except ImportError as error:
    skip(f"{error}; pip install -r requirements.txt")

DTYPES = ["bool", "u1", "i1", "i2", "u2", "f2", "i4", "u4", "f4", "f8", "i8", "u8", "c8"]
LETTERS = "abcXYZ09._-\"\\/\n\t\x01\x1f\x7fé漢🙂 "


def text(make, least):
    return "".join(make.choice(LETTERS) for _ in range(make.randrange(least, 12)))


def tensors(make, seed):
    numbers = np.random.default_rng(seed)
    made = {}
    for _ in range(make.randrange(9)):
        shape = tuple(make.randrange(4) for _ in range(make.randrange(5)))
        raw = numbers.integers(0, 256, size=shape + (8,), dtype="u1")
        dtype = np.dtype(make.choice(DTYPES))
        made[text(make, 1)] = (raw[..., : dtype.itemsize].copy().view(dtype).reshape(shape) if dtype != bool
                               else np.array(raw[..., 0] > 127))
    return made


def header(raw):
    size = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + size]), size


def same(a, b):
    """The same up to the order of metadata."""
    (x, m), (y, n) = header(a), header(b)
    return m == n and x == y and list(x)[1:] == list(y)[1:] and a[8 + m :] == b[8 + n :]


def check_case(checks, folder, seed):
    make = random.Random(seed)
    strings = {text(make, 0): text(make, 0) for _ in range(make.choice([0, 0, 1, 1, 4]))}
    made = tensors(make, seed)
    # Read back by the package itself: text that is no UTF-8 cannot come up.
    raw = safetensors.numpy.save(made, strings or None)
    path, out = folder / "in.safetensors", folder / "out.safetensors"
    path.write_bytes(raw)
    done = run([program("attn_safetensors_copy"), path, out])
    if done.returncode != 0:
        checks.check(False, f"case {seed}: {done.stderr.decode()}")
        return
    again = out.read_bytes()
    good = again == raw if len(strings) < 2 else same(again, raw)
    checks.check(good, lambda: f"case {seed}: the package wrote {raw[:300]!r}, attn {again[:300]!r}")
    back = safetensors.numpy.load(again)
    equal = set(back) == set(made) and all(
        back[k].dtype == v.dtype and back[k].shape == v.shape and back[k].tobytes() == v.tobytes() for k, v in made.items())
    checks.check(equal, f"case {seed}: the package reads other tensors than were written")
    with safetensors.safe_open(out, "numpy") as file:
        checks.check((file.metadata() or {}) == strings, f"case {seed}: the package reads other metadata")


def check_halves(checks, folder, seed):
    """f32 stored as F16 must be what NumPy rounds to; as BF16, the upper half rounded to even."""
    bits = np.random.default_rng(seed).integers(0, 1 << 32, 100_000, dtype="u4")
    values = bits.view("f4")
    values = values[np.isfinite(values)]
    path, out = folder / "in.safetensors", folder / "out.safetensors"
    path.write_bytes(safetensors.numpy.save({"x": values}))
    for dtype in ("F16", "BF16"):
        done = run([program("attn_safetensors_copy"), path, out, dtype])
        raw = out.read_bytes()
        got = np.frombuffer(raw[8 + header(raw)[1] :], "<u2")
        bits = values.view("u4").astype("u8")
        with np.errstate(over="ignore"):
            expected = values.astype("f2").view("u2") if dtype == "F16" else (
                (bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("u2")
        checks.check(done.returncode == 0 and np.array_equal(got, expected), f"f32 stored as {dtype} differs")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=int, default=100 // fraction())
    args = parser.parse_args()
    checks = Checks(args.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for case in range(args.cases):
            check_case(checks, folder, args.seed + case)
        check_halves(checks, folder, args.seed)
    checks.finish(f"safetensors beside the package {safetensors.__version__}, seed {args.seed}")


if __name__ == "__main__":
    main()
