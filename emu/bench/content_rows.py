"""The memory services alone: the scan, sharing, copy on write, paging."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np

from emu.bench.harness import Row, median
from emu.bench.ksm import KsmUnavailableError, pages_a_second
from emu.config import VmConfig
from emu.host.hosted import HostedVm
from emu.machine.memory import FrameUse, MachineMemory
from emu.resources import content
from emu.resources.content_table import ContentTable
from emu.resources.sharing import Sharing
from emu.resources.swap_area import SwapArea
from emu.units import MIB, PAGE_BYTES
from emu.vm import cow
from emu.vm.vm import VirtualMachine

SCAN_BYTES = 256 * MIB  # far more than the caches
VM_BYTES = 32 * MIB
PAGES = 4096  # that are shared, broken, paged
FIRST = 0x400


def distinct_frames(size_bytes: int = SCAN_BYTES) -> tuple[MachineMemory, np.ndarray]:
    """A machine, and so much of it that a VM has, no two pages equal."""
    memory = MachineMemory(size_bytes + 16 * MIB)
    frames = memory.allocate(size_bytes // PAGE_BYTES, 1, FrameUse.GUEST)
    memory.words[:] = np.random.default_rng(1).integers(0, 1 << 62, len(memory.words))
    return memory, frames


def scan_seconds(memory: MachineMemory, order: np.ndarray) -> float:
    """Seconds that these frames take with an empty table; none has a twin."""
    found = np.empty(len(order), np.int64)
    table, codes = ContentTable(memory), np.empty(len(order), np.int64)
    start = time.perf_counter()
    content.scan(table.control, order, codes, found)
    seconds = time.perf_counter() - start
    assert np.all(found == content.NONE)
    assert table.counts_of()["hints_made"] == len(order)
    return seconds


def scan(name: str = "scan") -> Row:
    """Hash and look-up of distinct pages, GB/s, in the order of frames or a random one (`scan-random`); the peer reads the same memory on one core.

    In `scan-whole` the lines that are looked at first hold zeros, as in pages that are almost empty, so that all of every page is hashed.
    """
    memory, frames = distinct_frames()
    order = np.random.default_rng(2).permutation(frames) if name == "scan-random" else frames
    if name == "scan-whole":
        pages = memory.words.reshape(-1, PAGE_BYTES // 8)
        for line in (content.ONE, content.OTHER):
            pages[:, line // 8 : (line + content.LINE) // 8] = 0

    def hashed() -> float:
        return SCAN_BYTES / scan_seconds(memory, order) / 1e9

    def read() -> float:
        start = time.perf_counter()
        np.bitwise_xor.reduce(memory.words[: SCAN_BYTES // 8])
        return SCAN_BYTES / (time.perf_counter() - start) / 1e9

    hashed()
    return Row(name, median(hashed), "GB/s", "reading", median(read))


def scan_ksm() -> Row:
    """The same frames, pages a second, beside Linux KSM on a copy of them."""
    memory, frames = distinct_frames()
    scan_seconds(memory, frames)
    rate = median(lambda: len(frames) / scan_seconds(memory, frames))
    try:
        peer = pages_a_second(memory.bytes[:SCAN_BYTES])
    except KsmUnavailableError as reason:
        return Row("scan-ksm", rate, "pages/s", "Linux KSM", note=str(reason))
    return Row("scan-ksm", rate, "pages/s", "Linux KSM", peer)


def _two_vms(pages: int) -> tuple[Sharing, list[HostedVm]]:
    """Two VMs with the same contents in so many pages."""
    vm_bytes = FIRST * PAGE_BYTES + max(VM_BYTES, pages * PAGE_BYTES)
    memory = MachineMemory(4 * vm_bytes)
    sharing = Sharing(memory, 1)
    vms = []
    for number in (1, 2):
        vm = HostedVm(f"vm-{number}", number, memory, threading.Lock(), 0, 1, 0, 0, SwapArea(None, vm_bytes // PAGE_BYTES, 0))
        config = VmConfig(memory_bytes=vm_bytes, reserve_frames=pages + 1024)
        vm.begin(VirtualMachine(memory, config, rom=b"", firmware_files={}, console=vm.console, number=number, host=vm))
        vm.vm.state.refill()
        for page in range(pages):
            vm.vm.write_physical((FIRST + page) * PAGE_BYTES, page.to_bytes(4, "little") * (PAGE_BYTES // 4))
        vm.vm.state.refill()
        sharing.register(vm.vm.state)
        vms.append(vm)
    return sharing, vms


def share_and_break(pages: int = PAGES) -> tuple[float, float]:
    """Microseconds to share a page, and to break one off, of so many."""
    sharing, vms = _two_vms(pages)
    slots = np.arange(FIRST, FIRST + pages)
    sharing.try_page(vms[0].vm.state, slots)  # hints
    start = time.perf_counter()
    shared = sharing.try_page(vms[1].vm.state, slots)
    share_us = (time.perf_counter() - start) / pages * 1e6
    assert shared == pages
    control = vms[1].vm.control
    start = time.perf_counter()
    for slot in slots.tolist():
        cow.break_sharing(control, slot, cow.BY_STORE)
    return share_us, (time.perf_counter() - start) / pages * 1e6


def share() -> Row:
    """A page whose twin is a hint: hash, look-up, comparison, both remapped, a frame freed."""
    return Row("share", median(lambda: share_and_break()[0]), "us", "limit", 3)


def cow_break() -> Row:
    """A shared page gets a frame of its own."""
    return Row("cow-break", median(lambda: share_and_break()[1]), "us", "limit", 4)


def swap(*, compresses: bool = False) -> Row:
    """Pages written to an area in memory, and read back: pages a second of both together. To be compressed, half of each is zeros."""
    contents = np.random.default_rng(1).integers(0, 255, (PAGES, PAGE_BYTES), np.uint8)
    if compresses:
        contents[:, PAGE_BYTES // 2 - 256 :] = 0
    into = memoryview(bytearray(PAGE_BYTES))

    def rate() -> float:
        area = SwapArea(None, PAGES, PAGES, compresses=compresses)
        start = time.perf_counter()
        for page in range(PAGES):
            area.put(page, memoryview(contents[page]))
        for page in range(PAGES):
            area.get(page, into)
        seconds = time.perf_counter() - start
        area.close()
        return 2 * PAGES / seconds

    return Row("swap-compressed" if compresses else "swap", median(rate), "pages/s", "limit", 100_000)


CONTENT_BENCHMARKS: dict[str, Callable[[], Row]] = {
    "scan": scan,
    "scan-whole": lambda: scan("scan-whole"),
    "scan-random": lambda: scan("scan-random"),
    "scan-ksm": scan_ksm,
    "share": share,
    "cow-break": cow_break,
    "swap": swap,
    "swap-compressed": lambda: swap(compresses=True),
}
