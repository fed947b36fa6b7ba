"""Who stands outside a VM: the other end of its serial line, and the host of a machine that it shares."""

from __future__ import annotations

from typing import Protocol


class Console(Protocol):
    """The other end of the VM's serial line, and whoever watches the run."""

    def write(self, data: bytes) -> None:
        """The guest sent bytes on COM1."""

    def write_debug(self, data: bytes) -> None:
        """The guest wrote bytes to the debug port 0xE9."""

    def poll(self) -> bytes:
        """Input for COM1 that is there now, empty if none; called at the same virtual times in every run."""

    def idle(self, seconds: float | None) -> bool:
        """The guest sleeps for `seconds` of virtual time, or until input if None: an interactive console may wait.

        True if there may be input now; false ends a sleep until input.
        """


class HostSide(Protocol):
    """What a VM that shares its machine with others asks of the host."""

    def swap_in(self, slot: int, mpn: int) -> int:
        """Put a page of the swap area into a frame; the virtual time that it takes. Raises EmuError if the area fails."""

    def allocate(self) -> None:
        """Fill the reserve at once: the VM runs alone, or has no other way."""
