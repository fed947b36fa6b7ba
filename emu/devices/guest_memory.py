"""Guest-physical memory as devices that master the bus see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Extent:
    """A run of guest-physical addresses."""

    pa: int
    size: int  # bytes


@dataclass(frozen=True)
class Landing:
    """Where data for guest memory go: fill the views, in order, then call `settle`, before the guest goes on."""

    views: list[memoryview]
    settle: Callable[[], None]


class GuestMemory(Protocol):
    """Absent memory reads as ones and takes nothing; ROM takes nothing."""

    def read_physical(self, pa: int, size: int) -> bytes:
        """`size` bytes at `pa`."""

    def write_physical(self, pa: int, data: bytes) -> None:
        """Store at `pa`."""

    def views_to_load(self, extents: Sequence[Extent]) -> list[memoryview]:
        """The bytes of these extents, in order, as they are in machine memory: to be read, and before the guest goes on."""

    def views_to_store(self, extents: Sequence[Extent]) -> Landing:
        """The places of these extents: of machine memory where nobody has to be told of a store."""
