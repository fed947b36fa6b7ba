# SPDX-License-Identifier: GPL-2.0-or-later
"""One hostile guest, run to its end and audited. In a worker process, since the engine may abort it."""

from __future__ import annotations

import ctypes
import faulthandler
import functools
import re
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emu import events
from emu.config import Mmu, VmConfig
from emu.errors import EmuError
from emu.machine import control as cbw
from emu.machine import crash, env
from emu.suite.run import collect
from emu.units import MIB
from emu.vm import check, launch
from emu.vm.access import fetch
from tests.hostile import images

if TYPE_CHECKING:
    from emu.vm.vm import VirtualMachine

MEMORY_BYTES = 8 * MIB
INSNS, VIRTUAL_TIME = 100_000, 5_000_000  # instructions, and virtual time
HANG_SECONDS = 300.0  # of real time: then a guest has got hold of the host
CODE_BYTES = 16  # shown of the block that the engine gave up on
TRACED = 4  # one guest in so many is traced

_running: list[VirtualMachine] = []


@dataclass(frozen=True)
class Guest:
    """What to run."""

    mode: str
    seed: int
    mmu: str

    @property
    def name(self) -> str:
        """As it is named on the command line."""
        return f"{self.mode} {self.mmu} {self.seed}"


@dataclass(frozen=True)
class Ran:
    """What became of it."""

    guest: Guest
    kind: str  # how it ended; of a failure, what failed, without its numbers
    failure: str = ""  # in full
    seconds: float = 0.0  # of real time
    time: int = 0  # virtual


def run(guest: Guest) -> Ran:
    """Run it; whatever goes wrong in emu is in the answer."""
    _report_crashes()
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
    start = time.monotonic()
    try:
        vm = _machine(guest)
        _running[:] = [vm]
        try:
            stop = vm.run(limit=INSNS, time_limit=VIRTUAL_TIME)
            vm.stop_event(stop)
            check.check(vm.state)
            vm.board.check()
            return Ran(guest, str(stop.outcome), "", time.monotonic() - start, vm.virtual_time)
        finally:
            vm.close()
    except Exception as error:  # noqa: BLE001  (that is what is looked for)
        return Ran(guest, _kind(error), _in_full(error), time.monotonic() - start)
    finally:
        faulthandler.cancel_dump_traceback_later()
        _running.clear()
        collect()


@functools.cache
def _report_crashes() -> None:
    crash.at_crash(_tell_where)


def _machine(guest: Guest) -> VirtualMachine:
    with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        Path(file.name).write_bytes(images.make(guest.mode, guest.seed))
        what = launch.Boot(Path(file.name))
        files = launch.boot_files(what, MEMORY_BYTES)
    is_traced = guest.seed % TRACED == 0
    config = VmConfig(
        memory_bytes=MEMORY_BYTES,
        mmu=Mmu(guest.mmu),
        events=frozenset(events.GROUPS) if is_traced else frozenset(),
        balloon_plan=((1000, MIB), (50_000, 0)),
    )
    return launch.new_machine(config, files, launch.RecordingConsole(), lambda _: None, launch.scratch_disks([MIB], what))


def _kind(error: Exception) -> str:
    if isinstance(error, EmuError):
        return f"{type(error).__name__}: {re.sub(r'(0x)?[0-9a-f]*[0-9][0-9a-f]*', 'N', str(error))}"
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}"


def _in_full(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
    return f"{type(error).__name__}: {error} ({places})"


def _tell_where() -> None:
    """At an abort of the engine: the code that it was about to translate, as far as that can be told."""
    control = _running[0].control
    size = int(control[cbw.LOW_BYTES])
    ctypes.memmove(int(control[cbw.ENV]), int(control[cbw.LIVE]), size)
    place = int(env.linear_ip(control[cbw.ENV]))
    count = int(fetch(control, place, control[cbw.CODE_COPY], CODE_BYTES))
    code = ctypes.string_at(int(control[cbw.CODE_COPY]), count)
    print(f"block at {place:x}: {code.hex()}", file=sys.stderr, flush=True)
