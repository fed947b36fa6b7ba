"""Python's view of a guest's registers: the fields of CONTEXT (`emu.machine.env`), by name.

Valid while the VM is stopped. Whoever writes a register sets MODIFIED in the control block; `RegisterFile` does.
"""

from __future__ import annotations

import numpy as np

from emu.machine import control as cbw
from emu.machine import env

GENERAL = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
SEGMENT_NAMES = ("es", "cs", "ss", "ds", "fs", "gs")
ONES32, ONES64 = 0xFFFF_FFFF, (1 << 64) - 1


class RegisterFile:
    """Registers of a guest; general registers are numbered as in instructions (RAX RCX RDX RBX RSP ... R15)."""

    def __init__(self, context: np.ndarray, control: np.ndarray) -> None:
        usable = context[: len(context) // 8 * 8]
        self._words = usable.data.cast("B").cast("Q")
        self._halves = usable.data.cast("B").cast("I")
        self._control = control

    def general(self, number: int) -> int:
        """The lower 32 bits of a general register."""
        return self._words[number] & ONES32

    def set_general(self, number: int, value: int) -> None:
        """Write a general register; like a 32-bit instruction, it clears what lies above."""
        self._words[number] = value & ONES32
        self._control[cbw.MODIFIED] = 1

    def general64(self, number: int) -> int:
        """A general register, 64 bits."""
        return self._words[number]

    def set_general64(self, number: int, value: int) -> None:
        """Write all of a general register."""
        self._words[number] = value & ONES64
        self._control[cbw.MODIFIED] = 1

    @property
    def rip(self) -> int:
        """The instruction pointer, an offset into CS."""
        return self._words[env.EIP // 8]

    @property
    def linear_ip(self) -> int:
        """The linear address of the instruction at CS:RIP."""
        return self.rip if self.code_bits == 64 else self.segment_base(1) + self.rip & ONES32

    @property
    def flags(self) -> int:
        """EFLAGS without the arithmetic flags and DF, which the engine keeps apart."""
        return self._words[env.EFLAGS // 8] & ONES32

    @property
    def cpl(self) -> int:
        """Current privilege level."""
        return self._halves[env.HFLAGS // 4] & env.HF_CPL

    @property
    def code_bits(self) -> int:
        """16, 32 or 64: the default size of addresses."""
        hidden = self._halves[env.HFLAGS // 4]
        if hidden & env.HF_CS64:
            return 64
        return 32 if hidden & env.HF_CS32 else 16

    @property
    def cr2(self) -> int:
        """The address of the guest's last page fault."""
        return self._words[env.CR2 // 8]

    @property
    def is_nmi_blocked(self) -> bool:
        """Whether NMIs wait: from the delivery of one until IRET."""
        return bool(self._halves[env.HFLAGS2 // 4] & env.HF2_NMI)

    def block_nmi(self) -> None:
        """An NMI is delivered."""
        self._halves[env.HFLAGS2 // 4] |= env.HF2_NMI
        self._control[cbw.MODIFIED] = 1

    def selector(self, segment: int) -> int:
        """The selector in a segment register (0..5: ES CS SS DS FS GS)."""
        return self._halves[(env.SEGMENTS + env.SEGMENT_BYTES * segment) // 4]

    def segment_base(self, segment: int) -> int:
        """The base of a segment register."""
        return self._words[(env.SEGMENTS + env.SEGMENT_BYTES * segment + env.BASE) // 8]

    def set_segment_base(self, segment: int, base: int) -> None:
        """Change the base of a segment register alone, as WRMSR does for FS and GS."""
        self._words[(env.SEGMENTS + env.SEGMENT_BYTES * segment + env.BASE) // 8] = base & ONES64
        self._control[cbw.MODIFIED] = 1
