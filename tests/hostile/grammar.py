# SPDX-License-Identifier: GPL-2.0-or-later
"""What hostile guests do: each production is a few instructions that a processor takes, or nearly."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass

from tests.hostile.emitter import EAX, EBX, ECX, EDI, EDX, ESI, ESP, Emitter

BALLOON_PORT, BALLOON_MAGIC = 0x5670, 0x456C_6D6F
PORTS = (
    *(0x20, 0x21, 0xA0, 0xA1, 0x40, 0x41, 0x42, 0x43, 0x60, 0x61, 0x64, 0x70, 0x71, 0x80, 0x92, 0xB2, 0xCF8, 0xCF9, 0xCFC, 0xCFE),
    *range(0x1F0, 0x1F8), *range(0x170, 0x178), 0x3F6, 0x376, *range(0x3F8, 0x400), 0x378, 0x379, 0x37A, *range(0x3C0, 0x3DB),
    *(0x402, 0xE9, 0x510, 0x511, 0x514, 0x518, 0xC000, 0xC002, 0xC004, 0xFFFF, BALLOON_PORT),
)  # fmt: skip
MSRS = (
    *(0x10, 0x1B, 0x8B, 0xC1, 0xFE, 0x174, 0x175, 0x176, 0x179, 0x17A, 0x186, 0x1A0, 0x1D9, 0x200, 0x201, 0x250, 0x277, 0x2FF, 0x3B),
    *(0xC000_0080, 0xC000_0081, 0xC000_0082, 0xC000_0083, 0xC000_0084, 0xC000_0100, 0xC000_0101, 0xC000_0102, 0xC000_0103),
    *(0xC001_0114, 0xC001_0117, 0x6E0, 0x802, 0x80B, 0x830, 0x4000_0000),
)  # fmt: skip
SELECTORS = (0, *range(8, 0x60, 8), 3, 0x4B, 0x53, 0x0C, 0x14, 0xFFF8, 0xFFFF)
FLAGS = (1 << 8, 1 << 9, 1 << 10, 1 << 12, 3 << 12, 1 << 14, 1 << 16, 1 << 17, 1 << 18, 1 << 21, 0x8D5)
DMA_READ, DMA_SKIP, DMA_SELECT, DMA_WRITE = 2, 4, 8, 16
ODD_ADDRESSES = (
    0xA_0000,
    0xB_8000,
    0xC_0000,
    0xF_0000,
    0xF_FFF0,
    0xFEC0_0000,
    0xFEC0_0010,
    0xFFFF_FFF0,
    0x7F_FFFE,
    0x80_0000,
    0xE800_0000,
    0,
)
ATA_COMMANDS = (
    0x00,
    0x08,
    0x10,
    0x20,
    0x24,
    0x25,
    0x30,
    0x34,
    0x35,
    0x40,
    0x90,
    0x91,
    0xA1,
    0xC4,
    0xC5,
    0xC6,
    0xC8,
    0xCA,
    0xE0,
    0xE7,
    0xEA,
    0xEC,
    0xEF,
)


@dataclass(frozen=True)
class Places:
    """Where things are in the image."""

    regions: dict[str, int]
    root: int  # what CR3 holds
    snippet_bytes: int
    snippets: int


class Grammar:
    """Makes the snippet at an address."""

    def __init__(self, chosen: random.Random, bits: int, places: Places, at: int) -> None:
        self.random = chosen
        self.places = places
        self.at = at
        self.out = Emitter(bits)
        self.bits = bits
        self.productions: list[tuple[Callable[[], None], int]] = [
            (self.noise, 6), (self.arithmetic, 10), (self.control_register, 6), (self.msr, 3), (self.segment, 4), (self.flags, 3),
            (self.table_store, 10), (self.table_sweep, 3), (self.invalidate, 3), (self.port, 6), (self.port_block, 2), (self.firmware_dma, 2),
            (self.disk, 2), (self.pci, 1), (self.balloon, 2), (self.apic, 3), (self.own_code, 5), (self.transfer, 6), (self.repeated, 4),
            (self.vector, 3), (self.task, 2), (self.system_call, 2), (self.fpu, 3), (self.descriptor, 3), (self.odd_place, 5),
            (self.far, 2), (self.wait, 2), (self.stack, 3), (self.reset, 0 if chosen.random() < 0.9 else 1), (self.debug, 1),
        ]  # fmt: skip

    def snippet(self) -> bytes:
        """As many productions as fit, then a jump to another snippet."""
        ways, weights = zip(*self.productions, strict=True)
        while len(self.out.code) < self.places.snippet_bytes - 96:
            self.random.choices(ways, weights)[0]()
        self.out.code = self.out.code[: self.places.snippet_bytes - 8]
        self._go(self.out.jump, 5 if self.bits != 16 else 3)
        return bytes(self.out.code[: self.places.snippet_bytes])

    # ---- numbers ----

    def number(self) -> int:
        """Of 32 bits, often a special one."""
        if self.random.random() < 0.4:
            return self.random.choice(
                (0, 1, 0xFFFF_FFFF, 0x8000_0000, 0x7FFF_FFFF, 0x1000, 0xFFF, 1 << self.random.randrange(32))
            )
        return self.random.getrandbits(32)

    def place(self, *names: str) -> int:
        """An address in one of these regions, or in any."""
        name = self.random.choice(names or tuple(self.places.regions))
        return self.places.regions[name] + self.random.choice((self.random.randrange(0x8000), self.random.randrange(64) * 8))

    def entry(self) -> int:
        """A table's entry: mostly one that maps something."""
        if self.random.random() < 0.15:
            return self.random.getrandbits(64)
        target = self.random.choice((self.place("tables") & ~0xFFF, self.place() & ~0xFFF, self.random.randrange(0x900) << 12))
        high = self.random.choice((0, 0, 0, 1 << 63, 1 << 40))
        return high | target | self.random.choice((7, 7, 3, 5, 1, 0, 0x87, 0xE7, 0x67, 0x107, self.random.getrandbits(9)))

    # ---- productions ----

    def noise(self) -> None:
        """Any bytes."""
        self.out.raw(self.random.randbytes(self.random.randint(1, 12)))

    def arithmetic(self) -> None:
        """ALU, moves, shifts, with an operand somewhere in memory."""
        opcode = self.random.choice(
            (0x00, 0x01, 0x09, 0x11, 0x21, 0x29, 0x31, 0x33, 0x39, 0x87, 0x88, 0x89, 0x8B, 0xD1, 0xD3, 0xF7, 0xFE, 0xFF)
        )
        field = self.random.randrange(8 if opcode < 0xF0 else 3)
        prefix = self.random.choice((b"", b"", b"", b"\xf0", b"\x66", b"\x65", b"\x2e"))
        if opcode == 0xF7:
            field += 2
        self.out.at(bytes([opcode]), field, self.place("data", "tables", "code", "tss"), prefix=prefix)

    def control_register(self) -> None:
        """CR0, CR3, CR4, CR8 with values near those that work."""
        number = self.random.choice((0, 0, 3, 3, 3, 4, 4, 2, 8))
        if number == 0:
            value = 0x8000_0011 ^ self.random.choice((0, 1 << 16, 1 << 31, 1, 1 << 18, 1 << 30, 1 << 29, 8, 4, 0x20))
        elif number == 3:
            value = self.random.choice(
                (self.places.root, self.places.root, self.place("tables") & ~0xFFF, self.place() & ~0x1F, self.number())
            )
        elif number == 4:
            value = 1 << self.random.randrange(22) | self.random.choice(
                (0x20, 0x30, 0x10, 0xA0, 0x220, self.random.getrandbits(11))
            )
        else:
            value = self.number()
        if self.random.random() < 0.2:
            self.out.raw(0x0F, 0x20, 0xC0 | number % 8 << 3)
        elif number == 8 and self.bits == 64:
            self.out.set(EAX, value)
            self.out.raw(0x44, 0x0F, 0x22, 0xC0)
        else:
            self.out.set_control(number % 8, value)

    def msr(self) -> None:
        """RDMSR or WRMSR."""
        number = self.random.choice(MSRS)
        if self.random.random() < 0.3:
            self.out.set(ECX, number)
            self.out.raw(0x0F, 0x32)
        else:
            self.out.write_msr(
                number, self.random.choice((self.number(), self.random.getrandbits(64), self.place(), 0xFEE0_0900, 0xD01))
            )

    def segment(self) -> None:
        """Load a segment register, LDTR or TR, or look at a descriptor."""
        self.out.set(EAX, self.random.choice(SELECTORS))
        self.out.raw(
            *self.random.choice(
                (
                    (0x8E, 0xC0 | self.random.choice((0, 2, 3, 4, 5)) << 3),
                    (0x0F, 0x00, 0xC0 | self.random.randrange(2, 6) << 3),
                    (0x0F, 0x02, 0xD8),
                    (0x0F, 0x03, 0xD8),
                )
            )
        )

    def flags(self) -> None:
        """POPF, STI, CLI, PUSHF."""
        if self.random.random() < 0.4:
            self.out.raw(self.random.choice((0xFA, 0xFB, 0x9C, 0xFC, 0xFD, 0x9D)))
            return
        self.out.set(EAX, 2 | self.random.choice(FLAGS) | self.random.choice((0, 0x200)))
        self.out.raw(*((0x66,) if self.bits == 16 else ()), 0x50, *((0x66,) if self.bits == 16 else ()), 0x9D)

    def table_store(self) -> None:
        """Change page tables as kernels do, and as none does."""
        at = self.random.choice((self.places.root & ~0xFFF, self.place("tables") & ~0xFFF)) + self.random.choice(
            (0, 8, 0x7F8, 0xFF8, self.random.randrange(0x1000))
        )
        entry = self.entry()
        way = self.random.randrange(6)
        if way == 0:
            self.out.store(at, entry)
        elif way == 1:
            self.out.store(at, entry)
            self.out.store(at + 4, entry >> 32)
        elif way == 2:
            self.out.set(EAX, entry)
            self.out.at(self.random.choice((b"\x87", b"\x0f\xc1", b"\x0f\xb1", b"\x09", b"\x21", b"\x31", b"\x89")), EAX, at)
        elif way == 3:
            self.out.at(
                self.random.choice((b"\x80", b"\x83")),
                self.random.randrange(7),
                at,
                bytes([entry & 0xFF]),
                prefix=self.random.choice((b"", b"\xf0")),
            )
        elif way == 4 and self.bits == 64:
            self.out.set64(EAX, entry)
            self.out.raw(0x48, 0x89, 0x04, 0x25, (at & 0xFFFF_FFFF).to_bytes(4, "little"))
        else:
            self.out.at(b"\x0f\xc7", 1, at & ~7)  # CMPXCHG8B

    def table_sweep(self) -> None:
        """String stores over tables, aligned or not."""
        self.out.set(ECX, self.random.choice((1, 3, 64, 512, 1024, 0x1_0000)))
        self.out.set(EDI, self.place("tables") + self.random.choice((0, 0, 1, 2, -2)))
        self.out.set(ESI, self.place())
        self.out.set(EAX, self.entry())
        self.out.raw(
            self.random.choice(
                (b"\xf3\xab", b"\xf3\xa5", b"\xf3\xaa", b"\xab", b"\xa4", b"\xf3\x66\xab", b"\xf3\x67\xab", b"\xf2\xa4")
            )
        )

    def invalidate(self) -> None:
        """INVLPG, WBINVD, CLFLUSH."""
        if self.random.random() < 0.8:
            self.out.at(b"\x0f\x01", 7, self.random.choice((self.place(), self.number())))
        else:
            self.out.raw(0x0F, self.random.choice((0x08, 0x09)))

    def port(self) -> None:
        """IN and OUT at the devices."""
        for _ in range(self.random.randint(1, 4)):
            port, size = self.random.choice(PORTS), self.random.choice((1, 1, 1, 2, 4))
            if self.random.random() < 0.4:
                self.out.read_port(port, size)
            elif port in (0xCF9, 0x64, 0x92):  # may reset: not often
                self.out.out(port, self.random.choice((0, 2, 0x20, 0xAA, 0xD0)), 1)
            else:
                self.out.out(port, self.random.choice((self.number(), self.random.getrandbits(8))), size)

    def port_block(self) -> None:
        """INS and OUTS."""
        self.out.set(EDX, self.random.choice(PORTS[:-1]))
        self.out.set(ECX, self.random.choice((1, 7, 256, 2000)))
        self.out.set(EDI, self.place())
        self.out.set(ESI, self.place())
        self.out.raw(self.random.choice((b"\xf3\x6c", b"\xf3\x6d", b"\xf3\x6e", b"\xf3\x6f", b"\x6c", b"\x6f", b"\xf3\x66\x6d")))

    def firmware_dma(self) -> None:
        """A transfer of fw_cfg, of any length to anywhere."""
        at = self.place("data") & ~0xF
        control = (
            self.random.choice((DMA_READ, DMA_SKIP, DMA_WRITE, DMA_SELECT | DMA_READ, 0x1F)) | self.random.randrange(0x30) << 16
        )
        length = self.random.choice((0, 1, 16, 0x1000, 0x1_0001, 0x80_0000, 0xFFFF_FFFF))
        target = self.random.choice((self.place(), self.number(), 0xF_0000, 0xFEE0_0000))
        self.out.store_bytes(at, struct.pack(">IIQ", control, length, target))
        self.out.out(0x514, 0, 4)
        self.out.out(0x518, int.from_bytes(at.to_bytes(4, "big"), "little"), 4)

    def disk(self) -> None:
        """A command of the drive, with or without descriptors for DMA."""
        if self.random.random() < 0.4:
            table = self.place("data") & ~3
            for entry in range(self.random.randint(1, 3)):
                self.out.store(table + 8 * entry, self.random.choice((self.place(), self.number())))
                self.out.store(table + 8 * entry + 4, self.random.choice((0x8000_0200, 0x200, 0x8000_0000, self.number())))
            self.out.out(0xC004, table, 4)
        for port, value in (
            (0x1F6, 0xE0 | self.random.getrandbits(5)),
            (0x1F2, self.random.choice((0, 1, 8, 255))),
            (0x1F3, self.random.getrandbits(8)),
        ):
            self.out.out(port, value)
        self.out.out(0x1F7, self.random.choice(ATA_COMMANDS))
        if self.random.random() < 0.5:
            self.out.out(0xC000, self.random.choice((1, 9, 0)))

    def pci(self) -> None:
        """Configuration space; the controller's ports are put where `disk` looks for them, as a rule."""
        function = self.random.choice((0x0800, 0x0900, 0x0100, 0, 0x1000))
        register = self.random.choice((4, 0x10, 0x20, 0x3C, self.random.randrange(64) * 4))
        self.out.out(0xCF8, 0x8000_0000 | function | register, 4)
        self.out.out(0xCFC, {4: 5, 0x20: 0xC001}.get(register, self.number()), 4)

    def balloon(self) -> None:
        """A call of the balloon's port."""
        self.out.set(EBX, self.random.choice((2, 4, 6, self.place() >> 12, self.number())))
        self.out.set(ESI, self.random.choice((1, 512, 513, self.number())))
        self.out.set(ECX, self.random.choice((0, 0, 1, 2, 3, 4, 6, 7, 9)))
        self.out.set(EDX, BALLOON_PORT)
        self.out.set(EAX, BALLOON_MAGIC)
        self.out.raw(*((0x66,) if self.bits == 16 else ()), 0xED)

    def apic(self) -> None:
        """Registers of the local APIC and of the I/O APIC, aligned or not."""
        register = self.random.choice(
            (0x20, 0x80, 0xB0, 0xD0, 0xF0, 0x280, 0x300, 0x310, 0x320, 0x350, 0x380, 0x390, 0x3E0, 0xFFC, 0xFFE)
        )
        at = self.random.choice((0xFEE0_0000 + register, 0xFEC0_0000, 0xFEC0_0010, 0xFEE0_0000 + self.random.randrange(0x1000)))
        if self.random.random() < 0.3:
            self.out.at(b"\x8b", EAX, at)
        elif self.random.random() < 0.2:
            self.out.at(self.random.choice((b"\x87", b"\x01", b"\x0f\xc1")), EAX, at)
        else:
            self.out.store(at, self.random.choice((self.number(), 0x1FF, 0x2_0030, 0xB, self.random.getrandbits(8))))

    def own_code(self) -> None:
        """Store into code: that which runs next, or a snippet."""
        ahead = self.at + len(self.out.code) + self.random.randrange(8, 40)
        target = self.random.choice((ahead, self.place("code"), self.place("handlers")))
        if self.random.random() < 0.7:
            self.out.store(target, self.random.choice((0x9090_9090, self.number(), 0xC3C3_C3C3)))
        else:
            self.out.set(EDI, target)
            self.out.set(ECX, self.random.choice((1, 16, 100)))
            self.out.raw(0xF3, 0xAA)

    def _go(self, way: Callable[[int], None], length: int) -> None:
        number = self.random.randrange(self.places.snippets)
        target = self.places.regions["code"] + number * self.places.snippet_bytes
        way(target - (self.at + len(self.out.code) + length))

    def transfer(self) -> None:
        """CALL and JMP to snippets, short loops, RET."""
        kind = self.random.randrange(5)
        if kind < 2:
            self._go(self.out.call, 5 if self.bits != 16 else 3)
        elif kind == 2:
            self.out.set(ECX, self.random.choice((3, 100, 1000)))
            self.out.raw(0x90, 0xE2, 0xFD)  # nop; loop
        elif kind == 3:
            self.out.raw(0x70 + self.random.randrange(16), self.random.randrange(16))
        else:
            self.out.raw(0xC3)

    def repeated(self) -> None:
        """String instructions over anything."""
        self.out.set(ECX, self.random.choice((0, 1, 100, 5000, 0x1_0000)))
        self.out.set(EDI, self.random.choice((self.place(), self.number(), self.random.choice(ODD_ADDRESSES))))
        self.out.set(ESI, self.random.choice((self.place(), self.number(), self.random.choice(ODD_ADDRESSES))))
        self.out.raw(self.random.choice((0xF3, 0xF2)), self.random.choice((0xA4, 0xA5, 0xA6, 0xA7, 0xAA, 0xAB, 0xAC, 0xAE, 0xAF)))

    def vector(self) -> None:
        """INT n, INT3, INTO, UD2."""
        self.out.raw(
            *self.random.choice(
                (
                    (0xCD, self.random.choice((0x80, 6, 14, 2, 8, 3, 0x20, self.random.getrandbits(8)))),
                    (0xCC,),
                    (0xCE,),
                    (0x0F, 0x0B),
                    (0xF1,),
                )
            )
        )

    def task(self) -> None:
        """CALL or JMP to a task, IRET with NT."""
        if self.bits == 64:
            self.out.raw(0xCF)
        elif self.random.random() < 0.6:
            self.out.far_jump(self.random.choice((0x30, 0x38, 0x58)), 0)
        else:
            self.out.raw(
                *((0x66,) if self.bits == 16 else ()),
                0x9A,
                struct.pack("<IH", self.number(), self.random.choice((0x30, 0x38, 0x58))),
            )

    def system_call(self) -> None:
        """SYSCALL, SYSENTER and the ways back, SWAPGS."""
        self.out.set(ECX, self.place("code"))
        self.out.raw(
            0x0F, *self.random.choice(((0x05,), (0x34,), (0x07,), (0x35,), (0x01, 0xF8), (0xA2,), (0x31,), (0x01, 0xF9)))
        )

    def fpu(self) -> None:
        """FPU and vectors, with operands across pages."""
        at = (self.place("data", "tables") & ~0xFFF) + self.random.choice((0, 0xE00, 0xFF8, 0xFFC))
        opcode, field = self.random.choice(
            (
                (b"\x0f\xae", 0),
                (b"\x0f\xae", 1),
                (b"\xdd", 6),
                (b"\xdd", 4),
                (b"\xd9", 7),
                (b"\x0f\x11", 0),
                (b"\x0f\x10", 1),
                (b"\xdb", 5),
                (b"\x0f\xae", 2),
            )
        )
        self.out.raw(*((0xDB, 0xE3) if self.random.random() < 0.3 else ()))
        self.out.at(opcode, field, at)

    def descriptor(self) -> None:
        """Spoil the GDT, the IDT or a TSS, or load the registers that point there."""
        kind = self.random.randrange(4)
        if kind == 0:
            self.out.store(self.place("gdt", "idt", "tss"), self.number())
        elif kind == 1:
            at = self.place("data")
            self.out.store(
                at,
                self.random.choice((0xFFF, 0x3FF, 0xFFFF, 0x67))
                | self.random.choice((self.places.regions["idt"], self.number())) << 16,
            )
            self.out.at(b"\x0f\x01", self.random.choice((2, 3)), at)
        elif kind == 2:
            self.out.at(b"\x0f\x01", self.random.choice((0, 1, 4, 6)), self.place("data"))
        else:
            self.out.set(EAX, self.number())
            self.out.raw(0x0F, 0x01, self.random.choice((0xE0, 0xF0)))  # SMSW, LMSW

    def odd_place(self) -> None:
        """Touch ROM, the screen, absent memory, the last page; now and then go there."""
        at = self.random.choice(ODD_ADDRESSES) + self.random.choice((0, 1, 0xFFE, -2))
        if self.random.random() < 0.15 and self.bits == 32:
            self.out.set(EAX, at)
            self.out.raw(0xFF, 0xD0)
        else:
            for step in range(self.random.choice((1, 1, 8))):
                self.out.at(self.random.choice((b"\x8b", b"\x89", b"\x01", b"\x0f\xc1")), EAX, at + 4 * step)

    def far(self) -> None:
        """Far returns and IRET to made-up frames."""
        for value in (self.random.choice(FLAGS) | 2, self.random.choice(SELECTORS), self.place("code")):
            self.out.set(EAX, value)
            self.out.raw(*((0x66,) if self.bits == 16 else ()), 0x50)
        self.out.raw(*self.random.choice(((0xCB,), (0xCF,), (0x48, 0xCF) if self.bits == 64 else (0x66, 0xCF), (0xCA, 4, 0))))

    def wait(self) -> None:
        """Start a timer, and HLT, with interrupts as a rule."""
        self.out.out(0x43, self.random.choice((0x34, 0x36, 0x30)))
        self.out.out(0x40, self.random.getrandbits(8))
        self.out.out(0x40, self.random.choice((0, 1, 0x10)))
        self.out.out(0x21, self.random.choice((0xFE, 0, 0xFF)))
        self.out.raw(self.random.choice((0xFB, 0xFB, 0xFB, 0x90)), 0xF4)

    def stack(self) -> None:
        """The stack somewhere else, and pushes there."""
        self.out.set(ESP, self.random.choice((self.place("data"), self.place("tables"), self.place(), self.number(), 2)))
        self.out.raw(*[self.random.choice((0x50, 0x9C, 0x60 if self.bits != 64 else 0x54))] * self.random.randint(1, 6))

    def reset(self) -> None:
        """One of the ways to reset the machine."""
        port, value = self.random.choice(((0xCF9, 6), (0x64, 0xFE), (0x92, 1)))
        self.out.out(port, value)

    def debug(self) -> None:
        """Breakpoints."""
        self.out.set(EAX, self.random.choice((self.place("code"), 0x401, 0x2403, self.number())))
        self.out.raw(0x0F, 0x23, 0xC0 | self.random.choice((0, 3, 6, 7)) << 3)
