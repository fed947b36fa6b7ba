# SPDX-License-Identifier: GPL-2.0-or-later
"""Images of hostile guests: a flat multiboot kernel that enters a mode and runs what a seed made up.

Everything is in one image, so the code of a mode's prologue only loads registers:

    BASE          header and prologue
    GDT, IDT, TSS descriptors, gates and task states, which the guest may spoil
    HANDLERS      what its gates lead to: mostly a way on behind the instruction that faulted
    TABLES        page tables of all formats, each maps low memory and the pages of the APICs
    CODE          SNIPPETS pieces of code of SNIPPET_BYTES, which jump to each other
    DATA          random bytes, and the stack
"""

from __future__ import annotations

import random
import struct

from tests.hostile.emitter import Emitter
from tests.hostile.grammar import Grammar, Places

MODES = ("real", "protected16", "protected32", "pae", "long")
BASE = 0x1_0000
GDT, IDT, TSS, HANDLERS = BASE + 0x1000, BASE + 0x2000, BASE + 0x3000, BASE + 0x4000
TABLES = BASE + 0x8000
CODE, SNIPPET_BYTES, SNIPPETS = BASE + 0x1_8000, 0x200, 64
DATA, END = BASE + 0x2_8000, BASE + 0x4_0000
STACK = END - 0x2000
MAGIC, FLAG_ADDRESSES = 0x1BADB002, 1 << 16
ENTRY = BASE + 0x40

CODE32, DATA32, CODE16, DATA16, CODE64, TASK, OTHER_TASK, LDT, USER_CODE, USER_DATA, CALL_GATE = range(8, 8 * 12, 8)
DIRECTORY32, TABLE32, APIC32 = TABLES, TABLES + 0x1000, TABLES + 0x2000
POINTERS, DIRECTORY, TABLE, HIGH_DIRECTORY, HIGH_TABLE = (TABLES + 0x1000 * n for n in range(3, 8))
ROOT4, POINTERS4 = TABLES + 0x8000, TABLES + 0x9000
APIC_PAGES = (0xFEC0_0000, 0xFEE0_0000)
RIGHTS = 7  # present, writable, user
CR0_PE, CR0_WP, CR0_PG, CR4_PSE, CR4_PAE = 1, 1 << 16, 1 << 31, 1 << 4, 1 << 5
EFER, EFER_LME, EFER_SCE, EFER_NXE = 0xC000_0080, 1 << 8, 1, 1 << 11
FAULTS_WITH_CODE = (8, 10, 11, 12, 13, 14, 17)
SEGMENTS = (0, 2, 3, 4, 5)  # ES SS DS FS GS


