"""Native code is compiled once for a version of emu, for a minute or so: what is being done is shown."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from emu.errors import MachineMemoryError
from emu.limits import COMPILING_ADDRESS_SPACE, is_address_space_short, limit_in_words
from emu.machine.native import CACHE
from emu.resources.compiling import prepare
from emu.units import MIB

FUNCTIONS = 360  # about what a full set has; a test looks
COMPILING = "compiling native code, once for this version"
WAITING = "waiting for another emu that compiles the native code"


def prepare_native_code() -> None:
    """Load native code, with a bar on a terminal, else a line, while something must be compiled."""
    if not CACHE.is_complete() and is_address_space_short(COMPILING_ADDRESS_SPACE):
        raise MachineMemoryError(f"compiling native code takes {COMPILING_ADDRESS_SPACE // MIB} MiB, once{limit_in_words()}")
    with _Display().shown() as display:
        prepare(display.wait)


class _Display:
    """Appears with the first function that is not in the cache."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._has_said = False

    @contextlib.contextmanager
    def shown(self) -> Iterator[_Display]:
        """Watch the cache."""
        CACHE.on_miss, CACHE.on_kept = self._miss, self._kept
        try:
            yield self
        finally:
            CACHE.on_miss = CACHE.on_kept = lambda _: None
            if self._progress is not None:
                self._progress.stop()

    def wait(self) -> None:
        self._say(WAITING)

    def _say(self, what: str) -> None:
        if sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError):
                print(f"emu: {what}", file=sys.stderr, flush=True)

    def _miss(self, name: str) -> None:
        if self._has_said:
            if self._progress is not None:
                self._progress.update(self._task, function=name)
            return
        self._has_said = True
        what = _why()
        if not self._console.is_terminal:
            self._say(f"{what}: this takes about a minute" if not CACHE.damaged else what)
            return
        columns = (
            TextColumn("emu: {task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("functions, about"),
            TimeRemainingColumn(compact=True),
            TextColumn("left  {task.fields[function]}", markup=False),
        )
        self._progress = Progress(*columns, console=self._console, transient=True)
        self._task = self._progress.add_task(what, total=1 if CACHE.damaged else FUNCTIONS, function=name)
        self._progress.start()

    def _kept(self, _name: str) -> None:
        if self._progress is not None:
            self._progress.advance(self._task)


def _why() -> str:
    if CACHE.damaged:
        return f"{CACHE.damaged[0]}: damaged, compiling it again"
    if CACHE.is_for_this_run:
        where = "there is no home folder" if CACHE.refused is None else f"{CACHE.refused} cannot be written"
        return f"compiling native code, for this run only ({where}; EMU_CACHE_DIR can name another place)"
    return COMPILING
