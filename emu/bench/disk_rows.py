"""The disk: sequential DMA of the bench guest, in GB a second of the host's clock, at several sizes of a request.

The disk is memory here and a file in the host's cache in QEMU, so what is measured is the way between guest and host: exits for the
drive's registers, the copy, the interrupt.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable

from emu.bench.harness import Row, median, qemu_path, run_here, run_qemu
from emu.devices.disk import memory_disk
from emu.units import GIB, KIB, MIB

DISK_BYTES = 64 * MIB
REQUESTS = {"64k": 64 * KIB, "128k": 128 * KIB, "1m": MIB}
MOVED_BYTES = GIB  # by the longer of two runs, in addition to the shorter
WARM_UP = 64 * MIB  # by both: the whole disk is there
GB = 1e9


def _gigabytes_a_second(run: Callable[[str], float], mode: str, request_bytes: int) -> float:
    def once() -> float:
        few = WARM_UP // request_bytes
        many = few + MOVED_BYTES // request_bytes
        lengths = [run(f"mode=disk-{mode} request={request_bytes} n={count}") for count in (few, many)]
        return MOVED_BYTES / GB / (lengths[1] - lengths[0])

    return median(once)


def _run_here(append: str) -> float:
    return run_here(append, disks=[memory_disk(DISK_BYTES)])


def disk(mode: str, size: str) -> Row:
    """Sequential requests of one size: `read` or `write`."""
    value = _gigabytes_a_second(_run_here, mode, REQUESTS[size])
    name = _name(mode, size)
    if qemu_path() is None:
        return Row(name, value, "GB/s", "qemu", note="QEMU is not installed")
    with tempfile.NamedTemporaryFile(prefix="emu-disk-") as file:
        file.truncate(DISK_BYTES)
        drive = ("-drive", f"file={file.name},format=raw,if=ide")
        peer = _gigabytes_a_second(lambda append: run_qemu(append, *drive), mode, REQUESTS[size])
    return Row(name, value, "GB/s", "qemu tcg", peer)


def _name(mode: str, size: str) -> str:
    """`disk` is the one that says how fast the disk can be."""
    return "disk" if (mode, size) == ("read", "1m") else f"disk-{mode}-{size}"


DISK_BENCHMARKS: dict[str, Callable[[], Row]] = {
    _name(mode, size): functools.partial(disk, mode, size) for size in REQUESTS for mode in ("read", "write")
}
