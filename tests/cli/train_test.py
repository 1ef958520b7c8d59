"""attn train as people run it: log, JSON, report, resuming to identical bits, Ctrl-C, checkpoints that are none, full disks, fine-tuning.

Repro of one: train_test.py NAME. With --full as the first word also the long ones: a run killed 100 times, ten minutes on the novels,
SmolLM2 fine-tuned; ATTN_TEST_KILLS is the number of kills.
"""
import fcntl
import json
import math
import os
import pathlib
import pty
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unittest

import program
from program import ATTN, ROOT, SMOLLM2, TINY

FULL = len(sys.argv) > 1 and sys.argv[1] == "--full"
full_only = unittest.skipUnless(FULL, "long: train_test.py --full")

SMALL = ["--layers", "1", "--dim", "32", "--heads", "2", "--context", "32", "--batch", "4", "--sample-every", "0", "--warmup", "2"]


def attn(*words, **more):
    return program.attn(*words, timeout=1200, **more)


def events(output):
    return [json.loads(line) for line in output.decode().splitlines()]


def losses(output):
    return {e["step"]: (e["loss"], e["val_loss"], e["lr"], e["grad_norm"]) for e in events(output) if e["event"] == "step"}


def tensors(path):
    """The bytes of all tensors by name, and the metadata."""
    data = pathlib.Path(path).read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    metadata = header.pop("__metadata__", {})
    return {name: data[8 + size + t["data_offsets"][0]:8 + size + t["data_offsets"][1]] for name, t in header.items()}, metadata


