#!/usr/bin/env python3
"""Layers, models and optimizers beside PyTorch's: the formulas of Hugging Face's llama, gpt2 and bert written in torch, its own
AdamW, SGD and gradient clipping over 50 steps; all in float64, so that only the formulas can differ.

usage: test_modules.py [--seed 11] [--cases 30]
"""
import argparse
import ctypes

from support import Checks, fraction, skip

try:
    import numpy as np
    import torch
    from torch.nn import functional
except ImportError as error:
    skip(f"{error}; pip install -r bench/peers/requirements-torch.txt (a test extra)")

from bindings import F32, F64, Attn, sizes

INT, BOOL, LONG, DOUBLE, POINTER = ctypes.c_int, ctypes.c_bool, ctypes.c_int64, ctypes.c_double, ctypes.c_void_p
RMS, LAYER = 0, 1
SWIGLU, GELU, GELU_TANH, RELU = range(4)
NONE, LEARNED, SINUSOIDAL, ROPE, ALIBI = range(5)


def structure(name, *fields):
    return type(name, (ctypes.Structure,), {"_fields_": [("struct_size", ctypes.c_size_t), *fields]})


GptOptions = structure(
    "GptOptions", ("dtype", INT), ("vocab", LONG), ("layers", LONG), ("dim", LONG), ("heads", LONG), ("heads_kv", LONG),
    ("head_dim", LONG), ("ffn", LONG), ("context", LONG), ("norm", INT), ("norm_eps", DOUBLE), ("mlp", INT),
    ("position", INT), ("rope_theta", DOUBLE), ("bias", BOOL), ("untied", BOOL), ("window", LONG), ("dropout", DOUBLE),
    ("checkpoint", BOOL), ("init", INT), ("seed", ctypes.c_uint64))
BertOptions = structure(
    "BertOptions", ("dtype", INT), ("vocab", LONG), ("layers", LONG), ("dim", LONG), ("heads", LONG), ("ffn", LONG),
    ("context", LONG), ("segments", LONG), ("norm_eps", DOUBLE), ("dropout", DOUBLE), ("init", INT),
    ("seed", ctypes.c_uint64))
NnOptions = structure("NnOptions", ("dtype", INT), ("init", INT), ("std", DOUBLE), ("seed", ctypes.c_uint64))
AttentionOptions = structure(
    "AttentionOptions", ("dim", LONG), ("heads", LONG), ("heads_kv", LONG), ("head_dim", LONG), ("kv_dim", LONG),
    ("bias", BOOL), ("out_bias", BOOL), ("position", INT), ("rope_theta", DOUBLE), ("rope_pairing", INT),
    ("dropout", DOUBLE), ("out_gain", DOUBLE), ("naming", INT))
BlockOptions = structure(
    "BlockOptions", ("attention", AttentionOptions), ("mlp", INT), ("hidden", LONG), ("mlp_bias", BOOL), ("norm", INT),
    ("norm_eps", DOUBLE), ("post_norm", BOOL), ("cross", BOOL), ("memory_dim", LONG), ("dropout", DOUBLE))
Attend = structure(
    "Attend", ("causal", INT), ("has_window", BOOL), ("left", LONG), ("right", LONG), ("mask", POINTER),
    ("lengths_q", POINTER), ("lengths_k", POINTER), ("positions", POINTER), ("seed", ctypes.c_uint64))
OptimizerOptions = structure(
    "OptimizerOptions", ("kind", INT), ("beta1", DOUBLE), ("beta2", DOUBLE), ("eps", DOUBLE), ("momentum", DOUBLE),
    ("weight_decay", DOUBLE))
StepOptions = structure("StepOptions", ("lr", DOUBLE), ("grad_scale", DOUBLE), ("clip", DOUBLE))


def options(struct, /, **values):
    return struct(struct_size=ctypes.sizeof(struct), **values)


