#!/usr/bin/env python3
"""Broken model files and arrays: the program says in one sentence what is wrong, soon, and in little memory.

usage: test_broken.py gguf|npy [--seed 1] [--cuts 60] [--keep FOLDER]

Each file must give exit code 1, one line on standard error and nothing on standard output, within a second of processor time and
256 MiB; its valid sibling must work. Besides the files of broken_gguf.py or broken_npy.py the valid one is cut at random places.
"""
import argparse
import contextlib
import os
import pathlib
import random
import subprocess
import tempfile

import broken_gguf
import broken_npy
from support import Checks, fraction, program

SECONDS, BYTES, PATIENCE = 1.0, 256 << 20, 60


def attempt(command):
    """(exit code, stdout, stderr, processor seconds, peak bytes); a program that hangs is killed and gives None."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        words = ["timeout", "-s", "KILL", PATIENCE] + command
        process = subprocess.Popen([str(w) for w in words], stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        code = process.returncode
        return code, out.read(), err.read(), used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


def check_refused(checks, command, what, sanitized):
    code, out, err, seconds, peak = attempt(command)
    text = err.decode(errors="replace")
    line = lambda: f"{what}: {' '.join(map(str, command))}\n  exit code {code}, {seconds:.2f} s, {peak >> 20} MiB: {text[:300]!r}"
    checks.check(code == 1 and out == b"", line)
    checks.check(text.endswith("\n") and text.count("\n") == 1 and len(text) > 20, line)
    if not sanitized:  # sanitizers take time and memory of their own
        checks.check(seconds <= SECONDS and peak <= BYTES, line)


def check_valid(checks, command):
    code, _, err, _, _ = attempt(command)
    checks.check(code == 0, lambda: f"valid file: {' '.join(map(str, command))}: exit code {code}: {err!r}")


def cuts(folder, valid, seed, count):
    """The valid file cut at random places: half of them where its headers are."""
    make = random.Random(seed)
    raw = (folder / valid).read_bytes()
    for number in range(count):
        size = make.randrange(min(len(raw), 6000) if number % 2 else len(raw))
        path = folder / f"cut_{size}{pathlib.Path(valid).suffix}"
        path.write_bytes(raw[:size])
        yield path, f"cut after {size} bytes"


def gguf_command(path):
    return [program(), "generate", "x", "--model", path, "--raw", "--max-tokens", 1, "--threads", 1]


def npy_command(folder, path, argument):
    command = [program(), "sdpa", "--threads", 1, "--out", folder / "out.npy"]
    for name in "qkv":
        command += [f"--{name}", path if name == argument else folder / "valid.npy"]
    return command


def test_gguf(checks, folder, args, sanitized):
    manifest = broken_gguf.write(folder)
    check_valid(checks, gguf_command(folder / manifest["valid"]))
    files = [(folder / entry["file"], entry["what"], entry["stage"]) for entry in manifest["broken"]]
    files += [(path, what, "open") for path, what in cuts(folder, manifest["valid"], args.seed, args.cuts)]
    for path, what, stage in files:
        check_refused(checks, gguf_command(path), what, sanitized)
        if stage == "open":
            check_refused(checks, [program(), "info", path], what, sanitized)


def test_npy(checks, folder, args, sanitized):
    manifest = broken_npy.write(folder)
    check_valid(checks, npy_command(folder, folder / manifest["valid"], "q"))
    files = [(folder / entry["file"], entry["what"]) for entry in manifest["broken"]]
    for number, (path, what) in enumerate(files + list(cuts(folder, manifest["valid"], args.seed, args.cuts))):
        (folder / "out.npy").unlink(missing_ok=True)
        check_refused(checks, npy_command(folder, path, "qkv"[number % 3]), what, sanitized)
        checks.check(not (folder / "out.npy").exists(), f"{what}: an output was left behind")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kind", choices=["gguf", "npy"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cuts", type=int, default=60 // fraction())
    parser.add_argument("--keep", type=pathlib.Path, help="write the files here and leave them")
    args = parser.parse_args()
    checks = Checks(args.seed)
    with open(program(), "rb") as binary:
        code = binary.read()
    sanitized = b"__asan_init" in code or b"__tsan_init" in code
    test = {"gguf": test_gguf, "npy": test_npy}[args.kind]
    with contextlib.ExitStack() as stack:
        folder = args.keep or pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        test(checks, folder, args, sanitized)
    checks.finish(f"broken {args.kind} files, seed {args.seed}")


if __name__ == "__main__":
    main()
