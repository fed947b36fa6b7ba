"""One run of a guest from reset to its end, with what it left: nothing here depends on the host's clock."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emu import events
from emu.config import Mmu, VmConfig, parse_balloon
from emu.devices.board import COM1_BASE
from emu.events import Kind, Outcome
from emu.vm import launch

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
    """Boot and run to the end, or to `limit` of virtual time; keep all events of `groups`, or only the last few.

    `disks` are files, of which the guest gets copies in memory, and sizes of empty ones; `balloon` has targets as `parse_balloon` takes them.
    A reset by the guest is an end. Raises EmuError where the image cannot be booted or the VM cannot go on.
    """
    from emu.trace.counters import counters

    kept: list[np.ndarray] = []

    def keep(records: np.ndarray) -> None:
        kept.append(records)
        if last_events is not None:
            kept[-1] = records[~_is_of_serial_line(records)]
            kept[:] = [np.concatenate(kept)[-last_events:]]

    plan = parse_balloon(balloon, VmConfig.insns_per_second)
    settings = {"memory_bytes": memory_bytes, "mmu": mmu, "events": groups, "shadow_switches": switches, "balloon_plan": plan}
    config = VmConfig.from_mapping(settings)
    console = launch.RecordingConsole()
    files = launch.boot_files(what, memory_bytes)
    vm = launch.new_machine(config, files, console, keep, launch.scratch_disks(disks, what))
    vm.no_reboot = True
    try:
        vm.run_until(limit)  # of virtual time, so that a guest that sleeps for ever ends too
        stop = vm.run(limit=0)
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
