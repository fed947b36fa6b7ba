# SPDX-License-Identifier: GPL-2.0-or-later
"""32-bit paging as the manual tells it, slow and plain: Intel SDM vol. 3, section 4.3; AMD64 APM vol. 2, section 5.2.

Written without a look at `emu.vm.walk`, and with nothing of `emu.machine.paging`: bits are numbers from the manual here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

P, W, U, A, D, PS = 1 << 0, 1 << 1, 1 << 2, 1 << 5, 1 << 6, 1 << 7
CODE_P, CODE_W, CODE_U, CODE_RSVD = 1, 2, 4, 8
WP, PSE = 1 << 16, 1 << 4


class Walk(NamedTuple):
    """What a walk finds: a page fault's error code, or None and where the access goes."""

    code: int | None
    ppn: int = 0
    rights: int = 0  # W and U of both levels together, D of the leaf after the walk
    marks: tuple[tuple[int, int], ...] = ()  # (PA of an entry, bits that the processor sets in it)


def walk(read: Callable[[int], int], cr0: int, cr3: int, cr4: int, va: int, *, write: bool, user: bool) -> Walk:
    """Translate `va` for an access; `read` gives the 32-bit word at a PA."""
    code = (CODE_W if write else 0) + (CODE_U if user else 0)
    pde_at = (cr3 // 4096) * 4096 + 4 * (va // 2**22)
    pde = read(pde_at)
    if not pde & P:
        return Walk(code)
    if pde & PS and cr4 & PSE:
        if pde & 1 << 21:
            return Walk(code + CODE_P + CODE_RSVD)
        high = pde // 2**13 % 2**8
        frame = high * 2**20 + pde // 2**22 * 2**10 + va // 2**12 % 2**10
        return _leaf(code, cr0, pde, ((pde_at, pde),), frame, write=write, user=user)
    pte_at = pde // 4096 * 4096 + 4 * (va // 2**12 % 2**10)
    pte = read(pte_at)
    if not pte & P:
        return Walk(code)
    return _leaf(code, cr0, pde & pte, ((pde_at, pde), (pte_at, pte)), pte // 4096, write=write, user=user)


def _leaf(code: int, cr0: int, both: int, entries: tuple[tuple[int, int], ...], ppn: int, *, write: bool, user: bool) -> Walk:
    if user and not both & U:
        return Walk(code + CODE_P)
    if write and not both & W and (user or cr0 & WP):
        return Walk(code + CODE_P)
    leaf_at, leaf = entries[-1]
    marks = [(at, A) for at, _ in entries]
    if write:
        marks.append((leaf_at, D))
    return Walk(None, ppn, both & (W | U) | (D if write else leaf & D), tuple(marks))
