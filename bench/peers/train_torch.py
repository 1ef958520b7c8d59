#!/usr/bin/env python3
"""One training step of a small GPT in PyTorch eager mode on the CPU: the peer of `attn bench train`.

usage: build/peers-venv/bin/python bench/peers/train_torch.py [--layers 4] [--dim 128] [--heads 4] [--ffn 344]
           [--len 256] [--batch 16] [--vocab 96] [--threads 1] [--steps 7]

The model is the one `attn bench train` builds: RMSNorm, rotary positions, scaled_dot_product_attention(is_causal=True),
SwiGLU, tied embedding, no biases; a step is forward, cross-entropy, backward, clipping to norm 1 and AdamW (PyTorch's
fused one, its fastest). Prints one JSON line: milliseconds of each step, best and median.
"""
import argparse
import json
import statistics
import time

import torch
from torch import nn
from torch.nn import functional


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    left, right = x[..., :half], x[..., half:]
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)


class Block(nn.Module):
    def __init__(self, dim, heads, ffn):
        super().__init__()
        self.heads = heads
        self.attn_norm, self.ffn_norm = nn.RMSNorm(dim, eps=1e-5), nn.RMSNorm(dim, eps=1e-5)
        self.qkv, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.gate_up, self.down = nn.Linear(dim, 2 * ffn, bias=False), nn.Linear(ffn, dim, bias=False)

    def forward(self, x, cos, sin):
        batch, length, dim = x.shape
        q, k, v = self.qkv(self.attn_norm(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, dim))
        gate, up = self.gate_up(self.ffn_norm(x)).chunk(2, dim=-1)
        return x + self.down(functional.silu(gate) * up)


class GPT(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.embedding = nn.Embedding(args.vocab, args.dim)
        self.blocks = nn.ModuleList(Block(args.dim, args.heads, args.ffn) for _ in range(args.layers))
        self.norm = nn.RMSNorm(args.dim, eps=1e-5)
        half = args.dim // args.heads // 2
        angle = torch.arange(args.len)[:, None] * 10000.0 ** (-torch.arange(half) / half)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, tokens):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return self.norm(x) @ self.embedding.weight.T


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, value in (("layers", 4), ("dim", 128), ("heads", 4), ("ffn", 344), ("len", 256), ("batch", 16),
                        ("vocab", 96), ("threads", 1), ("steps", 7)):
        parser.add_argument("--" + name, type=int, default=value)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    model = GPT(args)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1, fused=True)
    tokens = torch.randint(args.vocab, (args.batch, args.len + 1))
    times, loss = [], None
    for _ in range(args.steps + 2):
        begin = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        logits = model(tokens[:, :-1])
        loss = functional.cross_entropy(logits.reshape(-1, args.vocab), tokens[:, 1:].reshape(-1))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        times.append((time.perf_counter() - begin) * 1e3)
    times = times[2:]
    print(json.dumps({"program": "torch", "version": torch.__version__, "threads": args.threads,
                      "parameters": sum(p.numel() for p in model.parameters()), "loss": loss.item(),
                      "ms": {"min": min(times), "median": statistics.median(times)}}))


if __name__ == "__main__":
    main()
