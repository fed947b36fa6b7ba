"""Linux KSM at full speed on pages of our own, as a peer of the scanner: `/sys/kernel/mm/ksm`, with every setting put back afterwards.

KSM takes two passes for a page: the first notes its checksum, and from the second on it is also looked up in a tree of pages (which is built anew each time).
Those are measured.
Kernel documentation: admin-guide/mm/ksm.
"""

from __future__ import annotations

import mmap
import os
import signal
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from emu.errors import EmuError

FOLDER = Path("/sys/kernel/mm/ksm")
STOPPED, RUNNING = "0", "1"
FULL_SPEED = {
    "pages_to_scan": "20000",  # at a time; a write to `run` waits for the end of that
    "sleep_millisecs": "0",
    "smart_scan": "0",  # pages that never matched are not skipped
}
FIRST_PASSES = 2  # the end of one that found no pages, and the one that only notes checksums
PASSES = 5  # that are measured
LIMIT_SECONDS = 120.0
POLL_SECONDS = 0.0005
TERMINATED = 128 + signal.SIGTERM


class KsmUnavailableError(EmuError):
    """KSM cannot be measured here; the message is the reason."""


def why_unavailable(folder: Path = FOLDER) -> str | None:
    """Why KSM cannot serve as a peer here, or None if it can."""
    if not hasattr(mmap, "MADV_MERGEABLE") or not folder.is_dir():
        return "the kernel has no KSM"
    if not all(os.access(folder / name, os.W_OK) for name in ("run", "pages_to_scan", "sleep_millisecs")):
        return f"{folder} is not writable"
    if _get(folder, "run") != STOPPED:
        return "KSM serves others"
    return None


def _get(folder: Path, name: str) -> str:
    return (folder / name).read_text().strip()


@contextmanager
def at_full_speed(folder: Path = FOLDER) -> Iterator[None]:
    """KSM's settings raised and KSM stopped; both as before at the end, also when the process is told to end.

    Raises KsmUnavailableError if the kernel refuses a setting.
    """
    before = {name: _get(folder, name) for name in ("run", *FULL_SPEED) if (folder / name).exists()}
    try:
        with _ending_by_exception():
            for name in before.keys() & FULL_SPEED.keys():
                (folder / name).write_text(FULL_SPEED[name])
            yield
    except OSError as error:
        raise KsmUnavailableError(f"KSM refuses a setting ({error})") from error
    finally:
        for name, value in before.items():  # `run` first
            (folder / name).write_text(value)


@contextmanager
def _ending_by_exception() -> Iterator[None]:
    """SIGTERM raises SystemExit, so that what is to be put back is put back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_signal: int, _frame: object) -> None:
        raise SystemExit(TERMINATED)

    former = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def pages_a_second(pages: np.ndarray) -> float:
    """How many pages a second KSM looks up, given a private copy of `pages` (uint8, whole pages, all distinct) and nothing else.

    Raises KsmUnavailableError if it cannot be measured.
    """
    reason = why_unavailable()
    if reason:
        raise KsmUnavailableError(reason)
    with mmap.mmap(-1, len(pages), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as copy, at_full_speed():
        copy.madvise(mmap.MADV_NOHUGEPAGE)  # KSM would split them first
        copy[:] = pages.data
        copy.madvise(mmap.MADV_MERGEABLE)
        (FOLDER / "run").write_text(RUNNING)
        passes = [_seconds_of_a_pass() for _ in range(FIRST_PASSES + PASSES)][FIRST_PASSES:]
    return len(pages) / mmap.PAGESIZE / statistics.median(passes)


def _seconds_of_a_pass() -> float:
    """Seconds until KSM has seen all pages once more, counted from the end of the pass before."""
    start = time.perf_counter()
    done = int(_get(FOLDER, "full_scans"))
    while int(_get(FOLDER, "full_scans")) == done:
        time.sleep(POLL_SECONDS)
        if time.perf_counter() > start + LIMIT_SECONDS:
            raise KsmUnavailableError(f"KSM took more than {LIMIT_SECONDS:.0f} s for a pass")
    return time.perf_counter() - start
