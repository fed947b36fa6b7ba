# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest in 32-bit, PAE or long mode that does what a mailbox in its memory says: loads, stores, calls, INVLPG, CR3 and CR0.WP.

Its own pages are mapped by the harness's tables, which each address space of a test shares from virtual address 0 on.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from tests.truth.mmu import Format
from tests.vm import harness

MAILBOX = 0x5000  # what to do, address, value (and the answer), what an exchange expects
NOTES_USED, NOTES = harness.NOTES_USED, harness.NOTES
KERNEL_TABLES = {Format.BITS32: (0x1_1000,), Format.PAE: (0x2_3000, 0x2_4000), Format.LONG: (0x2_3000, 0x2_4000)}
INSNS = 150  # at the most that a command takes


class Do(IntEnum):
    """What the guest can be told."""

    STORE = 1
    LOAD = 2
    EXCHANGE = 3  # LOCK CMPXCHG
    REPEAT = 4  # REP STOS of one word
    FLOOD = 5  # the old and the new value in turns, many times, then the new one
    INVLPG = 6
    CR3 = 7
    WRITE_PROTECT = 8  # toggled
    CALL = 9


_ENTER = {
    Format.BITS32: "movl $0x10, %eax; movl %eax, %cr4; PAGING",
    Format.PAE: "PAE_PAGING nx=1",
    Format.LONG: "LONG_MODE",
}
_BODY = """
wait:
    movl $STACK, %esp
    movl {mailbox}, %ebp
    testl %ebp, %ebp
    jz wait
    movl $NOTES, NOTES_USED
    movl $done, RESUME
    movl {mailbox} + 4, %ebx
    movl {mailbox} + 8, %ecx
    movl {mailbox} + 12, %eax
    cmpl $1, %ebp
    je store
    cmpl $2, %ebp
    je load
    cmpl $3, %ebp
    je exchange
    cmpl $4, %ebp
    je repeat
    cmpl $5, %ebp
    je flood
    cmpl $6, %ebp
    je forget
    cmpl $7, %ebp
    je switch
    cmpl $8, %ebp
    je protect
    call *%{r}bx
    jmp done
store:
    movl %ecx, (%{r}bx)
    jmp done
load:
    movl (%{r}bx), %eax
    movl %eax, {mailbox} + 8
    jmp done
exchange:
    lock cmpxchgl %ecx, (%{r}bx)
    jmp done
repeat:
    movl %ebx, %edi
    movl %ecx, %eax
    movl $1, %ecx
    rep stosl
    jmp done
flood:
    movl $4, %edx
1:  movl %ecx, (%{r}bx)
    movl %eax, (%{r}bx)
    decl %edx
    jnz 1b
    movl %ecx, (%{r}bx)
    jmp done
forget:
    invlpg (%{r}bx)
    jmp done
switch:
    mov %{r}bx, %cr3
    jmp done
protect:
    mov %cr0, %{r}ax
    xorl $0x10000, %eax
    mov %{r}ax, %cr0
done:
    movl $0, {mailbox}
    jmp wait
"""


def rom(fmt: Format) -> bytes:
    """The ROM of such a guest."""
    register = "r" if fmt is Format.LONG else "e"
    return harness.assemble(f"test:\n{_ENTER[fmt]}\n{_BODY.format(mailbox=MAILBOX, r=register)}").rom


def letter(what: Do, address: int = 0, value: int = 0, expected: int = 0) -> bytes:
    """What goes into the mailbox."""
    return struct.pack("<IIII", what, address, value, expected)
