"""Where a trace goes: a file, which has the same bytes in every run, or standard error, where lines are fitted and coloured for a terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from rich.console import Console

from emu import images
from emu.cli.boot_options import STANDARD_ERROR
from emu.cli.console import HostConsole, screen_width
from emu.errors import OutputError
from emu.events import CATALOGUE, Kind
from emu.machine import crash
from emu.trace.selection import Selection, Selector

ELLIPSIS = "…"
# SGR codes of a label; what is not here has none.
COLOURS = {
    "fault": "33", "inject": "31", "pte": "35", "shadow": "36", "cr3": "32", "cr": "32", "tlb": "34", "stop": "1",
    "memory": "2", "syscall": "32", "balloon": "35", "sharing": "36", "swap": "35",
}  # fmt: skip
FAINT, PLAIN = "\x1b[2m", "\x1b[0m"
Write = Callable[[np.ndarray], None]


@contextlib.contextmanager
def trace_output(target: str | None, selection: Selection, console: HostConsole) -> Iterator[Write | None]:
    """A function that writes selected events as text to `target`; raises OutputError when it cannot."""
    if target is None:
        yield None
        return
    if target == STANDARD_ERROR and sys.stderr is None:
        raise OutputError("standard error: cannot write the trace (it is closed)")
    from emu.trace import text  # loads Capstone: only for a trace

    select = Selector(selection, images.firmware())
    try:
        with contextlib.ExitStack() as stack:
            lines: Callable[[np.ndarray], Iterable[str]] = text.lines
            write: Callable[[Iterable[str]], None] = console.write_trace
            if target == STANDARD_ERROR:
                lines = _Screen().lines
            else:
                file = stack.enter_context(Path(target).open("w", encoding="utf-8"))
                write = file.writelines
                crash.at_crash(file.flush)

            def write_events(records: np.ndarray) -> None:
                try:
                    write(line + "\n" for line in lines(select(records)))
                except OSError as error:
                    raise _lost_trace(target, error) from error

            yield write_events
    except OSError as error:
        raise _lost_trace(target, error) from error


def _lost_trace(target: str, error: OSError) -> OutputError:
    name = "standard error" if target == STANDARD_ERROR else target
    return OutputError(f"{name}: cannot write the trace ({(error.strerror or str(error)).lower()})")


class _Screen:
    """Lines for standard error: as in a file, unless it is a terminal."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._has_colours = self._console.is_terminal and not self._console.no_color and not self._console.is_dumb_terminal
        self._has_colours &= "NO_COLOR" not in os.environ or not os.environ["NO_COLOR"]

    def lines(self, records: np.ndarray) -> Iterable[str]:
        from emu.trace import text

        if not self._console.is_terminal:
            return text.lines(records)
        width = screen_width()
        return (self._coloured(fitted(text.line(record), width), Kind(int(record["kind"]))) for record in records)

    def _coloured(self, line: str, kind: Kind) -> str:
        return coloured(line, kind) if self._has_colours else line


def fitted(line: str, width: int) -> str:
    """A line that a terminal of `width` columns does not break."""
    return line if len(line) <= width else line[: max(width - 1, 0)] + ELLIPSIS


def coloured(line: str, kind: Kind) -> str:
    """The label in the colour of its group, the instruction faint."""
    info = CATALOGUE[kind]
    rest, mark, insn = line.partition(" ; ")
    before, label, after = rest.partition(f" {info.label} ")
    if label and info.group in COLOURS:
        rest = f"{before} \x1b[{COLOURS[info.group]}m{info.label}{PLAIN} {after}"
    return f"{rest}{FAINT}{mark}{insn}{PLAIN}" if mark else rest
