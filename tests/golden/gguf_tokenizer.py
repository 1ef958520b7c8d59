"""A Hugging Face tokenizer built from nothing but a GGUF file's own vocabulary and merges: the tokenizer's oracle."""
from jinja2 import Environment
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

CONTROL = 3  # tokenizer.ggml.token_type of special tokens


def field(reader, name):
    return reader.fields[name].contents()


def pre_tokenizer(name):
    """The split before byte-pair merging, by tokenizer.ggml.pre."""
    # 'smollm': every digit alone (\p{N}), then GPT-2's expression inside each remaining piece, then bytes.
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if name == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    if name in ("gpt-2", "gpt2"):
        return byte_level
    raise ValueError(f"pre-split {name!r}: this oracle knows smollm and gpt-2")


def build(reader, special=False):
    """`special`: text such as <|im_end|> becomes its token, else it is ordinary text."""
    tokens = field(reader, "tokenizer.ggml.tokens")
    types = field(reader, "tokenizer.ggml.token_type")
    merges = [tuple(m.split(" ")) for m in field(reader, "tokenizer.ggml.merges")]
    vocab = {text: i for i, text in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizer(field(reader, "tokenizer.ggml.pre"))
    tokenizer.decoder = decoders.ByteLevel()
    if special:
        names = [text for text, kind in zip(tokens, types) if kind == CONTROL]
        tokenizer.add_special_tokens([AddedToken(n, normalized=False, special=True) for n in names])
    return tokenizer


def encode(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).ids


def render_chat(reader, messages, open_turn=True):
    """The file's own Jinja template, rendered as it is."""
    environment = Environment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(field(reader, "tokenizer.chat_template"))
    return template.render(messages=messages, add_generation_prompt=open_turn)
