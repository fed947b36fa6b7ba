# SPDX-License-Identifier: GPL-2.0-or-later
"""What shadow tables take: the cap that no guest can break, the share of what they map, and what a zap of much costs."""

from __future__ import annotations

import numpy as np
import pytest

from emu import images
from emu.config import VmConfig, parse_shadow_memory
from emu.events import Kind, Outcome
from emu.machine import control as cbw
from emu.machine.memory import FrameUse
from emu.trace.counters import counters
from emu.units import MIB, PAGE_BYTES
from emu.vm import check, launch, rows
from emu.vm.vm import VirtualMachine

FORMATS = ("32", "pae", "64")
CAP_PAGES = parse_shadow_memory("256K")
DENSE_BYTES = 64 * MIB
LEAST_SHARE = 256  # shadow tables take at most one byte for so many that they map
POST_PORT, MARK_START, MARK_END = 0x80, 1, 2
LIMIT = 200_000_000


def boot(name: str, append: str = "", **settings: int) -> VirtualMachine:
    config = VmConfig(memory_bytes=DENSE_BYTES, **settings)
    image = images.FOLDER / "suite" / f"{name}.bin"
    files = launch.boot_files(launch.Boot(image, append), config.memory_bytes)
    return launch.new_machine(config, files, launch.RecordingConsole())


def run(vm: VirtualMachine) -> None:
    """To the guest's end, which must be a good one."""
    stop = vm.run(limit=LIMIT)
    assert (stop.outcome, stop.value) == (Outcome.EXITED, 0), bytes(vm.console.output)


@pytest.mark.parametrize("paging", FORMATS)
def test_ten_thousand_roots_under_a_cap(paging: str) -> None:
    vm = boot(f"roots-{paging}", shadow_pages=CAP_PAGES)
    run(vm)
    seen = counters(vm.control, vm.state.counters)
    assert seen["mmu_recycled"] > 10_000
    assert seen["shadow_pages"] <= CAP_PAGES
    used = int(np.count_nonzero(vm.state.memory.frames.records["use"] == FrameUse.TABLE))
    assert used <= CAP_PAGES + int(vm.control[cbw.NESTED_PAGES]) + 1  # the nested root
    check.check(vm.state)
    vm.close()


@pytest.mark.parametrize("paging", FORMATS)
def test_dense_mappings_take_a_256th(paging: str) -> None:
    vm = boot(f"dense-{paging}", f"pages={DENSE_BYTES // PAGE_BYTES} mappings=0")
    run(vm)
    leaves = vm.state.rows[:, rows.ROLE] & rows.LEVEL_MASK == 1
    assert np.count_nonzero(leaves & (vm.state.rows[:, rows.IN_USE] != 0)) >= DENSE_BYTES // (2 * MIB)
    ever_made = int(vm.state.counters[Kind.SHADOW_PAGE])
    assert ever_made * PAGE_BYTES * LEAST_SHARE <= DENSE_BYTES
    vm.close()


@pytest.mark.parametrize("paging", FORMATS)
def test_sixty_thousand_mappings_are_protected_in_a_few_exits(paging: str) -> None:
    vm = boot(f"dense-{paging}", "pages=0")
    exits: list[int] = []
    protected: list[int] = []
    write = vm.board.system.write

    def watch(port: int, size: int, value: int) -> None:
        write(port, size, value)
        if port == POST_PORT and value in (MARK_START, MARK_END):
            exits.append(counters(vm.control, vm.state.counters)["exits"])
            protected.append(writable_leaves(vm))

    vm.board.system.write = watch  # type: ignore[method-assign]
    run(vm)
    before, after = protected
    assert before - after >= 60_000
    assert exits[1] - exits[0] <= 4  # the hidden fault, and the port
    vm.close()


def writable_leaves(vm: VirtualMachine) -> int:
    """Leaf entries that let the guest store."""
    state = vm.state
    of_leaves = state.rows[(state.rows[:, rows.IN_USE] != 0) & (state.rows[:, rows.ROLE] & rows.LEVEL_MASK == 1)]
    entries = state.memory.words.reshape(-1, rows.ENTRIES)[of_leaves[:, rows.FRAME]]
    return int(np.count_nonzero(entries & 3 == 3))
