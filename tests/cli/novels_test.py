"""attn fetch novels, through an apt-get and a dpkg-deb that pretend: a made-up database of R, right and broken in every way. No network is used.

Repro of one: novels_test.py NAME
"""
import hashlib
import os
import pathlib
import random
import re
import signal
import struct
import subprocess
import tempfile
import time
import unittest
import zlib

from program import ATTN, CACHE

FRACTION = max(1, int(os.environ.get("ATTN_TEST_FRACTION", "1")))
MEMBER = "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
ASCII, UTF8, LATIN1 = 0x40009, 0x8009, 0x4009


def u32(*values):
    return struct.pack(f">{len(values)}I", *values)


def string(text, flags=UTF8):
    raw = text.encode()
    return u32(flags, len(raw)) + raw


def vector(strings, version=3, flags=16, count=None):
    head = b"X\n" + u32(version, 0x40201, 0x30500) + (u32(5) + b"UTF-8" if version == 3 else b"")
    return head + u32(flags, len(strings) if count is None else count) + b"".join(strings)


def chunk(raw, size=None):
    return u32(len(raw) if size is None else size) + zlib.compress(raw)


LINES = ["EMMA", "", "caf\u00e9 in the morning", "the end"]
GOOD = vector([string(line) for line in LINES])

BROKEN = {
    "nothing": (b"", "where a chunk should begin"),
    "half a length": (b"\0\0", "where a chunk should begin"),
    "no data": (u32(10000), "cannot hold"),
    "a length of nothing": (u32(0) + zlib.compress(b""), "cannot hold"),
    "a bomb": (chunk(GOOD, 0xFFFFFFF0), "cannot hold"),
    "a longer length": (chunk(GOOD, len(GOOD) + 1), "damaged"),
    "a shorter length": (chunk(GOOD, len(GOOD) - 1), "damaged"),
    "no zlib": (u32(100) + b"nonsense" * 20, "damaged"),
    "cut zlib": (chunk(GOOD)[:-9], "damaged"),
    "a wrong sum": (chunk(GOOD)[:-1] + b"\0", "damaged"),
    "no X": (chunk(b"A\n" + GOOD[2:]), "no R object"),
    "one byte": (chunk(b"X"), "no R object"),
    "cut head": (chunk(GOOD[:9]), "in the middle of a number"),
    "version 1": (chunk(vector([], 1)), "version 1"),
    "a long encoding": (chunk(b"X\n" + u32(3, 0, 0, 0xFFFFFFFF) + b"UTF-8"), "name of an encoding"),
    "a list": (chunk(vector([], flags=19)), "no plain character vector"),
    "attributes": (chunk(vector([], flags=0x210)), "no plain character vector"),
    "no count": (chunk(GOOD[:27]), "in the middle of a number"),
    "many strings": (chunk(vector([string("a")], count=1 << 31)), "claims"),
    "one string more": (chunk(vector([string("aaaaaaaa")] * 3, count=4)), "in the middle of a number"),
    "one string fewer": (chunk(vector([string("a")] * 3, count=2)), "left after the vector"),
    "not a string": (chunk(vector([u32(10, 1) + b"a"])), "no string"),
    "NA": (chunk(vector([u32(9, 0xFFFFFFFF)])), "no string"),
    "Latin-1": (chunk(vector([string("a", LATIN1)])), "no string"),
    "a long string": (chunk(vector([u32(UTF8, 0x7FFFFFFF) + b"a"])), "a string of 2147483647 bytes"),
}


