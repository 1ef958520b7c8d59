"""A llama-family forward pass in float64 NumPy, written from the architecture's description alone.

The oracle that attn's model code is measured against: weights come from the `gguf` package's own dequantisation, every
operation is the textbook one in float64, K and V stay float64. Nothing is shared with the C code.
"""
import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize


def log_softmax(logits):
    """log softmax over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def rms_norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps) * weight


def rope_pairs(x, positions, theta, dims):
    """Rotates the pairs (2i, 2i+1) of the first `dims` of each head. x [len, heads, head_dim]."""
    frequency = theta ** (-np.arange(0, dims, 2, dtype=np.float64) / dims)  # [dims/2]
    angle = positions.astype(np.float64)[:, None, None] * frequency  # [len, 1, dims/2]
    cos, sin = np.cos(angle), np.sin(angle)
    out = x.copy()
    even, odd = x[..., 0:dims:2], x[..., 1:dims:2]
    out[..., 0:dims:2] = even * cos - odd * sin
    out[..., 1:dims:2] = even * sin + odd * cos
    return out


class LlamaF64:
    """One model and one growing text."""

    def __init__(self, path):
        self.file = GGUFReader(path)
        architecture = self.field("general.architecture")
        if architecture != "llama":
            raise ValueError(f"{path}: architecture {architecture!r}; this oracle knows 'llama'")
        key = lambda name: self.field(f"llama.{name}")
        self.layers = key("block_count")
        self.dim = key("embedding_length")
        self.heads_q = key("attention.head_count")
        self.heads_kv = key("attention.head_count_kv")
        self.head_dim = self.dim // self.heads_q
        self.eps = float(np.float32(key("attention.layer_norm_rms_epsilon")))
        self.theta = float(key("rope.freq_base"))
        self.rope_dims = key("rope.dimension_count")
        self.weights = {
            t.name: dequantize(t.data, t.tensor_type).astype(np.float64) for t in self.file.tensors
        }
        self.output = self.weights.get("output.weight", self.weights["token_embd.weight"])
        self.reset()

    def field(self, name):
        return self.file.fields[name].contents()

    def reset(self):
        empty = np.zeros((0, self.heads_kv, self.head_dim))
        self.k = [empty for _ in range(self.layers)]
        self.v = [empty for _ in range(self.layers)]

    def attention(self, layer, q, k, v):
        """q [len, heads_q, head_dim], k and v [len, heads_kv, head_dim] of the new tokens; causal over all."""
        self.k[layer] = k = np.concatenate([self.k[layer], k])
        self.v[layer] = v = np.concatenate([self.v[layer], v])
        len_q, len_k = len(q), len(k)
        visible = np.arange(len_k)[None, :] <= np.arange(len_q)[:, None] + (len_k - len_q)
        out = np.empty_like(q)
        for head in range(self.heads_q):
            group = head // (self.heads_q // self.heads_kv)
            scores = q[:, head] @ k[:, group].T / np.sqrt(self.head_dim)
            scores = np.where(visible, scores, -np.inf)
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            weights /= weights.sum(axis=-1, keepdims=True)
            out[:, head] = weights @ v[:, group]
        return out.reshape(len_q, self.heads_q * self.head_dim)

    def eval(self, tokens):
        """Appends tokens and returns their logits, float64 [len(tokens), vocab]."""
        w = self.weights
        start = len(self.k[0])
        positions = np.arange(start, start + len(tokens))
        x = w["token_embd.weight"][np.asarray(tokens)]
        for layer in range(self.layers):
            name = f"blk.{layer}."
            h = rms_norm(x, w[name + "attn_norm.weight"], self.eps)
            q = (h @ w[name + "attn_q.weight"].T).reshape(-1, self.heads_q, self.head_dim)
            k = (h @ w[name + "attn_k.weight"].T).reshape(-1, self.heads_kv, self.head_dim)
            v = (h @ w[name + "attn_v.weight"].T).reshape(-1, self.heads_kv, self.head_dim)
            q = rope_pairs(q, positions, self.theta, self.rope_dims)
            k = rope_pairs(k, positions, self.theta, self.rope_dims)
            x = x + self.attention(layer, q, k, v) @ w[name + "attn_output.weight"].T
            h = rms_norm(x, w[name + "ffn_norm.weight"], self.eps)
            gate = h @ w[name + "ffn_gate.weight"].T
            up = h @ w[name + "ffn_up.weight"].T
            x = x + (gate / (1.0 + np.exp(-gate)) * up) @ w[name + "ffn_down.weight"].T
        return rms_norm(x, w["output_norm.weight"], self.eps) @ self.output.T

    def greedy(self, prompt_ids, count):
        """`count` greedy tokens after the prompt (ends of text included: it goes on) and the log-probabilities
        each was chosen from: (ids, float64 [count, vocab])."""
        self.reset()
        rows, ids = [], []
        logits = self.eval(prompt_ids)[-1]
        for _ in range(count):
            rows.append(log_softmax(logits))
            ids.append(int(np.argmax(logits)))
            logits = self.eval(ids[-1:])[-1]
        return ids, np.array(rows)


def top(logprobs, count):
    """The `count` best of one row, best first, as [id, log-probability] with 10 decimals."""
    best = np.argsort(-logprobs, kind="stable")[:count]
    return [[int(i), round(float(logprobs[i]), 10)] for i in best]
