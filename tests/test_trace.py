# SPDX-License-Identifier: GPL-2.0-or-later
"""The text trace and the tables say what happened: kinds, counts, entries, disassembly."""

from __future__ import annotations

import functools
import re
import struct
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from emu import events, images
from emu.config import Mmu, VmConfig
from emu.events import CATALOGUE, Kind
from emu.trace import counters, tables_text, text
from emu.vm import tables
from emu.vm.vm import VirtualMachine
from tests.test_guests import INSN_LIMIT, ScriptedConsole, make_vm

EVERYTHING = frozenset(events.GROUPS)
P, W, U, LARGE = 1, 2, 4, 0x80


@functools.cache
def run(guest: str, mmu: Mmu = Mmu.SHADOW, groups: frozenset[str] = EVERYTHING) -> tuple[VirtualMachine, np.ndarray]:
    """A finished VM and all that it recorded."""
    parts = [np.zeros(0, events.RECORD)]
    console = ScriptedConsole(b"fault\nquit\n")
    vm = make_vm(images.guest(guest), VmConfig(mmu=mmu, events=groups), console, on_events=parts.append)
    vm.stop_event(vm.run(limit=INSN_LIMIT))
    return vm, np.concatenate(parts)


def lines(guest: str, mmu: Mmu = Mmu.SHADOW) -> list[str]:
    return list(text.lines(run(guest, mmu)[1]))


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_has_a_line(kind: Kind) -> None:
    record = np.zeros(1, events.RECORD)
    record["kind"] = kind
    assert CATALOGUE[kind].label in text.line(record[0]).split()


@pytest.mark.parametrize("mmu", list(Mmu))
@pytest.mark.parametrize("guest", ["paging", "processes", "console"])
def test_counters_are_the_recorded_events(guest: str, mmu: Mmu) -> None:
    """Prove the instrument: with everything selected, what is counted was recorded, and nothing else."""
    vm, records = run(guest, mmu)
    recorded = Counter(int(kind) for kind in records["kind"])
    counted = counters.counters(vm.control, vm.state.counters)
    assert {info.counter: counted[info.counter] for info in CATALOGUE.values()} == {
        info.counter: recorded[kind] for kind, info in CATALOGUE.items()
    }


def test_recording_does_not_change_the_run() -> None:
    recorded, _ = run("processes")
    quiet = make_vm(images.guest("processes"), VmConfig(), ScriptedConsole())
    quiet.stop_event(quiet.run(limit=INSN_LIMIT))
    assert quiet.virtual_time == recorded.virtual_time
    assert list(quiet.state.counters) == list(recorded.state.counters)


@pytest.mark.parametrize("group", events.GROUPS)
def test_a_group_selects_its_kinds_and_no_others(group: str) -> None:
    everything = run("paging")[1]
    wanted = [kind for kind, info in CATALOGUE.items() if info.group == group]
    expected = [text.line(record) for record in everything[np.isin(everything["kind"], wanted)]]
    recorded = run("paging", groups=frozenset([group]))[1]
    assert list(text.lines(recorded)) == expected


SHOWN = {
    "an address space switch": ("processes", r"cr3-load +[0-9a-f]{8} -> [0-9a-f]{8} root MPN [0-9a-f]{5} (new|found again) +; mov cr3, e"),
    "a hidden fault": ("paging", r"hidden-fault +VA [0-9a-f]{8} \S+ PPN [0-9a-f]{5} MPN [0-9a-f]{5} none -> [0-9a-f]{5} .{9} +; \S"),
    "the intruder's fault": ("processes", r"true-fault +VA 00100000 P\|W\|U +; mov"),
    "its delivery": ("processes", r"exception +#PF P\|W\|U"),
    "a table store": ("paging", r"pte-write +PPN [0-9a-f]{5}\[\d+\] [0-9a-f]{8}.* -> [0-9a-f]{8}.* +; \S"),
    "a shadow update": ("paging", r"shadow-update +PPN [0-9a-f]{5}\[\d+\] \S.* -> \S"),
    "INVLPG": ("paging", r"invlpg +VA [0-9a-f]{8} +; invlpg "),
    "INT n": ("paging", r"int-n +vector [0-9a-f]{2} +; int 0x"),
    "an interrupt": ("processes", r"interrupt +vector [0-9a-f]{2}"),
    "a port write": ("processes", r"port-write +port 03f8 size 1 <- [0-9a-f]+ +; out dx, al"),
    "a port read": ("processes", r"port-read +port 03fd size 1 -> [0-9a-f]+ +; in al, dx"),
    "a control register": ("paging", r"cr-write +CR0 [0-9a-f]{8} -> [0-9a-f]{8} +; mov cr0, e"),
    "a halt": ("console", r"halt +; hlt"),
    "the end": ("processes", r"stop +\S"),
}  # fmt: skip


