#!/usr/bin/env python3
"""GGUF files that attn writes beside the `gguf` package and llama.cpp: metadata, tensors and logits as others read them.

usage: test_gguf_write.py

tiny.gguf is written again with all of its tensors replaced by their own floats; SmolLM2, where it is, as BF16, which llama.cpp then
runs beside its base. llama-cpp-python is optional.
"""
import argparse
import os
import pathlib
import tempfile

from support import HERE, MODEL, Checks, program, run, skip

try:
    import gguf
    import numpy as np
except ImportError as error:
    skip(f"{error}; pip install -r requirements.txt")
try:
    import llama_cpp
except ImportError:
    llama_cpp = None

TEXT = "The capital of France is Paris, and the capital of Italy is Rome. The capital of"


def write(checks, base, out, kind):
    done = run([program("attn_model_copy"), base, out, kind])
    checks.check(done.returncode == 0, lambda: f"{base} as {kind}: {done.stderr.decode()}")
    return done.returncode == 0


def floats(tensor):
    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    return np.asarray(values, "<f4").reshape(-1)


def check_package(checks, base, out, kind):
    old, new = gguf.GGUFReader(base), gguf.GGUFReader(out)
    checks.check(set(new.fields) - set(old.fields) <= {"general.file_type", "general.name"}, "keys that the base does not have")
    for key, field in old.fields.items():
        changed = key in ("general.name", "general.file_type") or key.startswith("GGUF.")
        checks.check(key in new.fields and (changed or new.fields[key].contents() == field.contents()), f"metadata {key} differs")
    checks.check(new.fields["general.name"].contents() == "a copy", "general.name")
    checks.check([t.name for t in old.tensors] == [t.name for t in new.tensors], "other tensors")
    step = 1 if len(old.tensors) < 100 else 9  # all kinds of tensors still come up
    for before, after in list(zip(old.tensors, new.tensors))[::step]:
        wanted = "F32" if len(before.shape) == 1 else kind
        checks.check(after.tensor_type.name == wanted and list(after.shape) == list(before.shape), f"{after.name}: {after.tensor_type}")
        x, y = floats(before), floats(after)
        if wanted == "BF16":
            bits = x.view("<u4").astype("u8")
            x = (((bits + 0x7FFF + (bits >> 16 & 1)) >> 16) << 16).astype("<u4").view("<f4")
        elif wanted == "F16":
            x = x.astype("f2").astype("<f4")
        checks.check(np.array_equal(x, y), f"{after.name} as {wanted} has other values")


def logprobs(path):
    """Log-probabilities at every position of TEXT, by llama.cpp."""
    model = llama_cpp.Llama(model_path=str(path), logits_all=True, n_ctx=64, verbose=False, n_threads=2)
    ids = model.tokenize(TEXT.encode(), add_bos=False)
    model.eval(ids)
    scores = np.array(model.scores[: len(ids)], "f8")
    model.close()
    scores -= scores.max(axis=1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))


def check_llama_cpp(checks, base, out, bound):
    p, q = logprobs(base), logprobs(out)
    kl = float((np.exp(p) * (p - q)).sum(axis=1).mean())
    print(f"llama.cpp: {out.name} beside {base.name}: mean KL {kl:.2e} nats")
    checks.check(p.shape == q.shape and 0 <= kl <= bound, f"{out.name} beside {base.name}: mean KL {kl:.3e}, bound {bound}")


def main():
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    checks = Checks()
    tiny = HERE / "tiny.gguf"
    cache = pathlib.Path(os.environ.get("ATTN_CACHE") or os.path.expanduser("~/.cache/attn"))
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for kind in ("F32", "F16", "BF16"):
            out = folder / f"tiny.{kind}.gguf"
            if write(checks, tiny, out, kind):
                check_package(checks, tiny, out, kind)
                if llama_cpp:
                    check_llama_cpp(checks, tiny, out, 0.03)
        out, base = folder / "smollm2.BF16.gguf", cache / MODEL
        if not base.is_file():
            print(f"without {MODEL}: attn fetch smollm2-135m-instruct")
        elif write(checks, base, out, "BF16"):
            check_package(checks, base, out, "BF16")
            if llama_cpp:
                check_llama_cpp(checks, base, out, 0.01)
    if llama_cpp is None:
        print("without llama-cpp-python: not run by llama.cpp")
    checks.finish("GGUF files written by attn")


if __name__ == "__main__":
    main()
