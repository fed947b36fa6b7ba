"""One run of a guest from reset to its end, with what it left: nothing here depends on the host's clock."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from emu import events, images
from emu.config import Mmu, VmConfig, parse_balloon
from emu.devices.board import COM1_BASE
from emu.errors import explain
from emu.events import Kind, Outcome
from emu.trace.selection import Selection, Selector
from emu.vm import launch

if TYPE_CHECKING:
    from emu.vm.exits import Stop
    from emu.vm.vm import VirtualMachine

TAIL_EVENTS = 20  # shown of a failed run
COM1_PORTS = 8


@dataclass(frozen=True)
class Finished:
    """A run that ended."""

    outcome: Outcome
    value: int  # of the debug-exit port
    why: str
    serial: str
    instructions: int  # retired
    virtual_time: int
    counters: dict[str, int]
    events: np.ndarray  # dtype `emu.events.RECORD`; empty if none were asked for


def serial_text(data: bytes) -> str:
    """A serial line's bytes as text, lines ended by LF however the guest ends them."""
    return data.decode("utf-8", "backslashreplace").replace("\r\n", "\n")


def run_guest(
    what: launch.Boot,
    *,
    memory_bytes: int,
    mmu: Mmu,
    limit: int,
    groups: frozenset[str] = frozenset(),
    last_events: int | None = None,
    switches: frozenset[str] = frozenset(),
    disks: Sequence[Path | int] = (),
    balloon: str = "",
) -> Finished:
    """Boot and run to the end, or to `limit` of virtual time; keep all events of `groups`, or only the last few of the guest's own.

    `disks` are files, of which the guest gets copies in memory, and sizes of empty ones; `balloon` has targets as `parse_balloon` takes them.
    A reset by the guest is an end, and so is an error of emu (`Outcome.FAILED`). Raises EmuError where the image cannot be booted.
    """
    from emu.trace.counters import counters

    kept: list[np.ndarray] = []

    select = Selector(Selection(groups), images.firmware())

    def keep(records: np.ndarray) -> None:
        if last_events is None:
            kept.append(records)
        else:
            chosen = select(records)
            kept[:] = [np.concatenate([*kept, chosen[~_is_of_serial_line(chosen)]])[-last_events:]]

    plan = parse_balloon(balloon, VmConfig.insns_per_second)
    settings = {"memory_bytes": memory_bytes, "mmu": mmu, "events": groups, "shadow_switches": switches, "balloon_plan": plan}
    config = VmConfig.from_mapping(settings)
    console = launch.RecordingConsole()
    files = launch.boot_files(what, memory_bytes)
    vm = launch.new_machine(config, files, console, keep, launch.scratch_disks(disks, what))
    vm.no_reboot = True
    try:
        stop = _run_to(vm, limit)
        vm.stop_event(stop)
        return Finished(
            outcome=stop.outcome,
            value=stop.value,
            why=stop.why,
            serial=serial_text(bytes(console.output)),
            instructions=vm.retired_insns,
            virtual_time=vm.virtual_time,
            counters=counters(vm.control, vm.state.counters),
            events=np.concatenate(kept) if kept else np.zeros(0, events.RECORD),
        )
    finally:
        vm.close()
        del vm
        collect()


def _run_to(vm: VirtualMachine, limit: int) -> Stop:
    """The end of a run at `limit` of virtual time at the latest, so that a guest that sleeps for ever ends too."""
    from emu.vm.exits import Stop

    try:
        vm.run_until(limit)
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
