"""What a user may have meant: one way to say that a name is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from emu.errors import UsageError

SHOWN = 40  # letters of a name that is not known; nobody reads more
SUGGESTED = 3


def unknown(what: str, name: str, known: Iterable[str], *, but: str = "known are") -> UsageError:
    """An error that says that `name` is no `what`, with the names like it, or all if none is; `but` introduces all."""
    names = list(known)
    shown = name if len(name) <= SHOWN else name[:SHOWN] + "..."
    if close := alike(name, names):
        return UsageError(f"unknown {what} '{shown}': did you mean {' or '.join(close)}?")
    return UsageError(f"unknown {what} '{shown}': {but} {', '.join(names)}")


def alike(name: str, known: Iterable[str]) -> list[str]:
    """The few names that are most like one, the closest first; letter case does not count."""
    by_folded = {other.casefold(): other for other in known}
    if len(name) > SHOWN:
        return []
    return [by_folded[folded] for folded in difflib.get_close_matches(name.casefold(), by_folded, n=SUGGESTED)]
