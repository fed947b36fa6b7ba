"""Configuration: frozen records that refuse what they do not know. The only place that holds defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from emu.errors import UsageError
from emu.units import GIB, MIB, PAGE_BYTES

MIN_MEMORY_BYTES = 4 * MIB  # the firmware, a kernel at 1 MiB and room to work in
MAX_MEMORY_BYTES = 3 * GIB  # above lie the addresses that PC chipsets keep for devices
MAX_DIGITS = 18  # more than any size has
SUFFIXES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


# Optimizations of the shadow MMU, each of which a name switches off (`emu.vm.shadow` says what they do).
SHADOW_SWITCHES = ("no-cache", "no-unsync", "no-prefetch", "no-update", "no-flood", "no-emulate")
MIN_SHADOW_PAGES = 16  # the paths to the pages of one instruction must fit


class Mmu(StrEnum):
    """How a guest's paging is virtualized."""

    SHADOW = "shadow"
    NESTED = "nested"


def parse_size(text: str, *, what: str = "memory size") -> int:
    """Bytes of a size such as `32M`; raises UsageError for anything else."""
    cleaned = text.strip().upper().removesuffix("IB").removesuffix("B")
    number, suffix = (cleaned[:-1], cleaned[-1]) if cleaned[-1:] in ("K", "M", "G") else (cleaned, "")
    if not number.isascii() or not number.isdigit() or len(number) > MAX_DIGITS:
        msg = f"{what} '{text[:40]}': expected a whole number with K, M or G, such as 32M"
        raise UsageError(msg)
    return int(number) * SUFFIXES[suffix]


@dataclass(frozen=True)
class VmConfig:
    """One virtual machine."""

    memory_bytes: int = 32 * MIB
    mmu: Mmu = Mmu.SHADOW
    insns_per_second: int = 10_000_000  # virtual time: about what the guests here run at when they are traced
    start_time: int = 1_039_392_000  # of the RTC, seconds since 1970 UTC: 9 December 2002, OSDI's first day
    shadow_switches: frozenset[str] = field(default_factory=frozenset)  # of SHADOW_SWITCHES: optimizations switched off
    shadow_pages: int = 4096  # 16 MiB of shadow tables, enough to map 8 GiB; least recently used ones go first
    unsync_tables: int = 16  # guest tables out of sync at once; KVM's limit for a root is 16 too
    reserve_frames: int = 512  # handed out by native code between two visits of Python
    nested_tables: int = 8192  # then all are dropped: only a guest that roams through absent memory gets there
    events: frozenset[str] = field(default_factory=frozenset)  # groups to record; empty: none
    record_insns: bool = True  # with each event, the bytes of the guest's instruction
    event_rows: int = 1 << 17  # of the ring between native code and Python, 72 bytes each

    def __post_init__(self) -> None:
        """Check the values that a user gives; raises UsageError."""
        if not MIN_MEMORY_BYTES <= self.memory_bytes <= MAX_MEMORY_BYTES:
            msg = (
                f"memory size of {self.memory_bytes} bytes: a VM has from {MIN_MEMORY_BYTES // MIB}M "
                f"to {MAX_MEMORY_BYTES // MIB}M"
            )
            raise UsageError(msg)
        for switch in self.shadow_switches:
            if switch not in SHADOW_SWITCHES:
                raise UsageError(f"unknown shadow switch '{switch}': known are {', '.join(SHADOW_SWITCHES)}")
        if self.shadow_pages < MIN_SHADOW_PAGES:
            raise UsageError(f"{self.shadow_pages} shadow pages: at least {MIN_SHADOW_PAGES} are needed")
        if self.memory_bytes % PAGE_BYTES:
            msg = f"memory size of {self.memory_bytes} bytes: whole pages of {PAGE_BYTES} bytes are needed"
            raise UsageError(msg)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> VmConfig:
        """A configuration from named values; raises UsageError for an unknown name."""
        known = [item.name for item in fields(cls)]
        for key in values:
            if key not in known:
                msg = f"unknown setting '{key}': known are {', '.join(known)}"
                raise UsageError(msg)
        return cls(**values)
