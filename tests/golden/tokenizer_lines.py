#!/usr/bin/env python3
"""Lines of mixed text for comparing tokenizers: seeded, the same on every machine.

usage: tokenizer_lines.py [--count 10000] [--seed 1]              the lines, one a line
       tokenizer_lines.py --golden MODEL.gguf                     rewrites tokenizer_golden.json (200 lines with ids)

A line holds any character but the line feed: code, prose in many scripts, digits of every kind, long runs of every white space,
combining marks, control characters (NUL too), emoji sequences, URLs, text that looks like special tokens, random
characters, and now and then thousands of characters in a row.
"""
import argparse
import json
import pathlib
import random
import sys
import unicodedata

HERE = pathlib.Path(__file__).resolve().parent
GOLDEN = HERE / "tokenizer_golden.json"
GOLDEN_LINES, GOLDEN_SEED = 200, 2
GOLDEN_LINE_LIMIT = 300  # characters; longer lines are for the generated test

WORDS = (
    "the of and to in is that it was for on are with as his they at be this have from or one had by but not what all "
    "were we when your can said there use an each which she do how their if will up other about out many then them "
    "these so some her would make like him into time has look two more write go see number no way could people my than "
    "first water been call who oil its now find long down day did get come made may part attention transformer "
    "quantisation naïve café façade Zürich jalapeño übermäßig İstanbul ﬁrst ŒUVRE ǅ straße ΣΊΣΥΦΟΣ McDonald NASA iPhone"
).split()
CONTRACTIONS = "don't I'm they've we'll she'd it's you're IT'S DON'T I'M 'tis rock'n'roll o'clock it’s don’t 's 't 're".split()
CODE = [
    "for (int64_t i = 0; i < n; ++i) {", "    return x->next ? *x : NULL;", "\tif err != nil { return nil, err }",
    "#include <stdio.h>", "def f(x: int = 3) -> str:", "        self.assertEqual(a[1:-1], {'k': [1, 2]})",
    "SELECT * FROM t WHERE a >= 10 AND b <> 'x';", "const f = async (x) => await g(`${x}`);", "x = 0xDEADBEEF ^ ~(1u << 31);",
    "let mut v: Vec<Option<&'a str>> = vec![];", "<div class=\"a b\">&nbsp;</div>", "// ------- 80 --------",
    "a+=b;c*=-d;e=f/g%h;", "{\"key\": [null, true, 1.5e-10]}", "$ grep -rn 'foo|bar' ./src | wc -l", "%1$s %-10.3f\\n",
    "\\begin{align} \\frac{a}{b} &= \\sum_{i=1}^{n} x_i^2 \\end{align}", "template<typename... Ts> auto f(Ts&&... ts);",
]
SCRIPTS = {
    "cyrillic": "Быстрая коричневая лиса прыгает через ленивую собаку и убегает в лес",
    "greek": "Η γρήγορη καφέ αλεπού πηδάει πάνω από το τεμπέλικο σκυλί",
    "arabic": "الثعلب البني السريع يقفز فوق الكلب الكسول ٱلسَّلَامُ عَلَيْكُمْ",
    "hebrew": "השועל החום המהיר קופץ מעל הכלב העצלן שָׁלוֹם",
    "hindi": "तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है क्षत्रिय श्री",
    "tamil": "விரைவான பழுப்பு நரி சோம்பேறி நாய் மீது தாவுகிறது",
    "thai": "สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ",
    "chinese": "敏捷的棕色狐狸跳过了懒狗，然后消失在森林里。「你好」《世界》",
    "japanese": "素早い茶色の狐がのろまな犬を飛び越えた。カタカナ ｶﾀｶﾅ ー々〆",
    "korean": "빠른 갈색 여우가 게으른 개를 뛰어넘는다 ᄒ\u1161\u11ab",
    "armenian": "Արագաշարժ շագանակագույն աղվեսը ցատկում է",
    "georgian": "სწრაფი ყავისფერი მელა გადაახტება ზარმაც ძაღლს",
    "amharic": "ፈጣን ቡናማ ቀበሮ ሰነፍ ውሻ ላይ ይዘላል",
    "gothic": "𐌲𐌿𐍄𐌰𐌽𐌴 𝔉𝔯𝔞𝔨𝔱𝔲𝔯 𝟙𝟚𝟛 𝒜𝓑",
}
EMOJI = (
    "😀 🙂 🤷🏽‍♀️ 👩‍👩‍👧‍👦 🏳️‍🌈 🇫🇷 🇩🇪🇯🇵 👍🏿 ❤️ ☃ ✈️ 1️⃣ #️⃣ 🧑‍💻 🫠 ™️ © ℹ️ 🀄 ㊗️ 🏴\U000e0067\U000e0062\U000e007f"
).split(" ")
SPACES = [" ", "  ", "\t", "\r", "\v", "\f", "\u00a0", "\u0085", "\u1680", "\u2003", "\u2009", "\u2028", "\u2029", "\u202f"]
SPACES += ["\u205f", "\u3000", "\u200b", "\u180e", "\ufeff", "\u001c", "\u001f"]  # the last five only look like space
DIGITS = "0123456789" * 3 + "٠١٢٣۴۵६७८९০১๑๒〇一二三ⅣⅫ½¾⅓²³¹₄①⑳㊿፩𝟘𝟡௰〡"
MARKS = "\u0300\u0301\u0302\u0308\u030a\u0327\u0328\u0334\u0338\u035c\u0361\u20dd\ufe0f\u0651\u094d\u3099"
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~¡¿«»“”‘’…–—•·§¶†‡№°±×÷≠≤∞∑√∂€£¥₹→⇒■□★♪"
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_start|>user", "<repo_name>", "<|im_", "|>", "<file_sep>"]


