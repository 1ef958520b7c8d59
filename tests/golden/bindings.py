"""The libraries' C interface as Python calls it through ctypes: what tests need of it, tensors as NumPy arrays."""
import ctypes
import os
import pathlib

from support import HERE, skip

F32, F64, F16, BOOL = 1, 2, 4, 5


class View(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("dtype", ctypes.c_int), ("ndim", ctypes.c_int),
                ("shape", ctypes.c_int64 * 4), ("stride", ctypes.c_int64 * 4)]


class SdpaOptions(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("has_scale", ctypes.c_bool), ("scale", ctypes.c_double),
                ("causal", ctypes.c_int), ("has_window", ctypes.c_bool), ("window_left", ctypes.c_int64),
                ("window_right", ctypes.c_int64), ("softcap", ctypes.c_double)] + [
                    (name, ctypes.c_void_p) for name in (
                        "mask", "bias", "sinks", "alibi", "lengths_q", "lengths_k", "q_offset")] + [
                ("q_offset_count", ctypes.c_int64), ("lse", ctypes.c_void_p), ("weights", ctypes.c_void_p),
                ("dropout", ctypes.c_double), ("dropout_seed", ctypes.c_uint64),
                ("cu_seqlens_q", ctypes.c_void_p), ("cu_seqlens_k", ctypes.c_void_p),
                ("num_sequences", ctypes.c_int64), ("invariant", ctypes.c_bool), ("scratch", ctypes.c_void_p),
                ("scratch_size", ctypes.c_size_t)]


class SdpaTerms(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("bias", "sinks", "alibi")]


def load(name):
    """A shared library of the build: in $ATTN_LIB_DIR under CTest, else in build/lib."""
    path = pathlib.Path(os.environ.get("ATTN_LIB_DIR") or HERE.parents[1] / "build" / "lib") / name
    if not path.is_file():
        skip(f"{path} is not built")
    if any(word in path.read_bytes() for word in (b"__asan_init", b"__tsan_init", b"__ubsan_handle")):
        skip(f"{path} has sanitizers, which python3 has not")
    return ctypes.CDLL(str(path))


class Attn:
    """One context, and one tape. Every call that fails raises RuntimeError with the library's text."""

    def __init__(self, np, tape=True):
        self.np = np
        self.core = load("libattn.so")
        self.core.attn_last_error.restype = ctypes.c_char_p
        self.types = {np.dtype("float32"): F32, np.dtype("float64"): F64, np.dtype("float16"): F16,
                      np.dtype("bool"): BOOL}
        self.context, self.tape = ctypes.c_void_p(), ctypes.c_void_p()
        self.ok(self.core.attn_context_create(None, ctypes.byref(self.context)))
        if tape:
            self.lm = load("libattn_lm.so")
            self.ok(self.lm.attn_tape_create(self.context, ctypes.byref(self.tape)))
            self.lm.attn_tensor_view.restype = self.lm.attn_tensor_write.restype = View
            self.lm.attn_tensor_grad.restype = ctypes.c_void_p

    def error(self):
        return self.core.attn_last_error().decode()

    def ok(self, status):
        if status != 0:
            raise RuntimeError(self.error())

    def view(self, array):
        """A view of an array, which must outlive it."""
        size = array.itemsize
        v = View(array.ctypes.data, self.types[array.dtype], array.ndim)
        for i in range(array.ndim):
            v.shape[i], v.stride[i] = array.shape[i], array.strides[i] // size
        return v

    def array(self, view):
        """A copy of what a view shows."""
        np, size = self.np, 4 if view.dtype == F32 else 8
        shape = tuple(view.shape[i] for i in range(view.ndim))
        if 0 in shape:
            return np.zeros(shape, "f4" if size == 4 else "f8")
        span = sum((n - 1) * view.stride[i] for i, n in enumerate(shape)) + 1
        flat = np.ctypeslib.as_array(
            ctypes.cast(view.data, ctypes.POINTER(ctypes.c_float if size == 4 else ctypes.c_double)), (span,))
        strides = tuple(view.stride[i] * size for i in range(view.ndim))
        return np.lib.stride_tricks.as_strided(flat, shape, strides).copy()

    def tensor(self, array, grad=False):
        t, v = ctypes.c_void_p(), self.view(array)
        self.ok(self.lm.attn_tensor_from(ctypes.byref(v), ctypes.byref(t)))
        self.lm.attn_tensor_require_grad(t, ctypes.c_bool(grad))
        return t

    def values(self, tensor):
        return self.array(self.lm.attn_tensor_view(tensor))

    def gradient(self, tensor):
        """A leaf's gradient, or None."""
        grad = self.lm.attn_tensor_grad(tensor)
        return None if not grad else self.values(ctypes.c_void_p(grad))

    def op(self, name, *arguments):
        """attn_tensor_<name>(tape, …) → tensor."""
        call = getattr(self.lm, f"attn_tensor_{name}")
        call.restype = ctypes.c_void_p
        result = call(self.tape, *arguments)
        if not result:
            raise RuntimeError(self.error())
        return ctypes.c_void_p(result)

    def backward(self, loss, seed=None):
        self.ok(self.lm.attn_tape_backward(self.tape, loss, seed))

    def clear(self):
        self.lm.attn_tape_clear(self.tape)

    def release(self, tensors):
        for t in tensors:
            self.lm.attn_tensor_release(t)


def sizes(shape):
    return (ctypes.c_int64 * max(1, len(shape)))(*shape)


def number(x):
    return ctypes.c_double(x)


def integer(x):
    return ctypes.c_int64(x)
