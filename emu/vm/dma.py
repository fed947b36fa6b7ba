"""Guest-physical memory as a bus master transfers it: views of machine frames, that the host's file calls fill and drain."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from emu.devices.guest_memory import Extent, Landing
from emu.machine.memory import MachineMemory
from emu.units import PAGE_BYTES
from emu.vm.pieces import ASIDE, ONES, PIECES, ZEROS, find_pieces


class DmaMemory:
    """The views that `emu.devices.guest_memory` promises. `store` is the way for what is put aside, `refill` gets frames."""

    def __init__(
        self, memory: MachineMemory, control: np.ndarray, store: Callable[[int, bytes], None], refill: Callable[[], None]
    ) -> None:
        self._control = control
        self._store = store
        self._refill = refill
        self._machine = memoryview(memory.bytes)  # type: ignore[arg-type]
        self._pieces = np.zeros((PIECES, 2), np.int64)
        self._constant = {ZEROS: memoryview(bytes(PAGE_BYTES)), ONES: memoryview(b"\xff" * PAGE_BYTES)}

    def views_to_load(self, extents: Sequence[Extent]) -> list[memoryview]:
        """The bytes of these extents as they are now."""
        return [self._view(place, size) for extent in extents for _, place, size in self._pieces_of(extent, stores=False)]

    def views_to_store(self, extents: Sequence[Extent]) -> Landing:
        """Machine memory where it can be stored to directly; elsewhere a buffer that `settle` stores."""
        views: list[memoryview] = []
        aside: list[tuple[int, bytearray]] = []
        for extent in extents:
            for pa, place, size in self._pieces_of(extent, stores=True):
                if place == ASIDE:
                    aside.append((pa, bytearray(size)))
                    views.append(memoryview(aside[-1][1]))
                else:
                    views.append(self._view(place, size))

        def settle() -> None:
            for pa, data in aside:
                self._store(pa, bytes(data))

        return Landing(views, settle)

    def _view(self, place: int, size: int) -> memoryview:
        return self._machine[place : place + size] if place >= 0 else self._constant[place][:size]

    def _pieces_of(self, extent: Extent, *, stores: bool) -> list[tuple[int, int, int]]:
        """(PA, place, bytes) of an extent's pieces."""
        found: list[tuple[int, int, int]] = []
        pa, end = extent.pa, extent.pa + extent.size
        while pa < end:
            count = find_pieces(self._control, pa, end - pa, self._pieces.ctypes.data, int(stores))
            for place, size in self._pieces[:count].tolist():
                found.append((pa, place, size))
                pa += size
            if pa < end:
                self._refill()
        return found
