"""Signals that end a run: Ctrl-C, SIGTERM, SIGHUP.

Those that were ignored when emu was started stay ignored: SIGHUP under `nohup`, SIGINT of what a script starts in the background.
"""

from __future__ import annotations

import contextlib
import select
import signal
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Self

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def handled(handler: Callable[[int, FrameType | None], None], numbers: tuple[signal.Signals, ...] = ENDING) -> Iterator[None]:
    """Have `handler` called for those of the signals that are not ignored, and give them back in the end."""
    before = {number: signal.getsignal(number) for number in numbers}
    heeded = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}  # None: not Python's
    for number in heeded:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in heeded.items():
            signal.signal(number, old)


class OutputInterruptedError(Exception):
    """A write to a terminal or a pipe that takes no more was given up, because a signal ends the run."""


class Ending:
    """What such a signal does to `emu host`; a context manager, in the thread that runs the host.

    reading --`must_finish`--> starting --`begin`--> running --`finish`--> over

    While a snapshot is read: KeyboardInterrupt. While a host runs: the run ends behind the slice that is under way, and the second signal breaks that
    slice off. A write that waits for its reader is given up at once. In the other states a signal waits: what is begun is brought to its end.
    """

    def __init__(self) -> None:
        self.seen: list[int] = []
        self._break_off: Callable[[], None] | None = None
        self._is_reading = True
        self._is_writing = False
        self._handling = handled(self._on_signal)

    def __enter__(self) -> Self:
        self._handling.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._handling.__exit__(kind, error, trace)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.seen.append(number)
        if self._is_reading:
            raise KeyboardInterrupt
        if self._break_off is not None and len(self.seen) > 1:
            self._break_off()
        if self._is_writing:
            self._is_writing = False
            raise OutputInterruptedError

    def must_finish(self) -> None:
        """From now on something is made that would stay behind if it were left."""
        self._is_reading = False

    def begin(self, break_off: Callable[[], None]) -> None:
        """A host runs now; `break_off` breaks a slice of it off."""
        self._break_off = break_off

    def finish(self) -> None:
        """It does not any more."""
        self._break_off = None

    def end(self) -> None:
        """As Ctrl-C does: the user has asked for the end in another way."""
        self.seen.append(signal.SIGINT)

    @contextlib.contextmanager
    def writing(self, descriptor: int) -> Iterator[None]:
        """A block that writes to what may never take it; raises OutputInterruptedError if a signal comes meanwhile, or came before and nothing is taken now."""
        self._is_writing = True
        try:
            if self.seen and not select.select([], [descriptor], [], 0)[1]:
                raise OutputInterruptedError
            yield
        finally:
            self._is_writing = False
