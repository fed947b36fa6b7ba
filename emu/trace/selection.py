"""Which of the recorded events a trace shows: groups, times, and with or without the boot ROM's.

The boot ROM's events are those from a reset to the first instruction outside of the ROM: the kernel's entry, or 7C00 of a boot disk. A
BIOS call that a boot sector makes later is the guest's own, and is shown. The end of a run is always shown, and so is a reset by the guest.

    firmware --an instruction outside of the ROM--> guest --reset--> firmware

The page of that instruction was written as data, so its fetch is a hidden fault: faults and resets are recorded for this, whatever is shown.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emu.events import CATALOGUE, Kind

ROM_START, ROM_END = 0xF_0000, 0x10_0000
SEGMENT_BYTES = 0x1_0000
LONG_OR_WIDE, LENGTH_MASK = 0xC0, 0x0F  # of `insn_bytes`
NEEDED_GROUPS = frozenset({CATALOGUE[Kind.HIDDEN_FAULT].group, CATALOGUE[Kind.RESET].group})


@dataclass(frozen=True)
class Selection:
    """What a user wants to see."""

    groups: frozenset[str]
    with_firmware: bool = False
    since: int = 0  # virtual time
    until: int | None = None

    @property
    def recorded(self) -> frozenset[str]:
        """The groups that must be recorded for it."""
        return self.groups if self.with_firmware or not self.groups else self.groups | NEEDED_GROUPS


class Selector:
    """Gets all records of a run, in order, and gives back those to be shown."""

    def __init__(self, selection: Selection, rom: bytes) -> None:
        self._selection, self._rom = selection, rom
        self._kinds = np.array([int(kind) for kind, info in CATALOGUE.items() if info.group in selection.groups])
        self._is_in_firmware = True

    def __call__(self, records: np.ndarray) -> np.ndarray:
        """The records to be shown of the next batch."""
        shown = np.isin(records["kind"], self._kinds)
        shown &= records["time"] >= self._selection.since
        if self._selection.until is not None:
            shown &= records["time"] < self._selection.until
        shown |= records["kind"] == Kind.STOP if Kind.STOP in self._kinds else False
        if not self._selection.with_firmware:
            shown &= self._is_of_guest(records)
        chosen: np.ndarray = records[shown]
        return chosen

    def _is_of_guest(self, records: np.ndarray) -> np.ndarray:
        of_guest: np.ndarray = records["kind"] == Kind.STOP
        at = 0
        for end in [*np.flatnonzero(records["kind"] == Kind.RESET).tolist(), len(records)]:
            if self._is_in_firmware:
                at += self._firmware_length(records[at:end])
            of_guest[at : end + 1] |= not self._is_in_firmware  # with the reset itself, if the guest made it
            if end < len(records):
                self._is_in_firmware = True
            at = end + 1
        return of_guest

    def _firmware_length(self, records: np.ndarray) -> int:
        """How many of these are still the boot ROM's; if not all, that is the last of the firmware."""
        rip, form = records["rip"], records["insn_bytes"]
        has_insn = (form & LENGTH_MASK) != 0
        is_wide = has_insn & ((form & LONG_OR_WIDE) != 0)
        is_outside = (rip < ROM_START) | (rip >= ROM_END)
        is_outside &= is_wide | (~has_insn & (rip >= SEGMENT_BYTES))
        first = int(np.argmax(is_outside)) if is_outside.any() else len(records)
        for place in np.flatnonzero((has_insn & ~is_wide)[:first]).tolist():
            if not self._is_rom_code(records[place]):
                first = place
                break
        self._is_in_firmware = first == len(records)
        return first

    def _is_rom_code(self, record: np.void) -> bool:
        """Whether a 16-bit instruction is the ROM's: a record has IP but not the segment, so the bytes decide."""
        at, length = int(record["rip"]), int(record["insn_bytes"]) & LENGTH_MASK
        return bool(self._rom[at : at + length] == record["insn"][:length].tobytes())
