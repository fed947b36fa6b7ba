"""Model-specific registers: what RDMSR and WRMSR reach. Every number that is not here is #GP, as on a processor without it.

AMD64 APM vol. 2, appendix A; Intel SDM vol. 4. Memory types (MTRR, PAT) are kept and checked, and have no effect: nothing here
is cached.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol

import numpy as np

from emu.machine import control as cbw
from emu.machine import paging as pg
from emu.machine.regfile import RegisterFile
from emu.vm import registers

TSC, APIC_BASE, MTRR_CAP, SYSENTER_CS, SYSENTER_ESP, SYSENTER_EIP = 0x10, 0x1B, 0xFE, 0x174, 0x175, 0x176
PAT, MTRR_DEFAULT = 0x277, 0x2FF
MTRR_VARIABLE = range(0x200, 0x210)  # eight pairs of base and mask
MTRR_FIXED = (0x250, 0x258, 0x259, *range(0x268, 0x270))
EFER, STAR, LSTAR, CSTAR, SFMASK = range(0xC000_0080, 0xC000_0085)
FS_BASE, GS_BASE, KERNEL_GS_BASE = 0xC000_0100, 0xC000_0101, 0xC000_0102

FIXED_SUPPORTED, WRITE_COMBINING_SUPPORTED = 1 << 8, 1 << 10  # in MTRR_CAP, beside the number of variable ranges
MTRR_ENABLES = 3 << 10  # in MTRR_DEFAULT: all, and the fixed ranges
MASK_VALID = 1 << 11
MEMORY_TYPES = (0, 1, 4, 5, 6)  # UC, WC, WT, WP, WB
PAT_TYPES = (*MEMORY_TYPES, 7)  # and UC-
PAT_AT_RESET = 0x0007_0406_0007_0406
ADDRESS_BITS = (1 << pg.PHYSICAL_BITS) - 1
FS, GS = 4, 5
ONES32, ONES64 = (1 << 32) - 1, (1 << 64) - 1

Read = Callable[[], int]
Write = Callable[[int], bool]


class ApicBase(Protocol):
    """The register through which the local APIC is switched on."""

    @property
    def base(self) -> int:
        """MSR 1B."""

    def write_base(self, value: int) -> bool:
        """Change it; false where the processor raises #GP."""