class Lines:
    """The generator; every choice comes from one seeded stream."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        # Unicode 3.2 is frozen: the same set in every Python, and every regex library knows all of it.
        category = unicodedata.ucd_3_2_0.category
        self.assigned = [chr(c) for c in range(0x20000) if category(chr(c)) not in ("Cn", "Cs", "Co")]
        self.assigned.remove("\n")
        self.kinds = [
            (10, self.prose), (10, self.code), (9, self.script), (7, self.emoji), (9, self.digits), (8, self.spaces),
            (5, self.marks), (4, self.control), (5, self.url), (6, self.contractions), (6, self.symbols),
            (7, self.anything), (4, self.special), (1, self.long),
        ]

    def many(self, low, high, make, glue=""):
        return glue.join(make() for _ in range(self.random.randint(low, high)))

    def pick(self, items):
        return self.random.choice(items)

    def prose(self):
        def word():
            text = self.pick(WORDS)
            text = self.pick([text, text, text, text.capitalize(), text.upper()])
            return text + self.pick(["", "", "", "", ",", ".", "!", "?", ";", "..."])
        return self.many(1, 25, word, " ")

    def code(self):
        indent = self.pick([" ", "\t", "  ", "    "]) * self.random.randint(0, 9)
        return indent + self.many(1, 3, lambda: self.pick(CODE), self.pick([" ", "  ", "\t", "; "]))

    def script(self):
        text = SCRIPTS[self.pick(sorted(SCRIPTS))]
        start = self.random.randrange(len(text))
        return text[start:] + self.pick(["", " ", "  "]) + text[:start]

    def emoji(self):
        return self.many(1, 8, lambda: self.pick(EMOJI) + self.pick(["", " ", self.pick(WORDS)]))

    def digits(self):
        def number():
            body = self.many(1, self.pick([2, 4, 12]), lambda: self.pick(DIGITS))
            return self.pick(["", " ", "  ", "-", "$", "v", "x"]) + body + self.pick(["", ".", ",", "%", "th", " ", "/"])
        return self.many(1, 10, number)

    def spaces(self):
        def run():
            length = self.pick([1, 2, 3, 4, 7, 8, 16, 33, 64, 129])
            space = self.pick(SPACES[:3]) if self.random.random() < 0.6 else self.pick(SPACES)
            mixed = self.many(1, 5, lambda: self.pick(SPACES))
            return self.pick([space * length, mixed])
        return self.many(1, 5, lambda: run() + self.pick(["", self.pick(WORDS), self.pick(DIGITS), self.pick(PUNCTUATION)]))

    def marks(self):
        return self.many(1, 12, lambda: self.pick(self.pick(WORDS)) + self.many(0, 5, lambda: self.pick(MARKS)))

    def control(self):
        byte = lambda: chr(self.pick([c for c in range(0xA0) if c != 10 and (c < 32 or c >= 127)]))
        return self.many(1, 12, lambda: byte() + self.pick(["", "", self.pick(WORDS), " "]))

    def url(self):
        host = self.many(1, 3, lambda: self.pick(WORDS), ".")
        path = self.many(0, 4, lambda: "/" + self.pick(WORDS) + self.pick(["", "%20", "-", "_", "~"]))
        query = self.many(0, 3, lambda: f"&{self.pick(WORDS)}={self.random.randint(0, 10 ** 6)}")
        return f"{self.pick(['http', 'https', 'ftp'])}://{host}.org:{self.random.randint(1, 65535)}{path}?{query}#top"

    def contractions(self):
        return self.many(1, 12, lambda: self.pick(CONTRACTIONS) + self.pick(["", " ", "'", " '", "  "]))

    def symbols(self):
        return self.many(1, 30, lambda: self.pick(PUNCTUATION) * self.pick([1, 1, 1, 2, 3, 10]) + self.pick(["", "", " "]))

    def anything(self):
        return self.many(1, 40, lambda: self.pick(self.assigned) + self.pick(["", "", " "]))

    def special(self):
        return self.many(1, 5, lambda: self.pick(SPECIAL) + self.pick(["", " ", "\t", self.pick(WORDS)]))

    def long(self):
        unit = self.pick(["a", "ab", " ", "=", "-", "0", "é", "漢", "😀", "The ", "\t", "xY", "!"])
        body = unit * self.random.randint(200, 3000)
        letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        return self.pick([body, self.many(200, 2000, lambda: self.pick(letters))])

    def line(self):
        weights = [weight for weight, _ in self.kinds]
        parts = self.random.choices(self.kinds, weights, k=self.pick([1, 1, 1, 2, 3]))
        text = self.pick(["", " ", "  "]).join(make() for _, make in parts)
        return text + self.pick(["", "", "", " ", "  ", "\r"])


def lines(count, seed=1):
    """`count` lines, the first one empty."""
    make = Lines(seed)
    return [""] + [make.line() for _ in range(count - 1)]


def write_golden(model):
    """Some short lines with their ids, plain and with special tokens, for tests without Python packages."""
    from gguf import GGUFReader

    import gguf_tokenizer

    reader = GGUFReader(model)
    plain = gguf_tokenizer.build(reader)
    special = gguf_tokenizer.build(reader, special=True)
    chosen = [text for text in lines(2000, GOLDEN_SEED) if len(text) <= GOLDEN_LINE_LIMIT][:GOLDEN_LINES]
    rows = [[text, gguf_tokenizer.encode(plain, text), gguf_tokenizer.encode(special, text)] for text in chosen]
    # [text, ids], with a third element only where special tokens make a difference.
    rows = [row[:2] if row[1] == row[2] else row for row in rows]
    with open(GOLDEN, "w", encoding="ascii") as out:
        body = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
        out.write(f'{{"model":"{pathlib.Path(model).name}","lines":[\n{body}\n]}}\n')


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--golden", metavar="MODEL.gguf")
    args = parser.parse_args()
    if args.golden:
        write_golden(args.golden)
    else:
        sys.stdout.buffer.write(("\n".join(lines(args.count, args.seed)) + "\n").encode())


if __name__ == "__main__":
    main()
