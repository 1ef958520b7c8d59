#!/usr/bin/env python3
"""Writes more than 20 broken .npy files, and a valid one.

usage: broken_npy.py FOLDER

A .npy file: "\\x93NUMPY", two bytes of version, the header's length (u16 in version 1, u32 after), the header (a Python dict
with descr, fortran_order, shape, padded with spaces, a line feed at its end), data. manifest.json names the files.
"""
import argparse
import json
import pathlib
import struct

MAGIC = b"\x93NUMPY"
SHAPE = (1, 2, 8, 16)
DATA = struct.pack("<256f", *(((i * 37) % 101 - 50) / 50 for i in range(256)))


def npy(header=None, data=DATA, version=(1, 0), length=None, magic=MAGIC, **fields):
    """A file; `fields` change the valid header, `header` replaces it, `length` lies about it."""
    if header is None:
        parts = {"descr": "'<f4'", "fortran_order": "False", "shape": repr(SHAPE)}
        parts.update(fields)
        header = "{" + ", ".join(f"'{k}': {v}" for k, v in parts.items() if v is not None) + ", }"
    raw = header if isinstance(header, bytes) else header.encode()
    form = "<H" if version[0] == 1 else "<I"
    room = len(magic) + 2 + struct.calcsize(form)
    raw += b" " * (-(room + len(raw) + 1) % 64) + b"\n"
    return magic + bytes(version) + struct.pack(form, len(raw) if length is None else length) + raw + data


VALID = npy()
BROKEN = [  # (name, what, bytes)
    ("empty", "no byte at all", b""),
    ("cut_magic", "ends inside the magic", VALID[:4]),
    ("cut_length", "ends inside the header's length", VALID[:9]),
    ("cut_header", "ends inside the header", VALID[:40]),
    ("cut_data", "half of the data", VALID[: len(VALID) - len(DATA) // 2]),
    ("cut_last_byte", "one byte short", VALID[:-1]),
    ("magic", "another magic", npy(magic=b"\x93NUMPZ")),
    ("version", "version 9", npy(version=(9, 0))),
    ("length_past_end", "a header longer than the file", npy(length=0xFFFF)),
    ("length_huge", "a header of 4 GiB", npy(version=(2, 0), length=0xFFFFFFFF)),
    ("header_text", "a header that is no dict", npy(header="a float32 array of shape 1, 2, 8, 16")),
    ("header_open", "a dict that does not end", npy(header="{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2, 8, ")),
    ("header_bytes", "a header of zero bytes", npy(header=b"\0" * 100)),
    ("header_nested", "a shape nested thousands deep", npy(shape="(" * 9000 + "1" + ")" * 9000)),
    ("no_descr", "no descr", npy(descr=None)),
    ("no_shape", "no shape", npy(shape=None)),
    ("fortran", "Fortran order", npy(fortran_order="True")),
    ("big_endian", "big-endian", npy(descr="'>f4'")),
    ("object", "Python objects", npy(descr="'|O'")),
    ("integers", "integers", npy(descr="'<i4'")),
    ("complex", "complex numbers", npy(descr="'<c8'", shape="(1, 2, 4, 16)")),
    ("record", "a record type", npy(descr="[('a', '<f4'), ('b', '<f4')]", shape="(1, 2, 4, 16)")),
    ("shape_word", "a shape of words", npy(shape="('a', 'b', 'c', 'd')")),
    ("shape_negative", "a negative size", npy(shape="(1, 2, -8, 16)")),
    ("shape_huge", "2^62 elements", npy(shape="(1, 2, 2305843009213693952, 16)")),
    ("shape_wraps", "elements whose product wraps to the 256 there are", npy(shape="(1, 2, 1152921504606846984, 16)")),
    ("shape_digits", "a size of a thousand digits", npy(shape="(1, 2, " + "9" * 1000 + ", 16)")),
    ("shape_scalar", "no dimensions", npy(shape="()", data=DATA[:4])),
    ("shape_vector", "one dimension", npy(shape="(256,)")),
    ("shape_five", "five dimensions", npy(shape="(1, 1, 2, 8, 16)")),
    ("shape_no_dim", "a last dimension of 0", npy(shape="(1, 2, 8, 0)", data=b"")),
]


def write(folder):
    """Writes valid.npy, the broken ones and manifest.json; returns the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "valid.npy").write_bytes(VALID)
    broken = []
    for number, (name, what, raw) in enumerate(BROKEN):
        file = f"{number:02d}_{name}.npy"
        (folder / file).write_bytes(raw)
        broken.append({"file": file, "what": what})
    manifest = {"valid": "valid.npy", "broken": broken}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="ascii")
    return manifest


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    args = parser.parse_args()
    print(f"{len(write(args.folder)['broken'])} broken files")


if __name__ == "__main__":
    main()
