"""One run of a guest from reset to its end, with what it left: nothing here depends on the host's clock, unless a limit of it is set."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from emu import events, images
from emu.config import Mmu, VmConfig, parse_balloon
from emu.devices.board import COM1_BASE
from emu.errors import explain
from emu.events import Kind, Outcome
from emu.suite.cases import DEFAULT_OUTPUT_BYTES
from emu.tomlvalues import size_text
from emu.trace.selection import Selection, Selector
from emu.vm import launch

if TYPE_CHECKING:
    from emu.vm.exits import Stop
    from emu.vm.vm import VirtualMachine

TAIL_EVENTS = 20  # shown of a failed run
MOST_EVENTS = 1 << 20  # of a golden trace, or kept for a test
COM1_PORTS = 8


@dataclass(frozen=True)
class Limits:
    """When a run is ended though the guest would go on."""

    virtual_time: int
    instructions: int | None = None  # retired
    output_bytes: int = DEFAULT_OUTPUT_BYTES  # on COM1 and the debug port
    seconds: float | None = None  # of the host's clock


@dataclass(frozen=True)
class Finished:
    """A run that ended."""

    outcome: Outcome
    value: int  # of the debug-exit port
    why: str
    serial: str
    screen: str  # lines of text on the VGA screen
    instructions: int  # retired
    virtual_time: int
    counters: dict[str, int]
    events: np.ndarray  # dtype `emu.events.RECORD`, of the groups asked for; empty if none were
    last_events: np.ndarray  # the guest's own, of all groups, but accesses of COM1 left out; empty if they were not asked for
    cut_off: str = ""  # which limit of the host's ended it, if one did: the guest had no part in that


def serial_text(data: bytes) -> str:
    """A serial line's bytes as text, lines ended by LF however the guest ends them."""
    return data.decode("utf-8", "backslashreplace").replace("\r\n", "\n")


class _Watch:
    """Takes what a guest prints and does, and ends its run when a limit is passed."""

    def __init__(self, limits: Limits, groups: frozenset[str], last_events: int) -> None:
        self.cut_off = ""
        self.stop: Callable[[], None] = lambda: None  # set when there is a machine
        self._limits = limits
        mask = events.selection_mask(tuple(sorted(groups))) if groups else 0
        self._is_asked_for = np.array([bool(mask >> kind & 1) for kind in range(events.NUMBER_OF_KINDS)])
        self._asked_for: list[np.ndarray] = []
        self._count = 0
        self.last = LastEvents(last_events, Selector(Selection(frozenset(events.GROUPS)), images.firmware()))

    def end(self, why: str) -> None:
        """End the run; from any thread."""
        self.cut_off = self.cut_off or why
        self.stop()

    def printed(self, total: int) -> None:
        """The guest has printed so many bytes by now."""
        if total > self._limits.output_bytes:
            self.end(f"the guest printed more than {size_text(self._limits.output_bytes)} (output limit)")

    def happened(self, records: np.ndarray) -> None:
        """Events were recorded."""
        self.last.add(records)
        if self._is_asked_for.any():
            asked_for = records[self._is_asked_for[records["kind"]]]
            self._asked_for.append(asked_for)
            self._count += len(asked_for)
            if self._count > MOST_EVENTS:
                self.end(f"more than {MOST_EVENTS:,} events to keep")

    @property
    def events(self) -> np.ndarray:
        """Those asked for."""
        return np.concatenate(self._asked_for) if self._asked_for else np.zeros(0, events.RECORD)

    @contextlib.contextmanager
    def clock(self) -> Iterator[None]:
        """The host's clock runs, if there is a limit of it."""
        seconds = self._limits.seconds
        timer = threading.Timer(seconds or 0, self.end, [f"not done after {seconds or 0:g} s of the host's clock (timeout)"])
        if seconds is not None:
            timer.start()
        try:
            yield
        finally:
            timer.cancel()