class Case(program.Case):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.text = self.folder / "text.txt"
        self.text.write_bytes((ROOT / "README.md").read_bytes() + (ROOT / "CONTRIBUTING.md").read_bytes())
        self.out = self.folder / "model.safetensors"

    def train(self, *words, **more):
        return attn("train", "--data", self.text, "--out", self.out, *words, **more)

    def same(self, whole, parts):
        """Loss, rate and norm of every step; the validation loss where Ctrl-C did not come between."""
        self.assertEqual(sorted(whole), sorted(parts))
        for step, (loss, val, lr, norm) in parts.items():
            self.assertEqual((loss, lr, norm), (whole[step][0], *whole[step][2:]), step)
            if val is not None:
                self.assertEqual(val, whole[step][1], step)

    def interrupted_at(self, step, *words):
        """A run that gets Ctrl-C once it has said a step's line; its output."""
        run = subprocess.Popen([ATTN, "train", *map(str, words), "--json", "--log-every", "1"], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        said = []
        for line in run.stdout:
            said.append(line)
            event = json.loads(line)
            if event["event"] == "step" and event["step"] >= step:
                run.send_signal(signal.SIGINT)
                break
        rest, error = run.stdout.read(), run.stderr.read()  # communicate() would miss what is in the buffer already
        run.stdout.close()
        run.stderr.close()
        self.assertEqual(run.wait(timeout=60), 130, error)
        self.assertEqual(error, b"")
        return b"".join([*said, rest])


class Runs(Case):
    def test_json_model_and_generation(self):
        out = events(self.succeeds(self.train(*SMALL, "--steps", 40, "--log-every", 10, "--eval-every", 20, "--lr", "1e-2", "--json",
                                              "--sample-every", 40, "--sample-tokens", 20, "--prompt", "The ")))
        self.assertEqual([e["event"] for e in out][0], "start")
        step_events = [e for e in out if e["event"] == "step"]
        self.assertEqual([e["step"] for e in step_events], [10, 20, 30, 40])
        self.assertEqual([e["val_loss"] is not None for e in step_events], [False, True, False, True])
        self.assertLess(step_events[-1]["loss"], step_events[0]["loss"] - 0.1)
        for e in step_events:
            self.assertGreater(e["tokens_per_s"], 0)
            self.assertTrue(0 < e["ceiling_percent"] < 100)
        sample = next(e for e in out if e["event"] == "sample")
        self.assertTrue(sample["text"].startswith("The "))
        self.assertEqual(len(sample["text"]), 24)
        end = out[-1]
        self.assertEqual((end["event"], end["reason"], end["step"]), ("end", "done", 40))
        self.assertAlmostEqual(end["val_loss"], end["val_nats_per_char"], delta=0.01 * end["val_loss"])
        stored, metadata = tensors(self.out)
        self.assertEqual(len(stored["model.layers.0.self_attn.q_proj.weight"]), 32 * 32 * 4)
        self.assertIn("attn.config", metadata)
        self.assertEqual(metadata["attn.trainer.step"], "40")
        answer = json.loads(self.succeeds(attn("generate", "--model", self.out, "--json", "--max-tokens", 8, "--context", 32, "The ")))
        self.assertEqual(answer["generated_tokens"], 8)
        self.assertIn(b"llama", self.succeeds(attn("info", self.out)))

    def test_bpe_and_threads(self):
        words = [*SMALL, "--tokenizer", "bpe:300", "--steps", 6, "--log-every", 1, "--dropout", "0.1", "--accumulate", 2, "--json"]
        one = self.succeeds(self.train(*words, "--threads", 1))
        self.out.unlink()
        two = self.succeeds(self.train(*words, "--threads", 2))
        self.assertEqual(losses(one), losses(two))
        self.assertLess(events(two)[-1]["val_nats_per_char"], events(two)[-1]["val_loss"])
        self.succeeds(attn("generate", "--model", self.out, "--max-tokens", 4, "The kernel"))

    def test_log_and_report(self):
        report = self.folder / "report.html"
        text = self.succeeds(self.train(*SMALL, "--steps", 10, "--log-every", 5, "--eval-every", 10, "--sample-every", 10, "--sample-tokens", 9,
                                        "--report", report)).decode()
        self.assertRegex(text, r"(?m)^step +5/10  loss \d\.\d{4} +\d+ tokens/s +\d+ % of ceiling  ETA \d+:\d\d$")
        self.assertRegex(text, r"(?m)^step +10/10  loss \d\.\d{4}  val \d\.\d{4} +\d+ tokens/s")
        self.assertIn("---- sample at step 10 ----", text)
        self.assertRegex(text, r"10 steps in \d+ s; validation loss")
        page = report.read_text()
        for part in "Chart", "const run = ", "tokens of text.txt; ", "nats per token, ", " per character (perplexity ", "<h2>Settings</h2>", "<td>weight-decay</td>", "<h3>after step 10</h3>", "</html>":
            self.assertIn(part, page)
        self.assertNotRegex(page, r"<(script|link|img)[^>]*(src|href)=\"http")

    def test_prompt_of_samples(self):
        """A text without lines has no default prompt of its own; one that nothing in the text can begin is said before training."""
        self.text.write_text("All of this is one line, " * 100)
        words = [*SMALL, "--steps", 2, "--sample-every", 1, "--sample-tokens", 5, "--json"]
        samples = [e["text"] for e in events(self.succeeds(self.train(*words))) if e["event"] == "sample"]
        self.assertEqual([(len(s), s[0]) for s in samples], [(6, "A")] * 2)
        self.out.unlink()
        for prompt in "", "XYZ":
            done = self.train(*words, "--prompt", prompt)
            self.fails(done, 1, "--prompt")
            self.assertEqual(done.stdout, b"")

    def test_bar_fits_the_terminal(self):
        """A line that is wider than the terminal could not be drawn over."""
        for columns in 30, 80:
            terminal, other = pty.openpty()
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
            run = subprocess.Popen([ATTN, "train", "--data", self.text, "--out", self.folder / str(columns), *SMALL, "--steps", "200", "--log-every", "50"],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=other)
            os.close(other)
            drawn = b""
            try:
                while block := os.read(terminal, 65536):
                    drawn += block
            except OSError:  # the other end is closed
                pass
            os.close(terminal)
            self.assertEqual(run.wait(timeout=60), 0, drawn)
            bars = [line.split("\033")[0] for line in drawn.decode().split("\r") if "loss" in line]
            self.assertGreater(len(bars), 0, drawn)
            self.assertLess(max(map(len, bars)), columns)
            self.assertEqual(columns > 50, all(line.startswith("[") for line in bars), bars[-1])

    def test_plan(self):
        words = ["--layers", "3", "--dim", "64", "--heads", "2", "--context", "64", "--batch", "8", "--steps", "30", "--sample-every", "0", "--json"]
        plan = events(self.succeeds(self.train(*words, "--plan")))[0]
        self.assertEqual(plan["event"], "plan")
        self.assertFalse(self.out.exists())
        end = events(self.succeeds(self.train(*words)))[-1]
        self.assertTrue(0.5 < end["peak_rss_bytes"] / plan["bytes"] < 2, (plan, end))

    def test_time_limit(self):
        begin = time.monotonic()
        out = events(self.succeeds(self.train(*SMALL, "--max-minutes", "0.05", "--json")))
        self.assertLess(time.monotonic() - begin, 10)
        chosen = next(e for e in out if e["event"] == "steps")["steps"]
        self.assertGreater(chosen, 20)
        self.assertIn(out[-1]["reason"], ("done", "time"))

    def test_time_limit_sets_the_schedule(self):
        """Few steps fit: they rise for a tenth of them at most, and the rate has fallen by the end; the file keeps what was chosen."""
        words = [*SMALL[:-2], "--batch", 64, "--log-every", 1, "--json"]
        out = events(self.succeeds(self.train(*words, "--max-minutes", "0.04")))
        fits = [e for e in out if e["event"] == "steps"]
        chosen = fits[-1]
        rates = [e["lr"] for e in out if e["event"] == "step"]
        # Once they have risen they have: a machine that slows down later takes steps away, not from the rise.
        self.assertLessEqual(chosen["warmup"], max(20, max(e["steps"] for e in fits) // 10 + 1))
        self.assertLess(rates[-1], 0.6 * max(rates))
        kept = json.loads(tensors(self.out)[1]["attn.run"])["settings"]
        self.assertEqual([kept["steps"], kept["warmup"]], [chosen["steps"], chosen["warmup"]])

    def test_no_time_for_a_step(self):
        """What was never saved is not said to be there."""
        self.text.write_bytes(self.text.read_bytes() * 60)
        words = [*SMALL, "--tokenizer", "bpe:1000", "--max-minutes", "0.001"]
        said = self.succeeds(self.train(*words)).decode()
        self.assertIn("before the first step", said)
        self.assertNotIn("--resume", said)
        end = events(self.succeeds(self.train(*words, "--json")))[-1]
        self.assertEqual((end["step"], end["reason"], end["file"]), (0, "time", None))
        self.assertFalse(self.out.exists())


class Resuming(Case):
    settings = [*SMALL, "--steps", 14, "--eval-every", 4, "--dropout", "0.1", "--seed", 5]

    def test_identical_bits(self):
        whole = self.succeeds(self.train(*self.settings, "--log-every", 1, "--json"))
        wanted, _ = tensors(self.out)
        other = self.folder / "other.safetensors"
        first = self.interrupted_at(5, "--data", self.text, "--out", other, *self.settings)
        self.assertEqual(events(first)[-1]["reason"], "interrupted")
        rest = self.succeeds(attn("train", "--resume", "--out", other, "--json", "--log-every", 1))
        self.same(losses(whole), {**losses(first), **losses(rest)})
        self.assertEqual(len(losses(whole)), 14)
        self.assertGreater(min(losses(rest)), max(losses(first)))
        self.assertEqual(tensors(other)[0], wanted)
        self.assertEqual(events(whole)[-1]["val_loss"], events(rest)[-1]["val_loss"])

    def test_ctrl_c_while_nobody_reads(self):
        """Standard output is a full pipe when the signal comes: nothing of it is lost, and the run is saved."""
        run = subprocess.Popen([ATTN, "train", "--data", str(self.text), "--out", str(self.out), *SMALL, "--context", "8", "--steps", "1000000",
                                "--eval-every", "0", "--log-every", "1", "--json"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(1.5)
        run.send_signal(signal.SIGINT)
        time.sleep(0.2)
        output, error = run.communicate(timeout=60)
        self.assertEqual((run.returncode, error), (130, b""))
        end = events(output)[-1]
        self.assertEqual((end["event"], end["reason"]), ("end", "interrupted"))
        self.assertEqual(tensors(self.out)[1]["attn.trainer.step"], str(max(losses(output))))

    def test_what_is_no_checkpoint(self):
        self.fails(self.train("--resume"), 1, str(self.out))
        for content in b"", b"hello\n" * 50, struct.pack("<Q", 2) + b"{}":
            self.out.write_bytes(content)
            self.fails(self.train("--resume"), 1, str(self.out))
        self.out.unlink()
        self.succeeds(self.train(*SMALL, "--steps", 2))
        data = self.out.read_bytes()
        self.fails(self.train(*SMALL), 1, "--resume")
        self.fails(self.train("--resume", "--dim", 64), 2, "--dim", "keeps")
        self.text.write_text("Another text. " * 1000)
        self.fails(self.train("--resume", "--steps", 4), 1, "another text")
        for cut in len(data) // 2, len(data) - 1, 100:
            self.out.write_bytes(data[:cut])
            self.fails(self.train("--resume"), 1, str(self.out))
        self.out.write_bytes(data.replace(b'\\"layers\\":1', b'\\"layers\\":7'))
        self.fails(self.train("--resume", "--steps", 4), 1)
        self.out.write_bytes(data.replace(b'\\"batch\\":4', b'\\"batch\\":x'))
        self.fails(self.train("--resume", "--steps", 4), 1, "damaged")

    def test_full_disk(self):
        """A disk that takes no more: said, gone on, and the old checkpoint is whole."""
        self.succeeds(self.train(*SMALL, "--steps", 3))
        before = self.out.read_bytes()
        limit = len(before) // 2
        done = self.train("--resume", "--steps", 6, "--save-every", 1, "--log-every", 1, "--json",
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
        error = done.stderr.decode()
        self.assertEqual(done.returncode, 1, error)
        self.assertIn("the checkpoint was not saved", error)
        self.assertIn("training goes on", error)
        self.assertEqual(sorted(losses(done.stdout)), [4, 5, 6])
        self.assertEqual(self.out.read_bytes(), before)
        self.assertEqual([p.name for p in self.folder.iterdir() if "part" in p.name], [])
        self.succeeds(self.train("--resume", "--steps", 6))

    def kills(self, count, seconds):
        """SIGKILL at random moments; the checkpoint always loads, and the losses are those of an uninterrupted run."""
        begin = ["--data", self.text, *SMALL, "--steps", 100000000]
        always = ["--out", self.out, "--eval-every", 0, "--save-every", "1s" if seconds > 1 else "0.05s", "--log-every", 1, "--json"]
        seen, draw = {}, random.Random(int(os.environ.get("ATTN_TEST_SEED", "1")))
        for number in range(count):
            words = [*always, *(["--resume"] if self.out.exists() else begin)]
            with open(self.folder / "log", "wb") as log:
                run = subprocess.Popen([ATTN, "train", *map(str, words)], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.PIPE)
                time.sleep(draw.uniform(0.05, seconds))
                run.kill()
                error = run.communicate()[1]
            self.assertEqual(run.returncode, -signal.SIGKILL, (number, error))
            said = (self.folder / "log").read_bytes()
            for step, values in losses(said[:said.rfind(b"\n") + 1]).items():
                self.assertEqual(seen.setdefault(step, values), values, f"kill {number}, step {step}")
        last = max(seen)
        self.out.unlink()
        plain = losses(self.interrupted_at(last, *begin, *always))
        for step in seen:
            self.assertEqual(seen[step], plain[step], f"step {step}")
        print(f"{count} kills, {last} steps, all as in an uninterrupted run", file=sys.stderr)

    def test_a_few_kills(self):
        self.kills(4, 0.6)

    @full_only
    def test_100_kills(self):
        self.kills(int(os.environ.get("ATTN_TEST_KILLS", "100")), 3)


class Mistakes(Case):
    def test_data(self):
        self.fails(attn("train", "--data", self.folder / "none.txt", "--out", self.out), 1, "none.txt")
        self.fails(attn("train", "--data", self.folder, "--out", self.out), 1, str(self.folder))
        self.text.write_text("")
        self.fails(self.train(), 1, "empty")
        self.text.write_text("Too short.")
        self.fails(self.train(), 1, "--data", "9 tokens", "shorter --context")
        self.fails(attn("train", "--out", self.out, env={**os.environ, "ATTN_CACHE": str(self.folder / "no")}), 1, "attn fetch novels")
        self.fails(attn("train", "--data", TINY, "--out", self.folder / "no/such/model"), 1, "--out", "takes files")
        begin = ["train", "--data", ROOT / "README.md", "--out", self.out]  # refused before a step is done
        self.fails(attn(*begin, "--report", self.folder / "no/page.html"), 1, "--report", "takes files")
        self.fails(attn(*begin, "--report", self.folder), 1, "--report", "folder")
        self.fails(attn("train", "--data", ROOT / "README.md", "--out", "/proc/model.safetensors"), 1, "--out", "takes files")
        self.assertFalse(self.out.exists())

    def test_options(self):
        for words, part in [
            (["text.txt"], "--data 'text.txt'"), (["--nonsense"], "'--nonsense'"), (["--layers", "0"], "--layers"), (["--dim", "x"], "'x'"),
            (["--dim", "65", "--heads", "8"], "--heads 8"), (["--heads", "4", "--kv-heads", "3"], "--kv-heads 3"), (["--lr", "-1"], "--lr"),
            (["--lr", "nan"], "--lr"), (["--dropout", "1"], "--dropout"), (["--tokenizer", "words"], "bpe:VOCAB"),
            (["--tokenizer", "bpe:10"], "257"), (["--preset", "huge"], "small, tiny, medium"), (["--steps", "0"], "--steps"),
            (["--save-every", "0"], "--save-every"), (["--save-every", "xs"], "'x'"), (["--threads", "0"], "--threads"),
            (["--full"], "--finetune"), (["--lora-rank", "4"], "--finetune"), (["--adapter"], "--finetune"),
            (["--finetune", "smollm2", "--full", "--lora-rank", "4"], "--lora-rank"), (["--finetune", "smollm2", "--full", "--adapter"], "--adapter"),
            (["--finetune", "smollm2", "--layers", "2"], "--layers"), (["--finetune", "smollm2", "--preset", "tiny"], "--preset"),
            (["--finetune", ""], "--finetune"), (["--plan", "--resume"], "--plan"), (["--data", ""], "--data"), (["--max-minutes", "0"], "--max-minutes"),
        ]:
            with self.subTest(words=words):
                self.fails(attn("train", *words, cwd=self.folder), 2, part)

    def test_help(self):
        text = self.succeeds(attn("train", "--help")).decode()
        for option in ("data tokenizer preset layers dim heads kv-heads ffn context batch accumulate steps lr warmup weight-decay dropout clip seed threads "
                       "out save-every eval-every sample-every prompt resume max-minutes report json finetune full lora-rank lora-alpha lora-targets plan "
                       "adapter").split():
            self.assertIn(f"--{option}", text)


class Bench(Case):
    def test_json(self):
        answer = json.loads(self.succeeds(attn("bench", "train", "--layers", 1, "--dim", 32, "--heads", 2, "--ffn", 64, "--len", 16, "--batch", 2,
                                               "--vocab", 20, "--threads", 1, "--steps", 3, "--json")))
        self.assertEqual(answer["parameters"], 20 * 32 + 4 * 32 * 32 + 3 * 32 * 64 + 3 * 32)
        self.assertLessEqual(answer["ms"]["min"], answer["ms"]["median"])
        self.assertGreater(answer["tokens_per_s"], 0)
        self.assertAlmostEqual(answer["loss"], math.log(20), delta=0.5)


class FineTuning(Case):
    """The tiny random model of tests/golden."""
    settings = ["--finetune", TINY, "--context", "32", "--steps", "8", "--lr", "1e-2", "--json"]

    def setUp(self):
        super().setUp()
        self.out = self.folder / "tuned.gguf"

    def tune(self, *words):
        return events(self.succeeds(self.train(*self.settings, *words)))

    def check(self, out, file):
        end = out[-1]
        self.assertLess(end["perplexity"], end["perplexity_before"])
        self.assertEqual([e["event"] for e in out if e["event"].startswith("plan")], ["plan", "plan_checked"])
        self.assertFalse(pathlib.Path(f"{file}.checkpoint").exists())
        answer = json.loads(self.succeeds(attn("generate", "--model", file, "--raw", "--json", "--max-tokens", 4, "The kernel")))
        self.assertGreater(answer["generated_tokens"], 0)
        self.succeeds(attn("info", file))

    def test_lora_and_full(self):
        self.check(self.tune(), self.out)
        self.out.unlink()
        self.check(self.tune("--full"), self.out)

    def test_adapter(self):
        self.out = self.folder / "adapter.safetensors"
        shutil.copy(TINY, self.folder)  # where its base is looked for
        self.check(self.tune("--adapter", "--lora-targets", "q_proj,v_proj"), self.out)

    def test_resume(self):
        whole = self.succeeds(self.train(*self.settings, "--log-every", 1))
        wanted = self.out.read_bytes()
        self.out = self.folder / "second.gguf"
        first = self.interrupted_at(3, "--data", self.text, "--out", self.out, *self.settings)
        rest = self.succeeds(attn("train", "--resume", "--out", self.out, "--json", "--log-every", 1))
        self.same(losses(whole), {**losses(first), **losses(rest)})
        self.assertEqual(self.out.read_bytes(), wanted)

    def test_mistakes(self):
        self.fails(self.train("--finetune", self.text), 1, str(self.text))
        self.fails(self.train("--finetune", TINY, "--context", 100000), 1, "context")
        self.fails(self.train("--finetune", TINY, "--context", 32, "--lora-targets", "nothing"), 1, "q_proj")


@full_only
class Long(Case):
    def test_novels_in_ten_minutes(self):
        begin = time.monotonic()
        out = events(self.succeeds(attn("train", "--out", self.out, "--max-minutes", 10, "--json", "--report", self.folder / "report.html")))
        seconds = time.monotonic() - begin
        curve = [(e["step"], round(e["val_loss"], 4)) for e in out if e["event"] == "step" and e["val_loss"] is not None]
        print(f"novels: {seconds:.0f} s, val {out[-1]['val_nats_per_char']:.4f} nats/char, curve {curve}", file=sys.stderr)
        print([e for e in out if e["event"] == "sample"][-1]["text"], file=sys.stderr)
        self.assertLessEqual(seconds, 605)
        self.assertLessEqual(out[-1]["val_nats_per_char"], 1.55)

    @unittest.skipUnless(SMOLLM2.exists(), "needs the model: attn fetch smollm2-135m-instruct")
    def test_smollm2_learns_a_novel(self):
        out = self.folder / "tuned.gguf"
        done = events(self.succeeds(attn("train", "--finetune", "smollm2", "--out", out, "--steps", 40, "--json")))
        end = done[-1]
        print(f"smollm2: perplexity {end['perplexity_before']:.3f} to {end['perplexity']:.3f}, {end['tokens_per_s']:.0f} tokens/s, "
              f"{[e for e in done if e['event'] == 'plan_checked']}", file=sys.stderr)
        self.assertLess(end["perplexity"], end["perplexity_before"])
        self.succeeds(attn("generate", "--model", out, "--raw", "--max-tokens", 20, "It is a truth"))


if __name__ == "__main__":
    if FULL:
        del sys.argv[1]
    unittest.main(verbosity=2)
