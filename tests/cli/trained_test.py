"""Models trained here, as files: generate and info on a safetensors file written by hand, beside a forward pass in plain Python.

Repro of one: trained_test.py NAME
"""
import hashlib
import json
import math
import os
import pathlib
import random
import struct
import tempfile
import unittest

import program
from program import attn

TINY = pathlib.Path(program.TINY)
CHARACTERS = "\n abcdeé"
END = "<|endoftext|>"
LAYERS, DIM, HEADS, KV, HEAD, FFN, CONTEXT, THETA, EPS = 2, 12, 3, 1, 4, 10, 64, 1000.0, 1e-5
VOCAB = len(CHARACTERS) + 1


def alphabet(text):
    """GPT-2's byte alphabet."""
    plain = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
    others = [b for b in range(256) if b not in plain]
    return "".join(chr(b if b in plain else 256 + others.index(b)) for b in text.encode())


def tokenizer():
    split = {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "[\\s\\S]"}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]}
    vocab = {END: 0, **{alphabet(c): i + 1 for i, c in enumerate(CHARACTERS)}}
    return {"version": "1.0", "added_tokens": [{"id": 0, "content": END, "special": True}], "normalizer": None,
            "pre_tokenizer": split, "post_processor": None, "decoder": {"type": "ByteLevel"},
            "model": {"type": "BPE", "ignore_merges": True, "vocab": vocab, "merges": []}}


def config(**more):
    return {"model_type": "llama", "hidden_size": DIM, "intermediate_size": FFN, "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS, "num_key_value_heads": KV, "head_dim": HEAD, "vocab_size": VOCAB,
            "max_position_embeddings": CONTEXT, "rms_norm_eps": EPS, "rope_theta": THETA,
            "tie_word_embeddings": True, "eos_token_id": 0, "_name_or_path": "by hand", **more}


def weights(seed):
    """{name: rows of floats}, each already what f32 holds."""
    make = random.Random(seed)
    shapes = {"model.embed_tokens": (VOCAB, DIM), "model.norm": (DIM,)}
    for i in range(LAYERS):
        for name, shape in {"self_attn.q_proj": (HEADS * HEAD, DIM), "self_attn.k_proj": (KV * HEAD, DIM),
                            "self_attn.v_proj": (KV * HEAD, DIM), "self_attn.o_proj": (DIM, HEADS * HEAD),
                            "mlp.gate_proj": (FFN, DIM), "mlp.up_proj": (FFN, DIM), "mlp.down_proj": (DIM, FFN),
                            "input_layernorm": (DIM,), "post_attention_layernorm": (DIM,)}.items():
            shapes[f"model.layers.{i}.{name}"] = shape
    number = lambda: struct.unpack("<f", struct.pack("<f", make.gauss(0, 0.6)))[0]
    return {f"{name}.weight": [[number() for _ in range(shape[-1])] for _ in range(shape[0] if len(shape) > 1 else 1)]
            for name, shape in shapes.items()}


def write(path, tensors, metadata):
    header, data = {"__metadata__": metadata}, b""
    for name, rows in tensors.items():
        raw = b"".join(struct.pack(f"<{len(row)}f", *row) for row in rows)
        shape = [len(rows[0])] if "norm" in name else [len(rows), len(rows[0])]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def times(matrix, x):
    return [sum(w * v for w, v in zip(row, x)) for row in matrix]


def norm(x, weight):
    scale = 1 / math.sqrt(sum(v * v for v in x) / len(x) + EPS)
    return [v * scale * w for v, w in zip(x, weight[0])]


