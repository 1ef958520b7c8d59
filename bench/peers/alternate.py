"""What the comparisons share: running the program, refusing to print after a failure, best and median."""
import json
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "build" / "bin" / "attn"


class Failed(Exception):
    """One sentence: what failed. A comparison that meets it prints this and no numbers."""


def run(command, timeout=1200):
    """Runs a command and returns its standard output; Failed names the command and its last error line."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(f"{' '.join(words)}: {error}") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise Failed(f"{' '.join(words)}: exit code {done.returncode}: {lines[-1]}")
    return done.stdout


def run_json(command, timeout=1200):
    """The last line of the output, as JSON."""
    text = run(command, timeout)
    try:
        return json.loads(text.strip().splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise Failed(f"{command[0]} printed no JSON line: {text[-200:]!r}") from error


def positive(record, field):
    """A number > 0 out of a JSON record, or Failed."""
    value = record.get(field)
    if not isinstance(value, (int, float)) or not value > 0:
        raise Failed(f"field {field!r} is {value!r}, a positive number is needed, in {record}")
    return float(value)


def table(rows, head):
    """Left-aligned first column, right-aligned others."""
    rows = [head] + rows
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        print("  ".join(cells).rstrip())


def best_and_median(values, best=max):
    return best(values), statistics.median(values)


def guard(main):
    """Runs main; a failure is one sentence on standard error and exit code 1."""
    try:
        main()
    except Failed as error:
        print(f"{pathlib.Path(sys.argv[0]).stem}: {error}", file=sys.stderr)
        sys.exit(1)
