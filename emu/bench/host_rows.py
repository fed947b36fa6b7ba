"""Many VMs on one machine: the scan, sharing, copy on write, paging, and whole hosts."""

from __future__ import annotations

import resource
import statistics
import threading
import time
from collections.abc import Callable

import numpy as np

from emu.bench.harness import Row, median
from emu.bench.os_rows import REAL_SECOND_INSNS
from emu.config import VmConfig
from emu.host import scenario
from emu.host.host import Host
from emu.host.hosted import HostedVm, Phase
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
WORK = 'quiet run="compile seed=1 units=400"'
SECONDS = 10  # virtual, of a host that is timed
PAIRS = 9  # some per cent are looked for


def scan(*, in_order: bool = True) -> Row:
    """Hash and look-up of distinct pages, GB/s, in the order of frames or a random one; the peer reads the same memory on one core."""
    memory = MachineMemory(SCAN_BYTES + 16 * MIB)
    frames = memory.allocate(SCAN_BYTES // PAGE_BYTES, 1, FrameUse.GUEST)
    memory.words[:] = np.random.default_rng(1).integers(0, 1 << 62, len(memory.words))
    order = frames if in_order else np.random.default_rng(2).permutation(frames)
    found = np.empty(len(order), np.int64)

    def hashed() -> float:
        table = ContentTable(memory)
        start = time.perf_counter()
        content.scan(table.control, order, found)
        return SCAN_BYTES / (time.perf_counter() - start) / 1e9

    def read() -> float:
        start = time.perf_counter()
        np.bitwise_xor.reduce(memory.words[: SCAN_BYTES // 8])
        return SCAN_BYTES / (time.perf_counter() - start) / 1e9

    hashed()
    return Row("scan" if in_order else "scan-random", median(hashed), "GB/s", "reading", median(read))


def _two_vms() -> tuple[MachineMemory, Sharing, list[HostedVm]]:
    """Two VMs with the same contents in PAGES pages."""
    memory = MachineMemory(128 * MIB)
    sharing = Sharing(memory, 1)
    vms = []
    for number in (1, 2):
        vm = HostedVm(
            f"vm-{number}", number, memory, threading.Lock(), 0, 1, 0, 0, SwapArea(None, VM_BYTES // PAGE_BYTES, 2 * PAGES)
        )
        config = VmConfig(memory_bytes=VM_BYTES, reserve_frames=2 * PAGES)
        vm.begin(VirtualMachine(memory, config, rom=b"", firmware_files={}, console=vm.console, number=number, host=vm))
        vm.vm.state.refill()
        for page in range(PAGES):
            vm.vm.write_physical((FIRST + page) * PAGE_BYTES, page.to_bytes(4, "little") * (PAGE_BYTES // 4))
        vm.vm.state.refill()
        sharing.register(vm.vm.state)
        vms.append(vm)
    return memory, sharing, vms


def _share_and_break() -> tuple[float, float]:
    """Microseconds to share a page, and to break one off."""
    _memory, sharing, vms = _two_vms()
    slots = np.arange(FIRST, FIRST + PAGES)
    sharing.try_page(vms[0].vm.state, slots)  # hints
    start = time.perf_counter()
    shared = sharing.try_page(vms[1].vm.state, slots)
    share_us = (time.perf_counter() - start) / PAGES * 1e6
    assert shared == PAGES
    control = vms[1].vm.control
    start = time.perf_counter()
    for slot in slots.tolist():
        cow.break_sharing(control, slot, cow.BY_STORE)
    return share_us, (time.perf_counter() - start) / PAGES * 1e6


def share() -> Row:
    """A page whose twin is a hint: hash, look-up, comparison, both remapped, a frame freed."""
    return Row("share", median(lambda: _share_and_break()[0]), "us", "limit", 3)


def cow_break() -> Row:
    """A shared page gets a frame of its own."""
    return Row("cow-break", median(lambda: _share_and_break()[1]), "us", "limit", 4)


def swap() -> Row:
    """Pages written to an area in memory, and read back: pages a second of both together."""
    contents = np.random.default_rng(1).integers(0, 255, (PAGES, PAGE_BYTES), np.uint8)
    into = memoryview(bytearray(PAGE_BYTES))

    def rate() -> float:
        area = SwapArea(None, PAGES, PAGES)
        start = time.perf_counter()
        for page in range(PAGES):
            area.put(page, memoryview(contents[page]))
        for page in range(PAGES):
            area.get(page, into)
        seconds = time.perf_counter() - start
        area.close()
        return 2 * PAGES / seconds

    return Row("swap", median(rate), "pages/s", "limit", 100_000)


def _host(count: int, work: str, scan_rate: int, threads: int, memory_mib: int, insns_per_second: int) -> Host:
    vms = f'[[vm]]\nname = "vm"\ncount = {count}\nmemory = "32M"\ndisk = "16M"\nappend = \'{work}\'\n'
    seconds = max(2, SECONDS * scenario.DEFAULT_RATE // insns_per_second + 1)
    text = f'memory = "{memory_mib}M"\nseconds = "{seconds}s"\ninstructions_per_second = {insns_per_second}\n[services]\nscan_rate = {scan_rate}\n{vms}'
    return Host(scenario.parse(text, "bench", "bench"), threads=threads)


def _seconds(count: int, scan_rate: int, threads: int, insns_per_second: int = scenario.DEFAULT_RATE) -> float:
    """Seconds for SECONDS virtual ones of VMs that compute (one, if they are long), the first one left out."""
    host = _host(count, WORK, scan_rate, threads, 64 * count, insns_per_second)
    for _ in range(10):
        host.step()
    start = time.perf_counter()
    host.run()
    seconds = time.perf_counter() - start
    assert all(vm.phase is Phase.RUNNING for vm in host.vms)
    host.close()
    return seconds


def _in_turns(one: Callable[[], float], other: Callable[[], float]) -> tuple[float, float]:
    """Medians of two that are measured in turns, so that a noisy moment meets both."""
    pairs = [(one(), other()) for _ in range(PAIRS)]
    return statistics.median(first for first, _ in pairs), statistics.median(second for _, second in pairs)


def slowdown() -> Row:
    """Eight VMs with page sharing at its default rate, beside the same without; virtual seconds are as long as real ones."""
    rate = scenario.Services().scan_rate
    value, peer = _in_turns(*(lambda r=r: _seconds(8, r, 2, insns_per_second=REAL_SECOND_INSNS) for r in (rate, 0)))
    return Row("slowdown", value, "s", "no sharing", peer)


def threads() -> Row:
    """Eight VMs on one thread; the peer is the same on two."""
    value, peer = _in_turns(lambda: _seconds(8, 0, 1), lambda: _seconds(8, 0, 2))
    return Row("threads", value, "s", "2 threads", peer)


def hosts(count: int) -> Row:
    """The share of the time that is not the VMs' own, of so many VMs of 32 MB that run `hundred`'s work on two threads."""
    text = scenario.find("hundred").read_text(encoding="utf-8").replace("count = 100", f"count = {count}")
    text = text.replace('memory = "1G"', f'memory = "{max(64, 1024 * count // 100)}M"')
    host = Host(scenario.parse(text, "bench", "bench"))
    start = time.perf_counter()
    host.run()
    seconds = time.perf_counter() - start
    least = min(vm.stop.value if vm.stop is not None else -1 for vm in host.vms)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    note = f"{seconds:.1f} s in all; process memory {resident:.0f} MB; every VM done: {'yes' if least == 0 else 'no'}"
    overhead = 1 - host.seconds_in_vms / seconds
    host.close()
    return Row(f"hosts-{count}", 100 * overhead, "%", "limit", 15, note=note)


HOST_BENCHMARKS: dict[str, Callable[[], Row]] = {
    "scan": scan,
    "scan-random": lambda: scan(in_order=False),
    "share": share,
    "cow-break": cow_break,
    "swap": swap,
    "slowdown": slowdown,
    "threads": threads,
    **{f"hosts-{count}": (lambda count=count: hosts(count)) for count in (10, 30, 100)},  # type: ignore[misc]
}
