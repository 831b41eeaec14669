"""Texts on which two tokenizers are compared: what is written in practice, and what tokenizers disagree about."""

from collections.abc import Iterator, Sequence

PLAIN_TEXTS: tuple[str, ...] = (
    "Hello, world! It's a fine day, isn't it? I'm sure we'll see what they've done; he'd say \"yes\".",
    "IT'S SHE'LL THEY'RE I'VE We'Re YOU'D don'T 'quoted' 'tis rock'n'roll o'clock ’s ’t",
    'def add(a: int, b: int = 3) -> int:\n    """Add."""\n    return a + b  # sum\n\n\nprint(add(1, 2))\n',
    "for (int i = 0; i < n; ++i) {\n\tsum += a[i] * b[i];\n\t\tif (!sum) { break; }\n}\n\n#include <stdio.h>\r\n\r\n",
    '<html>\n  <body class="x">&nbsp;<!-- note --></body>\n</html>\n{"key": [1, 2.5e-3, null], "ok": true}\n',
    "SELECT * FROM t WHERE a >= 10 AND b != 'c'; -- end\n$x = @{y}; ~/path/to_file.txt C:\\dir\\f.exe https://a.b/c?d=e&f#g",
    "0 1 12 123 1234 12345 123456 1234567 12345678 123456789 1234567890 3.14159 1,000,000 1e10 0xFF -42 50% $9.99",
    "2024-01-31T23:59:59Z 3 33 333 3333 33333 333333 v1.2.3 a1b22c333d4444 ½ ² ₃ Ⅷ ① ٣٤٥ १२३ 一二三",
    " leading",
    "  two",
    "   three",
    "trailing ",
    "trailing  ",
    " ",
    "  ",
    "    ",
    "\n",
    "\n\n",
    "\n\n\n",
    "\t",
    "\t\t\n",
    "a b  c   d    e     f      g       h        i",
    "one\ntwo\n\nthree\n\n\nfour \n five\n \n six  \n\n  seven\r\neight\r\n\r\nnine\rten",
    "tab\tseparated\t\tvalues\t \tmixed \t spaces \n\t\n \t\n  \n",
    " " * 31 + "x" + " " * 32 + "y" + " " * 15 + "\n" + " " * 24 + "z",
    "no\u00a0break thin\u2009space em\u2003space ideographic\u3000space zero\u200bwidth \ufeffmark",
    "!@#$%^&*()_+-=[]{}|;:'\",.<>/?`~ ... --- === *** ### ``` ''' \"\"\" !!! ??? ?! :) :-( <-> => :: // /* */",
    "😀😃😄 🚀 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇯🇵 ❤️ ✅ 🦙🦙 a😀b 😶‍🌫️!",
    "我在东京学习中文。你好，世界！「引号」《书名》12月25日 今天是2024年。",
    "これは日本語のテキストです。カタカナとひらがな、漢字。ｶﾀｶﾅ 東京タワー３３３メートル",
    "안녕하세요 세계! 한국어 문장입니다. 2024년 ㄱㄴㄷ ᄒᆞᆫ",
    "Zażółć gęślą jaźń. Příliš žluťoučký kůň. Fußgänger über Straße. Ça va, où est l'hôtel? ¿Qué pasa, señor? Đặng",
    "Привет, как дела? Съешь ещё этих мягких булок. Γειά σου Κόσμε! Բարեւ გამარჯობა",
    "مرحبا بالعالم، كيف حالك؟ هٰذَا نَصٌّ مُشَكَّل. سلام دنیا ‌می‌خواهم שלום עולם בְּרֵאשִׁית",
    "नमस्ते दुनिया। क्षत्रिय বাংলা ভাষা தமிழ் తెలుగు ภาษาไทยไม่มีช่องว่าง ລາວ မြန်မာ ភាសាខ្មែរ བོད་ ሰላም",
    "cafe\u0301 nai\u0308ve a\u030a n\u0303 q\u0303 x\u0323\u0307 Z\u0351\u036b\u0343\u036a a\u0300\u0301\u0302b",
    "ﬁne ﬂow Ａｂｃ １２３ ㎏ ™ ª º № ℌ 𝕳𝖊𝖑𝖑𝖔 Å ſ ĳ ǅ",
    "CamelCaseWords snake_case_words kebab-case SCREAMING_CASE iPhone McDonald's eBay x86_64 UTF-8 ABCdefGHI",
    "α∑∫√∞≠≤≥±×÷∂∇ $\\frac{a}{b} \\sum_{i=1}^{n} x_i^2$ ∀x∈ℝ: x²≥0 → ⇒ ↔ ←",
    "\x01\x02\x1b[0m\x7f\u0085 \u200d\u200e\u202a \ue000 \ufffd \U0010ffff \u0378",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa bbbbbbbb ababababab hahahahaha looooooong xxxxxXXXXX ________ --------",
    "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et dolore "
    "magna aliqua. Ut enim ad minim veniam, quis nostrud exercitation ullamco laboris nisi ut aliquip.",
    "The internationalization of counterrevolutionary electroencephalographically antidisestablishmentarianism.",
    "<|im_start|>user\nHi<|im_end|>\n<s>[INST] x [/INST] </s> <|end|> <|eot_id|> <start_of_turn>model\n### Response:\n",
)
"""Without the tokens of any one vocabulary; the last looks like them and is plain text for most."""

_MERGED = (
    "{0}",
    "Hello{0}",
    "Hello.{0}",
    "Hello. {0}",
    "Hello!\n{0}",
    "\n{0}",
    "\n\n{0}",
    " {0}",
    "  {0}",
    "\t{0}",
    "done){0}",
    '"Yes."{0}',
    "```{0}",
    "```\n{0}",
    "42{0}",
    "…{0}",
    "。{0}",
    "é{0}",
    "😀{0}",
    "{0}\n",
    "{0}{0}",
    "{0} {0}\n{0}",
    "<{0}>",
    "{0}Hello",
    "{0} Hello",
    "{0}\n\nHello",
    ".{0}.",
    "</{0}",
)
_ADDED = ("{0}", "a{0}b", "A. {0} B", "\n{0}\n", "{0}{0}")
_GROUP = 32
_FEW = 64


def corpus(added: Sequence[str], stops: Sequence[str]) -> Iterator[str]:
    """The plain texts, every token of ``added`` within text, and every stop string in the forms it merges into."""
    yield from PLAIN_TEXTS
    for stop in stops:
        for form in _MERGED:
            yield form.format(stop)
        yield stop[:-1] + " " + stop[1:]
    size = 1 if len(added) <= _FEW else _GROUP
    for start in range(0, len(added), size):
        group = added[start : start + size]
        for form in _ADDED:
            yield " ".join(form.format(text) for text in group)
