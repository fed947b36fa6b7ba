"""Many VMs on one machine: threads, what sharing costs, how all of it grows with the number of VMs, snapshots."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from emu.bench.harness import Row, median
from emu.bench.os_rows import REAL_SECOND_INSNS
from emu.host import scenario, snapshot
from emu.host.host import Host
from emu.host.hosted import Phase
from emu.host.report import possible_saving
from emu.host.statistics import machine_row
from emu.units import MIB

WORK = 'quiet run="compile seed=1 units=400"'
SECONDS = 10  # virtual, of a host that is timed
FULL_SECONDS = 17  # virtual, when `hundred`'s VMs have all that they will have
PAIRS = 9  # some per cent are looked for


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


def threads(insns_per_second: int = REAL_SECOND_INSNS) -> Row:
    """Eight VMs on one thread; the peer is the same on two. Virtual seconds are as long as real ones, or `-10m` 22 ms, with a hundred timer interrupts each."""
    value, peer = _in_turns(*(lambda n=n: _seconds(8, 0, n, insns_per_second) for n in (1, 2)))
    return Row("threads" if insns_per_second == REAL_SECOND_INSNS else "threads-10m", value, "s", "2 threads", peer)


def save(*, resumes: bool = False) -> Row:
    """A snapshot of a machine of 1 GB with 100 VMs, written, or gone on from; to a folder in the host's memory if there is one."""
    text = scenario.find("hundred").read_text(encoding="utf-8")
    host = Host(scenario.parse(text, "bench", "bench"))
    host.run(stop=lambda: host.now >= SECONDS * scenario.DEFAULT_RATE)
    memory = Path("/dev/shm")  # noqa: S108  (of the host, if it has one)
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        path = Path(folder) / "a.snap"

        def seconds_to_save() -> float:
            start = time.perf_counter()
            snapshot.save(host, path)
            return time.perf_counter() - start

        def seconds_to_resume() -> float:
            start = time.perf_counter()
            snapshot.load(path, snapshot.Options()).close()
            return time.perf_counter() - start

        value = median(seconds_to_save)
        size = path.stat().st_size
        host.close()
        if resumes:
            value = median(seconds_to_resume)
    return Row("resume" if resumes else "save", value, "s", note=f"a snapshot of {size / MIB:.0f} MB")


@dataclass(frozen=True)
class HostFigures:
    """What a run of many VMs took."""

    vms: int
    seconds: float  # real, in all
    overhead: float  # the part of them that is not the VMs' own
    process_mb: float
    shared: int  # pages when all VMs are at their largest; frames that this saves, and that the contents would allow
    saved: int
    possible: int
    are_all_done: bool


def host_figures(count: int) -> HostFigures:
    """So many VMs of 32 MB on 10 MB of memory each, of which 200 pages a second are scanned, that run `hundred`'s work on two threads. Once a process: its memory is the most it ever had."""
    text = scenario.find("hundred").read_text(encoding="utf-8").replace("count = 100", f"count = {count}")
    text = text.replace("scan_rate = 20000", f"scan_rate = {200 * count}")
    text = text.replace('memory = "1G"', f'memory = "{max(64, 1024 * count // 100)}M"')
    host = Host(scenario.parse(text, "bench", "bench"))
    start = time.perf_counter()
    host.run(stop=lambda: host.now >= FULL_SECONDS * scenario.DEFAULT_RATE)
    seconds = time.perf_counter() - start
    saved, possible = possible_saving(host)
    shared = machine_row(host).shared
    start = time.perf_counter()
    host.run()
    seconds += time.perf_counter() - start
    least = min(vm.stop.value if vm.stop is not None else -1 for vm in host.vms)
    overhead = 1 - host.seconds_in_vms / seconds
    host.close()
    return HostFigures(count, seconds, overhead, _most_resident_mb(), shared, saved, possible, least == 0)


def _most_resident_mb() -> float:
    """Of this process since it began (and not of the one that it was forked from, as getrusage has it)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def hosts(count: int) -> Row:
    """The share of the time that is not the VMs' own."""
    of = host_figures(count)
    note = f"{of.seconds:.1f} s in all; process memory {of.process_mb:.0f} MB; every VM done: {'yes' if of.are_all_done else 'no'}; {of.shared} pages shared, {of.saved} frames saved of {of.possible} that the contents allow"
    return Row(f"hosts-{count}", 100 * of.overhead, "%", "limit", 15, note=note)


HOST_BENCHMARKS: dict[str, Callable[[], Row]] = {
    "slowdown": slowdown,
    "threads": threads,
    "threads-10m": lambda: threads(scenario.DEFAULT_RATE),
    **{f"hosts-{count}": (lambda count=count: hosts(count)) for count in (10, 30, 100, 300)},  # type: ignore[misc]
    "save": save,
    "resume": lambda: save(resumes=True),
}
