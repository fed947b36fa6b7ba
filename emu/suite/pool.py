"""Worker processes: started once, many calls each, replaced when one dies.

starting --READY--> idle --submit()--> busy --DONE or FAILED--> idle
                                       busy --the process ends--> starting (its call is Lost)
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, Any, Self

from emu.errors import EmuError

COMPILING, READY, DONE, FAILED = "compiling", "ready", "done", "failed"  # what a worker says
PACKAGE_PARENT = str(Path(__file__).resolve().parent.parent.parent)
PROGRAM = "import sys; sys.path.insert(0, sys.argv[2]); from emu.suite.worker import main; main(int(sys.argv[1]))"
STARTS_WITHOUT_READY = 2  # then the machine is at fault, not a guest
LAST_WORDS_LINES = 3


class Lost(EmuError):  # noqa: N818  (what became of a call, not what went wrong in it)
    """The worker's process ended in the middle of a call."""


class _Worker:
    """One process and the pool's end of the line to it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `end`)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(theirs.fileno()), PACKAGE_PARENT],
                stdin=subprocess.DEVNULL,
                stdout=self.errors,
                stderr=self.errors,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C is the pool's to handle
            )
        self.line = Connection(ours.detach())
        self.is_ready = False
        self.call: Any = None  # what it works on
        self.ends_by: float | None = None  # when it is given up, by the host's monotonic clock

    def end(self) -> None:
        """Kill it, wait for it, close what belongs to it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # QEMU too, if it runs one
        self.process.wait()
        self.line.close()
        self.errors.close()

    def last_words(self) -> str:
        """How the process ended, and what it said last."""
        status = self.process.wait()
        self.errors.seek(0)
        said = self.errors.read().decode("utf-8", "replace").strip().splitlines()[-LAST_WORDS_LINES:]
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return "; ".join([f"the process of this case ended with {how}", *(line.removeprefix("emu: ") for line in said)])


class Pool:
    """Up to `count` worker processes; a context manager that ends them."""

    def __init__(self, count: int, on_compiling: Callable[[], None] = lambda: None) -> None:
        self._on_compiling = on_compiling
        self._starts = 0  # in a row that did not come to READY
        self._workers = [_Worker() for _ in range(count)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.end()

    def resident_bytes(self) -> list[int]:
        """Memory that each worker has in use now."""
        pages = [int(Path(f"/proc/{worker.process.pid}/statm").read_text().split()[1]) for worker in self._workers]
        return [count * os.sysconf("SC_PAGE_SIZE") for count in pages]

    def map(
        self,
        function: Callable[[Any], Any],
        items: list[Any],
        patience: Callable[[Any], float | None] = lambda _: None,
    ) -> Iterator[tuple[Any, Any]]:
        """(item, result) for each, as they end; the result of a call that failed is an EmuError, of a lost one `Lost`.

        `patience` says after how many seconds a call is given up and its process killed; None: never.
        """
        waiting = deque(items)
        left = len(items)
        while left:
            for worker in self._workers:
                if worker.is_ready and worker.call is None and waiting:
                    worker.call = (waiting.popleft(),)
                    seconds = patience(worker.call[0])
                    worker.ends_by = None if seconds is None else time.monotonic() + seconds
                    worker.line.send((function, worker.call))
            for answer in self._answers():
                left -= 1
                yield answer

    def _answers(self) -> Iterator[tuple[Any, Any]]:
        """Wait until something happens; the calls that ended."""
        ends = [worker.ends_by for worker in self._workers if worker.call is not None and worker.ends_by is not None]
        timeout = max(0.0, min(ends) - time.monotonic()) if ends else None
        for line in wait([worker.line for worker in self._workers], timeout):
            worker = next(worker for worker in self._workers if worker.line is line)
            answer = self._hear(worker)
            if answer is not None:
                yield answer
        for worker in list(self._workers):
            if worker.call is not None and worker.ends_by is not None and time.monotonic() > worker.ends_by:
                (item,) = worker.call
                worker.end()
                self._workers[self._workers.index(worker)] = _Worker()
                yield item, Lost("not done in time by the host's clock (timeout): its process was ended")

    def call(self, function: Callable[[Any], Any], item: Any) -> Any:
        """The result of one call; raises EmuError if it failed, `Lost` if the process ended."""
        ((_, result),) = self.map(function, [item])
        if isinstance(result, EmuError):
            raise result
        return result

    def _hear(self, worker: _Worker) -> tuple[Any, Any] | None:
        """Take one message; an item with its result when that was it."""
        try:
            kind, value = worker.line.recv()
        except (EOFError, ConnectionResetError):
            return self._replace(worker)
        if kind == COMPILING:
            self._on_compiling()
            self._on_compiling = lambda: None
        elif kind == READY:
            worker.is_ready, self._starts = True, 0
        elif kind in (DONE, FAILED):
            (item,), worker.call = worker.call, None
            return item, value if kind == DONE else EmuError(value)
        return None

    def _replace(self, worker: _Worker) -> tuple[Any, Any] | None:
        words, call = worker.last_words(), worker.call
        worker.end()
        self._workers.remove(worker)
        self._starts += not worker.is_ready
        if self._starts > STARTS_WITHOUT_READY:
            raise EmuError(f"worker processes do not start: {words}")
        self._workers.append(_Worker())
        return None if call is None else (call[0], Lost(words))