class Module:
    """A module of ours and its parameters in torch, all with values that nothing cancels in."""

    def __init__(self, attn, rng, create, *arguments):
        self.attn, self.handle = attn, POINTER()
        attn.lm.attn_module_parameter_name.restype = ctypes.c_char_p
        attn.lm.attn_module_parameter.restype = POINTER
        attn.ok(getattr(attn.lm, create)(*arguments, ctypes.byref(self.handle)))
        self.ours, self.theirs = {}, {}
        for i in range(attn.lm.attn_module_parameter_count(self.handle)):
            name = attn.lm.attn_module_parameter_name(self.handle, i)
            tensor = POINTER(attn.lm.attn_module_parameter(self.handle, i))
            values = 0.3 * rng.standard_normal(attn.values(tensor).shape)
            view = attn.view(values)
            attn.ok(attn.lm.attn_module_set_parameter(attn.context, self.handle, name, ctypes.byref(view)))
            self.ours[name.decode()] = tensor
            self.theirs[name.decode()] = torch.tensor(values, requires_grad=True)

    def compare(self, checks, what):
        for name, tensor in self.ours.items():
            near(checks, self.attn.gradient(tensor), self.theirs[name].grad, f"{what}: gradient of {name}")

    def close(self):
        self.attn.clear()
        self.attn.lm.attn_module_destroy(self.handle)


def near(checks, got, want, what):
    want = want.detach().numpy()
    got = np.zeros_like(want) if got is None else got
    # Gradients that are 0 in exact arithmetic, a key's bias for one, are roundoff of what they are made of.
    error = np.abs(got - want).max(initial=0.0)
    allowed = 1e-9 * max(np.abs(want).max(initial=0.0), 1e-2)
    checks.check(got.shape == want.shape and error <= allowed, lambda: f"{what}: differs by {error:.3g} of"
                 f" {np.abs(want).max(initial=0.0):.3g}")


# ---- the formulas

def rope(x, theta):
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[-2])[:, None] * theta ** (-2.0 * torch.arange(half) / x.shape[-1])
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


def slopes(heads):
    """Press et al.: powers of 2^(-8/n) for the power of two below, then every other one of the power above."""
    n = 2 ** int(np.log2(heads))
    first = [2.0 ** (-8 * (i + 1) / n) for i in range(n)]
    second = [2.0 ** (-8 * (i + 1) / (2 * n)) for i in range(0, 2 * n, 2)]
    return torch.tensor((first + second)[:heads])


def norm(kind, x, p, name, eps):
    if kind == RMS:
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * p[f"{name}.weight"]
    return functional.layer_norm(x, x.shape[-1:], p[f"{name}.weight"], p[f"{name}.bias"], eps)


def linear(x, p, name, transposed=False):
    w = p[f"{name}.weight"]
    return functional.linear(x, w.T if transposed else w, p.get(f"{name}.bias"))


def heads_of(x, heads):
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def attend(q, k, v, seen, bias=None):
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    s = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    s = s if bias is None else s + bias
    some = seen.any(-1, keepdim=True)
    w = torch.softmax(torch.where(seen, s, torch.where(some, -np.inf, 0.0)), -1)
    out = torch.where(seen, w, 0.0) @ v
    return out.transpose(1, 2).reshape(out.shape[0], out.shape[2], -1)


def activation(kind, x):
    return functional.relu(x) if kind == RELU else functional.gelu(x, approximate="tanh" if kind == GELU_TANH else "none")


def mlp(kind, x, p, name, llama=True):
    gate, up, down = ("gate_proj", "up_proj", "down_proj") if llama else ("c_gate", "c_fc", "c_proj")
    inner = linear(x, p, f"{name}.{up}", not llama)
    if kind == SWIGLU:
        inner = functional.silu(linear(x, p, f"{name}.{gate}", not llama)) * inner
    else:
        inner = activation(kind, inner)
    return linear(inner, p, f"{name}.{down}", not llama)