class Novels(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        self.cache = self.folder / "deep/cache"
        (self.folder / "bin").mkdir()
        self.fake("apt-get", "touch r-cran-janeaustenr_1_all.deb\n")
        self.fake("dpkg-deb", f'mkdir -p "$3/{os.path.dirname(MEMBER)}"; cp {self.folder}/rdb "$3/{MEMBER}"\n')
        self.env = dict(os.environ, ATTN_CACHE=str(self.cache), PATH=f"{self.folder}/bin:{os.environ['PATH']}")

    def fake(self, name, script):
        path = self.folder / "bin" / name
        path.write_text("#!/bin/sh\n" + script)
        path.chmod(0o755)

    def fetch(self, database=None):
        if database is not None:
            (self.folder / "rdb").write_bytes(database)
        return subprocess.run([ATTN, "fetch", "novels"], env=self.env, capture_output=True, timeout=240)

    def sentence(self, done, *parts):
        lines = done.stderr.decode().splitlines()
        self.assertEqual((done.returncode, len(lines)), (1, 2), lines)
        self.assertTrue(lines[0].startswith("fetching six novels by Jane Austen: 4 MB, public domain"))
        for part in parts:
            self.assertIn(part, lines[1])
        self.assertEqual(list(self.cache.iterdir()), [], "leftovers")

    def test_text_of_a_made_up_database(self):
        """It is not the novels, so it is refused, by the SHA-256 of the very text that is in it."""
        text = "".join(line + "\n" for line in LINES)
        mixed = [string(LINES[0], ASCII), string(LINES[1], ASCII), string(LINES[2], UTF8), string(LINES[3], 9)]
        for version in 2, 3:
            done = self.fetch(chunk(vector(mixed, version)))
            self.sentence(done, "emma.txt", "SHA-256", hashlib.sha256(text.encode()).hexdigest())

    def test_broken_databases(self):
        for what, (raw, part) in BROKEN.items():
            with self.subTest(what):
                self.sentence(self.fetch(raw), part)

    def test_random_bytes(self):
        make = random.Random(1)
        for _ in range(40 // FRACTION + 1):
            raw = bytearray(GOOD)
            for _ in range(make.randrange(1, 4)):
                raw[make.randrange(len(raw))] = make.randrange(256)
            self.sentence(self.fetch(chunk(bytes(raw))))

    def test_programs_that_fail(self):
        self.fake("apt-get", "echo 'E: the moon is in the wrong place' >&2; exit 100\n")
        self.sentence(self.fetch(), "apt-get failed", "the moon is in the wrong place")
        self.fake("apt-get", "echo 'Err:1 http://x Temporary failure resolving x' >&2; exit 100\n")
        self.sentence(self.fetch(), "network")
        self.fake("apt-get", "echo 'E: Write error - write (28: No space left on device)' >&2; exit 100\n")
        self.sentence(self.fetch(), "not enough room")
        self.fake("apt-get", "exit 0\n")
        self.sentence(self.fetch(), "no package came")
        self.fake("apt-get", "touch r-cran-janeaustenr_1_all.deb\n")
        self.fake("dpkg-deb", "echo 'dpkg-deb: error: bad magic' >&2; exit 2\n")
        self.sentence(self.fetch(), "dpkg-deb failed", "bad magic")
        self.fake("dpkg-deb", "exit 0\n")
        self.sentence(self.fetch(), "Rdata.rdb")

    def test_lists_of_our_own(self):
        """A machine without package lists: they are fetched into the temporary folder."""
        self.fake("apt-get", 'echo "$@" >>../../../words\ncase "$*" in\n'
                  "*update*) ;;\n*Lists*) touch r-cran-janeaustenr_1_all.deb;;\n"
                  "*) echo 'E: Unable to locate package' >&2; exit 100;;\nesac\n")
        self.sentence(self.fetch(chunk(GOOD)), "SHA-256")
        words = (self.folder / "words").read_text().splitlines()
        self.assertEqual([re.search(r"(update|download)", line)[0] for line in words], ["download", "update", "download"])
        self.assertTrue(all(str(self.cache) in line for line in words[1:]))

    def test_no_debian(self):
        self.env["PATH"] = "/nowhere"
        self.sentence(self.fetch(), "apt-get is not there")

    def test_interrupted(self):
        self.fake("apt-get", "exec sleep 60\n")
        child = subprocess.Popen([ATTN, "fetch", "novels"], env=self.env, stderr=subprocess.PIPE)
        time.sleep(0.5)
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=60)
        self.assertEqual(child.returncode, 130)
        self.assertEqual(list(self.cache.iterdir()), [])

    @unittest.skipUnless((CACHE / "novels/novels.txt").exists(), "needs the novels: attn fetch novels")
    def test_what_is_here(self):
        novels = CACHE / "novels"
        self.assertEqual(len(list(novels.iterdir())), 7)
        order = "sense_and_sensibility pride_and_prejudice mansfield_park emma northanger_abbey persuasion".split()
        whole = b"".join((novels / f"{name}.txt").read_bytes() for name in order)
        self.assertEqual((novels / "novels.txt").read_bytes(), whole)
        self.env["ATTN_CACHE"] = str(CACHE)
        self.fake("apt-get", "exit 100\n")
        done = self.fetch()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(b"is right", done.stderr)

    @unittest.skipUnless((CACHE / "novels/novels.txt").exists(), "needs the novels: attn fetch novels")
    def test_texts_made_a_database_again(self):
        """The novels' own text, packed as R packs it, becomes the novels."""
        names = "emma mansfield_park northanger_abbey persuasion pride_and_prejudice sense_and_sensibility".split()
        database = b""
        for name in names:
            lines = (CACHE / "novels" / f"{name}.txt").read_bytes().split(b"\n")[:-1]
            database += chunk(vector([u32(UTF8, len(line)) + line for line in lines]))
        for _ in range(2):
            done = self.fetch(database)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual([p.name for p in self.cache.iterdir()], ["novels"])
        path = self.cache / "novels/novels.txt"
        self.assertEqual(path.read_bytes(), (CACHE / "novels/novels.txt").read_bytes())
        raw = path.read_bytes()  # a file that has gone bad is fetched again
        path.write_bytes(raw[:1000] + b"#" + raw[1001:])
        self.assertEqual(self.fetch(database).returncode, 0)
        self.assertEqual(path.read_bytes(), raw)


if __name__ == "__main__":
    unittest.main()
