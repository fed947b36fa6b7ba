"""The benchmarks by name."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from emu import images
from emu.bench.content_rows import CONTENT_BENCHMARKS
from emu.bench.disk_rows import DISK_BENCHMARKS
from emu.bench.harness import (
    QEMU,
    QEMU_OPTIONS,
    REPETITIONS,
    Row,
    median,
    new_vm,
    qemu_path,
    run_here,
    run_qemu,
    seconds_each,
)
from emu.bench.host_rows import HOST_BENCHMARKS
from emu.bench.os_rows import OS_BENCHMARKS
from emu.bench.plain import PEER, run_plain
from emu.bench.suite_rows import matrix, suite
from emu.bench.switch_rows import SWITCH_BENCHMARKS
from emu.config import Mmu, VmConfig
from emu.errors import EmuError
from emu.events import Kind
from emu.units import MIB
from emu.vm import rows as shadow_rows
from emu.vm import shadow

MICRO, NANO = 1e6, 1e9
NO_QEMU = f"{QEMU} is not installed"
POST_PORT, ROUND_START, ROUND_END = 0x80, 1, 2
FAULT_PAGES, FAULT_ROUNDS = 4096, 8
BULK_STORES = 4096


def exit_python() -> Row:
    """A CPUID exit, handled in Python."""
    return Row("exit-python", seconds_each(run_here, "cpuid", 1_000, 51_000) * MICRO, "us")


def exit_native() -> Row:
    """A hidden fault on a page that the guest has mapped and the machine has a frame for: walk, fill, resume."""
    vm = new_vm(
        f"mode=touch pages={FAULT_PAGES} n={FAULT_ROUNDS}",
        VmConfig(memory_bytes=64 * MIB, shadow_switches=frozenset({"no-prefetch"})),
    )
    marks: list[float] = []
    write = vm.board.system.write

    def watch(port: int, size: int, value: int) -> None:
        write(port, size, value)
        if port == POST_PORT:
            if value == ROUND_START:
                _forget_shadow_leaves(vm)
            marks.append(time.perf_counter())

    vm.board.system.write = watch  # type: ignore[assignment, method-assign]
    vm.run()
    rounds = [end - start for start, end in zip(marks[2::2], marks[3::2], strict=True)]  # the first warms up
    faults = int(vm.state.counters[3])
    if faults < FAULT_PAGES * FAULT_ROUNDS:
        raise EmuError(f"exit-native: {faults} hidden faults, expected {FAULT_PAGES * FAULT_ROUNDS}")
    return Row("exit-native", statistics.median(rounds) / FAULT_PAGES * MICRO, "us")


def _forget_shadow_leaves(vm: object) -> None:
    """Drop all shadow pages of the last level, as if the VMM had taken them back."""
    state, cpu = vm.state, vm.cpu  # type: ignore[attr-defined]
    levels = state.rows[:, shadow_rows.ROLE] & shadow_rows.LEVEL_MASK
    for row in np.flatnonzero((state.rows[:, shadow_rows.IN_USE] != 0) & (levels == 1)):
        shadow.zap_row(state.control, int(row))
    cpu.flush_tlb()


def reflect() -> Row:
    """A guest's #PF through its IDT to its handler, which steps over the instruction and returns with IRET."""
    return Row(
        "reflect", seconds_each(run_here, "fault", 1_000, 101_000) * MICRO, "us", **_qemu("fault", MICRO, 1_000, 1_001_000)
    )


def syscall() -> Row:
    """INT 0x80 from ring 3, and IRET back."""
    return Row(
        "syscall", seconds_each(run_here, "syscall", 1_000, 101_000) * MICRO, "us", **_qemu("syscall", MICRO, 1_000, 1_001_000)
    )


def _qemu(mode: str, scale: float, few: int, many: int) -> dict[str, Any]:
    """The peer's part of a row: the same loop in QEMU."""
    if qemu_path() is None:
        return {"peer": "qemu", "note": NO_QEMU}
    return {"peer": "qemu tcg", "peer_value": seconds_each(run_qemu, mode, few, many) * scale}


def _loop(name: str, mode: str, scale: float, unit: str, few: int, many: int) -> Row:
    return Row(name, seconds_each(run_here, mode, few, many) * scale, unit, **_qemu(mode, scale, few, many))


def guest_integer() -> Row:
    """Sixteen rounds of arithmetic without a branch."""
    return _loop("guest-integer", "integer", NANO, "ns", 1_000, 10_001_000)


