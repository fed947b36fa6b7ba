"""What the balloon's port (`emu.devices.balloon`) asks of a VM, by the native code of `emu.vm.balloon`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from emu.devices.balloon import MAX_BATCH, Status
from emu.machine import control as cbw
from emu.vm import balloon
from emu.vm.balloon import PPN_SHIFT

assert balloon.STATUSES == (
    Status.SUCCESS,
    Status.INVALID_PAGE,
    Status.LOCKED_ALREADY,
    Status.NOT_LOCKED,
    Status.PINNED,
    Status.NOT_NEEDED,
    Status.BUSY,
)


class BalloonPages:
    """The `PageStore` of a VM."""

    def __init__(
        self,
        give_back: Callable[[np.ndarray], None],
        control: np.ndarray,
        read: Callable[[int, int], bytes],
        write: Callable[[int, bytes], None],
    ) -> None:
        """`give_back` takes frames that nothing maps any more; `read` and `write` are those of guest-physical memory, as a device's."""
        self._give, self._control = give_back, control
        self._read, self._write = read, write
        self._freed = np.zeros(MAX_BATCH, np.int64)
        self._entries = np.zeros(MAX_BATCH, np.int64)
        control[cbw.FREED] = self._freed.ctypes.data

    @property
    def total_pages(self) -> int:
        """Pages of RAM."""
        return int(self._control[cbw.RAM_PAGES])

    @property
    def locked_pages(self) -> int:
        """Pages in the balloon."""
        return int(self._control[cbw.BALLOON_PAGES])

    def lock(self, ppn: int, target: int) -> int:
        """LOCK of one page; a `Status`."""
        status = int(balloon.lock(self._control, ppn, target))
        self._give_back()
        return status

    def unlock(self, ppn: int) -> int:
        """UNLOCK of one page; a `Status`."""
        return int(balloon.unlock(self._control, ppn))

    def batch(self, table_ppn: int, count: int, target: int, *, locking: bool) -> tuple[int, Sequence[int]]:
        """LOCK or UNLOCK of each entry in the page `table_ppn`, which must be memory when the call begins, and stays so."""
        if not balloon.is_ram(self._control, table_ppn):
            return Status.INVALID_PAGE, ()
        address = table_ppn << PPN_SHIFT
        self._entries[:count] = np.frombuffer(self._read(address, 8 * count), np.int64)
        if self._control[cbw.BALLOON_POPPED]:  # the table itself was in the balloon
            return Status.RESET, ()
        balloon.batch(self._control, self._entries.ctypes.data, count, target, table_ppn if locking else balloon.NO_PPN, locking)
        self._give_back()
        self._write(address, self._entries[:count].tobytes())
        return Status.SUCCESS, (self._entries[:count] & balloon.ENTRY_STATUS).tolist()

    def take_pop(self) -> bool:
        """Whether a locked page was touched."""
        return bool(self._control[cbw.BALLOON_POPPED])

    def forget(self) -> None:
        """All locked pages are memory again."""
        balloon.forget(self._control)

    def _give_back(self) -> None:
        count = int(self._control[cbw.FREED_COUNT])
        if count:
            self._control[cbw.FREED_COUNT] = 0
            self._give(self._freed[:count].copy())
