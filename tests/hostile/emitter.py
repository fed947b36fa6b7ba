# SPDX-License-Identifier: GPL-2.0-or-later
"""Machine code for three code sizes, as far as hostile guests need it: loads of constants, stores, ports, registers of the system."""

from __future__ import annotations

EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI = range(8)


class Emitter:
    """Bytes of 16-, 32- or 64-bit code."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.code = bytearray()

    def raw(self, *parts: int | bytes) -> None:
        """Bytes as they are."""
        for part in parts:
            self.code += part if isinstance(part, bytes) else bytes([part])

    def _wide(self) -> bytes:
        """The prefix for 32-bit operands."""
        return b"\x66" if self.bits == 16 else b""

    def _short(self) -> bytes:
        """The prefix for 16-bit operands."""
        return b"" if self.bits == 16 else b"\x66"

    def set(self, register: int, value: int) -> None:
        """MOV of 32 bits."""
        self.raw(self._wide(), 0xB8 + register, (value & 0xFFFF_FFFF).to_bytes(4, "little"))

    def set64(self, register: int, value: int) -> None:
        """MOV of 64 bits, in 64-bit code."""
        self.raw(0x48, 0xB8 + register, (value & (1 << 64) - 1).to_bytes(8, "little"))

    def _address(self, field: int, address: int) -> bytes:
        """ModRM and displacement of an absolute address of 32 bits."""
        modrm = bytes([field << 3 | 4, 0x25]) if self.bits == 64 else bytes([field << 3 | 5])
        return modrm + (address & 0xFFFF_FFFF).to_bytes(4, "little")

    def at(self, opcode: bytes, field: int, address: int, immediate: bytes = b"", *, prefix: bytes = b"") -> None:
        """An instruction with a 32-bit operand in memory."""
        addressing = b"\x67" if self.bits == 16 else b""
        self.raw(addressing, self._wide(), prefix, opcode, self._address(field, address), immediate)

    def store(self, address: int, value: int) -> None:
        """MOV of a double word."""
        self.at(b"\xc7", 0, address, (value & 0xFFFF_FFFF).to_bytes(4, "little"))

    def store_bytes(self, address: int, data: bytes) -> None:
        """The same for more."""
        for at in range(0, len(data), 4):
            self.store(address + at, int.from_bytes(data[at : at + 4].ljust(4, b"\0"), "little"))

    def out(self, port: int, value: int, size: int = 1) -> None:
        """OUT of 1, 2 or 4 bytes."""
        self.set(EDX, port)
        self.set(EAX, value)
        self.raw({1: b"\xee", 2: self._short() + b"\xef", 4: self._wide() + b"\xef"}[size])

    def read_port(self, port: int, size: int = 1) -> None:
        """IN."""
        self.set(EDX, port)
        self.raw({1: b"\xec", 2: self._short() + b"\xed", 4: self._wide() + b"\xed"}[size])

    def set_control(self, number: int, value: int) -> None:
        """MOV to a control register."""
        self.set(EAX, value)
        self.raw(0x0F, 0x22, 0xC0 | number << 3)

    def write_msr(self, number: int, value: int) -> None:
        """WRMSR."""
        self.set(ECX, number)
        self.set(EAX, value)
        self.set(EDX, value >> 32)
        self.raw(0x0F, 0x30)

    def jump(self, distance: int) -> None:
        """JMP by so many bytes from the next instruction."""
        self.raw(0xE9, (distance & (0xFFFF if self.bits == 16 else 0xFFFF_FFFF)).to_bytes(2 if self.bits == 16 else 4, "little"))

    def call(self, distance: int) -> None:
        """CALL."""
        self.raw(0xE8, (distance & (0xFFFF if self.bits == 16 else 0xFFFF_FFFF)).to_bytes(2 if self.bits == 16 else 4, "little"))

    def load_segment(self, register: int, selector: int) -> None:
        """MOV to a segment register."""
        self.set(EAX, selector)
        self.raw(0x8E, 0xC0 | register << 3)

    def far_jump(self, selector: int, offset: int) -> None:
        """JMP to another segment, in 16- and 32-bit code."""
        self.raw(self._wide(), 0xEA, (offset & 0xFFFF_FFFF).to_bytes(4, "little"), selector.to_bytes(2, "little"))
