"""Configuration: frozen records that refuse what they do not know. The only place that holds defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from emu.errors import UsageError
from emu.units import GIB, KIB, MIB, PAGE_BYTES
from emu.wording import unknown

MIN_MEMORY_BYTES = 4 * MIB  # the firmware, a kernel at 1 MiB and room to work in
MAX_MEMORY_BYTES = 3 * GIB  # above lie the addresses that PC chipsets keep for devices
MAX_DIGITS = 18  # more than any size has
DURATIONS = {"us": 1, "ms": 1_000, "s": 1_000_000}  # in microseconds; the longer suffixes first
MAX_LATENCY_US = 3_600_000_000
SUFFIXES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
THOUSANDS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}  # of what is counted, not of bytes
MICROSECONDS = 1_000_000  # in a second


# Optimizations of the shadow MMU, each of which a name switches off (`emu.vm.shadow` says what they do).
SHADOW_SWITCHES = ("no-cache", "no-unsync", "no-prefetch", "no-update", "no-flood", "no-emulate")
MAX_SHADOW_PAGES = 1 << 20
MIN_SHADOW_PAGES = 20  # the paths to the pages of one instruction must fit: a root, and 3 tables for code and two operands, each across two pages


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


def parse_count(text: str, *, what: str) -> int:
    """A number of guest instructions such as `5M`, five million; raises UsageError for anything else, and for none."""
    cleaned = text.strip().upper()
    suffix = cleaned[-1:] if cleaned[-1:] in ("K", "M", "G") else ""
    number = cleaned.removesuffix(suffix)
    if not number.isascii() or not number.isdigit() or len(number) > MAX_DIGITS or not int(number):
        raise UsageError(f"{what} '{text[:40]}': expected a whole number above 0, with K, M or G for thousands, such as 5M")
    return int(number) * THOUSANDS[suffix]


def parse_duration(text: str, *, what: str) -> int:
    """Microseconds of a duration such as `500us`, `8ms` or `1s`; raises UsageError for anything else."""
    cleaned = text.strip().lower()
    suffix = next((suffix for suffix in DURATIONS if cleaned.endswith(suffix)), "")
    number = cleaned.removesuffix(suffix)
    if not suffix or not number.isascii() or not number.isdigit() or len(number) > MAX_DIGITS:
        if cleaned == "0":
            return 0
        raise UsageError(f"{what} '{text[:40]}': expected a whole number with us, ms or s, such as 500us")
    return int(number) * DURATIONS[suffix]


def parse_moment(text: str, insns_per_second: int, *, what: str) -> int:
    """A virtual time in instructions, of `5M` (instructions) or `2s`; raises UsageError for anything else."""
    cleaned = text.strip().lower()
    try:
        if cleaned.endswith(tuple(DURATIONS)):
            return parse_duration(cleaned, what=what) * insns_per_second // MICROSECONDS
        return 0 if cleaned == "0" else parse_count(cleaned, what=what)
    except UsageError:
        forms = "instructions such as 5M (million), or whole us, ms or s such as 2s"
        raise UsageError(f"{what} '{text[:40]}': expected a virtual time: {forms}") from None


def parse_number(text: str, *, what: str) -> int:
    """A plain number from 1 on; raises UsageError for anything else."""
    cleaned = text.strip()
    if not cleaned.isascii() or not cleaned.isdigit() or len(cleaned) > MAX_DIGITS or not int(cleaned):
        raise UsageError(f"{what} '{text[:40]}': expected a whole number from 1 on, such as 2")
    return int(cleaned)


def parse_mmu(text: str) -> Mmu:
    """How paging is virtualized; raises UsageError for what is no MMU."""
    if text not in tuple(Mmu):
        raise unknown("MMU", text, Mmu)
    return Mmu(text)


def parse_switches(text: str) -> frozenset[str]:
    """The shadow MMU's switches in a list such as `no-unsync,no-cache`, `all` for every one; VmConfig refuses unknown ones."""
    names = frozenset(name.strip() for name in text.split(",") if name.strip())
    return frozenset(SHADOW_SWITCHES) if names == {"all"} else names


def parse_shadow_memory(text: str) -> int:
    """Pages of a cap on shadow memory such as `16M`; raises UsageError for anything else, or less than MIN_SHADOW_PAGES."""
    return parse_size(text, what="shadow memory") // PAGE_BYTES


def parse_balloon(text: str, insns_per_second: int) -> tuple[tuple[int, int], ...]:
    """Targets at virtual times such as `8M@10s,0@20s`: (instructions, bytes), in the order of time; raises UsageError."""
    plan = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        size, mark, when = item.partition("@")
        if not mark:
            raise UsageError(f"balloon target '{item[:40]}': expected SIZE@TIME, such as 8M@10s")
        microseconds = parse_duration(when, what="time of a balloon target")
        plan.append((microseconds * insns_per_second // MICROSECONDS, parse_size(size, what="balloon target")))
    return tuple(sorted(plan))


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
    disk_latency_us: int = 500  # virtual time of a command before its data move: a disk that seldom seeks
    disk_bytes_per_second: int = 50 * MIB  # of virtual time: a disk of 2002
    balloon_plan: tuple[tuple[int, int], ...] = ()  # (virtual time in instructions, target in bytes), in the order of time
    reserve_frames: int = 512  # handed out by native code between two visits of Python
    code_buffer_bytes: int = 16 * MIB  # of the engine's translated code: a guest OS that compiles fills 3
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
        if not 0 <= self.disk_latency_us <= MAX_LATENCY_US:
            raise UsageError(f"disk latency of {self.disk_latency_us} us: expected from 0 to an hour")
        if self.disk_bytes_per_second < 1:
            raise UsageError("disk bandwidth of 0 bytes a second: at least 1 is needed")
        for _, target in self.balloon_plan:
            if target > self.memory_bytes:
                raise UsageError(f"balloon target of {target // KIB}K: the guest has {self.memory_bytes // KIB}K of memory")
        for switch in self.shadow_switches:
            if switch not in SHADOW_SWITCHES:
                raise unknown("shadow switch", switch, SHADOW_SWITCHES)
        if self.shadow_pages < MIN_SHADOW_PAGES:
            least = MIN_SHADOW_PAGES * PAGE_BYTES // KIB
            raise UsageError(f"shadow memory of {self.shadow_pages * PAGE_BYTES // KIB}K: at least {least}K are needed")
        if self.shadow_pages > MAX_SHADOW_PAGES:
            raise UsageError(f"shadow memory of {self.shadow_pages * PAGE_BYTES // MIB}M: at most 4096M can be used")
        if self.memory_bytes % PAGE_BYTES:
            msg = f"memory size of {self.memory_bytes} bytes: whole pages of {PAGE_BYTES} bytes are needed"
            raise UsageError(msg)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> VmConfig:
        """A configuration from named values; raises UsageError for an unknown name."""
        known = [item.name for item in fields(cls)]
        for key in values:
            if key not in known:
                raise unknown("setting", key, known)
        return cls(**values)
