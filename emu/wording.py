# SPDX-License-Identifier: GPL-2.0-or-later
"""Words of messages: text from elsewhere made harmless and short, and the known word that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from emu.errors import UsageError

MOST_SHOWN = 60  # characters of a user's text in a message
MOST_LINE = 400  # of a line of a guest's output
MOST_KNOWN = 30  # known words that a message lists


def printable(text: str) -> str:
    """Text with all but letters, line ends and tabs shown as escapes: no file and no guest drives the user's terminal."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else _escaped(letter) for letter in text)


def one_line(text: str) -> str:
    """Text as a part of a line: line ends and tabs as escapes too."""
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def quoted(text: str) -> str:
    """Text as a part of a line, in quotation marks, cut if it is long."""
    shown = text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 3] + "..."
    return f'"{one_line(shown)}"'


def suggestion(word: str, known: Iterable[str]) -> str:
    """What follows `unknown ... "word"`: the nearest known word, else all of them if they are not too many."""
    words = list(dict.fromkeys(known))
    folded = {other.casefold(): other for other in words}
    near = difflib.get_close_matches(word[:MOST_SHOWN].casefold(), folded, 1)
    if near:
        return f"; did you mean {quoted(folded[near[0]])}?"
    if not words or len(words) > MOST_KNOWN:
        return ""
    return f"; known are {', '.join(words)}"


def cut(text: str, most: int = MOST_LINE) -> str:
    """A line that is not too long to be shown."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text) - most:,} characters more)"


def exit_value(value: int) -> str:
    """What a guest wrote to the debug-exit port: decimal, and hexadecimal where that looks different."""
    return str(value) if value < 10 else f"{value} ({value:#x})"


def unknown(what: str, word: str, known: Iterable[str]) -> UsageError:
    """The error for a word of a command line that is not among the known ones."""
    return UsageError(f"unknown {what} {quoted(word)}{suggestion(word, known)}")