class Image:
    """One image of a mode, from a seed."""

    def __init__(self, mode: str, seed: int) -> None:
        self.random = random.Random(f"{mode} {seed}")
        self.mode = mode
        self.bytes = bytearray(END - BASE)
        self.bits = {"real": 16, "protected16": 16, "long": 64}.get(mode, 32)
        self._put(DATA, self.random.randbytes(END - DATA))
        self._put(BASE, struct.pack("<8I", MAGIC, FLAG_ADDRESSES, -(MAGIC + FLAG_ADDRESSES) % 2**32, BASE, BASE, END, END, ENTRY))
        self._descriptors()
        self._tables()
        self._handlers()
        self._snippets()
        self._put(ENTRY, bytes(self._prologue().code))

    def _put(self, address: int, data: bytes) -> None:
        self.bytes[address - BASE : address - BASE + len(data)] = data

    def _words(self, address: int, *words: int, size: int = 8) -> None:
        self._put(address, b"".join((word & (1 << 8 * size) - 1).to_bytes(size, "little") for word in words))

    # ---- what the prologue points to ----

    def _descriptors(self) -> None:
        task = 0x0000_8900_0000_0067 | (TSS & 0xFF_FFFF) << 16
        other = 0x0000_8900_0000_0067 | (TSS + 0x100 & 0xFF_FFFF) << 16
        ldt = 0x0000_8200_0000_0027 | (GDT & 0xFF_FFFF) << 16
        gate = 0x0000_EC00_0000_0000 | CODE32 << 16 | HANDLERS & 0xFFFF | (HANDLERS >> 16) << 48
        self._words(
            GDT, 0, 0x00CF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF, 0x0000_9B00_0000_FFFF | CODE << 16, 0x0000_9300_0000_FFFF
        )
        self._words(GDT + CODE64, 0x00AF_9B00_0000_FFFF, task, other, ldt, 0x00CF_FB00_0000_FFFF, 0x00CF_F300_0000_FFFF, gate)
        for tss in (TSS, TSS + 0x100):
            self._words(tss, 0, STACK, DATA32, STACK, DATA32, STACK, DATA32, self._root(), size=4)
            self._words(
                tss + 32, self._snippet(), 2, 0, 0, 0, 0, STACK, 0, 0, 0, DATA32, CODE32, *[DATA32] * 4, 0, 0x68 << 16, size=4
            )

    def _root(self) -> int:
        return {"protected32": DIRECTORY32, "pae": POINTERS, "long": ROOT4}.get(self.mode, 0)

    def _tables(self) -> None:
        pages = [page << 12 | RIGHTS for page in range(1024)]
        self._words(DIRECTORY32, TABLE32 | RIGHTS, *(megabytes << 22 | RIGHTS | 1 << 7 for megabytes in range(1, 16)), size=4)
        self._words(TABLE32, *pages, size=4)
        for page in APIC_PAGES:
            self._words(DIRECTORY32 + 4 * (page >> 22), page & ~0x3F_FFFF | RIGHTS | 1 << 7, size=4)
        self._words(POINTERS, DIRECTORY | 1, 0, 0, HIGH_DIRECTORY | 1)
        self._words(POINTERS4, DIRECTORY | RIGHTS, 0, 0, HIGH_DIRECTORY | RIGHTS)
        self._words(ROOT4, POINTERS4 | RIGHTS)
        self._words(ROOT4 + 8 * 511, ROOT4 | RIGHTS)  # the tables themselves
        self._words(DIRECTORY, TABLE | RIGHTS, *(part << 21 | RIGHTS | 1 << 7 for part in range(1, 16)))
        self._words(TABLE, *pages[:512])
        for page in APIC_PAGES:
            self._words(HIGH_DIRECTORY + 8 * (page >> 21 & 511), page & ~0x1F_FFFF | RIGHTS | 1 << 7)

    def _handlers(self) -> None:
        """Each skips some bytes of the code that faulted; a few do something else. Gates of all kinds lead to them."""
        for vector in range(64):
            at = HANDLERS + 0x40 * vector
            code = self._handler(vector)
            self._put(at, code)
            if self.mode == "long":
                self._words(IDT + 16 * vector, self._gate(at, CODE64), at >> 32)
            elif self.mode == "real":
                self._words(IDT + 4 * vector, (at - BASE) & 0xFFFF | BASE >> 4 << 16, size=4)
            else:
                self._words(IDT + 8 * vector, self._gate(at, CODE32))

    def _gate(self, address: int, selector: int) -> int:
        if self.random.random() < 0.02:  # a task gate
            return TASK << 16 | 0xE500 << 32
        kind = self.random.choice((0xEE, 0xEF, 0x8E))
        if self.random.random() < 0.03:
            address = self.random.getrandbits(32)
        return address & 0xFFFF | selector << 16 | kind << 40 | (address >> 16 & 0xFFFF) << 48

    def _handler(self, vector: int) -> bytes:
        skip = self.random.choice((1, 1, 2, 3, 5, 7))
        drop = vector in FAULTS_WITH_CODE
        if self.mode == "real":
            return (
                b"\x55\x89\xe5\x83\x46\x02" + bytes([skip]) + b"\x5d\xcf"
            )  # push bp; mov bp,sp; add word [bp+2],n; pop bp; iret
        if self.mode == "long":
            tail = b"\x48\x83\x04\x24" + bytes([skip]) + b"\x48\xcf"  # add qword [rsp],n; iretq
            return (b"\x48\x83\xc4\x08" if drop else b"") + tail
        tail = b"\x83\x04\x24" + bytes([skip]) + b"\xcf"  # add dword [esp],n; iret
        return (b"\x83\xc4\x04" if drop else b"") + tail

    # ---- code ----

    def _snippet(self) -> int:
        return CODE + SNIPPET_BYTES * self.random.randrange(SNIPPETS)

    def _snippets(self) -> None:
        regions = {"gdt": GDT, "idt": IDT, "tables": TABLES, "code": CODE, "data": DATA, "tss": TSS, "handlers": HANDLERS}
        places = Places(regions, self._root(), SNIPPET_BYTES, SNIPPETS)
        for number in range(SNIPPETS):
            at = CODE + number * SNIPPET_BYTES
            grammar = Grammar(self.random, self.bits, places, at)
            self._put(at, grammar.snippet())

    def _prologue(self) -> Emitter:
        """From a multiboot kernel's start into the mode, and to the first snippet."""
        code = Emitter(32)
        self._put(BASE + 0x20, struct.pack("<HI", 0x0FFF, GDT))
        limit = 0x3FF if self.mode == "real" else 0xFFF
        self._put(BASE + 0x28, struct.pack("<HI", limit, IDT))
        code.at(b"\x0f\x01", 2, BASE + 0x20)  # LGDT
        code.at(b"\x0f\x01", 3, BASE + 0x28)  # LIDT
        code.set(4, STACK)
        far = len(code.code) + ENTRY + 7
        code.far_jump(CODE32, far)
        for segment in SEGMENTS:
            code.load_segment(segment, DATA32)
        getattr(self, f"_enter_{self.mode}")(code)
        return code

    def _enter_protected32(self, code: Emitter) -> None:
        code.load_segment(2, DATA32)
        code.set(0, TASK)
        code.raw(0x0F, 0x00, 0xD8)  # LTR
        self._page(code, DIRECTORY32, self.random.choice((CR4_PSE, CR4_PSE | 1 << 7)))
        code.far_jump(CODE32, CODE)

    def _enter_pae(self, code: Emitter) -> None:
        code.set(0, TASK)
        code.raw(0x0F, 0x00, 0xD8)
        if self.random.random() < 0.5:
            code.write_msr(EFER, EFER_NXE)
        self._page(code, POINTERS, CR4_PAE | self.random.choice((0, 1 << 7)))
        code.far_jump(CODE32, CODE)

    def _enter_long(self, code: Emitter) -> None:
        code.write_msr(EFER, EFER_LME | EFER_SCE | EFER_NXE)
        self._page(code, ROOT4, CR4_PAE | 1 << 9)
        code.far_jump(CODE64, CODE)

    def _page(self, code: Emitter, root: int, cr4: int) -> None:
        if self.random.random() < 0.1 and self.mode != "long":
            return
        code.set_control(4, cr4)
        code.set_control(3, root)
        code.set_control(0, CR0_PG | CR0_PE | 0x10 | self.random.choice((0, CR0_WP)))

    def _enter_protected16(self, code: Emitter) -> None:
        for segment in SEGMENTS:
            code.load_segment(segment, DATA16)
        code.set(4, 0xFF00)
        code.far_jump(CODE16, 0)

    def _enter_real(self, code: Emitter) -> None:
        """By way of a 16-bit segment, whose code is behind the handlers'."""
        stub = Emitter(16)
        stub.set_control(0, 0x10)
        stub.raw(0xEA, struct.pack("<HH", 0, CODE >> 4))
        for segment in SEGMENTS:
            code.load_segment(segment, DATA16)
        self._put(HANDLERS + 0x2000, bytes(stub.code))
        code.set(4, 0xFF00)
        self._words(GDT + CODE16, 0x0000_9B00_0000_FFFF | HANDLERS + 0x2000 << 16)
        code.far_jump(CODE16, 0)


def make(mode: str, seed: int) -> bytes:
    """The image of a mode and a seed."""
    return bytes(Image(mode, seed).bytes)
