"""The error tree: everything emu raises on purpose derives from `EmuError`.

Each class carries the exit status that the `emu` command ends with (documented in the README). All are even, because odd
ones are what a guest's own exit gives. The message is one line that names the thing, what was expected, and what to do.
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Sequence
from pathlib import Path

from emu.limits import address_space, limit_in_words


class EmuError(Exception):
    """Base of all expected failures. `exit_status` is what the command line ends with."""

    exit_status = 70  # EX_SOFTWARE: a fault of emu itself

    @property
    def lines(self) -> tuple[str, ...]:
        """The message as lines for the user: one, unless several things are wrong at once."""
        return (str(self),)


class UsageError(EmuError):
    """A value given by the user is wrong: an option, a configuration key, a guest's name."""

    exit_status = 2


class FileErrors(UsageError):  # noqa: N818  (several)
    """A file that a user wrote is wrong, in one place or in several: a line each, in the order of the file."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self._lines = tuple(lines)

    @property
    def lines(self) -> tuple[str, ...]:
        """A line each."""
        return self._lines


class BadImageError(EmuError):
    """A file cannot serve as a guest image or a module: unreadable, truncated, not multiboot, does not fit."""

    exit_status = 66


class MachineMemoryError(EmuError):
    """The machine has too few free frames for what was asked."""

    exit_status = 72


class EngineError(EmuError):
    """The Unicorn library on this machine does not behave as the design needs; nothing is run on it."""

    exit_status = 78


class OutputError(EmuError):
    """The guest's output, or a trace, cannot be written: a closed pipe, a terminal that went away, a full disk."""

    exit_status = 74


class SnapshotError(EmuError):
    """A file is no snapshot that this emu can go on from, or is damaged."""

    exit_status = 66


class BrokenInvariantError(EmuError):
    """A checker found state that must not exist. Always a bug of emu."""


class InternalError(EmuError):
    """Something failed that never should, and nobody foresaw it. Always a bug of emu."""


def explain(error: BaseException) -> EmuError:
    """The same as an error of this tree, with a line for the user whatever it was."""
    if isinstance(error, EmuError):
        return error
    if is_for_want_of_memory(error):
        return MachineMemoryError(f"the host gives no more memory{limit_in_words()}")
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    told = f": {error}" if str(error) else ""
    return InternalError(f"a bug of emu: {type(error).__name__}{told}{where} (python -X dev -m emu shows more)")


def is_for_want_of_memory(error: BaseException) -> bool:
    """Whether the host refused memory. Under a limit of address space libraries that cannot be loaded fail without saying why."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    is_silent = isinstance(error, ImportError) or (isinstance(error, OSError) and error.errno is None)
    return is_silent and address_space() is not None
