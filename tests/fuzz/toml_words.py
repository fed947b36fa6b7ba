# SPDX-License-Identifier: GPL-2.0-or-later
"""TOML files at random: valid ones with lines changed, and new ones of a reader's own keys with values of every kind."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

BOMBS: tuple[Callable[[int], str], ...] = (
    lambda n: "x = " + "[" * n + "]" * n,
    lambda n: "x = " + "[" * n,
    lambda n: "x = " + "{a=" * n + "1" + "}" * n,
    lambda n: ".".join(["a"] * n) + " = 1",
    lambda n: "[" + ".".join(["a"] * n) + "]",
    lambda n: "x = " + "9" * n,
    lambda n: "x = 0x" + "f" * n,
    lambda n: "x = " + "9" * n + ".5e" + "9" * n,
    lambda n: "k" * n + " = 1",
    lambda n: 'x = "' + "\\u0041" * n + '"',
    lambda n: "\n".join(f"key{k} = {k}" for k in range(n)),
    lambda n: "\n".join(f"[t{k}]" for k in range(n)),
    lambda n: "[[case]]\n" * n,
    lambda n: "[[vm]]\ncount = 1000\n" * n,
    lambda n: "#" * n,
    lambda n: '"""' * n,
)
NUMBERS = (
    "0", "1", "-1", "4294967295", "4294967296", "1000000000000000000", "9223372036854775808", "1" + "0" * 99, "1" + "0" * 400, "0x7fffffffffffffff",
    "1e999", "-1e999", "nan", "inf", "-inf", "1.5", "1_000", "true", "false", "1979-05-27", "07:32:00", "1979-05-27T07:32:00Z",
)  # fmt: skip
TEXTS = (
    "", "0", "32M", "0M", "-1M", "999999999G", "1000000000000000000", "1.5M", "32MB", "5M", "0s", "1us", "500ms", "30s", "99999999999999s", "-1s",
    "shadow", "nested", "triple fault", "exited", "reset", "kvm-unit-tests", "hello", "paging", "os-i386", "../x", "/etc/passwd", "/dev/zero", ".", "a/b",
    "a\\u0000b", "\\u001b[2J", "\\u202e", "\\n", "(a+)+$", "(", "[", "(?P<a>x)", "\\\\", "{mmu}", "{number}", "8M@10s,0@20s", "8M@", "@", ",", "gp", "disk", "*", "[!",
    "\u00e9\U0001f600",
)  # fmt: skip
BYTES = (b"\xff", b"\xef\xbb\xbf", b"\x00", b"\r", b"\xed\xa0\x80", b"\x1b", b"\xe2\x80\xae", b"\x80")


def make(rng: random.Random, seeds: Sequence[bytes], headers: Sequence[str], keys: Sequence[str]) -> bytes:
    """A text by one of these ways."""
    text = rng.choice((_changed, _changed, _new))(rng, [seed.decode() for seed in seeds], headers, keys)
    if not rng.randrange(40):
        text = _insert(rng, text, rng.choice(BOMBS)(rng.choice((5, 40, 1000, 20_000, 200_000))))
    data = text.encode()
    if not rng.randrange(20):
        at = rng.randrange(len(data) + 1)
        data = data[:at] + rng.choice(BYTES) + data[at:]
    return data


def _insert(rng: random.Random, text: str, line: str) -> str:
    lines = text.split("\n")
    lines.insert(rng.randrange(len(lines) + 1), line)
    return "\n".join(lines)


def _changed(rng: random.Random, seeds: Sequence[str], headers: Sequence[str], keys: Sequence[str]) -> str:
    """A valid text with some lines left out, twice, moved, or with another value."""
    lines = rng.choice(seeds).split("\n")
    start = rng.randrange(len(lines))
    lines = lines[start : start + rng.randrange(1, 60)] if rng.randrange(2) else lines
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(lines))
        line = lines[at]
        name = line.split("=")[0].strip()
        lines[at : at + 1] = rng.choice(
            (
                [],
                [line, line],
                [rng.choice(lines)],
                [f"{name} = {value(rng, keys)}"],
                [f"{misspelt(rng, name)} = 1"],
                [line, pair(rng, keys)],
                [line, rng.choice(headers)],
            )
        )
        lines = lines or [""]
    return "\n".join(lines)


def _new(rng: random.Random, _seeds: Sequence[str], headers: Sequence[str], keys: Sequence[str]) -> str:
    lines = [pair(rng, keys) for _ in range(rng.randrange(3))]
    for _ in range(rng.randrange(1, 6)):
        lines.append(rng.choice(headers))
        chosen = rng.sample(keys, min(len(keys), rng.randrange(8)))
        lines += [f"{key} = {value(rng, keys)}" for key in chosen]
    return "\n".join(lines)


def pair(rng: random.Random, keys: Sequence[str]) -> str:
    """A key with a value."""
    return f"{rng.choice(keys)} = {value(rng, keys)}"


def misspelt(rng: random.Random, word: str) -> str:
    """A word with two letters exchanged, one left out or one too many."""
    at = rng.randrange(len(word) + 1)
    return rng.choice(
        (word[:at] + word[at + 1 :], word[:at] + "x" + word[at:], word[:at] + word[at : at + 2][::-1] + word[at + 2 :])
    )


def value(rng: random.Random, keys: Sequence[str], depth: int = 3) -> str:
    """A value of any kind."""
    kind = rng.randrange(10)
    if kind < 4:
        return f'"{rng.choice(TEXTS)}"'
    if kind < 7 or not depth:
        return rng.choice(NUMBERS)
    items = [value(rng, keys, depth - 1) for _ in range(rng.randrange(4))]
    if kind < 9:
        return f"[{', '.join(items)}]"
    return "{ " + ", ".join(f"{rng.choice([*keys, 'min', 'max', 'equal'])} = {item}" for item in items) + " }"
