"""08_numpy.py: attention and its gradients from Python: ctypes on libattn's headers, NumPy arrays where they lie, nothing copied.
Compared with the textbook in NumPy, and with PyTorch where it is installed.

    ATTN_LIB_DIR=~/.local/lib python3 08_numpy.py      (without it: ../build/lib, then where the system looks)
"""
import ctypes
import ctypes.util
import os
import pathlib
import sys
from ctypes import POINTER, c_bool, c_char_p, c_double, c_int, c_int64, c_size_t, c_uint64, c_void_p

try:
    import numpy as np
except ImportError:
    print("skipped: needs numpy")
    sys.exit(77)


class View(ctypes.Structure):  # attn_view, view.h
    _fields_ = [("data", c_void_p), ("dtype", c_int), ("ndim", c_int), ("shape", c_int64 * 4), ("stride", c_int64 * 4)]


class Options(ctypes.Structure):  # attn_sdpa_options, attention.h; zeros are defaults, also in fields that are left out at the end
    _fields_ = [("struct_size", c_size_t), ("has_scale", c_bool), ("scale", c_double), ("causal", c_int), ("has_window", c_bool),
                ("window_left", c_int64), ("window_right", c_int64), ("softcap", c_double), ("mask", POINTER(View)), ("bias", POINTER(View)),
                ("sinks", POINTER(View)), ("alibi", POINTER(View)), ("lengths_q", POINTER(c_int64)), ("lengths_k", POINTER(c_int64)),
                ("q_offset", POINTER(c_int64)), ("q_offset_count", c_int64), ("lse", POINTER(View)), ("weights", POINTER(View)),
                ("dropout", c_double), ("dropout_seed", c_uint64)]


class Gradients(ctypes.Structure):  # attn_sdpa_gradients
    _fields_ = [("struct_size", c_size_t)] + [(name, View) for name in ("dlse", "dq", "dk", "dv", "dbias", "dsinks", "dalibi")]


DTYPES = {"float32": 1, "float64": 2, "float16": 4, "bool": 5}  # attn_dtype
TOP_LEFT = 1  # attn_causal


def load():
    folders = [os.environ.get("ATTN_LIB_DIR"), pathlib.Path(__file__).resolve().parents[1] / "build/lib"]
    found = [path for folder in folders if folder for path in [pathlib.Path(folder) / "libattn.so"] if path.exists()]
    path = found[0] if found else ctypes.util.find_library("attn")
    if not path:
        print("skipped: libattn.so is not there; set ATTN_LIB_DIR")
        sys.exit(77)
    lib = ctypes.CDLL(str(path))
    lib.attn_last_error.restype = c_char_p
    lib.attn_context_create.argtypes = [c_void_p, POINTER(c_void_p)]
    lib.attn_context_destroy.argtypes = [c_void_p]
    lib.attn_context_destroy.restype = None
    lib.attn_sdpa.argtypes = [c_void_p, POINTER(Options)] + 4 * [POINTER(View)]
    lib.attn_sdpa_backward.argtypes = [c_void_p, POINTER(Options)] + 6 * [POINTER(View)] + [POINTER(Gradients)]
    return lib


def view(array):
    """An array as attn sees it; strides count elements. Keep the array for as long as the view is used."""
    v = View(array.ctypes.data, DTYPES[array.dtype.name], array.ndim)
    v.shape[:array.ndim] = array.shape
    v.stride[:array.ndim] = [s // array.itemsize for s in array.strides]
    return v


def check(lib, status):
    if status:
        raise ValueError(lib.attn_last_error().decode())


class Attention:
    def __init__(self):
        self.lib, self.context = load(), c_void_p()
        check(self.lib, self.lib.attn_context_create(None, self.context))

    def close(self):
        self.lib.attn_context_destroy(self.context)

    def forward(self, q, k, v, **options):
        """out, and lse, the one number per row that backward needs besides."""
        out = np.empty(q.shape[:3] + v.shape[3:], q.dtype)
        lse = np.empty(q.shape[:3], np.float64 if q.dtype == np.float64 else np.float32)
        o = Options(struct_size=ctypes.sizeof(Options), lse=ctypes.pointer(view(lse)), **options)
        check(self.lib, self.lib.attn_sdpa(self.context, o, *map(view, (q, k, v, out))))
        return out, lse

    def backward(self, q, k, v, out, lse, dout, **options):
        dq, dk, dv = (np.empty(a.shape, lse.dtype) for a in (q, k, v))
        o = Options(struct_size=ctypes.sizeof(Options), **options)
        g = Gradients(struct_size=ctypes.sizeof(Gradients), dq=view(dq), dk=view(dk), dv=view(dv))
        check(self.lib, self.lib.attn_sdpa_backward(self.context, o, *map(view, (q, k, v, out, lse, dout)), g))
        return dq, dk, dv


def textbook(q, k, v, dout):
    """Causal attention and its gradients with whole matrices, in float64."""
    q, k, v, dout = (a.astype(np.float64) for a in (q, k, v, dout))
    heads, group, scale = q.shape[1], q.shape[1] // k.shape[1], q.shape[3] ** -0.5
    k, v = (np.repeat(a, group, axis=1) for a in (k, v))
    s = scale * q @ k.swapaxes(2, 3)
    s[:, :, np.triu(np.ones(s.shape[2:], bool), 1)] = -np.inf
    p = np.exp(s - s.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    out = p @ v
    dp = dout @ v.swapaxes(2, 3)
    ds = p * (dp - (dout * out).sum(-1, keepdims=True))
    dk, dv = scale * ds.swapaxes(2, 3) @ q, p.swapaxes(2, 3) @ dout
    dk, dv = (a.reshape(a.shape[0], heads // group, group, *a.shape[2:]).sum(2) for a in (dk, dv))  # heads that share a key
    return out, scale * ds @ k, dk, dv


def pytorch(q, k, v, dout):
    import torch
    q, k, v, dout = (torch.tensor(a, requires_grad=True) for a in (q, k, v, dout))
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    out.backward(dout)
    return [t.detach().numpy() for t in (out, q.grad, k.grad, v.grad)]


def main():
    rng, attention, worst = np.random.default_rng(1), Attention(), 0.0
    for dtype, bound in (np.float32, 2e-6), (np.float64, 1e-14):
        # Projections give [batch, len, heads, dim]; attention wants [batch, heads, len, dim]: a view, no copy.
        q, k, v, dout = (rng.standard_normal((2, 100, heads, 32)).astype(dtype).swapaxes(1, 2) for heads in (4, 2, 2, 4))
        out, lse = attention.forward(q, k, v, causal=TOP_LEFT)
        ours = (out, *attention.backward(q, k, v, out, lse, dout, causal=TOP_LEFT))
        others = {"the textbook": textbook(q, k, v, dout)}
        try:
            others["PyTorch"] = pytorch(q, k, v, dout)
        except ImportError:
            pass
        for other, theirs in others.items():
            apart = [np.abs(a - b).max() / np.abs(b).max() for a, b in zip(ours, theirs)]
            print(f"{np.dtype(dtype).name} beside {other + ':':13}", ", ".join(f"{n} {d:.1e}" for n, d in zip(("out", "dq", "dk", "dv"), apart)))
            worst = max(worst, max(apart) / bound)
    try:
        attention.forward(q, k.swapaxes(2, 3), v)
    except ValueError as error:
        print("an error is a sentence:", error)
    else:
        worst = np.inf
    attention.close()
    return 0 if worst < 1 else 1


if __name__ == "__main__":
    sys.exit(main())
