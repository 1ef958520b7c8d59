"""GGUF v3 files byte by byte, truthful or lying: the tests' own writer, needing no package.

Layout (little-endian): "GGUF", u32 version, u64 tensors, u64 pairs; pairs: key, u32 type, value; tensor infos: name, u32 ndim,
u64 dims (fastest first), u32 type, u64 offset; padding to the alignment; data. A string is u64 length and bytes.
"""
import struct

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
FORMATS = {U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", F32: "<f", BOOL: "<?", U64: "<Q", I64: "<q", F64: "<d"}

T_F32, T_F16, T_Q4_0, T_Q4_1, T_Q8_0, T_Q6_K, T_BF16 = 0, 1, 2, 3, 8, 14, 30


def pack_string(text):
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(raw)) + raw


def pack_value(kind, value):
    """The bytes of one value; a list is an array of `kind`, with its type and count in front."""
    if isinstance(value, list):
        return struct.pack("<IQ", kind, len(value)) + b"".join(pack_value(kind, one) for one in value)
    return pack_string(value) if kind == STRING else struct.pack(FORMATS[kind], value)


class Tensor:
    """One tensor; dims fastest first. `offset` None means where the data really is."""

    def __init__(self, name, dims, kind, data):
        self.name, self.dims, self.kind, self.data = name, list(dims), kind, data
        self.ndim = self.offset = None

    def info(self, offset):
        ndim = len(self.dims) if self.ndim is None else self.ndim
        offset = offset if self.offset is None else self.offset
        head = pack_string(self.name) + struct.pack("<I", ndim)
        return head + struct.pack(f"<{len(self.dims)}QIQ", *self.dims, self.kind, offset)


class Gguf:
    """A file to be; every field may be changed before bytes() puts it together."""

    def __init__(self):
        self.magic, self.version, self.alignment = b"GGUF", 3, 32
        self.pairs = {}  # key: (type, value), or raw bytes after the key
        self.extra_pairs = []  # raw bytes of whole pairs
        self.tensors = []
        self.tensor_count = self.pair_count = None

    def put(self, key, kind, value):
        self.pairs[key] = (kind, value)

    def tensor(self, name):
        return next(t for t in self.tensors if t.name == name)

    def pair_bytes(self):
        parts = []
        for key, pair in self.pairs.items():
            if isinstance(pair, bytes):
                parts.append(pack_string(key) + pair)
            else:
                kind, value = pair
                outer = ARRAY if isinstance(value, list) else kind
                parts.append(pack_string(key) + struct.pack("<I", outer) + pack_value(kind, value))
        return parts + self.extra_pairs

    def bytes(self):
        pairs = self.pair_bytes()
        count = len(self.tensors) if self.tensor_count is None else self.tensor_count
        pair_count = len(pairs) if self.pair_count is None else self.pair_count
        head = self.magic + struct.pack("<IQQ", self.version, count, pair_count) + b"".join(pairs)
        data = b""
        for tensor in self.tensors:
            data += b"\0" * (-len(data) % self.alignment)
            head += tensor.info(len(data))
            data += tensor.data
        return head + b"\0" * (-len(head) % self.alignment) + data


SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
NORMAL, CONTROL = 1, 3
TEMPLATE = (  # ChatML with a default system message, in the shape that SmolLM2's file has
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a tiny model for tests<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def byte_alphabet():
    """The 256 characters that stand for bytes in byte-level vocabularies, by byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return [chr(b if b in plain else 256 + others.index(b)) for b in range(256)]


def put_tokenizer(file, merges):
    """Byte-level BPE: special tokens, the 256 bytes, and what the merges ("a b") make. Returns the vocabulary."""
    tokens = SPECIAL + byte_alphabet() + [merge.replace(" ", "") for merge in merges]
    file.put("tokenizer.ggml.model", STRING, "gpt2")
    file.put("tokenizer.ggml.pre", STRING, "smollm")
    file.put("tokenizer.ggml.tokens", STRING, tokens)
    file.put("tokenizer.ggml.token_type", I32, [CONTROL] * len(SPECIAL) + [NORMAL] * (len(tokens) - len(SPECIAL)))
    file.put("tokenizer.ggml.merges", STRING, merges)
    for name, index in (("bos", 1), ("eos", 2), ("unknown", 0), ("padding", 2)):
        file.put(f"tokenizer.ggml.{name}_token_id", U32, index)
    file.put("tokenizer.ggml.add_bos_token", BOOL, False)
    file.put("tokenizer.ggml.add_space_prefix", BOOL, False)
    file.put("tokenizer.chat_template", STRING, TEMPLATE)
    return tokens


def put_llama(file, name, layers, dim, heads_q, heads_kv, ffn, context, theta, vocab):
    """The metadata of a llama-family model."""
    file.put("general.architecture", STRING, "llama")
    file.put("general.name", STRING, name)
    file.put("general.alignment", U32, file.alignment)
    sizes = {
        "block_count": layers, "context_length": context, "embedding_length": dim, "feed_forward_length": ffn,
        "attention.head_count": heads_q, "attention.head_count_kv": heads_kv, "vocab_size": vocab,
        "rope.dimension_count": dim // heads_q,
    }
    for key, value in sizes.items():
        file.put(f"llama.{key}", U32, value)
    file.put("llama.rope.freq_base", F32, theta)
    file.put("llama.attention.layer_norm_rms_epsilon", F32, 1e-5)


def llama_shapes(layers, dim, heads_q, heads_kv, ffn, vocab, own_output):
    """[(name, dims fastest first)] of every tensor."""
    dim_kv = dim // heads_q * heads_kv
    shapes = [("token_embd.weight", (dim, vocab))]
    for layer in range(layers):
        block = [
            ("attn_norm", (dim,)), ("attn_q", (dim, dim)), ("attn_k", (dim, dim_kv)), ("attn_v", (dim, dim_kv)),
            ("attn_output", (dim, dim)), ("ffn_norm", (dim,)), ("ffn_gate", (dim, ffn)), ("ffn_up", (dim, ffn)),
            ("ffn_down", (ffn, dim)),
        ]
        shapes += [(f"blk.{layer}.{part}.weight", dims) for part, dims in block]
    shapes.append(("output_norm.weight", (dim,)))
    return shapes + ([("output.weight", (dim, vocab))] if own_output else [])
