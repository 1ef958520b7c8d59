#!/usr/bin/env python3
"""attn's dequantisation beside the gguf package's, bit for bit; a type it does not read is refused by name.

usage: test_dequant.py [--seed 1]
"""
import argparse
import pathlib
import tempfile

from support import Checks, program, run, skip

try:
    import numpy as np

    import dequant
except ImportError as error:
    skip(f"{error}; pip install -r requirements.txt")


def check_tensor(checks, folder, manifest, entry):
    done = run([program("attn_dequant_dump"), folder / manifest["file"], entry["name"]])
    checks.check(done.returncode == 0, lambda: f"{entry['name']}: {done.stderr.decode()}")
    expected = np.fromfile(folder / entry["floats"], dtype="<f4")
    if done.returncode != 0 or len(done.stdout) != 4 * entry["elements"]:
        checks.check(False, f"{entry['name']}: {len(done.stdout)} bytes, expected {4 * entry['elements']}")
        return
    got = np.frombuffer(done.stdout, dtype="<f4")
    differ = np.flatnonzero(got.view("<u4") != expected.view("<u4"))
    checks.check(
        differ.size == 0,
        lambda: f"{entry['name']}: {differ.size} of {got.size} differ, first [{differ[0]}]: attn"
        f" {got[differ[0]]!r}, gguf {expected[differ[0]]!r}",
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    checks = Checks(args.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        manifest = dequant.write(folder, args.seed)
        for entry in manifest["tensors"]:
            check_tensor(checks, folder, manifest, entry)
        refused = manifest["refused"]
        done = run([program("attn_dequant_dump"), folder / refused["file"], refused["name"]])
        message = done.stderr.decode()
        named = refused["name"] in message and refused["type"] in message
        checks.check(done.returncode == 1 and named, f"Q6_K: exit code {done.returncode}, {message!r}")
    checks.finish(f"dequantisation, seed {args.seed}")


if __name__ == "__main__":
    main()