def signed(value: int) -> int:
    """A 64-bit word as native code has it."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def is_canonical(address: int) -> bool:
    """Whether bits 63 to 47 are alike."""
    return address >> 47 in (0, (1 << 17) - 1)


def _has_types(value: int, known: tuple[int, ...]) -> bool:
    return all(value >> shift & 0xFF in known for shift in range(0, 64, 8))


class MsrFile:
    """The registers of one VM. `read` and `write` say with None and False that the number or the value is #GP."""

    WIRING: ClassVar = frozenset({"_control", "_table"})

    def __init__(self, control: np.ndarray, regs: RegisterFile, memory: Callable[[int], np.ndarray], apic: ApicBase) -> None:
        self._control = control
        self._kept: dict[int, int] = {}  # registers that are nothing but memory
        self._table: dict[int, tuple[Read, Write]] = {
            TSC: (self._tsc, self._set_tsc),
            APIC_BASE: (lambda: apic.base, apic.write_base),
            EFER: (lambda: int(control[cbw.GUEST_EFER]), self._set_efer),
            MTRR_CAP: (lambda: len(MTRR_VARIABLE) // 2 | FIXED_SUPPORTED | WRITE_COMBINING_SUPPORTED, lambda _: False),
            FS_BASE: (lambda: regs.segment_base(FS), lambda value: self._set_base(regs, FS, value)),
            GS_BASE: (lambda: regs.segment_base(GS), lambda value: self._set_base(regs, GS, value)),
        }
        for number, word, check in (
            (STAR, cbw.STAR_AT, None),
            (KERNEL_GS_BASE, cbw.KERNEL_GS_BASE_AT, is_canonical),
            (SYSENTER_CS, cbw.SYSENTER_CS_AT, None),
            (SYSENTER_ESP, cbw.SYSENTER_ESP_AT, is_canonical),
            (SYSENTER_EIP, cbw.SYSENTER_EIP_AT, is_canonical),
        ):
            self._add_engine_register(number, memory(int(control[word])), check)
        for number, word, check in (
            (LSTAR, cbw.GUEST_LSTAR, is_canonical),
            (CSTAR, cbw.GUEST_CSTAR, is_canonical),
            (SFMASK, cbw.GUEST_SFMASK, None),
        ):
            self._add_word(number, word, check)
        for number in MTRR_VARIABLE:
            self._add_kept(number, self._is_variable_mask if number & 1 else self._is_variable_base)
        for number in MTRR_FIXED:
            self._add_kept(number, lambda value: _has_types(value, MEMORY_TYPES))
        self._add_kept(PAT, lambda value: _has_types(value, PAT_TYPES))
        self._add_kept(MTRR_DEFAULT, lambda value: not value & ~(MTRR_ENABLES | 0xFF) and value & 0xFF in MEMORY_TYPES)
        self.reset()

    def reset(self) -> None:
        """State after power-on of what only this class keeps, and of what the engine would keep over a reset."""
        self._kept = {PAT: PAT_AT_RESET}
        self._control[[cbw.GUEST_EFER, cbw.GUEST_LSTAR, cbw.GUEST_CSTAR, cbw.GUEST_SFMASK, cbw.TSC_OFFSET]] = 0

    def read(self, number: int) -> int | None:
        """The value of a register, None where the processor raises #GP."""
        entry = self._table.get(number)
        return None if entry is None else entry[0]() & ONES64

    def write(self, number: int, value: int) -> bool:
        """Change a register; false where the processor raises #GP."""
        entry = self._table.get(number)
        return entry is not None and entry[1](value)

    # ---- kinds of registers ----

    def _add_engine_register(self, number: int, place: np.ndarray, check: Callable[[int], bool] | None) -> None:
        def write(value: int) -> bool:
            if check is not None and not check(value):
                return False
            place[0] = value
            self._control[cbw.MODIFIED] = 1
            return True

        self._table[number] = (lambda: int(place[0]), write)

    def _add_word(self, number: int, word: int, check: Callable[[int], bool] | None) -> None:
        def write(value: int) -> bool:
            if check is not None and not check(value):
                return False
            self._control[word] = signed(value)
            return True

        self._table[number] = (lambda: int(self._control[word]), write)

    def _add_kept(self, number: int, check: Callable[[int], bool]) -> None:
        def write(value: int) -> bool:
            if not check(value):
                return False
            self._kept[number] = value
            return True

        self._table[number] = (lambda: self._kept.get(number, 0), write)

    @staticmethod
    def _is_variable_base(value: int) -> bool:
        return not value & ~(ADDRESS_BITS & ~0xFFF | 0xFF) and value & 0xFF in MEMORY_TYPES

    @staticmethod
    def _is_variable_mask(value: int) -> bool:
        return not value & ~(ADDRESS_BITS & ~0xFFF | MASK_VALID)

    # ---- registers with an effect ----

    def _tsc(self) -> int:
        return int(self._control[cbw.INSNS]) + int(self._control[cbw.TSC_OFFSET])

    def _set_tsc(self, value: int) -> bool:
        self._control[cbw.TSC_OFFSET] = signed(value - int(self._control[cbw.INSNS]))
        return True

    def _set_efer(self, value: int) -> bool:
        return int(registers.write_efer(self._control, signed(value))) == registers.SERVED

    @staticmethod
    def _set_base(regs: RegisterFile, segment: int, value: int) -> bool:
        if not is_canonical(value):
            return False
        regs.set_segment_base(segment, value)
        return True