@pytest.mark.parametrize("what", SHOWN)
def test_the_trace_shows(what: str) -> None:
    guest, pattern = SHOWN[what]
    found = [line for line in lines(guest) if re.match(r" *\d+ [0-9a-f]{8} " + pattern, line)]
    assert found


def test_a_table_store_is_followed_by_its_shadow_update() -> None:
    """Both name the same entry; the frame shadowed changes with the frame mapped."""
    records = run("paging")[1]
    is_update = records["kind"] == Kind.SHADOW_UPDATE
    assert is_update.any()
    for at in np.flatnonzero(is_update):
        before = records[:at][::-1]
        store = before[np.isin(before["kind"], [Kind.PTE_WRITE, Kind.SYNC])][0]
        assert store["ppn"] == records[at]["ppn"]
        if store["kind"] == Kind.PTE_WRITE:
            assert store["old"] & P
            assert store["old"] != store["new"]


STORE = re.compile(r"; (mov|and|or|xor|add|sub|xchg|rep stos|rep movs|lock \S+)\S* .*\[")


def test_a_table_store_is_blamed_on_the_instruction_that_stores() -> None:
    """A traced store is only compared when it is over: the line must still show it, not what comes next."""
    stores = [line for line in lines("paging") if " pte-write " in line]
    assert len(stores) > 20
    assert [line for line in stores if not STORE.search(line) and "invlpg" not in line and "cr3" not in line] == []


def test_times_never_run_backwards() -> None:
    for guest in ("paging", "processes", "console"):
        assert np.all(np.diff(run(guest)[1]["time"].astype(np.int64)) >= 0)


# ---- tables ----


def walk(vm: VirtualMachine) -> dict[int, tuple[int, int]]:
    """VPN to (PPN, W and U rights) by a plain walk of guest memory."""

    def table(pa: int) -> tuple[int, ...]:
        return struct.unpack("<1024I", vm.read_physical(pa, 4096))

    mapped: dict[int, tuple[int, int]] = {}
    for high, pde in enumerate(table(vm.guest_cr3 & ~0xFFF)):
        if not pde & P:
            continue
        for low, pte in enumerate([0] * 1024 if pde & LARGE else table(pde & ~0xFFF)):
            if pde & LARGE:
                mapped[high << 10 | low] = ((pde >> 22 << 10) + low, pde & (W | U))
            elif pte & P:
                mapped[high << 10 | low] = (pte >> 12, pte & pde & (W | U))
    return mapped


@pytest.mark.parametrize("mmu", list(Mmu))
def test_the_printed_tables_are_those_in_guest_memory(mmu: Mmu) -> None:
    vm, _ = run("paging", mmu)
    printed: dict[int, tuple[int, int]] = {}
    shown = list(tables_text.table_lines(tables.ranges(vm.state), title="title"))
    assert shown[0] == "title"
    for line in shown[2:]:
        vpns, pages, flags, *rest = line.split()
        if rest[0] == "4M":
            rest.pop(0)
        first, ppn = int(vpns.split("-")[0], 16), int(rest[0].split("-")[0], 16)
        rights = (W if "W" in flags else 0) | (U if "U" in flags else 0)
        for number in range(int(pages)):
            assert first + number not in printed
            printed[first + number] = (ppn + number, rights)
    assert printed == walk(vm)
    assert len(printed) > 1000


@pytest.mark.parametrize(("form", "size"), [("32", "4M"), ("pae", "2M"), ("64", "2M")])
def test_folded_tables_name_the_size_of_large_pages(form: str, size: str) -> None:
    """The suite's guests map memory at its own address with large pages."""
    done = subprocess.run(
        [sys.executable, "-m", "emu", "boot", str(images.FOLDER / "suite" / f"bits-{form}.bin"), "--tables", "--quiet"],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    tables = done.stdout[done.stdout.index("page tables at") :]
    assert {word for word in tables.split() if word in ("2M", "4M", "1G")} == {size}