def guest_branches() -> Row:
    """A round of arithmetic with a branch that follows the data: what short blocks cost."""
    return _loop("guest-branches", "branch", NANO, "ns", 1_000, 30_001_000)


def guest_memory() -> Row:
    """Loads, stores, calls and returns: list walk, copy, tree."""
    return _loop("guest-memory", "memory", MICRO, "us", 100, 10_100)


def plain_unicorn() -> Row:
    """A store, with the VMM around the engine and without."""
    here = seconds_each(run_here, "store", 1_000, 50_001_000) * NANO
    plain = seconds_each(run_plain, "store", 1_000, 2_001_000) * NANO
    return Row("plain-unicorn", here, "ns", PEER, plain)


def cr3_switch() -> Row:
    """A switch between two address spaces of 64 pages each, and a load from each page."""
    return _loop("cr3-switch", "cr3", MICRO, "us", 1_000, 101_000)


def pte_write_traced() -> Row:
    """Two PTE stores, seen and shadowed one by one, with an INVLPG and a load each; half of that is one."""
    config = VmConfig(shadow_switches=frozenset({"no-unsync", "no-flood"}))
    vm = new_vm("mode=ptestore n=1000", config)
    vm.run()
    seen = int(vm.state.counters[Kind.PTE_WRITE])
    if seen != 2 * 1000 - 1:  # the very first finds a table that no shadow stands for yet
        raise EmuError(f"pte-write-traced: {seen} stores seen, expected 1999")
    each = seconds_each(lambda append: run_here(append, config), "ptestore", 1_000, 51_000) / 2
    return Row("pte-write-traced", each * MICRO, "us", **_qemu("ptestore", MICRO / 2, 1_000, 501_000))


def pte_bulk() -> Row:
    """A PTE store, in bulks of 4,096 before a load of CR3."""
    each = MICRO / BULK_STORES
    return _loop("pte-bulk", "ptebulk", each, "us", 10, 1_010)


def fork_storm() -> Row:
    """An address space of 256 pages forked, read, one page in sixteen written by copy on write, destroyed."""
    return _loop("fork-storm", "fork", MICRO, "us", 20, 1_020)


def fork_storm_clean() -> Row:
    """The same with page-table entries whose A and D bits are left to the processor: a hidden fault each."""
    return _loop("fork-storm-clean", "fork-clean", MICRO, "us", 20, 1_020)


def wp_toggle() -> Row:
    """CR0.WP off, a store to a read-only page, CR0.WP on: with shadow tables, beside nested ones."""
    value = seconds_each(run_here, "wp", 1_000, 51_000) * MICRO
    nested = VmConfig(mmu=Mmu.NESTED)
    return Row("wp-toggle", value, "us", "nested", seconds_each(lambda a: run_here(a, nested), "wp", 1_000, 51_000) * MICRO)


def boot() -> Row:
    """From the start of the process to the guest's first byte on COM1, compiled code being on disk."""
    command = [sys.executable, "-m", "emu", "boot", "hello", "--quiet"]
    _first_byte(command)
    value = median(lambda: _first_byte(command))
    if qemu_path() is None:
        return Row("boot", value, "s", "qemu", note=NO_QEMU)
    qemu = [QEMU, *QEMU_OPTIONS, "-kernel", str(images.guest("hello"))]
    return Row("boot", value, "s", "qemu tcg", median(lambda: _first_byte(qemu)))


def _first_byte(command: list[str]) -> float:
    start = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = process.stdout.read(1)
        seconds = time.perf_counter() - start
        process.communicate()
    if not first:
        raise EmuError(f"{' '.join(command)} printed nothing")
    return seconds


BENCHMARKS: dict[str, Callable[[], Row]] = {
    "exit-python": exit_python,
    "exit-native": exit_native,
    "reflect": reflect,
    "syscall": syscall,
    "guest-integer": guest_integer,
    "guest-branches": guest_branches,
    "guest-memory": guest_memory,
    "plain-unicorn": plain_unicorn,
    "boot": boot,
    "cr3-switch": cr3_switch,
    "pte-write-traced": pte_write_traced,
    "pte-bulk": pte_bulk,
    "fork-storm": fork_storm,
    "fork-storm-clean": fork_storm_clean,
    "wp-toggle": wp_toggle,
    "matrix": matrix,
    "suite": suite,
    **DISK_BENCHMARKS,
    **OS_BENCHMARKS,
    **CONTENT_BENCHMARKS,
    **HOST_BENCHMARKS,
    **SWITCH_BENCHMARKS,
}

__all__ = ["BENCHMARKS", "REPETITIONS", "Row"]