class LastEvents:
    """The last few events of a run, accesses of COM1 and those that `select` leaves out aside. What it costs does not grow with the run."""

    ROWS = 1 << 12  # that wait to be looked at

    def __init__(self, count: int, select: Callable[[np.ndarray], np.ndarray] = lambda records: records) -> None:
        self._most, self._select = count, select
        self._rows = np.zeros((self.ROWS if count else 0, events.RECORD_WORDS), np.int64)  # as words: quicker to copy
        self._used = 0
        self._last = np.zeros(0, events.RECORD)

    def add(self, records: np.ndarray) -> None:
        """Newer ones; most calls only copy them."""
        rows = np.ascontiguousarray(records).view(np.int64).reshape(-1, events.RECORD_WORDS)
        while len(rows) and self._most:
            part, rows = rows[: self.ROWS - self._used], rows[self.ROWS - self._used :]
            self._rows[self._used : self._used + len(part)] = part
            self._used += len(part)
            if self._used == self.ROWS:
                self._sift()

    def _sift(self) -> None:
        chosen = self._select(self._rows[: self._used].view(events.RECORD).reshape(-1))
        self._last = np.concatenate([self._last, chosen[~_is_of_serial_line(chosen)]])[-self._most :]
        self._used = 0

    def records(self) -> np.ndarray:
        """The last ones."""
        if self._used:
            self._sift()
        return self._last


@dataclass
class _Console(launch.RecordingConsole):
    """Keeps what a guest prints, as far as the watch lets it go on."""

    WIRING: ClassVar[frozenset[str]] = frozenset()

    on_output: Callable[[int], None] = lambda _total: None

    def write(self, data: bytes) -> None:
        """COM1."""
        super().write(data)
        self.on_output(len(self.output) + len(self.debug))

    def write_debug(self, data: bytes) -> None:
        """Port 0xE9."""
        super().write_debug(data)
        self.on_output(len(self.output) + len(self.debug))


def run_guest(
    what: launch.Boot,
    *,
    memory_bytes: int,
    mmu: Mmu,
    limits: Limits,
    groups: frozenset[str] = frozenset(),
    last_events: int = 0,
    switches: frozenset[str] = frozenset(),
    disks: Sequence[Path | int] = (),
    balloon: str = "",
) -> Finished:
    """Boot and run to the end, or to a limit; keep all events of `groups`, and the last few of the guest's own.

    `disks` are files, of which the guest gets copies in memory, and sizes of empty ones; `balloon` has targets as `parse_balloon` takes them.
    A reset by the guest is an end, and so is an error of emu (`Outcome.FAILED`). Raises EmuError where the image cannot be booted.
    """
    from emu.trace.counters import counters

    watch = _Watch(limits, groups, last_events)
    recorded = frozenset(events.GROUPS) if last_events else groups
    plan = parse_balloon(balloon, VmConfig.insns_per_second)
    settings = {"memory_bytes": memory_bytes, "mmu": mmu, "events": recorded, "shadow_switches": switches, "balloon_plan": plan}
    console = _Console(on_output=watch.printed)
    files = launch.boot_files(what, memory_bytes)
    attached = launch.scratch_disks(disks, what)
    vm = launch.new_machine(VmConfig.from_mapping(settings), files, console, watch.happened, attached)
    vm.no_reboot = True
    watch.stop = vm.interrupt
    try:
        with watch.clock():
            stop = _run_to(vm, limits)
        vm.stop_event(stop)
        return Finished(
            outcome=stop.outcome,
            value=stop.value,
            why=stop.why,
            serial=serial_text(bytes(console.output)),
            screen="\n".join(line.rstrip() for line in vm.screen() or ()),
            instructions=vm.retired_insns,
            virtual_time=vm.virtual_time,
            counters=counters(vm.control, vm.state.counters),
            events=watch.events,
            last_events=watch.last.records(),
            cut_off=watch.cut_off,
        )
    finally:
        watch.stop = lambda: None
        vm.close()
        del vm
        collect()


def _run_to(vm: VirtualMachine, limits: Limits) -> Stop:
    """The end of a run at a limit of virtual time at the latest, so that a guest that sleeps for ever ends too."""
    from emu.vm.exits import Stop

    try:
        vm.run_until(limits.virtual_time, limit=limits.instructions)
        return vm.run(limit=0)
    except Exception as error:  # noqa: BLE001  (what led to it is worth showing)
        return Stop(Outcome.FAILED, why=str(explain(error)))


def _is_of_serial_line(records: np.ndarray) -> np.ndarray:
    """Accesses of COM1: dozens a line of text, which is shown anyway."""
    of_ports = np.isin(records["kind"], (int(Kind.PORT_READ), int(Kind.PORT_WRITE)))
    mask: np.ndarray = of_ports & (records["va"] >= COM1_BASE) & (records["va"] < COM1_BASE + COM1_PORTS)
    return mask


def collect() -> None:
    """Give the machine's memory back now: a VM and its hooks refer to each other."""
    gc.collect()


def freeze_imports() -> None:
    """Leave what is loaded by now out of later collections: it stays, and looking at it takes a fifth of a second."""
    gc.collect()
    gc.freeze()
