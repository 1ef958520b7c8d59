#!/usr/bin/env python3
"""Random graphs of tensor operations beside torch.autograd: values and gradients, f64 and f32. Graphs share tensors, pass views
of views on, use one tensor as several inputs, run parts unrecorded or as checkpoints, and go backward twice.

usage: test_tensors.py [--seed 4242] [--graphs 400]
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

from bindings import F32, F64, Attn, SdpaOptions, SdpaTerms, integer, number, sizes

FUNCTION = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p),
                            ctypes.c_int)
LARGEST = 6.0  # values beyond it are scaled down, so that a long graph stays in range


class Node:
    """One tensor in both worlds."""

    def __init__(self, ours, theirs):
        self.ours, self.theirs = ours, theirs

    @property
    def shape(self):
        return tuple(self.theirs.shape)


class Rotation(ctypes.Structure):
    _fields_ = [("positions", ctypes.c_void_p), ("theta", ctypes.c_double), ("dims", ctypes.c_int64), ("pairing", ctypes.c_int)]


def turn(x, positions, dims, halves):
    """Rotary embedding of [batch, heads, len, dim], theta 100."""
    i = np.arange(dims // 2)
    angle = torch.tensor(positions[:, None, :, None] * 100.0 ** (-2 * i / dims))
    first, second = (i, i + dims // 2) if halves else (2 * i, 2 * i + 1)
    a, b = x[..., first], x[..., second]
    back = np.argsort(np.concatenate([first, second]))
    turned = torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)[..., back]
    return torch.cat([turned, x[..., dims:]], -1)


class Graph:
    def __init__(self, attn, rng, dtype):
        self.attn, self.rng, self.dtype = attn, rng, dtype
        self.leaves, self.nodes, self.kept, self.log = [], [], [], []

    # ---- what graphs begin with

    def leaf(self, shape, positive=False, grad=None):
        values = self.rng.standard_normal(shape)
        if positive:
            values = np.abs(values) + 0.5
        values = values.astype(self.dtype)
        grad = bool(self.rng.random() < 0.8) if grad is None else grad
        node = Node(self.attn.tensor(values, grad), torch.tensor(values.astype("f8"), requires_grad=grad))
        self.leaves.append(node)
        self.log.append(f"leaf {shape} grad={grad}")
        return node

    def shape(self, ndim=None):
        ndim = ndim or int(self.rng.integers(1, 5))
        return tuple(int(self.rng.choice([1, 2, 3, 5, 9, 70], p=[.2, .25, .25, .15, .1, .05])) for _ in range(ndim))

    def any(self, ndim=None):
        """A tensor that is there, or a new leaf."""
        fitting = [n for n in self.nodes if ndim is None or n.theirs.ndim == ndim]
        if fitting and self.rng.random() < 0.85:
            return fitting[self.rng.integers(len(fitting))]
        return self.leaf(self.shape(ndim))

    def like(self, shape, **options):
        """A tensor of that shape: one that is there, or a new leaf."""
        fitting = [n for n in self.nodes + self.leaves if n.shape == tuple(shape)]
        if fitting and not options and self.rng.random() < 0.5:
            return fitting[self.rng.integers(len(fitting))]
        return self.leaf(shape, **options)

    def broadcast(self, shape):
        """A shape that meets `shape`: some sizes 1, some leading ones gone."""
        cut = int(self.rng.integers(0, len(shape)))
        return tuple(1 if self.rng.random() < 0.4 else n for n in shape[cut:])

    def mask(self, shape):
        mask = self.rng.random(self.broadcast(shape)) < 0.5
        self.kept.append(mask)
        view = self.attn.view(mask)
        self.kept.append(view)
        return ctypes.byref(view), torch.tensor(mask)

    def put(self, name, ours, theirs):
        self.log.append(f"{name} -> {tuple(theirs.shape)}")
        node = Node(ours, theirs)
        if theirs.numel() and float(theirs.detach().abs().max()) > LARGEST:
            factor = 1.0 / float(theirs.detach().abs().max())
            node = Node(self.attn.op("scale", ours, number(factor)), theirs * factor)
        self.nodes.append(node)
        return node

    # ---- operations: each puts one result

    def elements(self):
        a = self.any()
        kind = self.rng.choice(["add", "sub", "mul", "div"])
        b = self.like(self.broadcast(a.shape)) if kind != "div" else self.leaf(self.broadcast(a.shape), positive=True)
        if kind != "div" and self.rng.random() < 0.3:
            a, b = b, a
        theirs = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div}[kind](a.theirs, b.theirs)
        self.put(kind, self.attn.op(kind, a.ours, b.ours), theirs)

    def twice(self):
        """One tensor as both inputs."""
        a = self.any()
        kind = self.rng.choice(["add", "sub", "mul", "swiglu"])
        x = a.theirs
        theirs = {"add": x + x, "sub": x - x, "mul": x * x, "swiglu": functional.silu(x) * x}[kind]
        self.put(f"{kind} with itself", self.attn.op(kind, a.ours, a.ours), theirs)

    def scalars(self):
        a = self.any()
        x = float(self.rng.standard_normal())
        kind = self.rng.choice(["scale", "add_scalar", "neg", "pow"])
        if kind == "neg":
            self.put(kind, self.attn.op(kind, a.ours), -a.theirs)
        elif kind == "pow":
            e = float(self.rng.choice([0.0, 1.0, 2.0, 3.0]))
            self.put(f"pow {e}", self.attn.op(kind, a.ours, number(e)), a.theirs ** e)
        else:
            self.put(kind, self.attn.op(kind, a.ours, number(x)), a.theirs * x if kind == "scale" else a.theirs + x)

    def activations(self):
        a = self.any()
        kind = self.rng.choice(["relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid", "exp", "log"])
        x = a.theirs
        if kind.startswith("gelu"):
            tanh = kind == "gelu_tanh"
            self.put(kind, self.attn.op("gelu", a.ours, ctypes.c_bool(tanh)),
                     functional.gelu(x, approximate="tanh" if tanh else "none"))
        elif kind == "log":
            a = self.leaf(self.shape(), positive=True)
            self.put(kind, self.attn.op(kind, a.ours), a.theirs.log())
        else:
            function = functional.silu if kind == "silu" else getattr(torch, kind)
            self.put(kind, self.attn.op(kind, a.ours), function(x))

    def swiglu(self):
        a = self.any()
        b = self.like(a.shape)
        self.put("swiglu", self.attn.op("swiglu", a.ours, b.ours), functional.silu(a.theirs) * b.theirs)

    def masks(self):
        a = self.any()
        if self.rng.random() < 0.5:
            ours, theirs = self.mask(a.shape)
            self.put("masked_fill", self.attn.op("masked_fill", a.ours, ours, number(0.25)),
                     a.theirs.masked_fill(theirs, 0.25))
            return
        b = self.like(self.broadcast(a.shape))
        ours, theirs = self.mask(a.shape)
        self.put("where", self.attn.op("where", ours, a.ours, b.ours), torch.where(theirs, a.theirs, b.theirs))

    def matmul(self):
        a = self.any(int(self.rng.integers(2, 5)))
        n = int(self.rng.integers(1, 6))
        lead = self.broadcast(a.shape[:-2]) if len(a.shape) > 2 and self.rng.random() < 0.6 else ()
        b = self.like((*lead, a.shape[-1], n))
        if self.rng.random() < 0.3:  # a transposed view, from the right
            m = self.like((3, n))
            turned = self.attn.op("transpose", b.ours, -1, -2)
            self.put("matmul", self.attn.op("matmul", m.ours, turned), m.theirs @ b.theirs.transpose(-1, -2))
            return
        self.put("matmul", self.attn.op("matmul", a.ours, b.ours), a.theirs @ b.theirs)

    def linear(self):
        a = self.any()
        n = int(self.rng.integers(1, 6))
        w = self.like((n, a.shape[-1]))
        b = self.like((n,)) if self.rng.random() < 0.6 else None
        self.put("linear", self.attn.op("linear", a.ours, w.ours, b and b.ours),
                 functional.linear(a.theirs, w.theirs, b and b.theirs))

    def joined_leaves(self, rows, columns):
        """Leaves that lie one after the other in memory; columns 0: vectors."""
        handles = (ctypes.c_void_p * len(rows))()
        self.attn.ok(self.attn.lm.attn_tensor_create_joined(F64 if self.dtype == "f8" else F32, len(rows), sizes(rows),
                                                            integer(columns), handles))
        made = []
        for n, handle in zip(rows, handles):
            node = self.leaf((n, columns) if columns else (n,))
            values = node.theirs.detach().numpy().astype(self.dtype)
            view = self.attn.lm.attn_tensor_write(ctypes.c_void_p(handle))
            ctypes.memmove(view.data, np.ascontiguousarray(values).ctypes.data, values.nbytes)
            self.attn.lm.attn_tensor_require_grad(ctypes.c_void_p(handle), ctypes.c_bool(node.theirs.requires_grad))
            self.attn.release([node.ours])
            node.ours = ctypes.c_void_p(handle)
            made.append(node)
        return made

    def layers(self, a, outs):
        """Several layers that read one tensor: (ours, theirs) side by side."""
        columns = a.shape[-1]
        joined = self.rng.random() < 0.7
        weights = self.joined_leaves(outs, columns) if joined else [self.like((n, columns)) for n in outs]
        biases = self.joined_leaves(outs, 0) if joined else [self.like((n,)) for n in outs]
        kept = [b if self.rng.random() < 0.8 else None for b in biases]
        w = (ctypes.c_void_p * len(outs))(*(x.ours for x in weights))
        b = (ctypes.c_void_p * len(outs))(*(x and x.ours for x in kept))
        theirs = [functional.linear(a.theirs, x.theirs, y and y.theirs) for x, y in zip(weights, kept)]
        return (self.attn.op("linear_joined", a.ours, len(outs), w, b), torch.cat(theirs, -1))

    def linear_joined(self):
        a = self.any()
        outs = [int(n) for n in self.rng.integers(1, 6, int(self.rng.integers(1, 5)))]
        self.put(f"linear_joined {outs}", *self.layers(a, outs))

    def swiglu_joined(self):
        a = self.any()
        if a.shape[-1] % 2 == 0:
            gate, up = a.theirs.chunk(2, -1)
            self.put("swiglu_joined", self.attn.op("swiglu_joined", a.ours), functional.silu(gate) * up)

    def sdpa_joined(self):
        """On what only the tape holds, and rotates where it is; or on something that is used elsewhere too."""
        kv, group, dim = int(self.rng.integers(1, 3)), int(self.rng.integers(1, 3)), 2 * int(self.rng.integers(1, 3))
        heads = kv * group
        held = None
        if self.rng.random() < 0.7:
            ours, theirs = self.layers(self.any(3), [heads * dim, kv * dim, kv * dim])
        else:
            held = self.like((2, 3, (heads + 2 * kv) * dim))
            ours, theirs = held.ours, held.theirs
            self.attn.lm.attn_tensor_retain(ours)
        batch, length = theirs.shape[:2]
        rotation, causal = Rotation(None, 100.0, 0, int(self.rng.integers(0, 2))), int(self.rng.integers(0, 3))
        rotated = self.rng.random() < 0.7
        if self.rng.random() < 0.3:
            rotation.dims = 2
        o = SdpaOptions(struct_size=ctypes.sizeof(SdpaOptions), causal=causal)
        out = self.attn.op("sdpa_joined", ctypes.byref(o), ctypes.byref(rotation) if rotated else None, ours,
                           integer(heads), integer(kv))
        q, k, v = (x.reshape(batch, length, -1, dim).transpose(1, 2)
                   for x in theirs.split([heads * dim, kv * dim, kv * dim], -1))
        if rotated:
            q, k = (turn(x, np.arange(length)[None], rotation.dims or dim, rotation.pairing == 1) for x in (q, k))
        s = q @ k.repeat_interleave(group, 1).transpose(-1, -2) / dim ** 0.5
        seen = torch.ones(length, length, dtype=torch.bool)
        s = torch.where(seen.tril() if causal else seen, s, -np.inf)
        y = torch.softmax(s, -1) @ v.repeat_interleave(group, 1)
        self.put(f"sdpa_joined rotated={rotated} held={held is not None}", out,
                 y.transpose(1, 2).reshape(batch, length, -1))
        if held:
            self.attn.release([ours])

    def views(self):
        a = self.any()
        kind = self.rng.choice(["transpose", "reshape", "slice"])
        ndim = len(a.shape)
        if kind == "transpose":
            i, j = (int(x) for x in self.rng.integers(-ndim, ndim, 2))
            self.put(f"transpose {i} {j}", self.attn.op(kind, a.ours, i, j), a.theirs.transpose(i, j))
        elif kind == "slice":
            d = int(self.rng.integers(-ndim, ndim))
            begin = int(self.rng.integers(0, a.shape[d]))
            end = int(self.rng.integers(begin + 1, a.shape[d] + 1))
            self.put(f"slice {d} {begin} {end}", self.attn.op(kind, a.ours, d, integer(begin), integer(end)),
                     a.theirs.narrow(d, begin, end - begin))
        else:
            left, shape = int(np.prod(a.shape)), []
            for _ in range(int(self.rng.integers(0, 4))):
                n = int(self.rng.choice([d for d in range(1, left + 1) if left % d == 0]))
                shape.append(n)
                left //= n
            shape.append(-1 if self.rng.random() < 0.3 else left)
            self.put(f"reshape {shape}", self.attn.op(kind, a.ours, len(shape), sizes(shape)), a.theirs.reshape(shape))

    def concat(self):
        a = self.any()
        d = int(self.rng.integers(0, len(a.shape)))
        parts = [a]
        for _ in range(int(self.rng.choice([1, 2, 8]))):
            shape = list(a.shape)
            shape[d] = int(self.rng.integers(1, 4))
            parts.append(a if self.rng.random() < 0.2 else self.like(shape))
        array = (ctypes.c_void_p * len(parts))(*(p.ours for p in parts))
        self.put(f"concat {d}", self.attn.op("concat", len(parts), array, d), torch.cat([p.theirs for p in parts], d))

    def detach(self):
        a = self.any()
        self.put("detach", self.attn.op("detach", a.ours), a.theirs.detach())

    def along(self):
        a = self.any()
        d = int(self.rng.integers(-len(a.shape), len(a.shape)))
        kind = self.rng.choice(["softmax", "log_softmax", "sum", "mean", "max"])
        if "softmax" in kind:
            self.put(f"{kind} {d}", self.attn.op(kind, a.ours, d), getattr(functional, kind)(a.theirs, d))
            return
        keep = bool(self.rng.random() < 0.5)
        ours = self.attn.op(kind, a.ours, d, ctypes.c_bool(keep))
        if kind == "max":  # the first of equal ones, which torch does not promise
            place = torch.tensor(np.argmax(a.theirs.detach().numpy(), d)).unsqueeze(d)
            theirs = a.theirs.gather(d, place)
            theirs = theirs if keep else theirs.squeeze(d)
        else:
            theirs = getattr(torch, kind)(a.theirs, d, keepdim=keep)
        self.put(f"{kind} {d} keep={keep}", ours, theirs if theirs.ndim else theirs.reshape(1))

    def everything(self):
        a = self.any()
        kind = self.rng.choice(["sum", "mean"])
        self.put(f"{kind}_all", self.attn.op(f"{kind}_all", a.ours), getattr(a.theirs, kind)().reshape(1))

    def norms(self):
        a = self.any()
        n = a.shape[-1]
        w = self.like((n,)) if self.rng.random() < 0.7 else None
        if self.rng.random() < 0.5:
            b = self.like((n,)) if self.rng.random() < 0.7 else None
            self.put("layer_norm", self.attn.op("layer_norm", a.ours, w and w.ours, b and b.ours, number(0.1)),
                     functional.layer_norm(a.theirs, (n,), w and w.theirs, b and b.theirs, 0.1))
            return
        theirs = a.theirs / torch.sqrt((a.theirs ** 2).mean(-1, keepdim=True) + 0.1)
        self.put("rms_norm", self.attn.op("rms_norm", a.ours, w and w.ours, number(0.1)),
                 theirs * w.theirs if w else theirs)

    def words(self):
        table = self.any(2)
        shape = tuple(int(x) for x in self.rng.integers(1, 5, int(self.rng.integers(1, 4))))
        ids = self.rng.integers(0, table.shape[0], shape)
        self.put("embedding", self.attn.op("embedding", table.ours, sizes(ids.ravel().tolist()), len(shape),
                                           sizes(shape)), functional.embedding(torch.tensor(ids), table.theirs))

    def cross_entropy(self):
        a = self.any()
        rows = int(np.prod(a.shape[:-1]))
        targets = self.rng.integers(-1, a.shape[-1], rows)
        wanted = torch.tensor(targets)
        theirs = functional.cross_entropy(a.theirs.reshape(rows, -1), wanted, ignore_index=-1, reduction="sum")
        theirs = theirs / max(1, int((wanted >= 0).sum()))
        self.put("cross_entropy", self.attn.op("cross_entropy", a.ours, sizes(targets.tolist())), theirs.reshape(1))

    def dropout(self):
        """What is kept is read off the result; that it is the same in backward is what is tested."""
        a = self.any()
        p, seed = float(self.rng.choice([0.0, 0.1, 0.5, 0.9])), int(self.rng.integers(2**62))
        ones = self.attn.tensor(np.ones(a.shape, self.dtype))
        factor = self.attn.values(self.attn.op("dropout", ones, number(p), ctypes.c_uint64(seed)))
        self.attn.release([ones])
        self.put(f"dropout {p}", self.attn.op("dropout", a.ours, number(p), ctypes.c_uint64(seed)),
                 a.theirs * torch.tensor(np.where(factor > 0, 1 / (1 - p), 0.0)))

    def rope(self):
        a = self.any(4)
        if a.shape[3] < 2:
            return
        dims = 2 * int(self.rng.integers(1, a.shape[3] // 2 + 1))
        halves = bool(self.rng.random() < 0.5)
        positions = self.rng.integers(0, 100, (a.shape[0], a.shape[2]))
        turned = turn(a.theirs, positions, dims, halves)
        self.put(f"rope {dims}", self.attn.op("rope", a.ours, sizes(positions.ravel().tolist()), number(100.0),
                                              integer(dims), int(halves)), turned)

    def sdpa(self):
        q = self.any(4)
        batch, heads, len_q, dim = q.shape
        heads_kv = int(self.rng.choice([h for h in range(1, heads + 1) if heads % h == 0]))
        len_k = int(self.rng.integers(1, 7))
        k = self.like((batch, heads_kv, len_k, dim))
        same = self.rng.random() < 0.3
        v = k if same else self.like((batch, heads_kv, len_k, int(self.rng.integers(1, 6))))
        causal = int(self.rng.integers(0, 3))
        o = SdpaOptions(struct_size=ctypes.sizeof(SdpaOptions), causal=causal)
        i, j = torch.arange(len_q)[:, None], torch.arange(len_k)[None]
        place = i + (len_k - len_q if causal == 2 else 0)
        seen = j <= place if causal else torch.ones(len_q, len_k, dtype=torch.bool)
        seen = seen.expand(batch, heads, len_q, len_k)
        if self.rng.random() < 0.4:
            mask = self.rng.random((heads if self.rng.random() < 0.5 else 1, len_q, len_k)) < 0.7
            view = self.attn.view(mask)
            self.kept += [mask, view]
            o.mask = ctypes.addressof(view)
            seen = seen & torch.tensor(mask)
        if self.rng.random() < 0.4:
            lengths = self.rng.integers(0, len_k + 1, batch)
            if causal != 2:
                array = sizes(lengths.tolist())  # copied by the call
                self.kept.append(array)
                o.lengths_k = ctypes.addressof(array)
                seen = seen & (j < torch.tensor(lengths).reshape(-1, 1, 1, 1))
        bias = self.like((len_q, len_k)) if self.rng.random() < 0.4 else None
        sinks = self.like((heads,)) if self.rng.random() < 0.4 else None
        alibi = self.like((heads,)) if self.rng.random() < 0.4 else None
        terms = SdpaTerms(*(t.ours.value if t else None for t in (bias, sinks, alibi)))
        group = heads // heads_kv
        s = q.theirs @ k.theirs.repeat_interleave(group, 1).transpose(-1, -2) / dim ** 0.5
        s = s + bias.theirs if bias else s
        if alibi:
            s = s - alibi.theirs.reshape(-1, 1, 1) * (place - j if causal else (place - j).abs())
        some = seen.any(-1, keepdim=True)
        s = torch.where(seen, s, torch.where(some, -np.inf, 0.0))
        if sinks:
            s = torch.cat([s, sinks.theirs.reshape(1, -1, 1, 1).expand(batch, heads, len_q, 1)], -1)
        w = torch.where(seen, torch.softmax(s, -1)[..., :len_k], 0.0)
        self.put(f"sdpa causal={causal} k=v:{same}",
                 self.attn.op("sdpa", ctypes.byref(o), q.ours, k.ours, v.ours, ctypes.byref(terms)),
                 w @ v.theirs.repeat_interleave(group, 1))

    def checkpoint(self):
        """tanh(a·w + a) computed again in backward, w behind `user`; one inside another."""
        a = self.any()
        w = self.like((a.shape[-1],))
        attn = self.attn

        def inner(_user, _tape, inputs, _count):
            x = ctypes.c_void_p(inputs[0])
            y = attn.op("mul", x, w.ours)
            return attn.op("tanh", attn.op("add", y, x)).value

        inner_c = FUNCTION(inner)

        def outer(_user, _tape, inputs, _count):
            array = (ctypes.c_void_p * 1)(inputs[0])
            x = attn.op("checkpoint", inner_c, None, array, 1)
            return attn.op("mul", x, ctypes.c_void_p(inputs[0])).value

        outer_c = FUNCTION(outer)
        self.kept += [inner_c, outer_c]
        nested = self.rng.random() < 0.5
        array = (ctypes.c_void_p * 1)(a.ours.value)
        y = torch.tanh(a.theirs * w.theirs + a.theirs)
        self.put(f"checkpoint nested={nested}",
                 attn.op("checkpoint", outer_c if nested else inner_c, None, array, 1),
                 y * a.theirs if nested else y)

    def unrecorded(self):
        a = self.any()
        before = self.attn.lm.attn_tape_set_recording(self.attn.tape, ctypes.c_bool(False))
        with torch.no_grad():
            self.put("unrecorded", self.attn.op("tanh", a.ours), torch.tanh(a.theirs))
        self.attn.lm.attn_tape_set_recording(self.attn.tape, ctypes.c_bool(bool(before & 1)))

    OPERATIONS = (elements, elements, twice, scalars, activations, activations, swiglu, masks, matmul, matmul, linear,
                  views, views, views, concat, detach, along, along, everything, norms, words, cross_entropy, dropout,
                  rope, sdpa, sdpa, checkpoint, unrecorded, linear_joined, swiglu_joined, sdpa_joined,
                  sdpa_joined)


def close(checks, got, want, allowed, what):
    got, want = np.asarray(got, "f8"), np.asarray(want, "f8")
    if got.shape != want.shape:
        checks.check(False, lambda: f"{what}: shape {got.shape}, should be {want.shape}")
        return
    error = np.abs(got - want).max(initial=0.0)
    checks.check(error <= allowed, lambda: f"{what}: differs by {error:.3g}, {allowed:.3g} is allowed")


def one_graph(checks, attn, seed, dtype):
    rng = np.random.default_rng(seed)
    graph = Graph(attn, rng, dtype)
    for _ in range(int(rng.integers(1, 25))):
        operation = graph.OPERATIONS[rng.integers(len(graph.OPERATIONS))]
        try:
            operation(graph)
        except RuntimeError as error:
            text = f"{operation.__name__}: {error}"
            checks.check(False, lambda: f"seed {seed} {dtype}: {text}\n  " + "\n  ".join(graph.log))
            attn.clear()
            attn.release(n.ours for n in graph.leaves)
            return
    loss_ours, loss_theirs = None, torch.zeros(())
    roundoff = 2e-5 if dtype == "f4" else 1e-12
    for n, node in enumerate(graph.nodes):
        where = f"seed {seed} {dtype} result {n}\n  " + "\n  ".join(graph.log) + "\n"
        close(checks, attn.values(node.ours), node.theirs.detach().numpy(), 10 * roundoff * LARGEST, where)
        if rng.random() < 0.5:
            weight = float(rng.standard_normal())
            part = attn.op("scale", attn.op("sum_all", node.ours), number(weight))
            loss_ours = attn.op("add", loss_ours, part) if loss_ours else part
            loss_theirs = loss_theirs + node.theirs.sum() * weight
    if loss_ours and loss_theirs.requires_grad:
        times = 2 if rng.random() < 0.2 else 1
        for _ in range(times):
            loss_theirs.backward(retain_graph=True)
            attn.backward(loss_ours)
        largest = max([float(n.theirs.grad.abs().max()) for n in graph.leaves
                       if n.theirs.grad is not None and n.theirs.numel()] + [1.0])
        for n, node in enumerate(graph.leaves):
            grad = attn.gradient(node.ours)
            want = node.theirs.grad
            where = f"seed {seed} {dtype} gradient of leaf {n} {node.shape}\n  " + "\n  ".join(graph.log) + "\n"
            if grad is None or want is None:
                other = want if grad is None else torch.tensor(grad)
                checks.check(other is None or float(other.abs().max()) == 0.0, lambda: f"{where}: one has none")
                continue
            close(checks, grad, want.numpy(), 100 * roundoff * largest, where)
    attn.clear()
    attn.release(n.ours for n in graph.leaves)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=4242)
    parser.add_argument("--graphs", type=int, default=400)
    args = parser.parse_args()
    checks, attn = Checks(args.seed), Attn(np)
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    graphs = max(1, args.graphs // fraction())
    for i in range(graphs):
        for dtype in ("f8", "f4"):
            one_graph(checks, attn, args.seed + i, dtype)
    checks.finish(f"{graphs} graphs beside PyTorch {torch.__version__}, f64 and f32")


if __name__ == "__main__":
    main()
