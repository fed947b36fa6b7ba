# SPDX-License-Identifier: GPL-2.0-or-later
"""Where things lie in the fuzz guest's physical memory, and the words of its script: known to Python and, as macros, to C."""

from __future__ import annotations

PAGE = 4096
TABLE_PAGES = 12  # zero at the start of a case; tables are built here
DATA_PAGES = 6  # filled with a pattern that names the place and, executed, is INT 80h
ARENA = 0x60_0000  # inside the first 1 GB, 4 MB and 2 MB page that has no code of the guest
DATA = ARENA + TABLE_PAGES * PAGE
ARENA_END = DATA + DATA_PAGES * PAGE
ABSENT_PAGES = (0x2_0000, 0x2_0001, 0xB_0000)  # 512 MB and above: neither RAM nor device
ABSENT_HIGH_PAGES = (0x100_0000, 0xFFF_F000)  # beyond 4 GB, within 40 bits
MEMORY_MIB = 32

# The guest's own mapping, identical to physical addresses, from the start of each address space.
KERNEL_BYTES = 12 << 20
TABLES32 = 0x64_0000  # three 32-bit page tables
DIRECTORY = TABLES32 + 3 * PAGE  # 64-bit entries: of PAE and 4-level paging
TABLES64 = DIRECTORY + PAGE  # six page tables
POINTERS = TABLES64 + 6 * PAGE  # PDPT of 4-level paging

# The script: 32-bit words, an operation and its operands.
STOP = 0  # the end of the script
CASE = 1  # number, watched count, addresses of watched 64-bit words
POKE32 = 2  # address, value
POKE64 = 3  # address, low, high; two stores
POKE64_LOCKED = 4  # likewise, by LOCK CMPXCHG8B
POKE64_STRING = 5  # likewise, by REP MOVSL
MODE = 6  # is_long, CR0, CR3, CR4, EFER: through paging off
CR0 = 7  # value
CR3 = 8  # value
CR4 = 9  # value
EFER = 10  # value
INVLPG = 11  # low, high
ACCESS = 12  # kind | USER | AC, low, high, value
END = 13  # of the case

READ, WRITE, FETCH, EXCHANGE, COMPARE, OR, VERIFY = range(7)  # kinds of access
USER, AC = 1 << 8, 1 << 9

# What comes back through the debug port.
REPORT_CASE, REPORT_ACCESS, REPORT_END, REPORT_STRAY, REPORT_DONE = b"CAEXD"
DONE_VECTOR = 0x80
EXIT_PORT = 0xF4


def pattern(physical: int) -> int:
    """The 32-bit word that a case finds at `physical` in the arena: zero in tables."""
    page, offset = divmod(physical - ARENA, PAGE)
    return 0 if page < TABLE_PAGES else page << 24 | (offset >> 2 & 0xFF) << 16 | 0x80CD


def macros() -> dict[str, int]:
    """All of the numbers above, for the guest's compiler."""
    return {name: value for name, value in globals().items() if name.isupper() and isinstance(value, int)}
