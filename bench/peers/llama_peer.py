#!/usr/bin/env python3
"""Speed of llama.cpp on one GGUF file: prefill and decode, with and without its flash attention.

usage: llama_peer.py FILE.gguf [--prompt 512] [--generate 128] [--depth 0] [--threads 1] [--flash both|on|off] [--serve]

What is timed, for each attention mode, with `depth` tokens already in the cache:
  prompt       one batch of `prompt` tokens, logits of the last one
  generation   `generate` greedy steps after those `depth` tokens (the prompt batch is removed first)
The tokens are those of `attn bench lm`: fixed_token(0 … 511) again and again for the depth, fixed_token(0 …) for the prompt,
fixed_token(0) to start generating. The cache holds f16, as llama.cpp's default does.

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
import numpy as np

BLOCK = 512  # tokens per batch while the depth is filled


def fixed_token(index, vocab):
    """A token id that walks through the vocabulary."""
    return (index * 7919 + 17) % vocab


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
        params.n_batch = params.n_ubatch = max(BLOCK, args.prompt)
        params.n_threads = params.n_threads_batch = args.threads
        params.flash_attn_type = (
            llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash
            else llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        self.context = llama_cpp.llama_init_from_model(model, params)
        if not self.context:
            raise RuntimeError(f"llama.cpp made no context of {params.n_ctx} tokens")
        self.batch = llama_cpp.llama_batch_init(params.n_batch, 0, 1)
        self.args = args
        self.eval(0, self.fixed(2))  # warm up: pages of the weights, threads
        self.forget(0)
        for start in range(0, args.depth, BLOCK):
            self.eval(start, self.fixed(min(BLOCK, args.depth - start)))

    def fixed(self, count):
        return [fixed_token(i, self.vocab) for i in range(count)]

    def eval(self, start, tokens):
        """Appends tokens at position `start`; returns the token that the last one's logits prefer."""
        batch = self.batch
        batch.n_tokens = count = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i] = token
            batch.pos[i] = start + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = i == count - 1
        code = llama_cpp.llama_decode(self.context, batch)
        if code != 0:
            raise RuntimeError(f"llama_decode of {count} tokens at {start} returned {code}")
        logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self.context, -1), (self.vocab,))
        best = int(logits.argmax())
        if not math.isfinite(logits[best]):
            raise RuntimeError(f"llama.cpp computed the logit {logits[best]} at token {start}")
        return best

    def forget(self, position):
        """Removes everything from `position` on from the cache."""
        memory = llama_cpp.llama_get_memory(self.context)
        if not llama_cpp.llama_memory_seq_rm(memory, 0, position, -1):
            raise RuntimeError(f"llama.cpp could not truncate its cache to {position} tokens")

    def measure(self):
        args = self.args
        prompt = self.fixed(args.prompt)
        begin = time.perf_counter()
        self.eval(args.depth, prompt)
        prompt_seconds = time.perf_counter() - begin
        self.forget(args.depth)
        token = prompt[0]
        begin = time.perf_counter()
        for i in range(args.generate):
            token = self.eval(args.depth + i, [token])
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
