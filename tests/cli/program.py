"""What the tests of the program share: where it and its models are, and running it."""
import os
import pathlib
import subprocess
import unittest

ROOT = pathlib.Path(os.environ.get("ATTN_SOURCE_DIR", pathlib.Path(__file__).resolve().parents[2]))
ATTN = os.environ.get("ATTN_PROGRAM", str(ROOT / "build/bin/attn"))
PATIENCE = int(os.environ.get("ATTN_TEST_PATIENCE", "1"))  # sanitizers are slow
TINY = str(ROOT / "tests/golden/tiny.gguf")
CACHE = pathlib.Path(os.environ.get("ATTN_CACHE") or pathlib.Path.home() / ".cache/attn")
SMOLLM2 = CACHE / "SmolLM2-135M-Instruct.Q4_1.gguf"


def attn(*words, stdin=b"", timeout=240, **more):
    return subprocess.run([ATTN, *map(str, words)], input=stdin, capture_output=True, timeout=timeout * PATIENCE, **more)


class Case(unittest.TestCase):
    def succeeds(self, done):
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def fails(self, done, code, *parts):
        """`code`, and one sentence with `parts` on standard error."""
        error = done.stderr.decode()
        self.assertEqual(done.returncode, code, error)
        self.assertEqual(error.count("\n"), 1, error)
        self.assertTrue(error.startswith("attn"), error)
        for part in parts:
            self.assertIn(part, error)