def rotate(x, position):
    """Hugging Face's llama: element i with element i + HEAD/2."""
    out = list(x)
    for i in range(HEAD // 2):
        angle = position * THETA ** (-2 * i / HEAD)
        a, b = x[i], x[i + HEAD // 2]
        out[i], out[i + HEAD // 2] = a * math.cos(angle) - b * math.sin(angle), a * math.sin(angle) + b * math.cos(angle)
    return out


def heads(x):
    return [x[i:i + HEAD] for i in range(0, len(x), HEAD)]


def attend(q, keys, values):
    scores = [sum(a * b for a, b in zip(q, k)) / math.sqrt(HEAD) for k in keys]
    most = max(scores)
    p = [math.exp(s - most) for s in scores]
    return [sum(w * v[d] for w, v in zip(p, values)) / sum(p) for d in range(HEAD)]


def logprobs(w, ids):
    """Log-probabilities after the last of ids."""
    caches = [([], []) for _ in range(LAYERS)]
    for position, token in enumerate(ids):
        x = w["model.embed_tokens.weight"][token]
        for i, (keys, values) in enumerate(caches):
            part = lambda name: w[f"model.layers.{i}.{name}.weight"]
            h = norm(x, part("input_layernorm"))
            q = [rotate(head, position) for head in heads(times(part("self_attn.q_proj"), h))]
            keys.append([rotate(head, position) for head in heads(times(part("self_attn.k_proj"), h))])
            values.append(heads(times(part("self_attn.v_proj"), h)))
            mixed = []
            for n in range(HEADS):
                g = n // (HEADS // KV)
                mixed += attend(q[n], [k[g] for k in keys], [v[g] for v in values])
            x = [a + b for a, b in zip(x, times(part("self_attn.o_proj"), mixed))]
            h = norm(x, part("post_attention_layernorm"))
            gate, up = times(part("mlp.gate_proj"), h), times(part("mlp.up_proj"), h)
            h = [g / (1 + math.exp(-g)) * u for g, u in zip(gate, up)]
            x = [a + b for a, b in zip(x, times(part("mlp.down_proj"), h))]
    logits = times(w["model.embed_tokens.weight"], norm(x, w["model.norm.weight"]))
    most = max(logits)
    total = most + math.log(sum(math.exp(v - most) for v in logits))
    return [v - total for v in logits]


class Trained(program.Case):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)
        self.folder = pathlib.Path(self.temporary.name)
        self.path = self.folder / "model.safetensors"
        self.weights = weights(3)
        self.save()

    def save(self, **more):
        write(self.path, self.weights,
              {"format": "pt", "attn.config": json.dumps(config(**more)), "attn.tokenizer": json.dumps(tokenizer())})

    def json(self, *words):
        return json.loads(self.succeeds(attn(*words, "--json")))

    def fails(self, done, *parts):
        super().fails(done, 1, *parts)
        self.assertEqual(done.stdout, b"")

    def test_generate_is_the_formula(self):
        prompt = "bad\ncé de"
        o = self.json("generate", "--model", self.path, prompt, "--max-tokens", 6, "--logprobs", VOCAB, "--activations", "f32")
        ids = [CHARACTERS.index(c) + 1 for c in prompt]
        self.assertEqual(o["prompt_ids"], ids)  # as it is: there is no chat template
        for step, best in enumerate(o["logprobs"]):
            expected = logprobs(self.weights, ids + o["ids"][:step])
            self.assertEqual(len(best), VOCAB)
            for entry in best:
                self.assertAlmostEqual(entry["logprob"], expected[entry["id"]], delta=2e-5)
        text = "".join(CHARACTERS[i - 1] for i in o["ids"] if i)
        self.assertEqual(o["text"], text)

    def test_info(self):
        model = self.json("info", self.path)["model"]
        self.assertEqual((model["architecture"], model["name"], model["dim"], model["vocab"]), ("llama", "by hand", DIM, VOCAB))
        self.assertEqual(model["file_bytes"], self.path.stat().st_size)
        self.assertEqual(model["parameters"], sum(len(r) * len(r[0]) for r in self.weights.values()))
        self.assertIn("F32", model["types"])
        self.assertIn(b"by hand", attn("info", self.path).stdout)

    def test_a_template_has_no_place(self):
        done = attn("generate", "--model", self.path, "abc", "--system", "be brief")
        self.fails(done, "chat template")

    def test_a_prompt_without_a_known_character(self):
        self.fails(attn("generate", "--model", self.path, "XYZ"), "no character that the model knows")

    def test_broken_files(self):
        self.save(hidden_size=16)
        self.fails(attn("generate", "--model", self.path, "abc"), "token_embd")
        self.save(hidden_act="gelu")
        self.fails(attn("generate", "--model", self.path, "abc"), "hidden_act")
        raw = self.path.read_bytes()
        for size in (0, 5, 100, len(raw) - 1):
            self.path.write_bytes(raw[:size])
            self.fails(attn("generate", "--model", self.path, "abc"), "model.safetensors")

    def adapter(self, base, digest, rank=1):
        name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
        path = self.folder / "adapter.safetensors"
        write(path, {name.format("A"): [[1.0] * 64] * rank, name.format("B"): [[0.01] * rank for _ in range(64)]},
              {"attn.adapter": json.dumps({"base": base, "base_sha256": digest, "rank": rank, "scale": 2})})
        return path

    def test_adapters(self):
        digest = hashlib.sha256(TINY.read_bytes()).hexdigest()
        path = self.adapter("tiny.gguf", digest)
        words = ["Hello", "--raw", "--max-tokens", 8, "--logprobs", 3]
        plain = self.json("generate", "--model", TINY, *words)
        changed = self.json("generate", "--model", TINY, "--adapter", path, *words)
        self.assertNotEqual(plain["logprobs"], changed["logprobs"])
        (self.folder / "tiny.gguf").write_bytes(TINY.read_bytes())
        alone = self.json("generate", "--model", path, *words)
        self.assertEqual(alone["logprobs"], changed["logprobs"])
        (self.folder / "tiny.gguf").unlink()
        where = dict(os.environ, ATTN_CACHE=str(TINY.parent))
        self.assertEqual(attn("generate", "--model", path, "a", "--max-tokens", 1, env=where).returncode, 0)
        where["ATTN_CACHE"] = "/nowhere"
        self.fails(attn("generate", "--model", path, "a", env=where), "tiny.gguf", digest[:16])
        path = self.adapter("tiny.gguf", "0" * 64)
        self.fails(attn("generate", "--model", TINY, "--adapter", path, "a"), "fits no other base")
        self.fails(attn("generate", "--model", TINY, "--adapter", self.path, "a"), "no adapter")


if __name__ == "__main__":
    unittest.main()
