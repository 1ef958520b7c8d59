#!/usr/bin/env python3
"""Speed of llama.cpp on one GGUF file: prefill and decode, with and without its flash attention.

usage: llama_peer.py FILE.gguf [--prompt 512] [--generate 128] [--depth 0] [--threads 1] [--flash both|on|off] [--serve]

What is timed, for each attention mode, with `depth` tokens already in the cache:
  prompt       one batch of `prompt` tokens, logits of the last one
  generation   `generate` single tokens after those `depth` tokens (the prompt batch is removed first), logits of each
The tokens are fixed_token(i), the same for every run. The cache holds f16, as llama.cpp's default does.

Prints one JSON line. With --serve the model is loaded and the depth filled once, "ready" is printed, and every line
on standard input asks for one more measurement; so a comparison can alternate without filling the cache again.
Exits with 1 and one sentence on standard error when anything fails.
"""
import argparse
import ctypes
import json
import math
import sys
import time

import llama_cpp

SPECIAL_IDS = 256  # ids below this are special tokens and single bytes in byte-level vocabularies


def fixed_token(index, vocab):
    """A token id that walks through the vocabulary, so that embedding rows are not all in cache."""
    return SPECIAL_IDS + (index * 7919) % (vocab - SPECIAL_IDS)


def quiet():
    """Drops llama.cpp's log; the callback must outlive the process, so it is returned and kept."""
    callback = llama_cpp.llama_log_callback(lambda level, text, user: None)
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    return callback


class Mode:
    """One llama.cpp context with one attention mode, its cache filled to `depth`."""

    def __init__(self, model, flash, args):
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = args.depth + max(args.prompt, args.generate) + 8
        params.n_batch = params.n_ubatch = max(512, args.prompt)
        params.n_threads = params.n_threads_batch = args.threads
        params.flash_attn_type = (
            llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash
            else llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        self.context = llama_cpp.llama_init_from_model(model, params)
        if not self.context:
            raise RuntimeError(f"llama.cpp made no context of {params.n_ctx} tokens")
        self.capacity = max(512, args.prompt)
        self.batch = llama_cpp.llama_batch_init(self.capacity, 0, 1)
        self.args = args
        self.eval(0, 2)  # warm up: pages of the weights, threads
        self.forget(0)
        for start in range(0, args.depth, 512):
            self.eval(start, min(512, args.depth - start))

    def eval(self, start, count):
        """Appends fixed tokens start … start+count-1 and computes the logits of the last."""
        batch = self.batch
        batch.n_tokens = count
        for i in range(count):
            batch.token[i] = fixed_token(start + i, self.vocab)
            batch.pos[i] = start + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = i == count - 1
        code = llama_cpp.llama_decode(self.context, batch)
        if code != 0:
            raise RuntimeError(f"llama_decode of {count} tokens at {start} returned {code}")
        logits = llama_cpp.llama_get_logits_ith(self.context, -1)
        if not math.isfinite(logits[0]):
            raise RuntimeError(f"llama.cpp computed the logit {logits[0]} at token {start}")

    def forget(self, position):
        """Removes everything from `position` on from the cache."""
        memory = llama_cpp.llama_get_memory(self.context)
        if not llama_cpp.llama_memory_seq_rm(memory, 0, position, -1):
            raise RuntimeError(f"llama.cpp could not truncate its cache to {position} tokens")

    def measure(self):
        args = self.args
        begin = time.perf_counter()
        self.eval(args.depth, args.prompt)
        prompt_seconds = time.perf_counter() - begin
        self.forget(args.depth)
        begin = time.perf_counter()
        for i in range(args.generate):
            self.eval(args.depth + i, 1)
        generation_seconds = time.perf_counter() - begin
        self.forget(args.depth)
        return {
            "prompt_tokens_per_s": round(args.prompt / prompt_seconds, 2),
            "generation_tokens_per_s": round(args.generate / generation_seconds, 2),
        }


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--generate", type=int, default=128)
    parser.add_argument("--depth", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--flash", choices=["both", "on", "off"], default="both")
    parser.add_argument("--serve", action="store_true")
    args = parser.parse_args()
    for name in ("prompt", "generate", "threads"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if args.depth < 0:
        parser.error("--depth must be at least 0")
    return args


def main():
    args = parse()
    keep = quiet()
    llama_cpp.llama_backend_init()
    model_params = llama_cpp.llama_model_default_params()
    model_params.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(args.file.encode(), model_params)
    if not model:
        raise RuntimeError(f"llama.cpp cannot load {args.file}")
    wanted = {"on": ["flash"], "off": ["no_flash"], "both": ["flash", "no_flash"]}[args.flash]
    modes = {name: Mode(model, name == "flash", args) for name in wanted}
    if args.serve:
        print("ready", flush=True)
    for _ in sys.stdin if args.serve else [""]:
        line = {
            "peer": "llama.cpp",
            "version": llama_cpp.__version__,
            "prompt": args.prompt,
            "generate": args.generate,
            "depth": args.depth,
            "threads": args.threads,
        }
        for name, mode in modes.items():
            line[name] = mode.measure()
        print(json.dumps(line), flush=True)
    del keep


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        print(f"llama_peer: {error}", file=sys.stderr)
        sys.exit(1)