def sinusoids(length, dim):
    place = torch.arange(length)[:, None] / 10000.0 ** (2 * torch.arange(dim // 2) / dim)
    return torch.stack([place.sin(), place.cos()], -1).reshape(length, dim)


def gpt(o, p, ids):
    llama = o.norm == RMS
    top = "model." if llama else "transformer."
    table = p[top + ("embed_tokens.weight" if llama else "wte.weight")]
    length = ids.shape[1]
    x = functional.embedding(ids, table)
    if o.position == LEARNED:
        x = x + next(v for k, v in p.items() if k.endswith(("wpe.weight", "embed_positions.weight")))[:length]
    if o.position == SINUSOIDAL:
        x = x + sinusoids(length, o.dim)
    i, j = torch.arange(length)[:, None], torch.arange(length)[None]
    seen = j <= i
    if o.window:
        seen = seen & (i - j < o.window)
    bias = -slopes(o.heads).reshape(-1, 1, 1) * (i - j) if o.position == ALIBI else None
    kv = o.heads_kv or o.heads
    for n in range(o.layers):
        at = f"{top}layers.{n}." if llama else f"{top}h.{n}."
        y = norm(o.norm, x, p, at + ("input_layernorm" if llama else "ln_1"), o.norm_eps)
        if llama:
            q, k, v = (linear(y, p, f"{at}self_attn.{w}_proj") for w in "qkv")
        else:
            hd = o.head_dim or o.dim // o.heads
            q, k, v = linear(y, p, f"{at}attn.c_attn", True).split([o.heads * hd, kv * hd, kv * hd], -1)
        q, k, v = heads_of(q, o.heads), heads_of(k, kv), heads_of(v, kv)
        if o.position == ROPE:
            q, k = rope(q, o.rope_theta), rope(k, o.rope_theta)
        y = attend(q, k, v, seen, bias)
        x = x + (linear(y, p, f"{at}self_attn.o_proj") if llama else linear(y, p, f"{at}attn.c_proj", True))
        y = norm(o.norm, x, p, at + ("post_attention_layernorm" if llama else "ln_2"), o.norm_eps)
        x = x + mlp(o.mlp, y, p, f"{at}mlp", llama)
    x = norm(o.norm, x, p, top + ("norm" if llama else "ln_f"), o.norm_eps)
    return functional.linear(x, p["lm_head.weight"] if o.untied else table)


def bert(o, p, ids, segments, lengths):
    e = "embeddings."
    x = (functional.embedding(ids, p[e + "word_embeddings.weight"])
         + p[e + "position_embeddings.weight"][:ids.shape[1]]
         + functional.embedding(segments, p[e + "token_type_embeddings.weight"]))
    x = norm(LAYER, x, p, e + "LayerNorm", o.norm_eps)
    seen = (torch.arange(ids.shape[1]) < lengths[:, None])[:, None, None]
    for n in range(o.layers):
        at = f"encoder.layer.{n}."
        q, k, v = (heads_of(linear(x, p, f"{at}attention.self.{w}"), o.heads) for w in ("query", "key", "value"))
        y = linear(attend(q, k, v, seen), p, f"{at}attention.output.dense")
        x = norm(LAYER, x + y, p, f"{at}attention.output.LayerNorm", o.norm_eps)
        y = linear(functional.gelu(linear(x, p, f"{at}intermediate.dense")), p, f"{at}output.dense")
        x = norm(LAYER, x + y, p, f"{at}output.LayerNorm", o.norm_eps)
    return x


# ---- what is compared

def check_gpt(checks, attn, rng, index):
    gpt2 = bool(index % 2)
    heads = int(rng.choice([1, 2, 4, 6]))
    o = options(GptOptions, dtype=F64, vocab=11, layers=int(rng.integers(1, 4)), heads=heads, dim=heads * 4,
                heads_kv=int(rng.choice([h for h in range(1, heads + 1) if heads % h == 0])), context=9,
                head_dim=int(rng.choice([0, 2, 6])), ffn=int(rng.choice([10, 16])), norm=LAYER if gpt2 else RMS,
                norm_eps=1e-4, mlp=int(rng.integers(0, 4)), position=int(rng.integers(0, 5)), rope_theta=100.0,
                bias=bool(rng.random() < 0.5), untied=bool(rng.random() < 0.3),
                window=int(rng.choice([0, 1, 3])), checkpoint=bool(rng.random() < 0.4))
    what = "gpt " + " ".join(f"{k}={getattr(o, k)}" for k, *_ in o._fields_[1:-1])
    model = Module(attn, rng, "attn_gpt_create", ctypes.byref(o))
    batch, length = int(rng.integers(1, 4)), int(rng.integers(1, 10))
    ids = rng.integers(0, 11, (batch, length))
    targets = rng.integers(-1, 11, (batch, length))
    targets[0, 0] = 3
    attn.lm.attn_gpt_logits.restype = attn.lm.attn_gpt_loss.restype = POINTER
    array = sizes(ids.ravel().tolist())
    logits = attn.lm.attn_gpt_logits(attn.tape, model.handle, array, LONG(batch), LONG(length))
    checks.check(bool(logits), lambda: f"{what}: {attn.error()}")
    want = gpt(o, model.theirs, torch.tensor(ids))
    near(checks, attn.values(POINTER(logits)), want, f"{what}: logits")
    attn.clear()
    loss = attn.lm.attn_gpt_loss(attn.tape, model.handle, array, sizes(targets.ravel().tolist()), LONG(batch), LONG(length))
    attn.backward(POINTER(loss))
    functional.cross_entropy(want.reshape(batch * length, -1), torch.tensor(targets).ravel(), ignore_index=-1).backward()
    model.compare(checks, what)
    model.close()


def check_bert(checks, attn, rng, _index):
    heads = int(rng.choice([1, 2, 3]))
    o = options(BertOptions, dtype=F64, vocab=13, layers=int(rng.integers(1, 3)), dim=6 * heads, heads=heads, ffn=14,
                context=8, segments=3, norm_eps=1e-6)
    model = Module(attn, rng, "attn_bert_create", ctypes.byref(o))
    batch, length = int(rng.integers(1, 4)), int(rng.integers(1, 9))
    ids, segments = rng.integers(0, 13, (batch, length)), rng.integers(0, 3, (batch, length))
    lengths = rng.integers(1, length + 1, batch)
    attn.lm.attn_bert_forward.restype = POINTER
    out = POINTER(attn.lm.attn_bert_forward(attn.tape, model.handle, sizes(ids.ravel().tolist()),
                                            sizes(segments.ravel().tolist()), sizes(lengths.tolist()), LONG(batch),
                                            LONG(length)))
    want = bert(o, model.theirs, torch.tensor(ids), torch.tensor(segments), torch.tensor(lengths))
    valid = torch.arange(length) < torch.tensor(lengths)[:, None]  # rows of padding are nobody's concern
    near(checks, attn.values(out)[valid.numpy()], want[valid], "bert: out")
    weight = rng.standard_normal(want.shape) * valid.numpy()[..., None]
    w = attn.tensor(weight)
    attn.backward(attn.op("sum_all", attn.op("mul", out, w)))
    (want * torch.tensor(weight)).sum().backward()
    model.compare(checks, f"bert layers={o.layers} heads={heads}")
    attn.release([w])
    model.close()


def check_block(checks, attn, rng, index):
    """A block with all its forms; cross-attention to a memory of another width and length."""
    heads = int(rng.choice([2, 4]))
    cross, post = bool(index % 2), bool(rng.random() < 0.5)
    o = options(BlockOptions, mlp=int(rng.integers(0, 4)), hidden=10, mlp_bias=bool(rng.random() < 0.5),
                norm=int(rng.integers(0, 2)), norm_eps=1e-3, post_norm=post, cross=cross, memory_dim=5)
    o.attention = options(AttentionOptions, dim=4 * heads, heads=heads, heads_kv=int(rng.choice([1, heads])),
                          bias=bool(rng.random() < 0.5), out_bias=bool(rng.random() < 0.5),
                          position=int(rng.choice([NONE, ROPE, ALIBI])), rope_theta=50.0, rope_pairing=1)
    nn = options(NnOptions, dtype=F64)
    block = Module(attn, rng, "attn_nn_block_create", ctypes.byref(nn), ctypes.byref(o))
    p, a = block.theirs, o.attention
    batch, length, len_m = 2, int(rng.integers(1, 6)), int(rng.integers(1, 7))
    causal = int(rng.integers(0, 3))
    lengths = rng.integers(0, len_m + 1, batch)
    own = options(Attend, causal=causal)
    array = sizes(lengths.tolist())
    other = options(Attend, lengths_k=ctypes.addressof(array))
    x, memory = rng.standard_normal((batch, length, a.dim)), rng.standard_normal((batch, len_m, 5))
    xs, ms = attn.tensor(x, True), attn.tensor(memory, True)
    xt, mt = torch.tensor(x, requires_grad=True), torch.tensor(memory, requires_grad=True)
    attn.lm.attn_nn_block.restype = POINTER
    out = attn.lm.attn_nn_block(attn.tape, block.handle, ctypes.byref(own), xs, ctypes.byref(other) if cross else None,
                                ms if cross else None)
    what = f"block cross={cross} post={post} mlp={o.mlp} position={a.position} causal={causal}"
    if not out:
        checks.check(False, f"{what}: {attn.error()}")
        block.close()
        return

    def attention(name, y, z, seen, position):
        q, k, v = heads_of(linear(y, p, f"{name}.q_proj"), heads), *(heads_of(linear(z, p, f"{name}.{w}_proj"),
                                                                             a.heads_kv) for w in "kv")
        i, j = torch.arange(q.shape[2])[:, None], torch.arange(k.shape[2])[None]
        distance = i - j if causal and position == ALIBI else (i - j).abs()
        if position == ROPE:
            q, k = rope(q, 50.0), rope(k, 50.0)
        bias = -slopes(heads).reshape(-1, 1, 1) * distance if position == ALIBI else None
        return linear(attend(q, k, v, seen, bias), p, f"{name}.o_proj")

    def part(y, name, function):
        if post:
            return norm(o.norm, y + function(y), p, name, o.norm_eps)
        return y + function(norm(o.norm, y, p, name, o.norm_eps))

    seen = torch.ones(length, length, dtype=torch.bool)
    seen = seen.tril() if causal else seen
    y = part(xt, "input_layernorm", lambda z: attention("self_attn", z, z, seen, a.position))
    if cross:
        held = (torch.arange(len_m) < torch.tensor(lengths)[:, None])[:, None, None].expand(batch, 1, length, len_m)
        y = part(y, "cross_attention_layernorm", lambda z: attention("cross_attn", z, mt, held, NONE))
    y = part(y, "post_attention_layernorm", lambda z: mlp(o.mlp, z, p, "mlp"))
    near(checks, attn.values(POINTER(out)), y, f"{what}: out")
    weight = rng.standard_normal(y.shape)
    w = attn.tensor(weight)
    attn.backward(attn.op("sum_all", attn.op("mul", POINTER(out), w)))
    (y * torch.tensor(weight)).sum().backward()
    near(checks, attn.gradient(xs), xt.grad, f"{what}: gradient of x")
    if cross:
        near(checks, attn.gradient(ms), mt.grad, f"{what}: gradient of memory")
    block.compare(checks, what)
    attn.release([w, xs, ms])
    block.close()


def check_optimizer(checks, attn, rng, index):
    """50 steps on given gradients: AdamW, SGD with and without momentum; two groups; clipping; a parameter without a gradient now and then."""
    sgd, dtype = bool(index % 2), (F64, F32)[index // 2 % 2]
    momentum, decay = float(rng.choice([0.0, 0.9])), float(rng.choice([0.0, 0.1]))
    clip = float(rng.choice([0.0, 1.0, 1e9]))
    o = options(OptimizerOptions, kind=int(sgd), beta1=0.9, beta2=0.95, eps=1e-6, momentum=momentum, weight_decay=decay)
    handle = POINTER()
    attn.ok(attn.lm.attn_optimizer_create(attn.context, ctypes.byref(o), ctypes.byref(handle)))
    shapes, scales, decays = [(3, 5), (7,), (70, 41)], [1.0, 0.5, 2.0], [decay, 0.0, decay]
    element = np.dtype("f8" if dtype == F64 else "f4")
    start = [rng.standard_normal(s).astype(element) for s in shapes]
    ours = [attn.tensor(v, True) for v in start]
    theirs = [torch.tensor(v.astype("f8"), requires_grad=True) for v in start]
    for n, tensor in enumerate(ours):
        attn.ok(attn.lm.attn_optimizer_add(handle, f"p{n}".encode(), tensor, DOUBLE(scales[n]), DOUBLE(decays[n])))
    groups = [{"params": [p], "weight_decay": d} for p, d in zip(theirs, decays)]
    peer = (torch.optim.SGD(groups, lr=1.0, momentum=momentum) if sgd
            else torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.95), eps=1e-6))
    attn.lm.attn_lr_cosine.restype = DOUBLE
    for step in range(50):
        lr = attn.lm.attn_lr_cosine(LONG(step), LONG(10), LONG(50), DOUBLE(0.05), DOUBLE(0.005))
        want = (0.05 * (step + 1) / 10 if step < 10
                else 0.005 + 0.045 * (1 + np.cos(np.pi * (step - 9) / 40)) / 2)
        checks.check(abs(lr - want) < 1e-15, lambda: f"lr of step {step}: {lr}, should be {want}")
        for n, p in enumerate(theirs):
            g = rng.standard_normal(shapes[n]).astype(element)
            weight = attn.tensor(g)
            attn.backward(attn.op("sum_all", attn.op("mul", ours[n], weight)))
            attn.release([weight])
            p.grad = torch.tensor(g.astype("f8")) * 0.5
            peer.param_groups[n]["lr"] = lr * scales[n]
        size = torch.sqrt(sum((p.grad ** 2).sum() for p in theirs))
        if clip and float(size) > clip:  # exactly, where torch adds 1e-6
            for p in theirs:
                p.grad *= clip / size
        peer.step()
        s = options(StepOptions, lr=lr, grad_scale=0.5, clip=clip)
        got = DOUBLE()
        attn.ok(attn.lm.attn_optimizer_step(handle, ctypes.byref(s), ctypes.byref(got)))
        checks.check(abs(got.value - float(size)) < 1e-6 * float(size), lambda: f"norm {got.value}, should be {size}")
        attn.lm.attn_optimizer_zero_grad(handle)
        attn.clear()
    allowed = 1e-10 if dtype == F64 else 2e-4
    for n, tensor in enumerate(ours):
        error = np.abs(attn.values(tensor) - theirs[n].detach().numpy()).max()
        checks.check(error < allowed, lambda: f"{'SGD' if sgd else 'AdamW'} momentum {momentum} decay {decay} clip {clip}"
                     f" {element}: parameter {n} differs by {error:.3g} after 50 steps")
    attn.lm.attn_optimizer_destroy(handle)
    attn.release(ours)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--cases", type=int, default=30)
    args = parser.parse_args()
    checks, attn = Checks(args.seed), Attn(np)
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    cases = max(4, args.cases // fraction())
    for index in range(cases):
        for function in (check_gpt, check_bert, check_block, check_optimizer):
            function(checks, attn, np.random.default_rng([args.seed, index]), index)
    checks.finish(f"{cases} times GPT, BERT, blocks and optimizers beside PyTorch {torch.__version__}")


if __name__ == "__main__":
    main()
