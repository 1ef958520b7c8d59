"""What the tests of this folder share: finding the program and the model, and CTest's exit code for a skipped test."""
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
SKIPPED = 77
MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"


def skip(why):
    print(f"skipped: {why}")
    sys.exit(SKIPPED)


def model_path():
    """The default model in attn's cache folder; skips where it is not."""
    folder = os.environ.get("ATTN_CACHE") or os.path.expanduser("~/.cache/attn")
    path = pathlib.Path(folder) / MODEL
    if not path.is_file():
        skip(f"{MODEL} is not in {folder}; get it with: attn fetch smollm2-135m-instruct")
    return path


def program(name="attn"):
    """A program of the build: beside $ATTN_PROGRAM under CTest, else in build/bin."""
    built = os.environ.get("ATTN_PROGRAM")
    folder = pathlib.Path(built).parent if built else HERE.parents[1] / "build" / "bin"
    path = folder / name
    if not os.access(path, os.X_OK):
        skip(f"{path} is not built")
    return path


def fraction():
    """What ./dev test divides the number of random cases by."""
    return max(1, int(os.environ.get("ATTN_TEST_FRACTION", "1")))


def run(command, **options):
    """subprocess.run with captured bytes."""
    return subprocess.run([str(word) for word in command], capture_output=True, check=False, **options)


def repro(seed=None):
    """The line that repeats a failed script."""
    variables = [f"{k}={os.environ[k]}" for k in ("ATTN_PROGRAM", "ATTN_CACHE", "ATTN_ISA") if k in os.environ]
    words = ["python3", pathlib.Path(sys.argv[0]).name] + sys.argv[1:]
    if seed is not None and "--seed" not in words:
        words += ["--seed", str(seed)]
    return "repeat with: " + " ".join(variables + words)


class Checks:
    """Counts what was compared, reports the first failures in full, and sets the exit code."""

    SHOWN = 5

    def __init__(self, seed=None):
        self.seed = seed
        self.done = self.failed = 0

    def check(self, good, message):
        """`message` is text, or a function that makes it; printed when not good."""
        self.done += 1
        if good:
            return
        self.failed += 1
        if self.failed <= self.SHOWN:
            print("FAILED:", message() if callable(message) else message)

    def finish(self, what):
        print(f"{what}: {self.done} checks, {self.failed} failed")
        if self.failed:
            print(repro(self.seed))
        sys.exit(1 if self.failed else 0)
